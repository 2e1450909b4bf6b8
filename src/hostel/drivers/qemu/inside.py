"""The driver's calls about the inside of a guest, which its agent answers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.agent import (
    AgentTimeout,
    FilesystemInfo,
    GuestInfo,
    HostnameSource,
    SshKeysFlag,
    SuspendTarget,
)
from hostel.drivers.fault import fault
from hostel.drivers.qemu import guestinfo
from hostel.drivers.qemu.addresses import leases
from hostel.drivers.qemu.agent import Agent, TalkingCalls, open_agent, refusal
from hostel.drivers.qemu.calls import no_domain
from hostel.drivers.qemu.guestinfo import GuestCpu
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import X86, arch_of
from hostel.model.numberset import format_numbers, parse_numbers

_NANO: Final = 1_000_000_000
_LONGEST: Final = 2**63 - 1
_SUSPEND: Final = ("guest-suspend-ram", "guest-suspend-disk", "guest-suspend-hybrid")
_SUSPENDED: Final = ("SUSPEND", "SUSPEND_DISK", "SHUTDOWN")
_SUSPEND_SECONDS: Final = 60.0
_POLL: Final = 0.25


class InsideCalls(TalkingCalls):
    """See :class:`hostel.drivers.base.agent.InsideDriver`."""

    def domain_get_hostname(self, domain: DomainRef, source: HostnameSource = HostnameSource.AGENT) -> str:
        """The guest's name for itself."""
        if source & HostnameSource.LEASE and source & HostnameSource.AGENT:
            what = "Flags 'VIR_DOMAIN_GET_HOSTNAME_LEASE' and 'VIR_DOMAIN_GET_HOSTNAME_AGENT' are mutually exclusive"
            raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.QEMU)  # without the words of its kind
        if source & HostnameSource.LEASE:
            with self._running(domain) as machine:
                interfaces = machine.domain.copy().devices.interfaces
            names = (lease.hostname for each in interfaces for lease in leases(self._network, each))
            if (found := next(filter(None, names), None)) is None:
                raise fault(ErrorCode.NO_HOSTNAME, f"no hostname found for domain {domain.name}", ErrorDomain.QEMU)
            return found
        with self._agent(domain) as (agent, _):
            return guestinfo.hostname(agent.execute("guest-get-host-name"))

    def domain_get_fsinfo(self, domain: DomainRef) -> list[FilesystemInfo]:
        """The file systems that are mounted in the guest."""
        with self._agent(domain) as (agent, live):
            return guestinfo.mounted(agent.execute("guest-get-fsinfo"), live)

    def domain_get_guest_info(self, domain: DomainRef, types: int = 0) -> Mapping[str, int | bool | str]:
        """What the guest tells of itself; what is not asked for by name may be missing."""
        if types & ~sum(GuestInfo):
            what = f"unsupported guest information types '0x{types & ~sum(GuestInfo):x}'"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
        with self._agent(domain, asks_agent=True) as (agent, live):
            return _told(agent, live, GuestInfo(types))

    def domain_get_guest_vcpus(self, domain: DomainRef) -> Mapping[str, str]:
        """The guest's processors."""
        with self._agent(domain) as (agent, _):
            known = guestinfo.cpus(agent.execute("guest-get-vcpus"))
        sets = {
            "vcpus": [cpu.id for cpu in known],
            "online": [cpu.id for cpu in known if cpu.online],
            "offlinable": [cpu.id for cpu in known if cpu.can_offline],
        }
        return {name: format_numbers(frozenset(numbers)) for name, numbers in sets.items()}

    def domain_set_guest_vcpus(self, domain: DomainRef, cpumap: str, state: int) -> None:
        """Have the guest use processors, or leave them alone."""
        if state not in (0, 1):
            raise VirtError(ErrorCode.INVALID_ARG, "unsupported state value", domain=ErrorDomain.QEMU)
        try:
            wanted = parse_numbers(cpumap)
        except ValueError as error:
            raise fault(ErrorCode.INVALID_ARG, f"Failed to parse bitmap '{cpumap}'", ErrorDomain.QEMU) from error
        with self._agent(domain) as (agent, _):
            known = guestinfo.cpus(agent.execute("guest-get-vcpus"))
            missing = wanted - {cpu.id for cpu in known}
            for cpu in known:
                if cpu.id in wanted and not state and not cpu.can_offline:
                    what = f"vCPU '{cpu.id}' is not offlinable"
                    raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            if missing:
                what = f"guest is missing vCPUs '{format_numbers(missing)}'"
                raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
            set_online(agent, {cpu.id: bool(state) for cpu in known if cpu.id in wanted})

    def domain_get_time(self, domain: DomainRef) -> tuple[int, int]:
        """The guest's clock."""
        with self._agent(domain) as (agent, _):
            found = agent.execute("guest-get-time")
        if not isinstance(found, int) or not 0 <= found <= _LONGEST:
            raise fault(ErrorCode.INTERNAL_ERROR, "malformed return value", ErrorDomain.QEMU)
        return divmod(found, _NANO)

    def domain_set_time(self, domain: DomainRef, seconds: int, nseconds: int, *, sync: bool = False) -> None:
        """Set the guest's clock; QEMU then gives up what interrupts its clock still owed."""
        if seconds > _LONGEST // _NANO:
            raise fault(ErrorCode.INVALID_ARG, f"Time '{seconds}' is too big for guest agent", ErrorDomain.QEMU)
        self._check_clock(domain)
        with self._agent(domain) as (agent, _):
            agent.execute("guest-set-time", **({} if sync else {"time": seconds * _NANO + nseconds}))
        with self._running(domain) as machine:
            machine.ask("rtc-reset-reinjection")

    def _check_clock(self, domain: DomainRef) -> None:
        """Refuse, as libvirt does, of what does not run: it asks QEMU what it can, and then there is none to ask."""
        stored = self._machines.definition(domain.name)
        if stored is not None and self._machines.seen(domain.name) is None and arch_of(stored) in X86:
            missing = "cannot set time: qemu doesn't support rtc-reset-reinjection command"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, f"{missing}: domain is not running", ErrorDomain.QEMU)

    def domain_authorized_ssh_keys_get(self, domain: DomainRef, user: str) -> list[str]:
        """Keys by which a user of the guest's is let in."""
        with self._agent(domain, asks_agent=True) as (agent, _):
            found = agent.execute("guest-ssh-get-authorized-keys", username=user)
        keys = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise fault(ErrorCode.INTERNAL_ERROR, "qemu agent didn't return an array of keys", ErrorDomain.QEMU)
        return keys

    def domain_authorized_ssh_keys_set(
        self, domain: DomainRef, user: str, keys: Sequence[str], flags: SshKeysFlag = SshKeysFlag.NONE
    ) -> None:
        """Replace, add or remove such keys."""
        with self._agent(domain, asks_agent=True) as (agent, _):
            given: dict[str, Any] = {"username": user, "keys": list(keys)}
            if flags & SshKeysFlag.REMOVE:
                agent.execute("guest-ssh-remove-authorized-keys", **given)
            else:
                agent.execute("guest-ssh-add-authorized-keys", **given, reset=not flags & SshKeysFlag.APPEND)

    def domain_set_user_password(
        self, domain: DomainRef, user: str | None, password: str | None, *, encrypted: bool = False
    ) -> None:
        """Give a user of the guest's another password."""
        text = base64.b64encode((password or "").encode("utf-8", "surrogateescape")).decode()
        with self._agent(domain) as (agent, _):
            agent.execute("guest-set-user-password", crypted=encrypted, username=user or "", password=text)

    def domain_agent_set_response_timeout(self, domain: DomainRef, timeout: int) -> int:
        """How long the agent is waited for from now on; also of a domain that does not run."""
        if timeout < AgentTimeout.BLOCK:
            what = f"guest agent timeout '{timeout}' is less than the minimum '{int(AgentTimeout.BLOCK)}'"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
        if self._machines.seen(domain.name) is None and self._machines.definition(domain.name) is None:
            raise no_domain(f"name '{domain.name}'")
        self._machines.agent_timeouts.write(domain.name, str(timeout))
        return 0

    def domain_pm_suspend_for_duration(self, domain: DomainRef, target: int, duration: int = 0) -> None:
        """Have the guest suspend itself; returns when it has."""
        if duration:
            what = "Duration not supported. Use 0 for now"
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.QEMU)
        if not 0 <= target < len(_SUSPEND):
            raise fault(ErrorCode.INVALID_ARG, f"Unknown suspend target: {target}", ErrorDomain.QEMU)
        with (
            self._machines.talking(domain.name),
            self._running(domain, asks_agent=True) as machine,
            open_agent(machine) as agent,
        ):
            _check_suspend(machine, target)
            _suspend(machine, agent, _SUSPEND[target])

    def domain_pm_wakeup(self, domain: DomainRef) -> None:
        """Wake a guest that has suspended itself."""
        with self._running(domain) as machine:
            machine.ask("system_wakeup")


