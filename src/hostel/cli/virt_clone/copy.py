"""A file copied byte for byte, with its holes, into a new one."""

from __future__ import annotations

import os

from hostel.block import graph
from hostel.errors import BlockError, UsageError
from hostel.img.convert import convert_into
from hostel.img.copy import CopySettings


def copy_file(source: str, target: str, *, sparse: bool) -> None:
    """Copy a file that no machine writes; where that fails, there is no target.

    Raises:
        UsageError: the source is in use or cannot be read, the target is there, or there is no room.
    """
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}") from None
    try:
        try:
            status = os.stat(source)
            os.fchmod(descriptor, status.st_mode & 0o777)
            os.ftruncate(descriptor, status.st_size)
            settings = CopySettings(reads_as_zeroes=sparse, min_sparse=4096 if sparse else 0)
            with graph.open(source, "raw", exclusive=True) as node:
                convert_into([node], graph.open(target, "raw", read_only=False), settings)
            os.ftruncate(descriptor, status.st_size)  # images are whole sectors, files need not be
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as error:
        os.unlink(target)
        if isinstance(error, BlockError | OSError):
            raise UsageError(f"{source} cannot be copied: {error}") from error
        raise
