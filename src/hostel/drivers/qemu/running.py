"""A running machine in the hands of one operation: its live document, its monitor, what is told of it.

The operation holds the domain's lock. What changes is written down before QEMU is asked to do it wherever a process
that dies in between would leave something behind; :mod:`hostel.drivers.qemu.blockjob` picks such pieces up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostel.drivers.base import PausedReason
from hostel.drivers.events import Event, Subject
from hostel.drivers.fault import fault
from hostel.drivers.qemu import failure, process
from hostel.drivers.qemu.machines import Machines, invalid, not_running
from hostel.drivers.qemu.monitor import ANSWER_SECONDS, Monitor
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.qemu.status import Ending, Status
from hostel.drivers.qemu.taint import Finding, Taint, note
from hostel.drivers.qemu.tuning.numad import advised
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.drivers.qemu.launch import Launcher

# QEMU's states in which it has stopped its guest by itself.
STOPPED_BY_ITSELF: Final = {
    "io-error": PausedReason.IOERROR, "watchdog": PausedReason.WATCHDOG, "shutdown": PausedReason.SHUTTING_DOWN,
}  # fmt: skip
FOR_AN_ERROR: Final = (PausedReason.IOERROR, PausedReason.WATCHDOG)


class Running:
    """One running machine; its monitor is connected to when it is first needed, and let go by :meth:`close`."""

    def __init__(
        self,
        machines: Machines,
        status: Status,
        launcher: Launcher | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
        hurries: bool = False,
    ) -> None:
        self._timeout = timeout
        self._hurries = hurries
        self._is_patient = False
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
    def advised(self) -> Domain:
        """The live document, with the places on the host that numad chose for it when it was started."""
        return self.advise(self.domain)

    def advise(self, domain: Domain) -> Domain:
        """Another document of this machine, in the same way."""
        return advised(domain, self.status.advice)

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
        """Give QEMU the usual time for its answers, once it has answered at all."""
        self._is_patient = True
        if self._monitor is not None:
            self._monitor.timeout = ANSWER_SECONDS

    @property
    def qmp(self) -> Monitor:
        """The monitor, which answers errors as they are.

        Raises:
            QmpError: nobody answers.
        """
        if self._monitor is None:
            self._monitor = Monitor(process.ground(self.run) / "monitor", timeout=self._timeout, hurries=self._hurries)
            if self._is_patient:
                self._monitor.timeout = ANSWER_SECONDS
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
            from hostel.drivers.qemu.hanging import let_end

            if let_end(self.status, told=self._monitor is not None and self._monitor.shuts_down):
                return not_running()
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

    def runs(self) -> bool:
        """Whether the guest runs, before its memory is written: by that QEMU forgets why it had stopped it itself."""
        said = self.ask("query-status")
        reason = STOPPED_BY_ITSELF.get(said.get("status"))
        if reason is not None and self.status.paused != reason:
            self.save(paused=int(reason))
        return bool(said.get("running"))

    def note_stop(self, said: str) -> None:
        """Write down that QEMU has stopped its guest for an error, or that it runs again, where there is room for it.

        Of a guest that moves this is not written: a destination's QEMU says of it what happened at its source.

        Args:
            said: QEMU's state.
        """
        if self.status.migration is not None:
            return
        reason = STOPPED_BY_ITSELF.get(said)
        is_new = reason in FOR_AN_ERROR and self.status.paused != reason
        if is_new or (said == "running" and self.status.paused in FOR_AN_ERROR):
            with contextlib.suppress(VirtError, OSError):
                self.save(paused=int(reason or 0))

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

    def reread(self) -> None:
        """Be as was last written down: what was begun since is not known to be done, for QEMU does not answer."""
        self.close()
        self.status = Status.parse(self._machines.statuses.read(self.name) or "")

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

    def note_written(self, number: int, path: str | None) -> None:
        """Remember how far an image was written that was just made; kept with the next :meth:`save`.

        libvirt has QEMU make it, whose statistics begin there.
        """
        with contextlib.suppress(OSError):
            written = f"{number}={os.stat(path or '').st_size}"
            self.status = self.status._replace(written=(*self.status.written, written))

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
