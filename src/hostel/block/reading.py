"""Reading what an image is opened with: where that fails, the error says what was read, in QEMU's words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from hostel.block.node import BlockNode
from hostel.errors import BlockError
from hostel.units import SECTOR


@contextlib.contextmanager
def reading(failure: str, *, reason: bool = True) -> Iterator[None]:
    """Around reads of a header or a table, and nothing that looks at what was read.

    Args:
        failure: what QEMU says where it cannot be read.
        reason: QEMU says the errno's text behind it; else that is the hint.

    Raises:
        BlockError: it cannot be read.
    """
    try:
        yield
    except OSError as error:
        if reason:
            from hostel.cause import failed

            raise failed(failure, error) from error
        code = error.errno or errno.EIO
        raise BlockError(failure, errno=code, hint=f"{os.strerror(code)}.") from error


def read_or_say(file: BlockNode, offset: int, length: int, failure: str, *, reason: bool = True) -> bytes:
    """Read bytes of a header or a table; see :func:`reading`.

    Raises:
        BlockError: it cannot be read.
    """
    with reading(failure, reason=reason):
        return bytes(file.read(offset, length))


def read_as_far(file: BlockNode, offset: int, length: int, failure: str) -> tuple[bytes, BlockError | None]:
    """Read bytes of which the last ones need not be there; where a part cannot be read what lies before it, and why.

    Raises:
        BlockError: nothing can be read, or the failure came and went.
    """
    try:
        return read_or_say(file, offset, length, failure), None
    except BlockError as error:
        told = error
    head = b""
    with contextlib.suppress(OSError):
        while len(head) < length:
            at = offset + len(head)
            head += bytes(file.read(at, min(SECTOR - at % SECTOR, length - len(head))))
    if len(head) in (0, length):
        raise told
    return head, told
