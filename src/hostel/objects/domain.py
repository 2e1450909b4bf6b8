"""Domains: virtual machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from hostel.drivers.base import (
    ConsoleStream,
    DestroyFlag,
    DomainInfo,
    DomainRef,
    DomainState,
    DomainXmlFlag,
    StartFlag,
    StateInfo,
    UndefineFlag,
)
from hostel.drivers.base.migration import MigrateFlag, Parameters
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

if TYPE_CHECKING:
    from hostel.objects.connection import Connection

_POLLS: Final = (0.01, 0.1)  # seconds between looks at a domain that is waited for, at first and at most


class Domain:
    """A handle of a domain. Handles of one domain are equal; a handle stays good while the domain stops and starts."""

    def __init__(self, connection: Connection, ref: DomainRef) -> None:
        self.connection = connection
        self._ref = ref

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and other.uuid == self.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<Domain {self.name} {self.uuid}>"

    @property
    def name(self) -> str:
        """The domain's name."""
        return self._ref.name

    @property
    def uuid(self) -> str:
        """The domain's UUID, in its canonical text form."""
        return self._ref.uuid

    @property
    def id(self) -> int | None:
        """The id of a running domain; None while it is shut off."""
        current = self._look_up().id
        return None if current == -1 else current

    def start(self, *, paused: bool = False) -> None:
        """Start a defined domain; with ``paused`` its CPUs wait for :meth:`resume`."""
        flags = StartFlag.PAUSED if paused else StartFlag.NONE
        self._ref = self.connection.hypervisor.domain_create(self._ref, flags)

    def shutdown(self) -> None:
        """Ask the guest to shut down; returns at once, and the guest may ignore it."""
        self.connection.hypervisor.domain_shutdown(self._look_up())

    def reboot(self) -> None:
        """Ask the guest to reboot; returns at once."""
        self.connection.hypervisor.domain_reboot(self._look_up())

    def reset(self) -> None:
        """Reset as the button does."""
        self.connection.hypervisor.domain_reset(self._look_up())

    def suspend(self) -> None:
        """Stop the virtual CPUs."""
        self.connection.hypervisor.domain_suspend(self._look_up())

    def resume(self) -> None:
        """Let the virtual CPUs run on."""
        self.connection.hypervisor.domain_resume(self._look_up())

    def destroy(self, *, graceful: bool = False) -> None:
        """End the domain now, as pulling the plug does; with ``graceful`` only if it ends without force."""
        flags = DestroyFlag.GRACEFUL if graceful else DestroyFlag.DEFAULT
        self.connection.hypervisor.domain_destroy(self._look_up(), flags)

    def migrate(
        self, destination: Connection, params: Parameters | None = None, flags: MigrateFlag = MigrateFlag.LIVE
    ) -> Domain:
        """Move it to where another connection leads, which this process sees to; the domain there.

        Args:
            destination: the other connection.
            params: by libvirt's names, such as ``bandwidth`` in MiB a second.
            flags: how.

        Raises:
            VirtError: it is where it was, or the message says that nobody knows.
        """
        from hostel.drivers.migrating import migrate

        there = migrate(self.connection.hypervisor, destination.hypervisor, self._look_up(), params or {}, flags)
        return Domain(destination, there)

    def undefine(self, *, nvram: bool = False) -> None:
        """Drop the definition; a running domain becomes transient. ``nvram`` also removes its firmware's settings."""
        flags = UndefineFlag.NVRAM if nvram else UndefineFlag.NONE
        self.connection.hypervisor.domain_undefine(self._look_up(), flags)

    def xml(self, *, inactive: bool = False, secure: bool = False) -> str:
        """The live document of a running domain, or else the definition, which ``inactive`` always gives.

        ``secure`` includes passwords.
        """
        flags = DomainXmlFlag.INACTIVE if inactive else DomainXmlFlag.NONE
        flags |= DomainXmlFlag.SECURE if secure else DomainXmlFlag.NONE
        return self.connection.hypervisor.domain_get_xml_desc(self._look_up(), flags)

    def info(self) -> DomainInfo:
        """State, memory in KiB, CPUs, CPU time in nanoseconds."""
        return self.connection.hypervisor.domain_get_info(self._look_up())

    @property
    def state(self) -> DomainState:
        """What it is doing."""
        return self.state_info().state

    def state_info(self) -> StateInfo:
        """What it is doing, and why."""
        return self.connection.hypervisor.domain_get_state(self._look_up())

    @property
    def is_active(self) -> bool:
        """Whether it runs, paused or not."""
        return self.id is not None

    @property
    def is_persistent(self) -> bool:
        """Whether a definition exists."""
        return self.connection.hypervisor.domain_is_persistent(self._look_up())

    @property
    def autostart(self) -> bool:
        """Whether it starts with the driver."""
        return self.connection.hypervisor.domain_get_autostart(self._look_up())

    @autostart.setter
    def autostart(self, value: bool) -> None:
        self.connection.hypervisor.domain_set_autostart(self._look_up(), value)

    def console(self, device: str | None = None, *, force: bool = False) -> ConsoleStream:
        """Attach to a serial port or console: the first, or the one with this alias. Close it when done.

        ``force`` takes it from who is attached now.
        """
        return self.connection.hypervisor.domain_open_console(self._look_up(), device, force=force)

    def wait(self, state: DomainState = DomainState.SHUTOFF, timeout: float = 60.0) -> None:
        """Wait until the domain is in ``state``; a transient one that is gone counts as shut off.

        Raises:
            VirtError: ``OPERATION_TIMEOUT`` after ``timeout`` seconds.
        """
        deadline, (pause, longest) = time.monotonic() + timeout, _POLLS
        while (current := self._state_or_gone()) is not state:
            left = deadline - time.monotonic()
            if left <= 0:
                raise fault(
                    ErrorCode.OPERATION_TIMEOUT,
                    f"domain '{self.name}' is {current.name.lower()}, not {state.name.lower()}, after {timeout:g} s",
                    ErrorDomain.DOMAIN,
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    def _state_or_gone(self) -> DomainState:
        try:
            return self.state
        except VirtError as error:
            if error.code is ErrorCode.NO_DOMAIN:
                return DomainState.SHUTOFF
            raise

    def _look_up(self) -> DomainRef:
        # The id changes with every start; the UUID is what lasts.
        self._ref = self.connection.hypervisor.domain_lookup_by_uuid(self.uuid)
        return self._ref
