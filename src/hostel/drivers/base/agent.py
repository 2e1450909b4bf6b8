"""The guest agent: a program in the guest that does what only the guest can."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef


class AgentTimeout(enum.IntEnum):
    """``virDomainAgentResponseTimeoutValues``; any other number is seconds."""

    BLOCK = -2
    DEFAULT = -1
    NOWAIT = 0


@runtime_checkable
class AgentDriver(Protocol):
    """``AGENT_UNRESPONSIVE`` where the agent does not answer, ``ARGUMENT_UNSUPPORTED`` where there is no channel."""

    def domain_qemu_agent_command(
        self, domain: DomainRef, command: str, timeout: int = AgentTimeout.DEFAULT
    ) -> str | None:
        """Give the agent a command as it is, in JSON; returns its answer, None where it is not waited for."""

    def domain_fs_freeze(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Have the guest's file systems written out and stopped; returns how many."""

    def domain_fs_thaw(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Let them go on; returns how many."""

    def domain_fs_trim(self, domain: DomainRef, mountpoint: str | None = None, minimum: int = 0) -> None:
        """Have the guest say which blocks it does not use, in runs of at least ``minimum`` bytes."""


class HostnameSource(enum.IntFlag):
    """``virDomainGetHostnameFlags``: who is asked; nobody in particular is the agent."""

    NONE = 0
    LEASE = 1
    AGENT = 2


class GuestInfo(enum.IntFlag):
    """``virDomainGuestInfoTypes``; none of them asks for all that there is."""

    USERS = 1
    OS = 2
    TIMEZONE = 4
    HOSTNAME = 8
    FILESYSTEM = 16
    DISKS = 32
    INTERFACES = 64


class SshKeysFlag(enum.IntFlag):
    """``virDomainAuthorizedSSHKeysSetFlags``."""

    NONE = 0
    APPEND = 1
    REMOVE = 2


class SuspendTarget(enum.IntEnum):
    """``virNodeSuspendTarget``: what a host or a guest keeps its state in."""

    MEM = 0
    DISK = 1
    HYBRID = 2


class FilesystemInfo(NamedTuple):
    """A file system in the guest: where it is mounted, its device there, its type, and the targets of its disks."""

    mountpoint: str
    name: str
    fstype: str
    targets: list[str]


@runtime_checkable
class InsideDriver(Protocol):
    """The inside of guests, by their agents; errors as of :class:`AgentDriver`."""

    def domain_get_hostname(self, domain: DomainRef, source: HostnameSource = HostnameSource.NONE) -> str:
        """The guest's name for itself; ``NO_HOSTNAME`` where it has none."""

    def domain_get_fsinfo(self, domain: DomainRef) -> list[FilesystemInfo]:
        """The file systems that are mounted in the guest, in the order in which they were."""

    def domain_get_guest_info(self, domain: DomainRef, types: int = 0) -> Mapping[str, int | bool | str]:
        """What the guest tells of itself: types as of :class:`GuestInfo`."""

    def domain_get_guest_vcpus(self, domain: DomainRef) -> Mapping[str, str]:
        """The guest's processors as sets: ``vcpus``, ``online``, ``offlinable``."""

    def domain_set_guest_vcpus(self, domain: DomainRef, cpumap: str, state: int) -> None:
        """Have the guest use processors (``state`` 1), or leave them alone (0)."""

    def domain_get_time(self, domain: DomainRef) -> tuple[int, int]:
        """The guest's clock: seconds and nanoseconds since 1970."""

    def domain_set_time(self, domain: DomainRef, seconds: int, nseconds: int, *, sync: bool = False) -> None:
        """Set the guest's clock; with ``sync`` to that of its hardware."""

    def domain_authorized_ssh_keys_get(self, domain: DomainRef, user: str) -> list[str]:
        """Keys by which a user of the guest's is let in."""

    def domain_authorized_ssh_keys_set(
        self, domain: DomainRef, user: str, keys: Sequence[str], flags: SshKeysFlag = SshKeysFlag.NONE
    ) -> None:
        """Replace such keys, or add or remove some."""

    def domain_set_user_password(
        self, domain: DomainRef, user: str | None, password: str | None, *, encrypted: bool = False
    ) -> None:
        """Give a user of the guest's another password; ``encrypted``: as the guest keeps it."""

    def domain_agent_set_response_timeout(self, domain: DomainRef, timeout: int) -> int:
        """How long the agent is waited for: seconds, or one of :class:`AgentTimeout`."""

    def domain_pm_suspend_for_duration(self, domain: DomainRef, target: int, duration: int = 0) -> None:
        """Have the guest suspend itself, to what :class:`SuspendTarget` says."""

    def domain_pm_wakeup(self, domain: DomainRef) -> None:
        """Wake a guest that has suspended itself."""
