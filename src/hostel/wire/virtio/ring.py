"""The split virtqueue, device side (virtio 1.2, section 2.7).

The driver's three tables lie in memory that it may change at any moment, in good faith or bad. So each word is read
once, each address and index is checked, and a chain has an end: what breaks the rules raises, and the device is then
broken until the driver starts anew. Requests come out as numbers; :meth:`SplitRing.buffers` finds their bytes.

The tables are little-endian, and are read as the host's own integers: :data:`SUPPORTED` says whether that is right.
"""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hostel.errors import RemoteProtocolError
from hostel.wire.virtio.memory import GuestMemory

SUPPORTED: Final = sys.byteorder == "little"
MAX_SIZE: Final = 32768  # entries of a queue
MAX_INDIRECT: Final = 1024  # entries of an indirect table, as QEMU's VIRTQUEUE_MAX_SIZE

DESCRIPTOR_SIZE: Final = 16
NEXT: Final = 1  # VIRTQ_DESC_F_NEXT
WRITE: Final = 2  # VIRTQ_DESC_F_WRITE: the device writes
INDIRECT: Final = 4  # VIRTQ_DESC_F_INDIRECT
_NO_INTERRUPT: Final = 1  # VIRTQ_AVAIL_F_NO_INTERRUPT
_NO_NOTIFY: Final = 1  # VIRTQ_USED_F_NO_NOTIFY
_MASK: Final = 0xFFFF
_LENGTH: Final = 0xFFFFFFFF
_NEXT_BIT: Final = NEXT << 32
_INDIRECT_BIT: Final = INDIRECT << 32
_NOT_NEXT: Final = (1 << 48) - 1


# A table of descriptors as one flat tuple: of each its address, and a word with its length, flags and next from the
# lowest bit on, 32, 16 and 16 of them. A request is its head, by which the driver knows it, and a table whose chain
# begins with the first entry.
Table = tuple[int, ...]
Chain = tuple[int, Table]


class _Tables(dict[int, Callable[..., Table]]):
    """Readers of tables by how many descriptors they have."""

    def __missing__(self, count: int) -> Callable[..., Table]:
        self[count] = reader = struct.Struct(f"<{2 * count}Q").unpack_from
        return reader


_TABLES: Final = _Tables()
_DESCRIPTOR: Final = _TABLES[1]
_barrier: Final = threading.Lock()


def fence() -> None:
    """Order what this processor wrote before with what it reads after: taking a lock is a full barrier."""
    with _barrier:
        pass


class Addresses(NamedTuple):
    """Where the tables are, in the addresses of the process that shares the memory."""

    descriptors: int
    available: int
    used: int


