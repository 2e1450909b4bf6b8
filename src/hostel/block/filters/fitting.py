"""Requests cut and padded to what a driver accepts: alignment, and the largest transfer of each kind.

A write that is not aligned becomes read, modify, write. Such a write and all that overlaps it are done one after the
other; everything else runs beside them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from hostel.units import MiB

_ZEROES: Final = memoryview(bytes(MiB))


class Limits(NamedTuple):
    """What a driver accepts, all in bytes; 0 for no limit.

    Attributes:
        alignment: of every request; a power of two.
        zeroes_alignment: where zero writes are cut; what is smaller is written.
        discard_alignment: where discards are cut; what is smaller is left out where it is smaller than ``alignment``.
    """

    alignment: int = 1
    max_transfer: int = 0
    zeroes_alignment: int = 0
    max_zeroes: int = 0
    discard_alignment: int = 0
    max_discard: int = 0


class Target(Protocol):
    """Who gets the requests that fit."""

    def read_fitting(self, offset: int, buf: memoryview) -> None:
        """Read an aligned range."""

    def write_fitting(self, offset: int, data: memoryview) -> None:
        """Write an aligned range."""

    def zero_fitting(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero an aligned range."""

    def discard_fitting(self, offset: int, length: int) -> None:
        """Discard an aligned range."""


class _Request:
    __slots__ = ("alone", "end", "start")

    def __init__(self, start: int, end: int, alone: bool) -> None:
        self.start, self.end, self.alone = start, end, alone


class Fitting:
    """The requests to one target."""

    def __init__(self, target: Target, limits: Limits, on_event: Callable[[str], None]) -> None:
        self._target = target
        self._limits = limits
        self._event = on_event
        self._writes: list[_Request] = []
        self._done = threading.Condition()

    # ---- reading

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from any ``offset``."""
        align = self._limits.alignment
        head, tail = offset % align, -(offset + len(buf)) % align
        if not head and not tail:
            self._read(offset, buf)
            return
        whole = bytearray(head + len(buf) + tail)
        self._read(offset - head, memoryview(whole))
        buf[:] = whole[head : head + len(buf)]

    def _read(self, offset: int, buf: memoryview) -> None:
        for start, length in self._pieces(len(buf)):
            self._target.read_fitting(offset + start, buf[start : start + length])

    def _pieces(self, length: int) -> Iterator[tuple[int, int]]:
        step = self._limits.max_transfer or length
        for start in range(0, length, step):
            yield start, min(step, length - start)

    # ---- writing

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at any ``offset``."""
        align = self._limits.alignment
        head, tail = offset % align, -(offset + len(data)) % align
        with self._in_turn(offset - head, offset + len(data) + tail, alone=bool(head or tail)):
            if head or tail:
                before, after = self._surroundings(offset, len(data), head, tail)
                data = memoryview(b"".join((before, data, after)))
            self._write(offset - head, data)

    @contextlib.contextmanager
    def _in_turn(self, start: int, end: int, *, alone: bool) -> Iterator[None]:
        mine = _Request(start, end, alone)
        with self._done:
            # Only what is under way is waited for: one that waits itself may be overtaken, as in QEMU.
            self._done.wait_for(
                lambda: (
                    not any(each.start < end and start < each.end and (alone or each.alone) for each in self._writes)
                )
            )
            self._writes.append(mine)
        try:
            yield
        finally:
            with self._done:
                self._writes.remove(mine)
                self._done.notify_all()

    def _surroundings(self, offset: int, length: int, head: int, tail: int) -> tuple[bytes, bytes]:
        """Read what lies before and behind an unaligned write in its first and last block."""
        align = self._limits.alignment
        start, end = offset - head, offset + length + tail
        if end - start <= (2 * align if head and tail else align):
            # One block, or two that touch: one read serves both ends.
            self._tell("pwritev_rmw_head" if head else "", "pwritev_rmw_tail" if tail else "")
            block = bytearray(end - start)
            self._read(start, memoryview(block))
            self._tell("pwritev_rmw_after_head" if head else "", "pwritev_rmw_after_tail" if tail else "")
            return bytes(block[:head]), bytes(block[len(block) - tail :])
        first, last = bytearray(align if head else 0), bytearray(align if tail else 0)
        if head:
            self._event("pwritev_rmw_head")
            self._read(start, memoryview(first))
            self._event("pwritev_rmw_after_head")
        if tail:
            self._event("pwritev_rmw_tail")
            self._read(end - align, memoryview(last))
            self._event("pwritev_rmw_after_tail")
        return bytes(first[:head]), bytes(last[len(last) - tail :])

    def _tell(self, *events: str) -> None:
        for event in filter(None, events):
            self._event(event)

    def _write(self, offset: int, data: memoryview) -> None:
        self._event("pwritev")
        for start, length in self._pieces(len(data)):
            self._target.write_fitting(offset + start, data[start : start + length])
        self._event("pwritev_done")

    # ---- zeroes and holes

    def zero(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero any range: its unaligned ends by writing."""
        align = self._limits.alignment
        first, last = -(-offset // align) * align, (offset + length) // align * align
        if first > last or (first == last and offset != first and offset + length != last):
            self.write(offset, memoryview(bytes(length)))
            return
        if offset < first:
            self.write(offset, memoryview(bytes(first - offset)))
        if first < last:
            with self._in_turn(first, last, alone=False):
                self._event("pwritev_zero")
                self._zero(first, last - first, unmap=unmap)
                self._event("pwritev_done")
        if last < offset + length:
            self.write(last, memoryview(bytes(offset + length - last)))

    def zeroes_whole(self, offset: int, length: int) -> bool:
        """Whether a range is zeroed without writing its ends."""
        unit = max(self._limits.zeroes_alignment, self._limits.alignment)  # any multiple of the latter
        return not (offset % unit or length % unit)

    def _zero(self, offset: int, length: int, *, unmap: bool) -> None:
        unit = max(self._limits.zeroes_alignment, self._limits.alignment)
        for start, part in _cut(offset, length, unit, self._limits.max_zeroes):
            if part >= unit:
                self._target.zero_fitting(start, part, unmap=unmap)
                continue
            for done in range(0, part, step := min(len(_ZEROES), self._limits.max_transfer or len(_ZEROES))):
                self._target.write_fitting(start + done, _ZEROES[: min(step, part - done)])

    def discard(self, offset: int, length: int) -> None:
        """Discard a range; parts smaller than a block are left as they are."""
        align = self._limits.alignment
        unit = max(self._limits.discard_alignment, align)
        for start, part in _cut(offset, length, unit, self._limits.max_discard):
            # Of a part at an end, whole blocks; a guest that wants zeroes there writes them.
            first, last = -(-start // align) * align, (start + part) // align * align
            if first < last:
                with self._in_turn(first, last, alone=False):
                    self._target.discard_fitting(first, last - first)


def _cut(offset: int, length: int, unit: int, most: int) -> Iterator[tuple[int, int]]:
    """A range as a head up to a multiple of ``unit``, pieces of whole units, and a tail; none above ``most``."""
    end = offset + length
    largest = (most or length + unit) // unit * unit or unit
    while offset < end:
        if ahead := -offset % unit:
            part = min(ahead, end - offset)
        elif end - offset < unit:
            part = end - offset
        else:
            part = min((end - offset) // unit * unit, largest)
        yield offset, part
        offset += part
