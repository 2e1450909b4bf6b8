"""What is known of every domain: definitions, running machines, locks, and how the last run ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hostel.cause.mount import mount_of
from hostel.drivers import procstat
from hostel.drivers.base import DomainRef, ShutoffReason
from hostel.drivers.base.agent import AgentTimeout
from hostel.drivers.events import Event, EventBus, Lifecycle, Stopped, Subject
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import document, process, savefile, transient
from hostel.drivers.qemu.descriptors import Descriptors
from hostel.drivers.qemu.helper import tpm
from hostel.drivers.qemu.output.sinks import settle
from hostel.drivers.qemu.status import FAILED, Ending, Migration, Status, write_ending
from hostel.drivers.store import Directories, Store, is_locked, lock_within
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.volumes import name_volumes

LOCK_SECONDS: Final = 60.0  # that an operation has to end, for others which want the domain
GLANCE: Final = 1.0  # seconds that who only looks waits for who works, and for QEMU
_STOPPED: Final = {
    ShutoffReason.UNKNOWN: Stopped.SHUTDOWN,
    ShutoffReason.SHUTDOWN: Stopped.SHUTDOWN,
    ShutoffReason.DESTROYED: Stopped.DESTROYED,
    ShutoffReason.CRASHED: Stopped.CRASHED,
    ShutoffReason.MIGRATED: Stopped.MIGRATED,
    ShutoffReason.SAVED: Stopped.SAVED,
    ShutoffReason.FAILED: Stopped.FAILED,
    ShutoffReason.FROM_SNAPSHOT: Stopped.FROM_SNAPSHOT,
    ShutoffReason.DAEMON: Stopped.FAILED,
}
_GOES_ON: Final = (ShutoffReason.FROM_SNAPSHOT, ShutoffReason.FAILED)  # a transient machine may: from a snapshot
_UUID: Final = re.compile("<uuid>([^<]*)</uuid>")  # the first is the domain's own
_SOCKET_ROOM: Final = 80  # of the 108 bytes that a unix socket's path may have


def invalid(message: str) -> VirtError:
    """The error for a call that the domain's state forbids."""
    text = f"Requested operation is not valid: {message}"
    return VirtError(ErrorCode.OPERATION_INVALID, text, domain=ErrorDomain.QEMU)


def not_running() -> VirtError:
    """The error for a call that only a running machine takes; libvirt has it of what all drivers share."""
    return fault(ErrorCode.OPERATION_INVALID, "domain is not running", ErrorDomain.DOMAIN)


def not_stored() -> VirtError:
    """The error for a call about the definition of a machine that has none, likewise."""
    what = "transient domains do not have any persistent config"
    return fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.DOMAIN)


def failed(message: str) -> VirtError:
    """The error for a call that was tried in vain."""
    return VirtError(ErrorCode.OPERATION_FAILED, f"operation failed: {message}", domain=ErrorDomain.QEMU)


class DomainHeld(VirtError):
    """Another operation has a domain's lock (``OPERATION_TIMEOUT``)."""