def _told(agent: Agent, live: Domain, types: GuestInfo) -> dict[str, int | bool | str]:
    """In libvirt's order; of what is not named, what the agent has no command for is left out."""
    params: dict[str, int | bool | str] = {}
    for kind, command, convert in (
        (GuestInfo.USERS, "guest-get-users", guestinfo.users),
        (GuestInfo.OS, "guest-get-osinfo", guestinfo.system),
        (GuestInfo.TIMEZONE, "guest-get-timezone", guestinfo.timezone),
        (GuestInfo.HOSTNAME, "guest-get-host-name", lambda answer: {"hostname": guestinfo.hostname(answer)}),
        (GuestInfo.FILESYSTEM, "guest-get-fsinfo", lambda answer: guestinfo.filesystems(answer, live)),
        (GuestInfo.DISKS, "guest-get-disks", lambda answer: guestinfo.disks(answer, live)),
        (GuestInfo.INTERFACES, "guest-network-get-interfaces", guestinfo.interfaces),
    ):
        if not types or types & kind:
            answer = agent.execute(command) if types else agent.execute_if_known(command)
            found = {} if answer is None else convert(answer)
            # libvirt says nothing of what there is none of, but for users.
            params |= found if kind in _ALWAYS or _count(found) else {}
    return params


_ALWAYS: Final = (GuestInfo.USERS, GuestInfo.OS, GuestInfo.TIMEZONE, GuestInfo.HOSTNAME)


