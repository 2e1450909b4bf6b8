"""Making a volume's file so that its name appears only once it is complete.

A new volume is built under a temporary name beside its place and linked there at the end: no reader, and no crash,
ever finds half of one, and an existing file is never overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.storage.document import Permissions
from hostel.drivers.store import sync_directory
from hostel.errors import ErrorCode, ErrorDomain

_counter = itertools.count()
_TEMPORARY: Final = re.compile(r"\.hostel-(.+)-(\d+)-\d+\.new")
DEFAULT_MODE: Final = 0o600  # libvirt's VIR_STORAGE_DEFAULT_VOL_PERM_MODE
# What file systems without hard links answer.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})


@contextlib.contextmanager
def new_file(path: str, permissions: Permissions) -> Iterator[str]:
    """Make an empty file under a temporary name; when the block ends well it is at ``path``, and else it is gone.

    Raises:
        VirtError: ``STORAGE_VOL_EXIST``; something is at ``path``.
        OSError: the host refuses.
    """
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f".hostel-{os.uname().nodename}-{os.getpid()}-{next(_counter)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.close(descriptor)
        yield temporary
        apply_permissions(temporary, permissions, DEFAULT_MODE)
        try:
            _publish(temporary, path)
        except FileExistsError:
            raise fault(ErrorCode.STORAGE_VOL_EXIST, f"'{os.path.basename(path)}'", ErrorDomain.STORAGE) from None
    except OSError as error:
        if error.filename == temporary:
            error.filename = path  # whoever is told of it knows of no other
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_directory(Path(directory))


def is_temporary(name: str) -> bool:
    """Whether a file is a volume that is being made, or that was never finished."""
    return _TEMPORARY.fullmatch(name) is not None


def apply_permissions(path: str, permissions: Permissions, default_mode: int | None) -> None:
    """Give a file its owner, group and mode."""
    if permissions.owner is not None or permissions.group is not None:
        os.chown(
            path,
            -1 if permissions.owner is None else permissions.owner,
            -1 if permissions.group is None else permissions.group,
        )
    mode = default_mode if permissions.mode is None else permissions.mode
    if mode is not None:
        os.chmod(path, mode)


def sweep(directory: str) -> None:
    """Remove what processes of this host that are gone left half made."""
    for name in os.listdir(directory):
        match = _TEMPORARY.fullmatch(name)
        if match and match.group(1) == os.uname().nodename and not os.path.exists(f"/proc/{match.group(2)}"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))


def _publish(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Reserve the name first: replacing must not hit a file that somebody else just made.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(temporary, path)
