"""The short way of a request: between a file that holds the disk as it is, and the guest's memory, and past all else.

A request costs two microseconds there, half of which are the host's; see ``docs/exports.md`` for what was
measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from hostel.block.host_file import HostFile
from hostel.units import SECTOR
from hostel.wire.virtio.blk import REQUEST, RequestType, Status
from hostel.wire.virtio.memory import GuestMemory
from hostel.wire.virtio.ring import NEXT, WRITE, Table

UNUSUAL: Final = -1

# Plain numbers: an operation on an enum's member takes longer than the rest of a request.
_IN, _OUT = int(RequestType.IN), int(RequestType.OUT)
_OK, _FAILED = int(Status.OK), int(Status.IOERR)
_HEAD: Final = REQUEST.size
_PART: Final = SECTOR - 1  # of a sector
# The usual request is a table of three descriptors: a header, one buffer of data and a status, each with its length,
# flags and next in one word. Of the buffer's word the length counts, and of the status' there is no next.
_USUAL: Final = 6
_HEAD_WORD: Final = _HEAD | NEXT << 32 | 1 << 48
_STATUS_WORD: Final = 1 | WRITE << 32
_TO_GUEST, _FROM_GUEST = NEXT | WRITE | 2 << 16, NEXT | 2 << 16
_LENGTH: Final = 0xFFFFFFFF
_WITHOUT_NEXT: Final = (1 << 48) - 1


def shortcut(file: HostFile, length: int, block_size: int) -> Callable[[GuestMemory, Table], int]:
    """The short way for a disk of ``length`` bytes in a file.

    Returns:
        What does a request, and tells how many bytes it wrote to the guest; :data:`UNUSUAL` where it did nothing,
        since the request is of another shape, touches what only the node may write, or came only half through.
    """
    fd, start, guarded = file.fd, file.start, file.guarded
    top = 0
    part_of_block = block_size - 1
    preadv, pwritev, read_head = os.preadv, os.pwritev, REQUEST.unpack_from

    def answer(memory: GuestMemory, table: Table) -> int:
        nonlocal top
        if len(table) != _USUAL:
            return UNUSUAL
        where, head_word, buffer, word, status, status_word = table
        low, high, view = memory.low, memory.high, memory.bytes
        count = word & _LENGTH
        if (
            head_word != _HEAD_WORD
            or status_word & _WITHOUT_NEXT != _STATUS_WORD
            or not low <= where <= high - _HEAD
            or not low <= status < high
            or not low <= buffer <= high - count
        ):
            return UNUSUAL
        kind, _, sector = read_head(view, where - low)
        offset = sector * SECTOR
        if not count or count & _PART or offset & part_of_block or offset + count > length:
            return UNUSUAL
        buffer -= low
        data, flags = view[buffer : buffer + count], word >> 32
        try:
            if kind == _IN and flags == _TO_GUEST:
                done, written = preadv(fd, (data,), start + offset), count + 1
            elif kind == _OUT and flags == _FROM_GUEST and offset >= guarded:
                done, written = pwritev(fd, (data,), start + offset), 1
                if offset + count > top:
                    top = offset + count
                    file.wrote(top)
            else:
                return UNUSUAL
        except OSError:
            view[status - low] = _FAILED
            return 1
        if done != count:
            return UNUSUAL
        view[status - low] = _OK
        return written

    return answer
