"""The driver's calls by which guests end and begin anew: asked by their agents, or by the buttons of the machine."""

from __future__ import annotations

from typing import Final, Literal

from hostel.drivers.base import DomainRef, ShutdownFlag
from hostel.drivers.qemu.agent import open_agent, refusal
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_COMMAND: Final = "guest-shutdown"
_REFUSED_SECONDS: Final = 2.0  # an agent that obeys says nothing
_KNOWN: Final = ShutdownFlag.ACPI | ShutdownFlag.AGENT


class PowerCalls(Calls):
    """See :class:`hostel.drivers.base.HypervisorDriver`."""

    def domain_shutdown(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Ask the agent, or press the power button."""
        _check(flags, "qemuDomainShutdownFlags")
        with self._running(domain, asks_agent=True) as machine:
            if not _by_agent(machine, "powerdown", flags):
                if not machine.ask("query-status").get("running"):
                    raise invalid("domain is not running")  # it would hear of the button when it is resumed
                machine.ask("system_powerdown")

    def domain_reboot(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Ask the agent, or reset: a guest that ends on the power button would end QEMU."""
        _check(flags, "qemuDomainReboot")
        with self._running(domain, asks_agent=flags == ShutdownFlag.AGENT) as machine:
            if not _by_agent(machine, "reboot", flags):
                machine.ask("system_reset")

    def domain_reset(self, domain: DomainRef) -> None:
        """Reset as the button does."""
        with self._running(domain) as machine:
            machine.ask("system_reset")


def _check(flags: ShutdownFlag, what: str) -> None:
    if flags & ~_KNOWN:
        detail = f"unsupported flags ({int(flags & ~_KNOWN):#x}) in function {what}"
        raise VirtError(ErrorCode.INVALID_ARG, detail, domain=ErrorDomain.QEMU)


def _by_agent(machine: Running, mode: Literal["powerdown", "reboot"], flags: ShutdownFlag) -> bool:
    """Ask the agent, where that is wanted, or nothing else is; whether it was asked.

    Raises:
        VirtError: it cannot be asked or refused, and there shall be no other way.
    """
    if flags and not flags & ShutdownFlag.AGENT:
        return False
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
