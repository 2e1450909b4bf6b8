"""What the groups of calls of the driver share: a domain that is held, the running machine and the definition of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from hostel.drivers.base import DomainRef, DomainState, NetworkDriver, StateInfo, StorageDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.events import EventBus
from hostel.drivers.fault import fault
from hostel.drivers.qemu.actions import PANICKED, POWERED_OFF
from hostel.drivers.qemu.block.switching import is_switching
from hostel.drivers.qemu.lease import is_leased
from hostel.drivers.qemu.machines import (
    GLANCE,
    LOCK_SECONDS,
    DomainHeld,
    Machines,
    failed,
    invalid,
    not_running,
    not_stored,
)
from hostel.drivers.qemu.monitor import ANSWER_SECONDS
from hostel.drivers.qemu.running import STOPPED_BY_ITSELF, Running
from hostel.drivers.qemu.status import MERGING, Status, read_ending
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.volumes import name_volumes

if TYPE_CHECKING:
    from hostel.drivers.qemu.launch import Launcher

T = TypeVar("T")
_SILENT_SECONDS: Final = 15.0  # for which a QEMU that did not answer who only looked is not asked again


class Both(NamedTuple):
    """What a change applies to: the running machine, the definition, or both; at least one is there."""

    running: Running | None
    definition: Domain | None

    @property
    def current(self) -> Domain:
        """The document that a question is about: the live one where both are there."""
        if self.running is not None:
            return self.running.domain
        assert self.definition is not None
        return self.definition

    @property
    def advised(self) -> Domain:
        """The same, with the places that numad chose for the running machine."""
        return self.running.advised if self.running is not None else self.current


class Calls:
    """What the groups of calls of the driver share."""

    def __init__(
        self,
        machines: Machines,
        launcher: Launcher,
        storage: StorageDriver | None = None,
        network: NetworkDriver | None = None,
    ) -> None:
        self._machines = machines
        self._launcher = launcher
        self._storage = storage
        self._network = network

    @property
    def _bus(self) -> EventBus:
        return self._machines.bus

    @contextlib.contextmanager
    def _running(
        self,
        domain: DomainRef,
        *,
        moving: bool = False,
        asks_agent: bool = False,
        ends: bool = False,
        wait: float = LOCK_SECONDS,
        patience: float | None = None,
    ) -> Iterator[Running]:
        """Hold a running machine, with what earlier operations left behind put right.

        Args:
            domain: which.
            moving: whether it may be about to move to another host.
            asks_agent: whether it is for its agent, about which libvirt's own driver says that it does not run.
            ends: whether it is to be ended, as below.
            wait: how many seconds an operation has to end that has the domain.
            patience: how many seconds QEMU has for each answer, as below.

        Raises:
            DomainHeld: it does not.
            VirtError: ``OPERATION_INVALID`` when it does not run, ``NO_DOMAIN`` when there is none.
        """
        with self._machines.locked(domain.name, wait), self._held(domain, timeout=patience, ends=ends) as machine:
            if machine is None:
                if self._machines.definition(domain.name) is None:
                    raise no_domain(f"name '{domain.name}'")
                raise invalid("domain is not running") if asks_agent else not_running()
            if not moving:
                check_still(machine)
            yield machine

    @contextlib.contextmanager
    def _held(
        self, domain: DomainRef, *, timeout: float | None = None, asks: bool = True, ends: bool = False
    ) -> Iterator[Running | None]:
        """The machine, or None while it does not run; the caller holds the domain's lock.

        Args:
            domain: which.
            timeout: how many seconds QEMU has for each answer, where not as usual; once one has come it has as many as
                usual for what is to be put right.
            asks: whether QEMU is to be asked. Else what is left is put right only where it says whether the machine, or
                its definition, is to stay.
            ends: whether it is to be ended, also where what is left cannot be put right, and stays as it is then. QEMU
                has no longer for anything than for an answer.
        """
        status = self._machines.live(domain.name)
        self._check_is(domain)
        if status is None:
            yield None
            return
        if timeout is None or (ends and is_switching(status)):  # of which QEMU alone knows where it is
            timeout = ANSWER_SECONDS
        machine = Running(self._machines, status, self._launcher, timeout=timeout, hurries=ends)
        try:
            if self._may_end(status) or (asks and _is_unsettled(status)):
                from hostel.drivers.qemu.recovery import recover

                if not ends:
                    machine.patient()
                try:
                    recover(machine)
                except VirtError as error:
                    if error.code == ErrorCode.OPERATION_INVALID and self._machines.live(domain.name) is None:
                        machine.is_gone = True  # QEMU has just ended
                    elif ends and not machine.is_gone:
                        machine.reread()
                    else:
                        raise
            yield None if machine.is_gone else machine
        finally:
            machine.close()

    def _may_end(self, status: Status) -> bool:
        """Whether something was left of which follows whether the machine, or its definition, is to stay."""
        if status.migration is not None and not is_leased(self._machines.lease(status.domain.name)):
            return True
        return status.ending == MERGING or status.ending.startswith("saved:")

    def _check_is(self, domain: DomainRef) -> None:
        """Refuse a domain that is gone, and whose name another one has by now; the caller holds its lock.

        Raises:
            VirtError: ``NO_DOMAIN``.
        """
        found = self._machines.uuid_of(domain.name)
        if found and domain.uuid and found != domain.uuid.lower():
            raise no_domain(f"uuid '{domain.uuid}' ({domain.name})")

    @contextlib.contextmanager
    def _both(self, domain: DomainRef, affect: Affect, *, moving: bool = False, asks: bool = True) -> Iterator[Both]:
        """Hold what a change applies to; ``moving`` and ``asks`` as above. A definition's own change asks no QEMU.

        Raises:
            VirtError: ``OPERATION_INVALID`` when it asks for what is not there.
        """
        asks = asks and affect != Affect.CONFIG
        with self._machines.locked(domain.name), self._held(domain, asks=asks) as machine:
            if machine is None:
                self._settle_snapshots(domain.name)
            both = self._meant(domain, affect, machine)
            if machine is not None and not moving:
                check_still(machine)
            yield both

    def _written(self, domain: DomainRef, affect: Affect) -> Both:
        """What a question is about that documents answer: as for libvirt, no operation and no QEMU is waited for.

        Raises:
            VirtError: ``OPERATION_INVALID`` when it asks for what is not there.
        """
        machines, name = self._machines, domain.name
        self._check_is(domain)
        status = machines.seen(name)
        if status is None and machines.statuses.has(name):  # it ends or begins, or nobody can read it
            with contextlib.suppress(DomainHeld), machines.locked(name, GLANCE):
                status = machines.live(name)
        return self._meant(domain, affect, Running(machines, status, self._launcher) if status is not None else None)

    def _meant(self, domain: DomainRef, affect: Affect, machine: Running | None) -> Both:
        """What a call is about (``virDomainObjUpdateModificationImpact``)."""
        definition = self._machines.definition(domain.name)
        if machine is None and definition is None:
            raise no_domain(f"name '{domain.name}'")
        if not affect:
            affect = Affect.LIVE if machine is not None else Affect.CONFIG
        if affect & Affect.LIVE and machine is None:
            raise not_running()
        if affect & Affect.CONFIG and definition is None:
            raise not_stored()
        return Both(machine if affect & Affect.LIVE else None, definition if affect & Affect.CONFIG else None)

    def _settle_snapshots(self, name: str) -> None:
        """End what was begun with the snapshots of a domain that does not run; the caller holds its lock.

        It comes before anything that would make it another domain's past: a start, a change of the definition.

        Raises:
            VirtError: an image cannot be opened.
        """
        from hostel.drivers.qemu.snapshot.calls import SnapshotCalls
        from hostel.drivers.qemu.snapshot.catalog import Catalog

        catalog = Catalog(self._machines, name)
        if catalog.intent() is not None and isinstance(self, SnapshotCalls):
            from hostel.drivers.qemu.snapshot.settle import settle

            settle(self, catalog, None, name)

    def _check_clash(self, domain: Domain) -> None:
        """Refuse a name or a UUID that another domain has. Reads without locks: stale state only refuses more."""
        for other in self._machines.names():
            known: Domain | None = None
            with contextlib.suppress(VirtError, ValueError):
                known = self._machines.definition(other)
                if known is None:
                    known = Status.parse(self._machines.statuses.read(other) or "").domain
            if known is None:
                continue
            if other == domain.name and known.uuid != domain.uuid:
                raise failed(f"domain '{other}' already exists with uuid {known.uuid}")
            if other != domain.name and known.uuid == domain.uuid:
                raise failed(f"domain '{other}' is already defined with uuid {known.uuid}")

    def _look(
        self,
        domain: DomainRef,
        look: Callable[[Running | None], T],
        recorded: Callable[[Status | None], T],
        *,
        wait: float = GLANCE,
    ) -> T:
        """Look at a domain without waiting for long: an operation has its lock, or its QEMU hangs.

        Args:
            domain: which.
            look: looks at the machine, which is held; None where it does not run.
            recorded: what else can be said, by what was last written down.
            wait: how many seconds an operation has to end.
        """
        machines, name = self._machines, domain.name
        if time.monotonic() >= machines.silent.get(name, 0.0) or machines.seen(name) is None:
            try:
                with machines.locked(name, wait), self._held(domain, timeout=2 * GLANCE) as machine:
                    return look(machine)
            except DomainHeld:
                pass
            except VirtError as error:
                if error.code != ErrorCode.OPERATION_TIMEOUT:
                    raise
                machines.silent[name] = time.monotonic() + _SILENT_SECONDS
        return recorded(machines.seen(name))

    def domain_get_state(self, domain: DomainRef) -> StateInfo:
        """State with its reason; what was last known where QEMU does not answer or an operation has the domain."""
        found = self._look(
            domain, lambda machine: self._state(domain, machine), lambda known: self._known(domain, known)
        )
        # It ended between two looks, or goes on now.
        return found if found is not None else self.domain_get_state(domain)

    def _settled(self, domain: DomainRef, wait: float) -> bool:
        """Bring a machine to where what has happened leads; False where an operation has it, or QEMU does not answer.

        Args:
            domain: which.
            wait: how many seconds an operation has to end.

        Raises:
            VirtError: that cannot be.
        """
        settled = self._look(
            domain, lambda machine: self._state(domain, machine) is not None, lambda _: None, wait=wait
        )
        return settled is not None and (settled or self._settled(domain, wait))  # it has just changed

    def _ended(self, domain: DomainRef) -> StateInfo:
        if self._machines.definition(domain.name) is None:
            raise no_domain(f"name '{domain.name}'")
        ending = read_ending(self._machines.endings, domain.name)
        return StateInfo(DomainState.SHUTOFF, int(ending.reason), ending.detail)

    def _known(self, domain: DomainRef, status: Status | None) -> StateInfo:
        """The state as it was last written down."""
        if status is None:
            return self._ended(domain)
        if status.paused:
            return StateInfo(DomainState.PAUSED, status.paused)
        return StateInfo(DomainState.RUNNING, status.running)

    def _state(self, domain: DomainRef, machine: Running | None) -> StateInfo | None:
        """The state as QEMU says it; None where it has just changed."""
        if machine is None:
            return self._ended(domain)
        try:
            answer = machine.ask("query-status")
        except VirtError as error:
            if error.code != ErrorCode.OPERATION_INVALID:
                raise
            return None
        if answer.get("status") in (POWERED_OFF, PANICKED):
            from hostel.drivers.qemu.lifecycle import follow

            machine.patient()
            if follow(machine, answer["status"]):
                return None
        machine.note_stop(str(answer.get("status")))
        if answer.get("running"):
            return StateInfo(DomainState.RUNNING, machine.status.running)
        if machine.status.locks:  # QEMU has stopped it by itself
            from hostel.drivers.qemu.lockmanager.holding import settle

            settle(machine)
        said = str(answer.get("status"))
        if said == "suspended":
            return StateInfo(DomainState.PMSUSPENDED, 0)
        if said == "guest-panicked":
            return StateInfo(DomainState.CRASHED, 1)
        return StateInfo(DomainState.PAUSED, int(STOPPED_BY_ITSELF.get(said, machine.status.paused)))

    def _define(self, definition: Domain) -> None:
        """Replace a definition; the caller holds the domain's lock."""
        name_volumes(definition)
        with self._machines.definitions.locked():
            self._machines.definitions.write(definition.name, definition.format())


def _is_unsettled(status: Status) -> bool:
    """Whether something was left of a machine that QEMU is to be asked about."""
    is_under_way = status.jobs or status.plugs or status.backup is not None or status.dump
    return bool(is_under_way) or not all(lock.sure for lock in status.locks)


def check_still(machine: Running) -> None:
    """Refuse a machine that is about to move to another host.

    Raises:
        VirtError: ``OPERATION_TIMEOUT``, as libvirt says it after it has waited for half a minute.
    """
    migration = machine.status.migration
    if migration is not None and is_leased(machine.lease):
        way = "out" if migration.way == "out" else "in"
        what = f"cannot acquire state change lock: the domain is held by its migration {way}; domjobabort ends it"
        raise fault(ErrorCode.OPERATION_TIMEOUT, what, ErrorDomain.QEMU)


def no_domain(what: str) -> VirtError:
    """The error for a domain that is not there."""
    message = f"Domain not found: no domain with matching {what}"
    return VirtError(ErrorCode.NO_DOMAIN, message, domain=ErrorDomain.QEMU)
