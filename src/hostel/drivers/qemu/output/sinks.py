"""Where a machine's processes write to (``qemu.conf``: ``stdio_handler``).

``file``: files that nobody bounds, as QEMU itself opens them. ``logd``: pipes of libvirt's virtlogd, as libvirt has it
by itself. Where nothing is said, pipes of a program of ours (:mod:`~hostel.drivers.qemu.output.writer`), which does the
same with the same limits and needs no daemon.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import process
from hostel.drivers.qemu.command.context import Output
from hostel.drivers.qemu.conffile import load
from hostel.drivers.qemu.output import writer
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.character import CharacterEnd, CharacterType, Console
from hostel.model.domain.domain import Domain
from hostel.units import MiB

if TYPE_CHECKING:
    from hostel.drivers.qemu.libvirt_daemon import Connection, LibvirtDaemon

OWN: Final = "own"
FILE: Final = "file"
LOGD: Final = "logd"
_FIRST: Final = 20  # below it, the shell that starts QEMU has its own
_EMPTY: Final = 1  # virtlogd is to empty a file first
_MOST_BACKUPS: Final = 32  # VIR_MAX_MAX_BACKUP
_SECONDS: Final = 10.0
# Without the packages that are installed, it is there at once.
_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); import writer; writer.main(sys.argv[2:])"
SETS: Final = 1 << 16  # numbers of sets of descriptors from here on are not those of images


class Limits(NamedTuple):
    """``virtlogd.conf``, which says them for virtlogd and for us.

    Attributes:
        size: bytes of a file; 0 for any number.
        backups: how many older files are kept.
    """

    size: int = 2 * MiB
    backups: int = 3

    @classmethod
    def read(cls, directories: Directories) -> Limits:
        """Read them.

        Raises:
            VirtError: the file cannot be read as one.
        """
        file = load(directories, "virtlogd.conf")
        found = cls(file.number("max_size", cls().size), file.number("max_backups", cls().backups))
        if found.backups > _MOST_BACKUPS:
            raise file.wrong(f"Max backup {found.backups} must be less than or equal to {_MOST_BACKUPS}")
        return found


class Sinks:
    """Opens what one machine writes to; closes its own ends when it is left.

    Args:
        kind: which of the three.
        directories: the session's.
        domain: the machine's document.
        run: the directory of its run.
    """

    def __init__(self, kind: str, directories: Directories, domain: Domain, run: Path) -> None:
        self._kind = kind
        self._directories = directories
        self._domain = domain
        self._run = run
        self._closing = contextlib.ExitStack()
        self._copied: list[tuple[int, int, str]] = []  # a pipe, a file, its path
        self._daemon: Connection | None = None

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def characters(self, first: int = SETS, only: CharacterEnd | None = None) -> dict[str, Output]:
        """What stands for files that character devices write to, by ``ALIAS-source`` and ``ALIAS-log``.

        Nothing does so where QEMU is to open them.

        Args:
            first: the number of the first set of descriptors.
            only: the one device that it is about.

        Raises:
            VirtError: one cannot be opened, or virtlogd does not open it.
        """
        found: dict[str, Output] = {}
        if self._kind == FILE:
            return found
        for end in self._domain.devices.characters() if only is None else [only]:
            for name, path, append in _files(end):
                found[name] = Output(first + len(found), self.open(path, append=append))
        return found

    def open(self, path: str, *, append: bool = True) -> int:
        """A descriptor of at least 20 for what goes into a file.

        Raises:
            VirtError: ``SYSTEM_ERROR``: it cannot be opened; virtlogd's own.
        """
        try:
            if self._kind == LOGD:
                return self._by_daemon(path, append=append)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if append else os.O_TRUNC)
            file = self._keep(os.open(path, flags, 0o600))
            if self._kind == FILE:
                return file
            reads, writes = os.pipe()
            self._copied.append((self._keep(reads), file, path))
            return self._keep(writes)
        except OSError as error:
            raise system_fault(error, f"Unable to open file: {path}", ErrorDomain.QEMU, path=path) from error

    def _keep(self, file: int) -> int:
        """A copy with a number that may go through a shell, closed in the end; what is given is closed now."""
        try:
            copy = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FIRST)
        finally:
            os.close(file)
        self._closing.callback(os.close, copy)
        return copy

    def _by_daemon(self, path: str, *, append: bool) -> int:
        if self._daemon is None:
            self._daemon = self._closing.enter_context(_virtlogd(self._directories).connected())
        named = (uuid.UUID(self._domain.uuid).bytes, self._domain.name)
        answer = self._daemon.call("open_log_file", "qemu", named, path, 0 if append else _EMPTY)
        if len(answer.fds) != 1:
            for file in answer.fds:
                os.close(file)
            raise fault(ErrorCode.INTERNAL_ERROR, "virtlogd gave no file descriptor", ErrorDomain.QEMU)
        return self._keep(answer.fds[0])

    def begin(self) -> None:
        """Have copied what is written from now on.

        Raises:
            VirtError: ``SYSTEM_ERROR``: the host starts no process for it; the limits cannot be read.
        """
        if not self._copied:
            return
        limits = Limits.read(self._directories)
        words = [str(word) for row in self._copied for word in row]
        program = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(Path(writer.__file__).parent)]
        command = [*program, str(limits.size), str(limits.backups), *words]
        lock = os.open(self._run / process.WRITER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Whoever wants to read it all waits until this is let go of: by the program's end.
            fcntl.flock(lock, fcntl.LOCK_SH)
            # The shell ends at once, so that the program is nobody's zombie here.
            subprocess.run(
                ["sh", "-c", '"$@" & exit 0', "start", *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", env={},
                start_new_session=True, check=True, timeout=_SECONDS,
                pass_fds=[lock, *(file for pipe, file, _ in self._copied), *(pipe for pipe, _, _ in self._copied)],
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            reason = error if isinstance(error, OSError) else OSError(str(error))
            raise system_fault(reason, "cannot start what writes the machine's log", ErrorDomain.QEMU) from error
        finally:
            os.close(lock)
        self._copied.clear()


def replaces_files(kind: str) -> bool:
    """Whether QEMU is given descriptors in place of files that character devices write to."""
    return kind in (OWN, LOGD)


def settle(kind: str, directories: Directories, run: Path, log: Path) -> None:
    """Wait until what processes that have ended have said is in the log, as far as that comes at all."""
    if kind == OWN:
        process.wait_written(run)
    if kind == LOGD:
        with contextlib.suppress(VirtError), _virtlogd(directories).connected() as daemon:
            daemon.call("get_log_file_position", str(log), 0)  # before which it reads what there is


def _virtlogd(directories: Directories) -> LibvirtDaemon:
    from hostel.drivers.qemu.libvirt_daemon import LibvirtDaemon, folder_of
    from hostel.wire.rpc.programs import LOG_MANAGER

    is_privileged = os.geteuid() == 0
    folder = folder_of(directories, is_privileged=is_privileged)
    return LibvirtDaemon("virtlogd", LOG_MANAGER, ErrorDomain.RPC, folder, is_privileged)


def _files(end: CharacterEnd) -> Iterator[tuple[str, str, bool]]:
    """The files that QEMU would open for an end to write to: what they are called here, and whether they are kept."""
    if end.alias is None or (isinstance(end, Console) and end.target is not None and end.target.type == "serial"):
        return  # the console is a serial port, which has it
    source = end.source
    if getattr(end, "type", None) == CharacterType.FILE and source is not None and source.path:
        yield f"{end.alias}-source", source.path, bool(source.append)
    if end.log is not None:
        yield f"{end.alias}-log", end.log.file, bool(end.log.append)