class Machines:
    """The files of one session, shared by all its processes.

    A domain's lock is taken before the definitions' lock, never after.
    """

    def __init__(self, directories: Directories) -> None:
        self.definitions = Store(directories.config / "qemu")
        self.autostarts = Store(directories.config / "qemu" / "autostart", suffix="")
        self.renames = Store(directories.config / "qemu" / "renaming", suffix="")
        self.switches = Store(directories.config / "qemu" / "switching", suffix=".json")
        self.statuses = Store(directories.state / "qemu")
        self.endings = Store(directories.state / "qemu" / "last", suffix=".json")
        self.agent_timeouts = Store(directories.state / "qemu" / "agent", suffix="")
        self.speeds = Store(directories.state / "qemu" / "speed", suffix="")
        self.counter = Store(directories.state / "qemu", suffix=".count")
        self.variables_directory = directories.config / "qemu" / "nvram"
        self.completed = Store(directories.state / "qemu" / "completed", suffix=".json")
        self.incoming = Store(directories.state / "qemu" / "incoming")
        self.directories = directories
        self.logs = directories.cache / "qemu" / "log"
        self.dumps = directories.config / "qemu" / "dump"
        self.ranges = Store(directories.state / "qemu" / "ranges", suffix="")
        self._state = directories.state / "qemu"
        self.descriptors = Descriptors()
        self.silent: dict[str, float] = {}  # until when QEMUs that hang are not asked by who only looks
        self.bus = EventBus(directories.state / "events")
        self.release: Callable[[Domain], None] = lambda domain: None  # lets go of what of the host's a machine had

    @contextlib.contextmanager
    def locked(self, name: str, timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold one domain against all other threads and processes.

        Raises:
            DomainHeld: it stays held for ``timeout`` seconds.
        """
        with self._locked(_digest(name), timeout, f"domain '{name}' is held by another operation"):
            yield

    @contextlib.contextmanager
    def talking(self, name: str, *, talks: bool = True) -> Iterator[None]:
        """Be the one who talks with the agent in a domain; taken before the domain's lock, which others may have then.

        QEMU's channel serves one at a time: who does not wait here waits there, in vain and with the domain's lock.

        Args:
            name: the domain's.
            talks: whether the agent is wanted at all; else nobody is waited for.

        Raises:
            DomainHeld: another one goes on to talk with it.
        """
        if not talks:
            yield
            return
        with self._locked(f"{_digest(name)}.agent", LOCK_SECONDS, f"another call talks with the agent of '{name}'"):
            yield

    @contextlib.contextmanager
    def _locked(self, file: str, timeout: float, why: str) -> Iterator[None]:
        directory = self._state / "lock"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not lock_within(descriptor, timeout):
                message = f"Timed out during operation: {why}"
                raise DomainHeld(ErrorCode.OPERATION_TIMEOUT, message, domain=ErrorDomain.QEMU)
            yield
        finally:
            os.close(descriptor)

    def lease(self, name: str) -> Path:
        """The file that whoever moves a domain keeps locked from step to step."""
        directory = self._state / "moving"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory / _digest(name)

    def is_held(self, name: str) -> bool:
        """Whether somebody holds a domain."""
        return is_locked(self._state / "lock" / _digest(name))

    def ledger(self, name: str, model: str = "dac") -> Path:
        """Where it is written down which files a running machine was given, by one security driver."""
        return self._state / "given" / (_digest(name) if model == "dac" else f"{_digest(name)}.{model}")

    def has_ledgers(self, name: str) -> bool:
        """Whether a machine may have been given files."""
        return any((self._state / "given").glob(f"{_digest(name)}*"))

    def speed_of(self, name: str) -> int:
        """How much a migration of a domain may send, in MiB a second, as it was last set; 0 where it never was."""
        try:
            return int(self.speeds.read(name) or 0)
        except ValueError:
            return 0

    def agent_timeout(self, name: str) -> int:
        """How long the agent in a domain is waited for, as it was last set."""
        try:
            return int(self.agent_timeouts.read(name) or AgentTimeout.DEFAULT)
        except ValueError:
            return AgentTimeout.DEFAULT

    def remove_logs(self, name: str) -> None:
        """Remove what a machine's processes have said, also of earlier runs.

        Raises:
            VirtError: the host refused.
        """
        said = [path for path in self.logs.glob("*.log*") if path.name.startswith((f"{name}.log", f"{name}-swtpm.log"))]
        try:
            for path in said:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise system_fault(error, f"Failed to remove the logs of '{name}'", ErrorDomain.QEMU) from error

    def log(self, name: str) -> Path:
        """The domain's log file."""
        return self.logs / f"{name}.log"

    def saved(self, name: str) -> Path:
        """Where the domain's memory is kept by ``managedsave``."""
        return self.definitions.directory / "save" / f"{name}.save"

    def variables(self, name: str) -> Path:
        """Where UEFI keeps its variables for a domain that names no file for them."""
        return self.variables_directory / f"{name}_VARS.fd"

    def tpm_state(self, uuid: str) -> Path:
        """Where all is kept that the TPM of a domain remembers."""
        return self.definitions.directory / "swtpm" / uuid

    def tpm_log(self, name: str) -> Path:
        """What the TPM of a domain says."""
        return self.logs / f"{name}-swtpm.log"

    def run_directory(self, name: str) -> Path:
        """A fresh directory for a run's sockets, short enough for a unix socket's path."""
        run = self._state / "run" / _digest(name)
        if len(os.fsencode(run)) > _SOCKET_ROOM:
            base = _short_base()
            base.mkdir(mode=0o700, exist_ok=True)
            status = base.lstat()
            if base.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
                raise failed(f"'{base}' is not a directory of yours alone; remove it")
            run = base / _digest(f"{self._state}/{name}")
        aside = run.with_name(f"{run.name}.old")  # what still writes into the last one cannot keep it where it is
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # there was none
            run.rename(aside)
        run.mkdir(parents=True, mode=0o700)
        shutil.rmtree(aside, ignore_errors=True)
        return run

    def is_of_a_run(self, path: str) -> bool:
        """Whether a file is in the directory of some run's sockets."""
        return bool(path) and process.run_of(Path(path).parent).parent in (self._state / "run", _short_base())

    def next_id(self) -> int:
        """A number that no machine of this session had since the host booted."""
        with self.counter.locked():
            try:
                last = int(self.counter.read("id") or "0")
            except ValueError:
                last = 0
            self.counter.write("id", str(last + 1))
        return last + 1

    def definition(self, name: str) -> Domain | None:
        """The persistent document, or None.

        Raises:
            VirtError: the file is there and cannot be read as one; the message names it.
        """
        text = self.definitions.read(name)
        if text is None:
            return None
        try:
            domain = document.parse_stored(text)
        except VirtError as error:
            path = self.definitions.path(name)
            raise VirtError(error.code, f"definition file '{path}' is broken: {error.message}") from error
        if domain.name != name:
            path = self.definitions.path(name)
            raise VirtError(ErrorCode.XML_ERROR, f"definition file '{path}' names domain '{domain.name}'")
        if domain.uuid is None:
            raise VirtError(ErrorCode.XML_ERROR, f"definition file '{self.definitions.path(name)}' has no <uuid>")
        return domain

    def uuid_of(self, name: str) -> str:
        """The UUID of the domain that has a name, running or not; empty where there is none, or it cannot be read."""
        for store in (self.statuses, self.definitions):
            with contextlib.suppress(VirtError):
                if found := _UUID.search(store.read(name) or ""):
                    return found[1].lower()
        return ""

    def live(self, name: str) -> Status | None:
        """The running machine, or None; what died since is reaped. The caller holds the domain's lock."""
        text = self.statuses.read(name)
        if text is None:
            return None
        try:
            status = Status.parse(text)
        except ValueError as error:
            path = self.statuses.path(name)
            raise VirtError(ErrorCode.INTERNAL_ERROR, f"internal error: state file '{path}': {error}") from error
        run = Path(status.run)
        if status.pid == 0:
            self._abandon(name, run)
            return None
        if procstat.runs(status.pid, status.started):
            return status
        ending = self._ending(name, status)
        if status.destruction.exists():
            self.publish(status.domain, "lifecycle", event=int(Lifecycle.SHUTDOWN), detail=2)
            if not status.ending:  # for those who hear of it from QEMU once the run's directory is gone
                with contextlib.suppress(VirtError):
                    self.statuses.write(name, status._replace(ending="destroyed").format())
        self.forget(name, run, self.arrived(name, status, ending))
        return None

    def arrived(self, name: str, status: Status, ending: Ending) -> Ending:
        """How a machine ended, with what was made for one that was coming taken back.

        Not so for one that may have run here, unless it was not let in after all: its source must not go on with the
        guest. The caller holds the domain's lock.
        """
        mark = status.migration
        if mark is None or mark.way != "in":
            return ending
        if mark.phase != "prepare" and ending.reason is not ShutoffReason.FAILED:
            return ending
        self.undo_arrival(name, mark)
        return Ending(ShutoffReason.FAILED, ending.detail or "QEMU ended while the guest was coming")

    def seen(self, name: str) -> Status | None:
        """The running machine as it was last written down: nobody is waited for, and what died is not reaped."""
        try:
            status = Status.parse(self.statuses.read(name) or "")
        except ValueError:
            return None
        return status if status.pid and procstat.runs(status.pid, status.started) else None

    def undo_arrival(self, name: str, mark: Migration) -> None:
        """Take back what was made for a domain that did not come. The caller holds the domain's lock."""
        for path in mark.made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if mark.definition is not None:
            with self.definitions.locked():
                if mark.definition:
                    self.definitions.write(name, mark.definition)
                else:
                    self.definitions.remove(name)

    def _abandon(self, name: str, run: Path) -> None:
        """End what a starter left that died before the machine was ours."""
        if (found := process.supervised_qemu(run, 10)) is not None:
            process.end(*found, grace=1)
        self.forget(name, run, Ending(ShutoffReason.FAILED, "the process that was starting it died"))

    def _ending(self, name: str, status: Status) -> Ending:
        code = process.exit_status(Path(status.run), process.RECORDING)
        settle(status.stdio, self.directories, Path(status.run), self.log(name))
        if status.migration is not None and status.migration.phase == "confirm":
            return Ending(ShutoffReason.MIGRATED, "")
        if status.ending.startswith("saved:"):
            if savefile.is_whole(Path(status.ending.removeprefix("saved:"))):
                return Ending(ShutoffReason.SAVED, "")
            savefile.discard(Path(status.ending.removeprefix("saved:")))
        elif status.ending == FAILED:
            return Ending(ShutoffReason.FAILED, "")
        elif status.ending:
            return Ending(ShutoffReason.DESTROYED, "")
        if status.destruction.exists():
            return Ending(ShutoffReason.DESTROYED, "")
        if code == 0:
            lines = process.last_lines(self.log(name), 1, since=status.log_start)
            if lines and "terminating on signal" in lines[0]:
                return Ending(ShutoffReason.DESTROYED, f"QEMU said: {lines[0]}")
            return Ending(ShutoffReason.SHUTDOWN, "")
        lines = process.last_lines(self.log(name), 1, since=status.log_start)
        said = f"; its last words: {lines[0]}" if lines and "-msg timestamp=on" not in lines[0] else ""
        return Ending(ShutoffReason.CRASHED, process.describe(code) + said)

    def redefine(self, name: str, change: Callable[[Domain], bool]) -> None:
        """Change a definition, where there is one and ``change`` says that it did."""
        with self.definitions.locked():
            definition = self.definition(name)
            if definition is not None and change(definition):
                name_volumes(definition)
                self.definitions.write(name, definition.format())

    def forget(self, name: str, run: Path, ending: Ending) -> None:
        """Drop the state of a machine that is no more. The caller holds the domain's lock."""
        text = self.statuses.read(name)
        if "<blockjob" in (text or ""):
            from hostel.drivers.qemu.blockjob import settle_gone

            with contextlib.suppress(ValueError):
                settle_gone(self, Status.parse(text or ""))
        self._remember(name, ending, text or "")
        shutil.rmtree(run, ignore_errors=True)
        if self.has_ledgers(name):
            from hostel.drivers.qemu.ownership.files import take_all_back

            take_all_back(self, name, keeps_remote=ending.reason is ShutoffReason.MIGRATED)
        with contextlib.suppress(ValueError):
            gone = Status.parse(text or "")
            self.release(gone.domain)
            transient.discard(gone.overlays)
            if gone.group:
                from hostel.drivers.qemu.tuning.groups import remove

                remove(gone)
            if gone.domain.cputune is not None:
                from hostel.drivers.qemu.tuning import shares

                shares.remove(gone.domain)
        self.statuses.remove(name)
        with contextlib.suppress(ValueError):
            status = Status.parse(text or "")
            if not self.definitions.has(name):
                if not self._needs_tpm(status, ending):
                    with contextlib.suppress(VirtError):
                        tpm.drop(status.domain, self.tpm_state(status.domain.uuid or ""))
                if ending.reason not in _GOES_ON:
                    self.forget_moments(name)
            self.publish(status.domain, "lifecycle", event=int(Lifecycle.STOPPED), detail=_STOPPED[ending.reason])

    def _needs_tpm(self, status: Status, ending: Ending) -> bool:
        """Whether somebody goes on with what the TPM of a machine without a definition remembers.

        That is the machine itself where it goes back to a snapshot, and the one on another host that it has become or
        come from, where both have the directory.
        """
        if ending.reason is ShutoffReason.FROM_SNAPSHOT:
            return True
        if ending.reason is ShutoffReason.FAILED and self._has_snapshots(status.domain.name):
            return True
        if ending.reason is not ShutoffReason.MIGRATED and status.migration is None:
            return False
        mount = mount_of(str(self.tpm_state("")))
        return mount is not None and mount.is_remote

    def _has_snapshots(self, name: str) -> bool:
        from hostel.drivers.qemu.snapshot.catalog import Catalog

        return bool(Catalog(self, name).names())

    def _remember(self, name: str, ending: Ending, text: str) -> None:
        """Write down how a run ended. A disk that is full keeps nobody from ending a machine: then nobody knows.

        Raises:
            VirtError: it cannot be written, and somebody will ask: who sent a machine that did not come.
        """
        try:
            write_ending(self.endings, name, ending)
        except VirtError:
            self.endings.remove(name)  # of an earlier run
            with contextlib.suppress(ValueError):
                mark = Status.parse(text).migration
                if mark is not None and mark.way == "in":
                    raise

    def forget_moments(self, name: str) -> None:
        """Drop what is known of a domain's snapshots and checkpoints; the caller holds its lock."""
        from hostel.drivers.qemu.backup.checkpoints import Checkpoints
        from hostel.drivers.qemu.snapshot.catalog import Catalog

        Catalog(self, name).clear()
        Checkpoints(self, name).clear()

    def publish(self, domain: Domain, kind: str, **detail: Any) -> None:
        """Tell of an event of a domain."""
        number = -1 if domain.id is None else domain.id
        self.bus.publish(Event(Subject.DOMAIN, kind, domain.name, domain.uuid or "", number, detail))

    def names(self) -> list[str]:
        """Every name that is defined or has state."""
        return sorted({*self.definitions.names(), *self.statuses.names()})

    def refs(self) -> list[DomainRef]:
        """Every domain whose documents can be read."""
        found: list[DomainRef] = []
        for name in self.names():
            with contextlib.suppress(VirtError):
                if (ref := self.ref(name)) is not None:
                    found.append(ref)
        return found

    def ref(self, name: str) -> DomainRef | None:
        """The reference of a domain; None when there is none of that name.

        What has died since it was last looked at is reaped, unless an operation has the domain's lock.
        """
        if self.statuses.has(name):
            status = self.seen(name)
            if status is None:
                with contextlib.suppress(DomainHeld), self.locked(name, GLANCE):
                    status = self.live(name)
            if status is not None:
                return DomainRef(name, status.domain.uuid or "", status.id)
        domain = self.definition(name)
        return None if domain is None else DomainRef(name, domain.uuid or "")


def _short_base() -> Path:
    """Where runs have their directories whose state directory has too long a path."""
    return Path(f"/tmp/hostel-{os.getuid()}")


def _digest(name: str) -> str:
    # A client may send any bytes for a name, and is told that there is no such domain.
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