def _count(params: Mapping[str, int | bool | str]) -> int:
    return int(next(iter(params.values()), 0))


def online(agent: Agent) -> list[GuestCpu]:
    """The guest's processors.

    Raises:
        VirtError: the agent does not answer, or not what it should.
    """
    return guestinfo.cpus(agent.execute("guest-get-vcpus"))


def set_online(agent: Agent, states: Mapping[int, bool]) -> None:
    """Have the guest use processors or not, until it has done so with all of them or says why not.

    Raises:
        VirtError: it refused.
    """
    left = [{"logical-id": number, "online": state} for number, state in states.items()]
    while left:
        count: Any = agent.execute("guest-set-vcpus", vcpus=left)
        if not isinstance(count, int) or not 0 < count <= len(left):
            what = "guest agent returned malformed or invalid return value"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        del left[:count]


def _check_suspend(machine: Running, target: int) -> None:
    if not machine.ask("query-current-machine").get("wakeup-suspend-support"):
        what = "Domain does not have suspend support"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    allowed = machine.domain.pm
    if allowed is None:
        return
    if allowed.suspend_to_mem is False and target in (SuspendTarget.MEM, SuspendTarget.HYBRID):
        raise fault(ErrorCode.INTERNAL_ERROR, "S3 state is disabled for this domain", ErrorDomain.QEMU)
    if allowed.suspend_to_disk is False and target == SuspendTarget.DISK:
        raise fault(ErrorCode.INTERNAL_ERROR, "S4 state is disabled for this domain", ErrorDomain.QEMU)


def _suspend(machine: Running, agent: Agent, command: str) -> None:
    """A guest that suspends itself answers nothing: QEMU tells, or the agent says why not."""
    agent.send({"execute": command})
    for _ in range(int(_SUSPEND_SECONDS / _POLL)):
        try:
            if machine.qmp.wait(_POLL / 2, *_SUSPENDED) is not None:
                return
        except QmpError as error:
            if error.error_class == "Disconnected":
                return  # suspended to disk, it is off
            raise machine.translated(error, command) from error
        reply = agent.refused(_POLL / 2)
        if reply is not None and "error" in reply:
            raise refusal(command, reply["error"])
    raise VirtError(ErrorCode.AGENT_UNRESPONSIVE, "Guest agent is not responding: the guest does not suspend")