class SplitRing:
    """One queue.

    Args:
        memory: the guest's.
        size: entries, a power of two.
        addresses: where the tables are.
        base: the index of the first entry that was not taken yet.
        event_index: VIRTIO_F_EVENT_IDX was agreed on.
        indirect: VIRTIO_F_INDIRECT_DESC was.

    Attributes:
        memory: the guest's, looked up by this queue alone.
        taken: the index of the next entry to take (vhost's last avail index).

    Raises:
        RemoteProtocolError: the size is none, or a table is not in memory or not aligned.
    """

    def __init__(
        self,
        memory: GuestMemory,
        size: int,
        addresses: Addresses,
        base: int,
        *,
        event_index: bool,
        indirect: bool,
    ) -> None:
        check_size(size)
        for name, address, alignment in zip(addresses._fields, addresses, (16, 2, 4), strict=True):
            if address % alignment:
                raise RemoteProtocolError(f"the {name} of a queue are at {address:#x}, which is not aligned")
        self.memory = GuestMemory(memory)  # which remembers where was looked last, for one thread
        self._size = size
        self._descriptors = memory.at_user(addresses.descriptors, DESCRIPTOR_SIZE * size)
        self._available = memory.at_user(addresses.available, 4 + 2 * size + 2 * event_index).cast("H")
        used = memory.at_user(addresses.used, 4 + 8 * size + 2 * event_index)
        self._used_head = used[:4].cast("H")
        self._used = used[4 : 4 + 8 * size].cast("I")
        self._available_event = used[4 + 8 * size :].cast("H")
        self._event_index = event_index
        self._indirect = indirect
        self.taken = base & _MASK
        # A driver that goes on with a queue has seen what is there.
        self._put = self._told = self._used_head[1]

    def has_more(self) -> bool:
        """Whether the driver has made something available that was not taken."""
        return self._available[1] != self.taken

    def waiting(self) -> int:
        """How many chains the driver has made available that were not taken, as far as it can be believed."""
        return (self._available[1] - self.taken) & _MASK

    def take(self, most: int) -> list[Chain]:
        """Take up to so many chains.

        Raises:
            RemoteProtocolError: the driver broke the rules.
        """
        available, taken, size = self._available, self.taken, self._size
        count = (available[1] - taken) & _MASK
        if count > size:
            raise RemoteProtocolError(f"{count} entries are available in a queue of {size}")
        fence()
        mask, chain = size - 1, self._chain
        chains = []
        for index in range(taken, taken + (count if count < most else most)):
            chains.append(chain(available[2 + (index & mask)]))  # noqa: PERF401  # a comprehension is a call more
        self.taken = (taken + len(chains)) & _MASK
        return chains

    def _chain(self, head: int) -> Chain:
        """Read the descriptors of one request."""
        if head >= self._size:
            raise RemoteProtocolError(f"descriptor {head} is beyond a queue of {self._size}")
        address, word = first = _DESCRIPTOR(self._descriptors, DESCRIPTOR_SIZE * head)
        if not word & _INDIRECT_BIT:
            return head, self._direct(first)
        length, memory = word & _LENGTH, self.memory
        if not self._indirect or word & _NEXT_BIT:
            raise RemoteProtocolError("an indirect table is not allowed here")
        if not length or length % DESCRIPTOR_SIZE or length > MAX_INDIRECT * DESCRIPTOR_SIZE:
            raise RemoteProtocolError(f"an indirect table has {length} bytes")
        if memory.low <= address and address + length <= memory.high:
            return head, _TABLES[length // DESCRIPTOR_SIZE](memory.bytes, address - memory.low)
        return head, _TABLES[length // DESCRIPTOR_SIZE](memory.view(address, length))

    def _direct(self, first: Table) -> Table:
        """The descriptors of a chain in the queue's own table, as a table of their own."""
        found = [*first]
        for index in range(1, self._size + 1):
            word = found[-1]
            if not word & _NEXT_BIT:
                return tuple(found)
            position = word >> 48
            if position >= self._size:
                raise RemoteProtocolError(f"descriptor {position} is beyond a queue of {self._size}")
            found[-1] = (word & _NOT_NEXT) | index << 48
            found += _DESCRIPTOR(self._descriptors, DESCRIPTOR_SIZE * position)
        raise RemoteProtocolError("a chain of descriptors has no end")

    def buffers(self, table: Table) -> tuple[list[memoryview], list[memoryview]]:
        """What a request's chain names: buffers that the device reads, and buffers that it writes.

        Raises:
            RemoteProtocolError: the chain has no end or leaves its table, or a buffer is none.
        """
        readable, writable = list[memoryview](), list[memoryview]()
        position, count = 0, len(table) // 2
        for _ in range(count):
            address, word = table[2 * position : 2 * position + 2]
            length, flags, position = word & _LENGTH, word >> 32, word >> 48
            if flags & INDIRECT or not length:
                raise RemoteProtocolError("a buffer has no bytes" if not length else "a table is within another")
            if not flags & WRITE and writable:
                raise RemoteProtocolError("a buffer to read comes after one to write")
            (writable if flags & WRITE else readable).extend(self.memory.views(address, length))
            if not flags & NEXT:
                return readable, writable
            if position >= count:
                raise RemoteProtocolError(f"descriptor {position} is beyond a table of {count}")
        raise RemoteProtocolError("a chain of descriptors has no end")

    def put(self, done: Sequence[tuple[int, int]]) -> None:
        """Hand chains back: the head of each, and how many bytes were written to it."""
        used, put, mask = self._used, self._put, self._size - 1
        for head, written in done:
            place = 2 * (put & mask)
            used[place] = head
            used[place + 1] = written
            put += 1
        self._put = put & _MASK
        fence()
        self._used_head[1] = self._put

    def must_call(self) -> bool:
        """Whether the driver wants to hear of what was put since it was last asked."""
        fence()
        told, self._told = self._told, self._put
        if told == self._put:
            return False
        if not self._event_index:
            return not self._available[0] & _NO_INTERRUPT
        event = self._available[2 + self._size]
        return (self._put - event - 1) & _MASK < (self._put - told) & _MASK

    def want_kicks(self) -> bool:
        """Ask to be kicked; False where something has come meanwhile, for which there may be no kick."""
        if self._event_index:
            self._available_event[0] = self.taken
        else:
            self._used_head[0] = 0
        fence()
        return not self.has_more()

    def refuse_kicks(self) -> None:
        """Tell the driver that kicks are not needed; with event indexes it does not hear of anything new."""
        if not self._event_index:
            self._used_head[0] = _NO_NOTIFY


def check_size(size: int) -> None:
    """Refuse a queue's size.

    Raises:
        RemoteProtocolError: it is no power of two, or too large.
    """
    if not 0 < size <= MAX_SIZE or size & (size - 1):
        raise RemoteProtocolError(f"a queue cannot have {size} entries")
