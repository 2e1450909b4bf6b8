"""What the guests of the test driver would answer, had they an agent: libvirt's own inventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import DomainRef, DomainState
from hostel.drivers.base.agent import AgentTimeout, FilesystemInfo, HostnameSource, SshKeysFlag
from hostel.drivers.test.host import Host
from hostel.drivers.test.lifecycle import refused, running
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.disk import DiskDevice

_MOUNTS: Final = ("/", "/boot")


class InsideCalls:
    """Implements :class:`hostel.drivers.base.agent.AgentDriver` and :class:`hostel.drivers.base.agent.InsideDriver`."""

    _host: Host

    def domain_qemu_agent_command(
        self, domain: DomainRef, command: str, timeout: int = AgentTimeout.DEFAULT
    ) -> str | None:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainQemuAgentCommand")

    def domain_fs_freeze(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Stop file systems; returns how many were not."""
        return self._set_frozen(domain, mountpoints, frozen=True)

    def domain_fs_thaw(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Let file systems go on; returns how many were stopped."""
        return self._set_frozen(domain, mountpoints, frozen=False)

    def _set_frozen(self, domain: DomainRef, mountpoints: Sequence[str], *, frozen: bool) -> int:
        with self._host.lock:
            found = running(self._host, domain)
            wanted = {_known(each) for each in mountpoints} or set(_MOUNTS)
            changed = wanted - found.frozen if frozen else wanted & found.frozen
            found.frozen ^= changed
            return len(changed)

    def domain_fs_trim(self, domain: DomainRef, mountpoint: str | None = None, minimum: int = 0) -> None:
        """Nothing is there to be given back: what is asked is checked."""
        with self._host.lock:
            running(self._host, domain)
        if mountpoint is not None:
            _known(mountpoint)

    def domain_get_hostname(self, domain: DomainRef, source: HostnameSource = HostnameSource.NONE) -> str:
        """A name made from the domain's."""
        check_flags(source, 0, "testDomainGetHostname")
        with self._host.lock:
            return f"{running(self._host, domain).definition.name}host"

    def domain_get_fsinfo(self, domain: DomainRef) -> list[FilesystemInfo]:
        """Two file systems on the first disk."""
        with self._host.lock:
            disks = running(self._host, domain).current.domain.devices.disks
        for disk in disks:
            if disk.device is DiskDevice.DISK:
                name = disk.target.dev
                return [FilesystemInfo(where, f"{name}{at}", "ext4", [name]) for at, where in enumerate(_MOUNTS, 1)]
        return []

    def domain_get_guest_info(self, domain: DomainRef, types: int = 0) -> Mapping[str, int | bool | str]:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainGetGuestInfo")

    def domain_get_guest_vcpus(self, domain: DomainRef) -> Mapping[str, str]:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainGetGuestVcpus")

    def domain_set_guest_vcpus(self, domain: DomainRef, cpumap: str, state: int) -> None:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainSetGuestVcpus")

    def domain_get_time(self, domain: DomainRef) -> tuple[int, int]:
        """What was set; a clock that stands still."""
        with self._host.lock:
            found = self._host.domain(domain)
            if found.state.state is not DomainState.RUNNING:
                raise refused(ErrorCode.OPERATION_INVALID, "domain is not running")
            return found.clock

    def domain_set_time(self, domain: DomainRef, seconds: int, nseconds: int, *, sync: bool = False) -> None:
        """Set it."""
        with self._host.lock:
            running(self._host, domain).clock = (seconds, nseconds)

    def domain_authorized_ssh_keys_get(self, domain: DomainRef, user: str) -> list[str]:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainAuthorizedSSHKeysGet")

    def domain_authorized_ssh_keys_set(
        self, domain: DomainRef, user: str, keys: Sequence[str], flags: SshKeysFlag = SshKeysFlag.NONE
    ) -> None:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainAuthorizedSSHKeysSet")

    def domain_set_user_password(
        self, domain: DomainRef, user: str | None, password: str | None, *, encrypted: bool = False
    ) -> None:
        """Every user and every password is good."""
        with self._host.lock:
            running(self._host, domain)

    def domain_agent_set_response_timeout(self, domain: DomainRef, timeout: int) -> int:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainAgentSetResponseTimeout")

    def domain_pm_suspend_for_duration(self, domain: DomainRef, target: int, duration: int = 0) -> None:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainPMSuspendForDuration")

    def domain_pm_wakeup(self, domain: DomainRef) -> None:
        """Refused, as by libvirt's."""
        raise _unsupported("virDomainPMWakeup")


def _known(mountpoint: str) -> str:
    if mountpoint not in _MOUNTS:
        raise refused(ErrorCode.OPERATION_INVALID, f"mount point not found: {mountpoint}")
    return mountpoint


def _unsupported(function: str) -> VirtError:
    return refused(ErrorCode.NO_SUPPORT, function)
