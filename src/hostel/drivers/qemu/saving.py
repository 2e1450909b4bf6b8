"""Save and restore: the machine's memory as a file, and back.

A save is recorded in the machine's state before it begins. Who finds the record after a crash looks at the file: where
it is whole the machine is ended, since going on with both would write to disks that the memory does not know; where it
is not, it is removed and the machine goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from hostel.drivers.base import DomainRef, DomainXmlFlag, PausedReason, Progress, RunningReason, ShutoffReason
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.events import Started, Suspended
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import document, failure, process, savefile, underway
from hostel.drivers.qemu.balloon import refresh
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.jobstats import keep
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import failed, invalid
from hostel.drivers.qemu.origin import Origin
from hostel.drivers.qemu.pause import Pause
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.source import leave_out_told
from hostel.drivers.qemu.status import DUMPED, Ending, Status
from hostel.drivers.qemu.transient import check_can_be_saved
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.secure import hide_passwords
from hostel.model.domain.volumes import name_volumes

SAVING: Final = "saved:"  # what a state's ending begins with while a save is under way
_POLL: Final = 0.05  # seconds
_STALLED: Final = 120.0  # seconds without a byte of progress
_UNLIMITED: Final = 2**63 - 1  # bytes a second
# virDomainJobOperation
SAVE: Final = 2
SNAPSHOT: Final = 6
DUMP: Final = 8
_NAMES: Final = {SAVE: "domain save", SNAPSHOT: "snapshot", DUMP: "domain core dump"}


class SaveCalls(Calls):
    """Saving and restoring; see :class:`hostel.drivers.base.saving.SaveDriver`."""

    def domain_save_flags(
        self,
        domain: DomainRef,
        to: str,
        xml: str | None = None,
        flags: SaveFlag = SaveFlag.NONE,
        progress: Progress | None = None,
    ) -> None:
        """Write memory and document to a file, and end the machine."""
        path = Path(to)
        if not path.is_absolute():
            raise fault(ErrorCode.INVALID_ARG, f"save file '{to}' must be an absolute path", ErrorDomain.QEMU)
        with self._running(domain) as machine:
            self._save(machine, path, xml, flags, progress)

    def domain_managed_save(
        self, domain: DomainRef, flags: SaveFlag = SaveFlag.NONE, progress: Progress | None = None
    ) -> None:
        """Save to a file of the driver's."""
        with self._running(domain) as machine:
            if not self._machines.definitions.has(domain.name):
                raise invalid("cannot do managed save for transient domain")
            path = self._machines.saved(domain.name)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._save(machine, path, None, flags, progress)

    def _save(self, machine: Running, path: Path, xml: str | None, flags: SaveFlag, progress: Progress | None) -> None:
        from hostel.drivers.qemu.hostdevs import check_movable

        check_together(flags)
        if machine.status.jobs:
            raise invalid("domain has active block job; end it with blockjob --abort or --pivot")
        check_can_be_saved(machine.domain)
        check_movable(machine.domain)
        was_running = machine.runs()
        refresh(machine)
        text = self._checked(machine.domain, xml) if xml is not None else lasting(machine.domain)
        runs = was_running
        if flags & (SaveFlag.RUNNING | SaveFlag.PAUSED):
            runs = bool(flags & SaveFlag.RUNNING)
        way = savefile.packing(machine.settings.formats.save, "save")
        machine.check_disks_held()
        with self._begun(machine, path, resumes=was_running) as file:
            try:
                write_memory(machine, file, text, runs=runs, way=way, progress=progress)
            except OSError as error:
                settle_save(machine)
                raise system_fault(error, f"Failed to write '{path}'", ErrorDomain.QEMU, path=str(path)) from error
            except BaseException:
                settle_save(machine)
                raise
        settle_save(machine)
        if flags & SaveFlag.BYPASS_CACHE:
            savefile.drop_cached(path)

    @contextlib.contextmanager
    def _begun(self, machine: Running, path: Path, *, resumes: bool) -> Iterator[BinaryIO]:
        """Open the file, and mark the machine. Who finds the mark, and the file whole, ends the machine.

        So what the file held is gone before; and where it is not there, it is made after, for nobody would remove it.

        Raises:
            VirtError: it cannot be opened; the machine has no mark then.
        """
        before = machine.status
        with contextlib.ExitStack() as stack:
            there = stack.enter_context(savefile.opened(path, is_there=True)) if path.exists() else None
            paused = int(PausedReason.SAVE) if resumes else before.paused
            machine.save(ending=f"{SAVING}{path}", paused=paused, resumes=resumes)
            try:
                file = there or stack.enter_context(savefile.opened(path))
            except VirtError:
                machine.save(ending=before.ending, paused=before.paused, resumes=before.resumes)
                raise
            yield file

    def _checked(self, held: Domain, xml: str) -> str:
        """Another document for a saved machine, complete; it must be the same machine to the guest."""
        from hostel.drivers.qemu.migration.same import check_same

        platform = self._launcher.platform(held)
        wanted, known = document.parse(xml, platform, is_given=False), held.copy()
        name_volumes(known)
        document.finish(known, platform, is_given=False)
        check_same(known, wanted)
        return wanted.format()

    def domain_restore_flags(self, source: str, xml: str | None = None, flags: SaveFlag = SaveFlag.NONE) -> DomainRef:
        """Start a machine from a file, which stays."""
        path = Path(source)
        saved = savefile.read(path)
        domain = document.parse_stored(saved.xml)
        if xml is not None:
            domain = document.parse_stored(self._checked(domain, xml))
        with self._machines.locked(domain.name):
            if self._machines.live(domain.name) is not None:
                raise invalid(f"domain '{domain.name}' is already active")
            self._settle_snapshots(domain.name)
            self._check_clash(domain)
            return self._restore(domain, path, saved, flags)

    def _restore(
        self, domain: Domain, path: Path, saved: savefile.Saved, flags: SaveFlag, *, use_up: bool = False
    ) -> DomainRef:
        """Start from a file; the caller holds the domain's lock and has found it not running.

        Args:
            domain: the document.
            path: the file.
            saved: what it says.
            flags: whether the guest runs then.
            use_up: whether the file serves once. It is set aside before the guest can run, since its memory fits no
                disk that was written to since; where the guest has not run it is put back.
        """
        runs = saved.running
        if flags & (SaveFlag.RUNNING | SaveFlag.PAUSED):
            runs = bool(flags & SaveFlag.RUNNING)
        origin = Origin(RunningReason.RESTORED, Started.RESTORED, path, saved.start, unpack=saved.unpack)
        # As libvirt has it: what brought its memory is a migration.
        asked = use_up and flags & SaveFlag.PAUSED
        origin = origin._replace(
            paused=PausedReason.MIGRATION,
            suspended=Suspended.PAUSED if asked else Suspended.RESTORED,
            reset_nvram=bool(flags & SaveFlag.RESET_NVRAM),
        )
        with contextlib.ExitStack() as stack:
            if use_up:
                origin = origin._replace(prepare=stack.enter_context(_used_up(path)))
            status = self._launcher.start(domain, paused=not runs, origin=origin)
        if flags & SaveFlag.BYPASS_CACHE and not use_up:
            savefile.drop_cached(path)
        return DomainRef(domain.name, domain.uuid or "", status.id)

    def domain_save_image_get_xml_desc(self, file: str, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document in a file."""
        return _shown(savefile.read(Path(file)).xml, flags)

    def domain_save_image_define_xml(self, file: str, xml: str, flags: SaveFlag = SaveFlag.NONE) -> None:
        """Change the document in a file."""
        saved = savefile.read(Path(file))
        text = self._checked(document.parse_stored(saved.xml), xml)
        runs = saved.running
        if flags & (SaveFlag.RUNNING | SaveFlag.PAUSED):
            runs = bool(flags & SaveFlag.RUNNING)
        savefile.rewrite(Path(file), text, running=runs)

    def domain_has_managed_save_image(self, domain: DomainRef) -> bool:
        """Whether the next start goes on from saved memory."""
        return savefile.is_kept(self._machines.saved(domain.name))

    def domain_managed_save_remove(self, domain: DomainRef) -> None:
        """Remove the saved memory."""
        saved = self._machines.saved(domain.name)
        with self._machines.locked(domain.name), self._held(domain, asks=False):
            try:
                saved.stat()  # where there is none, libvirt fails too
                savefile.remove(saved)
            except OSError as error:
                what = f"Failed to remove managed save file '{saved}'"
                raise system_fault(error, what, ErrorDomain.QEMU) from error

    def domain_managed_save_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document of the saved memory."""
        return _shown(savefile.read(self._managed(domain)).xml, flags)

    def domain_managed_save_define_xml(self, domain: DomainRef, xml: str, flags: SaveFlag = SaveFlag.NONE) -> None:
        """Change the document of the saved memory."""
        self.domain_save_image_define_xml(str(self._managed(domain)), xml, flags)

    def _managed(self, domain: DomainRef) -> Path:
        if not self._machines.definitions.has(domain.name) and self._machines.seen(domain.name) is None:
            raise no_domain(f"name '{domain.name}'")
        if not self.domain_has_managed_save_image(domain):
            raise invalid("domain does not have managed save image")
        return self._machines.saved(domain.name)


def _shown(xml: str, flags: DomainXmlFlag) -> str:
    domain = document.parse_stored(xml)
    if not flags & DomainXmlFlag.SECURE:
        hide_passwords(domain)
    return domain.format()


@contextlib.contextmanager
def _used_up(path: Path) -> Iterator[Callable[[Running], None]]:
    """Start a machine from a managed file; gives what is to be done before its CPUs run."""
    aside = savefile.aside(path)
    aside.unlink(missing_ok=True)  # of one who was killed; its guest may have run

    def set_aside(_: Running) -> None:
        path.replace(aside)

    try:
        yield set_aside
    except VirtError as error:
        if aside.exists() and not may_have_run(error):
            aside.replace(path)
        raise
    savefile.remove(path)


def may_have_run(error: VirtError) -> bool:
    """Whether a start failed without QEMU saying that the guest does not run."""
    cause = error.__cause__
    return isinstance(cause, QmpError) and cause.error_class in ("Disconnected", "Timeout")


def lasting(domain: Domain) -> str:
    """The document of a machine that runs, as it is written beside its memory: without what only this run has."""
    kept = domain.copy()
    for disk in kept.devices.disks:
        leave_out_told(disk)
    name_volumes(kept)
    forget_run(kept)
    return kept.format()


def write_memory(
    machine: Running,
    file: BinaryIO,
    xml: str,
    *,
    runs: bool,
    way: savefile.Packing = savefile.UNPACKED,
    operation: int = SAVE,
    progress: Progress | None = None,
) -> None:
    """Stop the guest, and write its memory to a file with a document before it; the file is whole afterwards.

    Raises:
        VirtError: QEMU refused; the guest is stopped then.
        OSError: the host refused, likewise.
    """
    savefile.begin(file, xml, running=runs, way=way)
    holding.stop(machine)
    with savefile.packed(file, way) as target:
        migrate(machine, target, operation, progress)
    savefile.finish(file)


def migrate(machine: Running, descriptor: int, operation: int, progress: Progress | None = None) -> None:
    """Have QEMU write its state to an open file, from where that stands; returns when all of it is written.

    Args:
        machine: whose state.
        descriptor: the file's.
        operation: what it is written for, as ``virDomainJobOperation`` has it.
        progress: is told how far it is.

    Raises:
        VirtError: ``OPERATION_FAILED`` with QEMU's reason.
    """
    machine.ask("migrate-set-parameters", **{"max-bandwidth": _UNLIMITED})
    with machine.lent(descriptor), underway.job(machine.run, _NAMES[operation]) as job:
        try:
            machine.qmp.pass_file("hostel-migrate", descriptor)
        except QmpError as error:
            raise machine.translated(error, "getfd") from error
        machine.ask("migrate", uri="fd:hostel-migrate")
        _follow(machine, job, descriptor, operation, progress)


def _follow(
    machine: Running, job: underway.Underway, descriptor: int, operation: int, progress: Progress | None
) -> None:
    """Wait until QEMU's state is written.

    Raises:
        VirtError: ``OPERATION_FAILED`` with QEMU's reason; ``OPERATION_ABORTED``: somebody wanted it to end.
    """
    from hostel.drivers.qemu.migration.statistics import numbers

    began, pause = time.monotonic(), Pause(_POLL)
    done, deadline = -1, began + _STALLED
    while True:
        found = machine.ask("query-migrate")
        elapsed = int((time.monotonic() - began) * 1000)
        job.tell(_of_memory(numbers(found, [], elapsed), operation))
        ram = found.get("ram", {})
        if progress is not None and ram.get("total"):
            progress(int(ram["total"]) - int(ram.get("remaining", 0)), int(ram["total"]))
        match found.get("status"):
            case "completed":
                told = _of_memory(numbers(found, [], elapsed), operation)
                keep(machine, told)
                machine.publish("job-completed", **told)
                return
            case "failed" | "cancelled":
                why = found.get("error-desc", found["status"])
                raise failed(f"QEMU did not write its memory: {why}{failure.behind_writing(why, descriptor)}")
        try:
            job.check()
        except VirtError:
            machine.attempt("migrate_cancel")
            wait_for_migration(machine)
            raise
        if ram.get("transferred", 0) != done:
            done, deadline = ram.get("transferred", 0), time.monotonic() + _STALLED
        if time.monotonic() >= deadline:
            machine.attempt("migrate_cancel")
            raise fault(ErrorCode.OPERATION_TIMEOUT, "QEMU writes no more of its memory", ErrorDomain.QEMU)
        pause()


def _of_memory(told: Mapping[str, int], operation: int) -> dict[str, int]:
    """What is said of a job that copies no disks."""
    return {name: value for name, value in told.items() if not name.startswith("disk_")} | {"operation": operation}


def settle_save(machine: Running) -> None:
    """Bring a machine that was being saved to one of both ends: saved and gone, or here with no file left.

    Raises:
        VirtError: ``OPERATION_FAILED`` when QEMU does not end.
    """
    path = Path(machine.status.ending.removeprefix(SAVING))
    if savefile.is_whole(path):
        status = machine.status
        machine.close()
        if not process.end(status.pid, status.started):
            raise failed(f"QEMU, process {status.pid}, does not end")
        process.exit_status(machine.run, 2)
        machine.forget(Ending(ShutoffReason.SAVED, ""))
        return
    machine.attempt("migrate_cancel")
    wait_for_migration(machine)
    savefile.discard(path)
    if not machine.status.resumes:
        machine.save(ending="")
        return
    runs = holding.go_on(machine, RunningReason.SAVE_CANCELED)
    machine.save(ending="", paused=0 if runs else int(PausedReason.USER))


def unfinished(status: Status) -> Iterator[Path]:
    """The files that a machine's memory was being written to, which nobody can go on from."""
    if status.ending.startswith(SAVING):
        yield Path(status.ending.removeprefix(SAVING))
    if status.dump not in ("", DUMPED):
        yield Path(status.dump)


def wait_for_migration(machine: Running) -> None:
    """Wait until no migration is under way, for a short while."""
    deadline, pause = time.monotonic() + 10, Pause(_POLL)
    while time.monotonic() < deadline:
        found = machine.attempt("query-migrate") or {}
        if found.get("status") not in ("setup", "active", "cancelling", "device", "pre-switchover", "postcopy-active"):
            return
        pause()
