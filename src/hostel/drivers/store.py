"""Documents on disk that survive crashes: definitions, autostart marks, live state.

A :class:`Store` is one directory of named documents. A document is replaced by writing a temporary file beside it,
syncing it and renaming it over: a reader, or the next process after a kill at any moment, sees the old document or
the new one, whole. Every change happens under the directory's lock, which all processes of the user share.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import system_fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

SYSTEM_URI: Final = "qemu:///system"
_TEMPORARY = ".new"
_LOCK_POLL = 0.01  # seconds
_LOOKED_AT: Final = 1.0  # seconds for which those who look at a lock may keep others from taking it


class Directories(NamedTuple):
    """Where machines and all else are kept: a user's in the XDG layout, as libvirt's session daemon has it.

    Attributes:
        config: definitions, kept for ever.
        state: what describes running machines; may live in memory.
        cache: logs and what can be made again.
        data: volumes of pools that name no path.
    """

    config: Path
    state: Path
    cache: Path
    data: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Directories:
        """Read the XDG variables, or ``HOSTEL_HOME``, which puts everything under one directory."""
        if home := environ.get("HOSTEL_HOME"):
            return cls.under(Path(home))
        user = Path(environ.get("HOME") or Path.home())
        cache = Path(environ.get("XDG_CACHE_HOME") or user / ".cache") / "hostel"
        runtime = environ.get("XDG_RUNTIME_DIR")
        return cls(
            config=Path(environ.get("XDG_CONFIG_HOME") or user / ".config") / "hostel",
            state=Path(runtime) / "hostel" if runtime else cache / "run",
            cache=cache,
            data=Path(environ.get("XDG_DATA_HOME") or user / ".local/share") / "hostel",
        )

    @classmethod
    def system(cls) -> Directories:
        """Where the host's own are kept; none of it is libvirt's."""
        kept = Path("/var/lib/hostel")
        return cls(kept / "config", Path("/run/hostel"), Path("/var/cache/hostel"), kept / "images")

    @classmethod
    def of_uri(cls, uri: str | None, environ: Mapping[str, str]) -> Directories:
        """Where what a URI names is kept: root's ``qemu:///system`` is the host's, all else the user's."""
        is_system = uri is not None and uri.partition("?")[0] == SYSTEM_URI and os.geteuid() == 0
        return cls.system() if is_system and not environ.get("HOSTEL_HOME") else cls.from_environment(environ)

    @classmethod
    def under(cls, root: Path) -> Directories:
        """Put all four below one directory."""
        root = root.absolute()
        return cls(root / "config", root / "run", root / "cache", root / "data")


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` so that a crash at any moment leaves the old content or the new, whole.

    Raises:
        OSError: the host refused; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
                stream.write(text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_usable_name(name: str) -> bool:
    """Whether a document can have this name: 1 to 200 bytes of UTF-8, no ``/``, no NUL, no leading dot."""
    if not name or "/" in name or "\0" in name or name.startswith("."):
        return False
    try:
        return len(name.encode()) <= 200
    except UnicodeEncodeError:
        return False  # bytes of a command line that are not UTF-8


class NotText(VirtError, ValueError):
    """A document that is no UTF-8: the disk is damaged, or somebody else wrote it (``INTERNAL_ERROR``)."""

    def __init__(self, path: Path, error: UnicodeDecodeError) -> None:
        reason = f"internal error: '{path}' is broken: byte {error.start} is not UTF-8"
        super().__init__(ErrorCode.INTERNAL_ERROR, reason, domain=ErrorDomain.CONF)


class Store:
    """One directory of documents, ``<name><suffix>`` each; a name is the object's own.

    Calls raise ``SYSTEM_ERROR`` where the host refuses; what was there before is still there then.
    """

    def __init__(self, directory: Path, suffix: str = ".xml") -> None:
        self.directory = directory
        self.suffix = suffix

    def path(self, name: str) -> Path:
        """Where the document of ``name`` lies.

        Raises:
            VirtError: ``XML_ERROR`` when the name cannot be a file's.
        """
        if not is_usable_name(name):
            raise VirtError(
                ErrorCode.XML_ERROR,
                f"name {name!r} cannot be used: a name has 1 to 200 bytes of UTF-8, no '/' and no leading '.'",
                domain=ErrorDomain.CONF,
            )
        return self.directory / (name + self.suffix)

    @contextlib.contextmanager
    def locked(self, timeout: float = 30.0) -> Iterator[None]:
        """Hold the directory's lock against all other processes and threads, for at most a short while.

        Raises:
            VirtError: ``OPERATION_TIMEOUT`` when another process holds it for ``timeout`` seconds.
        """
        with _translated(f"cannot lock '{self.directory}'"):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, self.directory, timeout)
            yield
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Every document's name, sorted."""
        try:
            with _translated(f"cannot read '{self.directory}'"):
                entries = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        names = (entry.removesuffix(self.suffix) for entry in entries if entry.endswith(self.suffix))
        return sorted(name for name in names if is_usable_name(name))

    def read(self, name: str) -> str | None:
        """The document, or None when there is none.

        Raises:
            NotText: it is none.
        """
        path = self.path(name)
        try:
            with _translated(f"cannot read '{path}'"):
                return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise NotText(path, error) from None

    def has(self, name: str) -> bool:
        """Whether there is a document, whatever is in it."""
        path = self.path(name)
        with _translated(f"cannot read '{path}'"):
            return os.path.lexists(path)

    def write(self, name: str, text: str) -> None:
        """Add or replace a document; the caller holds the lock."""
        path = self.path(name)
        with _translated(f"cannot write '{path}'"):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, text)

    def remove(self, name: str) -> bool:
        """Remove a document; the caller holds the lock. False when there was none."""
        path = self.path(name)
        try:
            with _translated(f"cannot remove '{path}'"):
                path.unlink()
                sync_directory(self.directory)
        except FileNotFoundError:
            return False
        return True

    def sweep(self) -> None:
        """Remove temporary files that a killed process left; every writer of this store is kept out by a lock."""
        with contextlib.suppress(OSError):
            for entry in self.directory.iterdir():
                if entry.name.startswith(".") and entry.name.endswith(_TEMPORARY):
                    entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn the host's refusals into libvirt's error, but for a file that is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise system_fault(error, doing, ErrorDomain.CONF) from error


def _lock(descriptor: int, directory: Path, timeout: float) -> None:
    if not lock_within(descriptor, timeout):
        raise VirtError(
            ErrorCode.OPERATION_TIMEOUT,
            f"'{directory}' has been locked by another hostel process for {timeout:.0f} seconds",
        )


def lock_within(descriptor: int, timeout: float) -> bool:
    """Lock an open file against all other threads and processes, until it is closed; whether that went in the time.

    Args:
        descriptor: the file's.
        timeout: seconds.

    Raises:
        OSError: the host cannot lock it.
    """
    deadline = time.monotonic() + timeout
    while not _lock_now(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOCK_POLL)
    return True


def _lock_now(descriptor: int) -> bool:
    """Lock an open file unless somebody has it locked; who only looks at it (:func:`is_locked`) is waited for."""
    deadline = time.monotonic() + _LOOKED_AT
    while not _flock(descriptor):
        if not _flock(descriptor, shared=True) or time.monotonic() >= deadline:
            return False
        _unlock(descriptor)  # else two who want it would take each other for its holder
        time.sleep(_LOCK_POLL)
    return True


def _flock(descriptor: int, *, shared: bool = False) -> bool:
    import fcntl  # here, since clients of other hosts run where there is none

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _unlock(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)


def take_lock(path: Path) -> int | None:
    """A descriptor that holds a file's lock until it is closed; None where a process, this one or another, has it.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _lock_now(descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_locked(path: Path, *, shared: bool = False) -> bool:
    """Whether a process, this one or another, holds a file's lock; a file that is not there has none.

    Args:
        path: the file.
        shared: whether its holders share it. Else looking does, so that those who look do not see one another.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor, shared=not shared)
    finally:
        os.close(descriptor)
