"""The driver's calls by which guests end and begin anew: asked by their agents, or by the buttons of the machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from hostel.drivers.base import DomainRef, ShutdownFlag
from hostel.drivers.qemu.agent import open_agent, refusal
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.machines import DomainHeld, invalid
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError

_COMMAND: Final = "guest-shutdown"
_REFUSED_SECONDS: Final = 2.0  # an agent that obeys says nothing
_RESET_SECONDS: Final = 5.0
_ASLEEP: Final = "suspended"  # as QEMU calls it
_KNOWN: Final = ShutdownFlag.ACPI | ShutdownFlag.AGENT


class PowerCalls(Calls):
    """See :class:`hostel.drivers.base.HypervisorDriver`."""

    def domain_shutdown(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Ask the agent, or press the power button."""
        _check(flags, "qemuDomainShutdownFlags")
        with self._turn(domain, flags) as is_ours, self._running(domain, asks_agent=True) as machine:
            if not (is_ours and _by_agent(machine, "powerdown", flags)):
                if not machine.ask("query-status").get("running"):
                    raise invalid("domain is not running")  # it would hear of the button when it is resumed
                machine.ask("system_powerdown")

    def domain_reboot(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Ask the agent, or reset: a guest that ends on the power button would end QEMU."""
        _check(flags, "qemuDomainReboot")
        asks_agent = flags == ShutdownFlag.AGENT
        with self._turn(domain, flags) as is_ours, self._running(domain, asks_agent=asks_agent) as machine:
            if not (is_ours and _by_agent(machine, "reboot", flags)):
                _reset(machine)

    @contextlib.contextmanager
    def _turn(self, domain: DomainRef, flags: ShutdownFlag) -> Iterator[bool]:
        """Be the one who talks with the agent, where it is wanted; whether that is so.

        Raises:
            DomainHeld: another one goes on to talk with it, and there shall be no other way.
        """
        with contextlib.ExitStack() as stack:
            is_ours = not flags or bool(flags & ShutdownFlag.AGENT)
            try:
                stack.enter_context(self._machines.talking(domain.name, talks=is_ours))
            except DomainHeld:
                if flags == ShutdownFlag.AGENT:
                    raise
                is_ours = False
            yield is_ours

    def domain_reset(self, domain: DomainRef) -> None:
        """Reset as the button does."""
        with self._running(domain) as machine:
            _reset(machine)


def awake(machine: Running) -> Mapping[str, Any]:
    """QEMU's status of a guest that has not put itself to sleep: then only a wakeup lets it run.

    Raises:
        VirtError: ``OPERATION_INVALID``: it has.
    """
    status: Mapping[str, Any] = machine.ask("query-status")
    if status.get("status") == _ASLEEP:
        raise invalid("domain is pmsuspended")
    return status


def _reset(machine: Running) -> None:
    """Begin the guest anew; one that sleeps is woken so, but QEMU leaves it stopped until it is told."""
    slept = machine.ask("query-status").get("status") == _ASLEEP
    machine.ask("system_reset")
    if not slept:
        return
    with contextlib.suppress(QmpError):  # it has ended, where that is to follow of a reset
        if machine.qmp.wait(_RESET_SECONDS, "RESET") is not None:
            machine.qmp.execute("cont")


def _check(flags: ShutdownFlag, what: str) -> None:
    if flags & ~_KNOWN:
        detail = f"unsupported flags ({int(flags & ~_KNOWN):#x}) in function {what}"
        raise VirtError(ErrorCode.INVALID_ARG, detail, domain=ErrorDomain.QEMU)


def _by_agent(machine: Running, mode: Literal["powerdown", "reboot"], flags: ShutdownFlag) -> bool:
    """Ask the agent; whether it was asked.

    Raises:
        VirtError: it cannot be asked or refused, and there shall be no other way.
    """
    try:
        with open_agent(machine) as agent:
            agent.send({"execute": _COMMAND, "arguments": {"mode": mode}})
            reply = agent.refused(_REFUSED_SECONDS)
            if reply is not None and "error" in reply:
                raise refusal(_COMMAND, reply["error"])
    except VirtError:
        if flags == ShutdownFlag.AGENT:
            raise
        return False
    return True
