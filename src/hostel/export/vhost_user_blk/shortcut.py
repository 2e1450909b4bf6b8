"""The short way of a request: between a file that holds the disk as it is, and the guest's memory, and past all else.

A request costs two microseconds there, half of which are the host's; see ``docs/vhost-user-blk.md`` for what was
measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from hostel.export.host_file import HostFile
from hostel.units import SECTOR
from hostel.wire.virtio.blk import REQUEST, RequestType, Status
from hostel.wire.virtio.memory import GuestMemory
from hostel.wire.virtio.ring import NEXT, WRITE, Table

UNUSUAL: Final = -1

# Plain numbers: an operation on an enum's member takes longer than the rest of a request.
_IN, _OUT = int(RequestType.IN), int(RequestType.OUT)
_OK, _FAILED = int(Status.OK), int(Status.IOERR)
_HEAD: Final = REQUEST.size
# The usual request: a header, one buffer of data and a status, as a table of three descriptors: how many numbers that
# are, and what some of them must be.
_USUAL: Final = 12
_SHAPE: Final = (_HEAD, NEXT, 1, 2, 1, WRITE)
_TO_GUEST, _FROM_GUEST = NEXT | WRITE, NEXT


def shortcut(file: HostFile, length: int, block_size: int) -> Callable[[GuestMemory, Table], int]:
    """The short way for a disk of ``length`` bytes in a file.

    Returns:
        What does a request, and tells how many bytes it wrote to the guest; :data:`UNUSUAL` where it did nothing,
        since the request is of another shape, touches what only the node may write, or came only half through.
    """
    fd, start, guarded = file
    preadv, pwritev, read_head = os.preadv, os.pwritev, REQUEST.unpack_from

    def answer(memory: GuestMemory, table: Table) -> int:
        if len(table) != _USUAL:
            return UNUSUAL
        where, size, head_flags, second, buffer, count, flags, third, status, room, last, _ = table
        low, high, view = memory.low, memory.high, memory.bytes
        usual = (size, head_flags, second, third, room, last) == _SHAPE
        if not (usual and low <= where <= high - _HEAD and low <= status < high and low <= buffer <= high - count):
            return UNUSUAL
        kind, _, sector = read_head(view, where - low)
        offset = sector * SECTOR
        if not count or count % SECTOR or offset % block_size or offset + count > length:
            return UNUSUAL
        data = view[buffer - low : buffer - low + count]
        try:
            if kind == _IN and flags == _TO_GUEST:
                done, written = preadv(fd, (data,), start + offset), count + 1
            elif kind == _OUT and flags == _FROM_GUEST and offset >= guarded:
                done, written = pwritev(fd, (data,), start + offset), 1
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
