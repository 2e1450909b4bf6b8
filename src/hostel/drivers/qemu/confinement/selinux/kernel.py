"""SELinux as the kernel shows it: files below ``/sys/fs/selinux`` and ``/proc``, and attributes of files."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ATTRIBUTE: Final = "security.selinux"
_FOLDER: Final = Path("/sys/fs/selinux")
_OWN: Final = Path("/proc/thread-self/attr")
_NONE: Final = (errno.ENODATA, errno.EOPNOTSUPP)


def is_on() -> bool:
    """Whether the kernel runs SELinux with a policy, and lets us see it."""
    try:
        return not os.statvfs(_FOLDER / "enforce").f_flag & os.ST_RDONLY and own_context() != "kernel"
    except OSError:
        return False


def enforces() -> bool:
    """Whether it refuses what the policy does not allow."""
    try:
        return (_FOLDER / "enforce").read_text().strip() == "1"
    except OSError:
        return False


def own_context() -> str:
    """That of this thread.

    Raises:
        OSError: there is none.
    """
    return (_OWN / "current").read_text().rstrip("\0\n")


def context_of_process(pid: int) -> str | None:
    """That of a process; None where it is gone, or has none."""
    try:
        return Path(f"/proc/{pid}/attr/current").read_text().rstrip("\0\n") or None
    except OSError:
        return None


def ranges_in_use() -> set[str]:
    """The range of every process of the host."""
    found: set[str] = set()
    for name in os.listdir("/proc"):
        if name.isdecimal() and (context := context_of_process(int(name))) is not None:
            found.add(":".join(context.split(":")[3:]))
    return found


def is_valid(context: str) -> bool:
    """Whether the policy knows a context."""
    try:
        with (_FOLDER / "context").open("r+b", buffering=0) as file:
            file.write(context.encode() + b"\0")
    except OSError:
        return False
    return True


def context_of(path: str | Path | int) -> str | None:
    """That of a file, by its path or its descriptor; None where it has none.

    Raises:
        OSError: the host refused.
    """
    try:
        return os.getxattr(path, ATTRIBUTE).rstrip(b"\0").decode()
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise


def label(path: str | Path | int, context: str) -> None:
    """Give a file a context.

    Raises:
        OSError: the host refused.
    """
    os.setxattr(path, ATTRIBUTE, context.encode() + b"\0")


def copy_label(source: Path, *targets: str | Path | int) -> None:
    """Give files the context of another one, as far as the host can; nothing where SELinux does not run."""
    if is_on():
        with contextlib.suppress(OSError):
            context = context_of(source)
            for target in targets if context is not None else ():
                label(target, context or "")


def label_pipes(source: Path, *descriptors: int) -> None:
    """Give those of these that are pipes the context of a file, as :func:`copy_label` does."""
    if descriptors and is_on():
        copy_label(source, *(item for item in descriptors if stat.S_ISFIFO(os.fstat(item).st_mode)))


def context_for_sockets(folder: Path) -> str | None:
    """That of our end of a socket of a machine, whose files are in a directory: ours, with its categories.

    None where SELinux does not run, or the directory has no range.
    """
    if not is_on():
        return None
    try:
        theirs, own = (context_of(folder) or "").split(":", 3), own_context().split(":", 3)
    except OSError:
        return None
    return ":".join([*own[:3], theirs[3]]) if len(theirs) == 4 else None


@contextlib.contextmanager
def sockets_as(context: str | None) -> Iterator[None]:
    """Have sockets that this thread makes meanwhile be of a context, which is ours where that is None."""
    if context is None or not is_on():
        yield
        return
    place = _OWN / "sockcreate"
    is_set = _write(place, context)
    try:
        yield
    finally:
        if is_set:
            _write(place, "")


def _write(place: Path, context: str) -> bool:
    try:
        with place.open("wb", buffering=0) as file:
            file.write(context.encode() or b"\n")
    except OSError:
        if enforces():
            raise
        return False
    return True


def usual_context(path: str, mode: int) -> str | None:
    """How the policy labels a path by default; None where it does not, or the library is not there.

    Args:
        path: the file.
        mode: its type and permissions.
    """
    from hostel.drivers.qemu.confinement.selinux.library import look_up

    return look_up(os.path.realpath(path), mode)
