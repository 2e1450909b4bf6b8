"""What one export is: a node, how it is called, and what clients may do with it."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Mapping
from typing import Final

from hostel.block.chain import held, rounded_length
from hostel.block.gate import BYPASS
from hostel.block.host_file import HostFile, host_file
from hostel.block.node import BlockNode
from hostel.errors import BlockError
from hostel.export.nbd.context import (
    AllocationDepth,
    BaseAllocation,
    BitmapContext,
    Bits,
    Described,
    MetaContext,
    gather,
)
from hostel.units import SECTOR, KiB
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import ExportFlag, Offer

_PREFETCH: Final = 256 * KiB  # bytes read at once to have them cached
_MOST_MINIMUM: Final = 64 * KiB  # bytes; the protocol's limit


class NbdExport:
    """An image as clients see it; used by every connection's thread.

    Args:
        node: the image, which stays its owner's to close.
        name: the export's name.
        description: for people; None for none.
        writable: clients may write.
        shared: clients may use several connections at once.
        allocation_depth: offer ``qemu:allocation-depth``.
        bitmaps: offer these, by their names.

    Attributes:
        contexts: meta contexts by their ids.
    """

    def __init__(
        self,
        node: BlockNode,
        name: str = "",
        *,
        description: str | None = None,
        writable: bool = True,
        shared: bool = False,
        allocation_depth: bool = False,
        bitmaps: Mapping[str, Bits] | None = None,
    ) -> None:
        self.node = node
        self.name = name
        self.writable = writable and not node.read_only
        self._description = description
        self._minimum = SECTOR if node.probed and node.format == "raw" else _least_block(node.driver.request_alignment)
        self.contexts: list[MetaContext] = [BaseAllocation(node, self._minimum)]
        if allocation_depth:
            self.contexts.append(AllocationDepth(node))
        self.contexts += [BitmapContext(name, bitmap, self._minimum) for name, bitmap in (bitmaps or {}).items()]
        self._flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_CACHE
        if shared:
            # A flush on one connection covers the writes of all: they share the node.
            self._flags |= ExportFlag.CAN_MULTI_CONN
        if self.writable:
            self._flags |= ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_FAST_ZERO
        else:
            self._flags |= ExportFlag.READ_ONLY

    def offer(self) -> Offer:
        """What the handshake says; the size is the node's at this moment, in whole sectors."""
        size = rounded_length(self.node)
        minimum = _least_block(math.gcd(self._minimum, size))  # clients refuse an export that is no whole blocks
        return Offer(
            self.name,
            size,
            self._flags,
            self._description,
            minimum=minimum,
            preferred=max(protocol.PREFERRED, minimum),
            contexts=tuple(context.name for context in self.contexts),
        )

    def host_file(self) -> HostFile | None:
        """The file that may be read and written past the node; None where the node has more to do than pass on.

        Flushing, zeroing and trimming stay the node's. While a graph is being changed there is none.
        """
        return None if BYPASS.changing.holder else host_file(self.node, writable=self.writable)

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer."""
        self.node.pread(offset, buffer)

    def write(self, offset: int, data: memoryview) -> None:
        """Write."""
        self.node.pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fast: bool) -> None:
        """Zero a range.

        Raises:
            BlockError: ENOTSUP, where ``fast`` forbids what would take as long as writing.
        """
        if fast and not self.node.zeroes_fast(offset, length, unmap=may_unmap):
            raise BlockError("zeroing would take as long as writing", errno=errno.ENOTSUP)
        self.node.write_zeroes(offset, length, unmap=may_unmap)

    def trim(self, offset: int, length: int) -> None:
        """Give a range's space back, where the node does."""
        self.node.discard(offset, length)

    def flush(self) -> None:
        """Make completed writes survive a power cut."""
        self.node.flush()

    def cache(self, offset: int, length: int) -> None:
        """Read a range, so that reading it again is fast."""
        generation, file = BYPASS.generation, self.host_file()
        if file is not None:
            with file.gate:
                if generation == BYPASS.generation:
                    os.posix_fadvise(file.fd, file.start + offset, length, os.POSIX_FADV_WILLNEED)
                    return
        buffer = memoryview(bytearray(min(length, _PREFETCH)))
        for start in range(0, length, _PREFETCH):
            self.node.pread(offset + start, buffer[: min(_PREFETCH, length - start)])

    def status(self, context: int, offset: int, length: int, *, one: bool, extended: bool) -> list[Described]:
        """What a context says of a range, from its start on and as far as one reply can hold."""
        with held(self.node):
            return gather(
                self.contexts[context].extents(offset, length),
                most=1 if one else protocol.MAX_STATUS,
                longest=2**63 - 1 if extended else 2**32 - 1,
            )

    def pieces(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Lengths that cover a range, and whether each is known to read as zeroes."""
        with held(self.node):
            found = gather(self.contexts[0].extents(offset, length), most=protocol.MAX_STATUS, longest=length)
        return [(size, bool(flags & protocol.STATE_ZERO)) for size, flags in found]


def _least_block(unit: int) -> int:
    """The largest block that clients can be told to keep to, of which a number of bytes is a multiple."""
    return min(unit & -unit, _MOST_MINIMUM)
