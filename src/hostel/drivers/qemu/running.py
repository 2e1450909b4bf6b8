"""A running machine in the hands of one operation: its live document, its monitor, what is told of it.

The operation holds the domain's lock. What changes is written down before QEMU is asked to do it wherever a process
that dies in between would leave something behind; :mod:`hostel.drivers.qemu.blockjob` picks such pieces up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from hostel.drivers.base import DomainRef, DomainState, NetworkDriver, PausedReason, StateInfo, StorageDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.events import Event, EventBus, Subject
from hostel.drivers.fault import fault
from hostel.drivers.qemu import failure, process
from hostel.drivers.qemu.actions import PANICKED, POWERED_OFF
from hostel.drivers.qemu.lease import is_leased
from hostel.drivers.qemu.machines import GLANCE, DomainHeld, Machines, failed, invalid, not_running, not_stored
from hostel.drivers.qemu.monitor import ANSWER_SECONDS, Monitor
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.qemu.status import Ending, Status, read_ending
from hostel.drivers.qemu.taint import Finding, Taint, note
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain
from hostel.model.domain.volumes import name_volumes

if TYPE_CHECKING:
    from hostel.drivers.qemu.launch import Launcher

T = TypeVar("T")
_SILENT_SECONDS: Final = 15.0  # for which a QEMU that did not answer who only looked is not asked again
_PAUSED = {"io-error": PausedReason.IOERROR, "watchdog": PausedReason.WATCHDOG, "shutdown": PausedReason.SHUTTING_DOWN}


class Running:
    """One running machine; its monitor is connected to when it is first needed, and let go by :meth:`close`."""

    def __init__(
        self, machines: Machines, status: Status, launcher: Launcher | None = None, *, timeout: float = ANSWER_SECONDS
    ) -> None:
        self._timeout = timeout
        self._machines = machines
        self._launcher = launcher
        self._monitor: Monitor | None = None
        self.status = status
        self.is_gone = False
        self._is_changed = False

    @property
    def domain(self) -> Domain:
        """The live document; :meth:`save` keeps what is changed in it."""
        return self.status.domain

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.domain.name

    @property
    def run(self) -> Path:
        """The directory of its sockets."""
        return Path(self.status.run)

    @property
    def machines(self) -> Machines:
        """The session's machines, of which it is one."""
        return self._machines

    @property
    def lease(self) -> Path:
        """The file that whoever moves it keeps locked."""
        return self._machines.lease(self.name)

    @property
    def agent_timeout(self) -> int:
        """How long the guest's agent is waited for: seconds, or one of ``AgentTimeout``."""
        return self._machines.agent_timeout(self.name)

    @property
    def settings(self) -> Settings:
        """What the host says for all machines.

        Raises:
            VirtError: the file with it cannot be read as one.
        """
        return read_settings(self._machines.directories)

    @property
    def dumps(self) -> Path:
        """Where the memory of guests that have crashed is kept."""
        folder = Path(self.settings.crashes.folder or self._machines.dumps)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def patient(self) -> None:
        """Give QEMU the usual time for its answers."""
        self._timeout = ANSWER_SECONDS

    @property
    def qmp(self) -> Monitor:
        """The monitor, which answers errors as they are.

        Raises:
            QmpError: nobody answers.
        """
        if self._monitor is None:
            self._monitor = Monitor(process.ground(self.run) / "monitor", timeout=self._timeout)
        return self._monitor

    @property
    def is_unanswered(self) -> bool:
        """Whether QEMU was told something, and nobody heard whether it has done it."""
        return self._monitor is not None and bool(self._monitor.silence)

    def ask(self, command: str, files: Sequence[int] = (), /, **arguments: Any) -> Any:
        """Run a command of QEMU's; ``files`` go along with it.

        Raises:
            VirtError: QEMU refused it, does not answer, or has ended.
        """
        try:
            return self.qmp.execute(command, files, **arguments)
        except QmpError as error:
            raise self.translated(error, command, arguments) from error

    def translated(self, error: QmpError, command: str, arguments: Mapping[str, Any] = {}) -> VirtError:
        """QEMU's refusal of a command as libvirt's error, with what is behind it."""
        if error.error_class == "Disconnected" and process.ended(self.status.pid, self.status.started, 2):
            return not_running()
        if error.error_class == "Timeout":
            return fault(ErrorCode.OPERATION_TIMEOUT, error.desc, ErrorDomain.QEMU)
        from hostel.drivers.qemu.ownership.run import user_of

        why = error.desc + failure.behind(error.desc, arguments, self.domain, user_of(self.run))
        message = f"internal error: unable to execute QEMU command '{command}': {why}"
        return VirtError(ErrorCode.INTERNAL_ERROR, message, domain=ErrorDomain.QEMU)

    def attempt(self, command: str, **arguments: Any) -> Any:
        """Run a command whose refusal is no failure, for what is taken back; None when it was refused.

        Raises:
            VirtError: ``OPERATION_TIMEOUT``: QEMU does not answer.
        """
        try:
            return self.qmp.execute(command, **arguments)
        except QmpError as error:
            if error.error_class == "Timeout":
                raise self.translated(error, command, arguments) from error
            return None

    def check_disks_held(self) -> None:
        """Refuse what QEMU does not do for a guest that is paused since its memory was written.

        It has let go of the images that it had, and takes them again when the guest goes on.

        Raises:
            VirtError: ``OPERATION_INVALID``.
        """
        if self.ask("query-status").get("status") == "postmigrate":
            raise invalid(
                "domain is paused since its memory was saved, and QEMU holds its disks no more; resume it first"
            )

    def save(self, **changes: Any) -> None:
        """Write the state down, with these fields changed.

        Raises:
            VirtError: ``OPERATION_TIMEOUT``: QEMU has not answered a command. Nobody knows then whether it was carried
                out, so the marks of what was begun have to stay for whoever holds the machine next.
        """
        if self._monitor is not None and self.is_unanswered:
            raise fault(ErrorCode.OPERATION_TIMEOUT, self._monitor.silence, ErrorDomain.QEMU)
        self.status = self.status._replace(**changes)
        self._machines.statuses.write(self.name, self.status.format())
        self._is_changed = True

    def find_secret(self, reference: SecretReference, usage: str) -> bytes:
        """The value of a secret that the machine needs.

        Raises:
            VirtError: there is no such secret, it has no value, or it is for something else.
        """
        assert self._launcher is not None
        return self._launcher.find_secret(reference, usage)

    @contextlib.contextmanager
    def supplied(self, disk: Disk) -> Iterator[None]:
        """Have in QEMU what a disk's images need besides their nodes, while these are added: secrets, certificates.

        Raises:
            VirtError: there is no such secret, or QEMU refused.
        """
        from hostel.drivers.qemu.command.objects import disk_objects, names_objects, passphrases, secrets, specs
        from hostel.drivers.qemu.private import unlink

        if not names_objects(disk):
            yield
            return
        assert self._launcher is not None
        context = self._launcher.context(self.domain, self.run)
        objects = list(specs(disk_objects(disk, context)))
        given = self._launcher.give_secrets((*secrets(disk), *passphrases(objects, context.settings)), context)
        try:
            for properties in objects:
                self.ask("object-add", **properties)
            yield
        finally:
            unlink(given)

    @contextlib.contextmanager
    def written_by_qemu(self, name: str) -> Iterator[Path]:
        """A new and empty file that QEMU may write, as long as it is read; nobody else can put another in its place.

        Raises:
            OSError: the host refused.
        """
        path = self.run / name
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            process.hand_over(self.run, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def taint(self, why: Taint) -> None:
        """Remember that the machine is beyond what is supported, and write it into its log."""
        if why not in self.status.taints.split():
            self.save(taints=f"{self.status.taints} {why}".lstrip())
            process.write_log(self._machines.log(self.name), [note(self.status.id, Finding(why))])

    def next_node(self) -> int:
        """A number for an image that no other of this run has had; kept with the next :meth:`save`."""
        self.status = self.status._replace(nodes=self.status.nodes + 1)
        return self.status.nodes

    def publish(self, kind: str, **detail: Any) -> None:
        """Tell of an event."""
        self._machines.bus.publish(
            Event(Subject.DOMAIN, kind, self.name, self.domain.uuid or "", self.status.id, detail)
        )

    def redefine(self, change: Callable[[Domain], bool]) -> None:
        """Change the definition, where there is one and ``change`` says that it did."""
        self._machines.redefine(self.name, change)

    def resolved(self, disk: Disk) -> Disk:
        """A copy of a definition's disk with a file in place of a volume; as it is where that cannot be told."""
        copy = disk.copy()
        if self._launcher is not None:
            with contextlib.suppress(VirtError):
                self._launcher.prepare(copy)
        return copy

    def release(self, interface: Interface) -> None:
        """Let go of the host's end of an interface that QEMU does not have, or no longer."""
        if self._launcher is not None:
            self._launcher.wiring.release(self.domain, interface)

    def give_back(self) -> None:
        """Give back the devices of the host that the document no longer names."""
        if self._launcher is not None:
            self._launcher.assignment.settle(self.domain)

    def give_files(self) -> None:
        """Give QEMU the files that the state names, with its marks, before it is asked to open them.

        Raises:
            VirtError: the host refused, or another machine has one as another user.
        """
        from hostel.drivers.qemu.ownership import files

        files.give(self._machines, self.status)
        self._settle_devices()

    def _settle_devices(self) -> None:
        """Let QEMU open the devices that the state names, and no others."""
        if self.status.denies_devices:
            from hostel.drivers.qemu.settings import read
            from hostel.drivers.qemu.tuning.access import settle

            settle(self.status, read(self._machines.directories))

    def lent(self, file: int) -> AbstractContextManager[None]:
        """Let QEMU use an open file meanwhile that it does not open itself.

        Raises:
            VirtError: the host refused.
        """
        from hostel.drivers.qemu.confinement.module import lent

        return lent(self._machines, self.status, file)

    def give_files_back(self) -> None:
        """Give back the files that the state no longer names."""
        if self._machines.has_ledgers(self.name):
            from hostel.drivers.qemu.ownership import files

            files.settle(self._machines, self.name)

    def forget(self, ending: Ending) -> None:
        """Drop the state of the machine, which is no more."""
        self._machines.forget(self.name, self.run, ending)
        self.is_gone = True

    def close(self) -> None:
        """Let the monitor go, and files of the host that QEMU no longer needs."""
        if self._is_changed and not self.is_gone:
            self._is_changed = False
            self.give_files_back()
            with contextlib.suppress(VirtError):  # the next change tells, if it still is so
                self._settle_devices()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None


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
    def _running(self, domain: DomainRef, *, moving: bool = False) -> Iterator[Running]:
        """Hold a running machine, with what earlier operations left behind put right.

        Args:
            domain: which.
            moving: whether it may be about to move to another host.

        Raises:
            VirtError: ``OPERATION_INVALID`` when it does not run, ``NO_DOMAIN`` when there is none.
        """
        with self._machines.locked(domain.name), self._held(domain) as machine:
            if machine is None:
                if self._machines.definition(domain.name) is None:
                    raise no_domain(f"name '{domain.name}'")
                raise not_running()
            if not moving:
                check_still(machine)
            yield machine

    @contextlib.contextmanager
    def _held(self, domain: DomainRef, *, timeout: float = ANSWER_SECONDS) -> Iterator[Running | None]:
        """The machine, or None while it does not run; the caller holds the domain's lock.

        Args:
            domain: which.
            timeout: how many seconds QEMU has for each answer; what is to be put right has more.
        """
        status = self._machines.live(domain.name)
        if status is None:
            yield None
            return
        machine = Running(self._machines, status, self._launcher, timeout=timeout)
        try:
            if (
                status.jobs
                or status.plugs
                or status.backup is not None
                or status.dump
                or not all(lock.sure for lock in status.locks)
                or status.ending in ("merging",)
                or status.ending.startswith("saved:")
                or (status.migration is not None and not is_leased(self._machines.lease(domain.name)))
            ):
                from hostel.drivers.qemu.recovery import recover

                machine.patient()
                recover(machine)
            yield None if machine.is_gone else machine
        finally:
            machine.close()

    @contextlib.contextmanager
    def _both(self, domain: DomainRef, affect: Affect, *, moving: bool = False) -> Iterator[Both]:
        """Hold what a change applies to (``virDomainObjUpdateModificationImpact``); ``moving`` as above.

        Raises:
            VirtError: ``OPERATION_INVALID`` when it asks for what is not there.
        """
        with self._machines.locked(domain.name), self._held(domain) as machine:
            if machine is None:
                self._settle_snapshots(domain.name)
            definition = self._machines.definition(domain.name)
            if machine is None and definition is None:
                raise no_domain(f"name '{domain.name}'")
            if not affect:
                affect = Affect.LIVE if machine is not None else Affect.CONFIG
            if affect & Affect.LIVE and machine is None:
                raise not_running()
            if affect & Affect.CONFIG and definition is None:
                raise not_stored()
            if machine is not None and not moving:
                check_still(machine)
            yield Both(machine if affect & Affect.LIVE else None, definition if affect & Affect.CONFIG else None)

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
        self, domain: DomainRef, look: Callable[[Running | None], T], recorded: Callable[[Status | None], T]
    ) -> T:
        """Look at a domain without waiting for long: an operation has its lock, or its QEMU hangs.

        Args:
            domain: which.
            look: looks at the machine, which is held; None where it does not run.
            recorded: what else can be said, by what was last written down.
        """
        machines, name = self._machines, domain.name
        if time.monotonic() >= machines.silent.get(name, 0.0):
            try:
                with machines.locked(name, GLANCE), self._held(domain, timeout=2 * GLANCE) as machine:
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
        return StateInfo(DomainState.PAUSED, int(_PAUSED.get(said, machine.status.paused)))

    def _define(self, definition: Domain) -> None:
        """Replace a definition; the caller holds the domain's lock."""
        name_volumes(definition)
        with self._machines.definitions.locked():
            self._machines.definitions.write(definition.name, definition.format())


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
