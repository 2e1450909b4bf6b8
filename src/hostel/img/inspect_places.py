"""Which places of a file are taken: by metadata, and by the blocks that the entries of a table lead to.

No two blocks of a sound image share a byte, and none lies on metadata. That is found exactly, within bounds of memory
and time: a number is kept for each block's length of the file, and a stretch of a table that leads to one place behind
the other is looked at as one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from hostel.codec.table import unpack_table
from hostel.img.inspection import Level, Look
from hostel.units import MiB

MOST_READ: Final = 256 * MiB  # bytes of tables of a second level: 2 TiB in clusters of 64 KiB
MOST_TABLE: Final = 16 * MiB  # bytes that are looked at of a block table
_MOST_CELLS: Final = 16 * MiB  # bytes of what is known of places
_MOST_SINGLE: Final = 1 << 22  # entries of an image that are looked at one by one
_MOST_OWNED: Final = 1 << 17  # ranges of metadata that entries are held against
_MOST_PLACE: Final = (1 << 64) - 1  # what is said to lie beyond cannot be in a file
_PIECE: Final = MiB // 4  # bytes of a table read at once
_ROW: Final = 512  # entries that are looked at as one where they lead to one place behind the other


_METADATA: Final = "metadata"  # what a range is called that holds others, which have names


class Owned(NamedTuple):
    """A range of the file that holds metadata, bytes."""

    start: int
    end: int
    what: str

    def length(self) -> int:
        """Bytes."""
        return self.end - self.start


class Metadata:
    """The ranges of a file that hold metadata.

    Args:
        look: of the image.
        owned: ranges with names of their own; those of no bytes are left out.
        tables: where tables lie that have one length.
        length: of each of the tables, bytes.
        what: they are called.
    """

    def __init__(
        self, look: Look, owned: Iterable[Owned], tables: Iterable[int] = (), length: int = 0, what: str = ""
    ) -> None:
        self._owned = sorted(each for each in owned if each.length() > 0)
        self._tables = array("Q", sorted(tables))
        self._length = length
        self._what = what
        if len(self._tables) > _MOST_OWNED:
            look.add(
                Level.WARNING,
                "large-table",
                f"There are {len(self._tables)} tables, and entries were not held against all of them",
            )
            del self._tables[_MOST_OWNED:]
        self._join()

    def _join(self) -> None:
        """Keep the ranges without their names, as one those that touch."""
        self._starts, self._ends = array("Q"), array("Q")
        for start, end, _ in self._all():
            start, end = min(start, _MOST_PLACE), min(end, _MOST_PLACE)
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def widen(self, start: int, end: int) -> None:
        """Let a range of the file be metadata whatever of it has a name."""
        self._owned = sorted([*self._owned, Owned(start, end, _METADATA)])
        self._join()

    def _all(self) -> Iterator[tuple[int, int, int]]:
        """Start, end and the number of the owned range, -1 for a table; by their starts."""
        at = 0
        for table in self._tables:
            while at < len(self._owned) and self._owned[at].start <= table:
                yield *self._owned[at][:2], at
                at += 1
            yield table, table + self._length, -1
        for number in range(at, len(self._owned)):
            yield *self._owned[number][:2], number

    def _name(self, start: int, number: int) -> str:
        return self._owned[number].what if number >= 0 else f"{self._what} at byte {start}"

    def overlap(self) -> str | None:
        """What is wrong where two of the ranges lie on each other."""
        before = (0, 0, -1)
        for each in self._all():
            if each[0] < before[1]:
                first, second = self._name(before[0], before[2]), self._name(each[0], each[2])
                return f"The {second} and the {first} lie on each other, at byte {each[0]}"
            before = each
        return None

    def holds(self, start: int, length: int) -> bool:
        """Whether any of the ranges has a byte of this one."""
        at = bisect_right(self._ends, start)
        return at < len(self._ends) and self._starts[at] < start + length

    def name(self, start: int, length: int) -> str:
        """What lies in a range that :meth:`holds` something."""
        found = (
            self._name(first, number) for first, end, number in self._all() if first < start + length and start < end
        )
        return next((each for each in found if each != _METADATA), _METADATA)


class Blocks:
    """The blocks of a file that entries have led to so far.

    Args:
        look: of the image.
        size: of a block, bytes.
        unit: what a place is counted in, bytes.
        is_place: whether an entry leads to a block at all.
        shift: the bits of an entry below its place.
        metadata: what no block may lie on.
    """

    def __init__(
        self,
        look: Look,
        size: int,
        unit: int,
        is_place: Callable[[int], bool],
        *,
        shift: int = 0,
        metadata: Metadata | None = None,
    ) -> None:
        self._look = look
        self._units = size // unit
        self._size, self._unit, self._shift = size, unit, shift
        self._is_place = is_place
        self._metadata = metadata or Metadata(look, ())
        # Of each cell, a block's length of the file, where in it a block begins, counted from 1; two cannot.
        typecode = "B" if self._units < 1 << 8 else "H" if self._units < 1 << 16 else "I"
        self._count = -(-look.length // size)
        most = _MOST_CELLS // array(typecode).itemsize
        if self._count > most:
            look.add(Level.NOTE, "large-table", f"Of {self._count} places in the file only {most} were looked at")
            self._count = most
        self._taken = array(typecode, bytes((self._count + 2) * array(typecode).itemsize))  # and one at each end
        self._left = _MOST_SINGLE

    def wrong(self, entries: array[int]) -> tuple[int, str] | None:
        """The first of a table's entries that leads to metadata, or to another one's block: its index, and where to."""
        for start in range(0, len(entries), _ROW):
            row = entries[start : start + _ROW]
            if self._is_row(row):
                continue
            for index, entry in enumerate(row, start):
                if self._is_place(entry) and (said := self._wrong(entry >> self._shift)) is not None:
                    return index, said
            if self.spend(len(row)):
                return None
        return None

    def spend(self, count: int) -> bool:
        """Count entries that were looked at one by one; whether that were as many as may be, which is told."""
        was, self._left = self._left, self._left - count
        if self._left < 0 <= was:
            message = f"Only {_MOST_SINGLE} entries that lead to places in no order were looked at"
            self._look.add(Level.NOTE, "large-table", message)
        return self._left < 0

    def _is_row(self, row: array[int]) -> bool:
        """Whether entries are all empty, or lead to one place behind the other, of which none was taken."""
        first, last, count = row[0], row[-1], len(row)
        if first == last and row == row[:1] * count and not self._is_place(first):
            return True
        step = self._units << self._shift
        if last - first != (count - 1) * step or not (self._is_place(first) and self._is_place(last)):
            return False
        place = first >> self._shift
        if row != array(row.typecode, range(first, last + 1, step)) or self._metadata.holds(
            place * self._unit, count * self._size
        ):
            return False
        cell, rest = divmod(place, self._units)
        stop = min(cell + count, self._count) + 1
        if cell + 1 >= stop:
            return True  # beyond the file's end
        taken = self._taken
        if taken[cell] > rest + 1 or 0 < taken[stop] <= rest or any(taken[cell + 1 : stop].tobytes()):
            return False
        taken[cell + 1 : stop] = array(taken.typecode, [rest + 1]) * (stop - cell - 1)
        return True

    def _wrong(self, place: int) -> str | None:
        if self._metadata.holds(place * self._unit, self._size):
            return f"the {self._metadata.name(place * self._unit, self._size)}"
        cell, rest = divmod(place, self._units)
        if cell >= self._count:
            return None  # beyond the file's end
        taken = self._taken
        here = taken[cell + 1]
        if here == rest + 1:
            return "another one's place"
        if here or taken[cell] > rest + 1 or 0 < taken[cell + 2] <= rest:
            return "a place across another one's"
        taken[cell + 1] = rest + 1
        return None

    def covers(self, place: int, length: int) -> bool:
        """Whether a block lies on a range of at most a block's length; both in units."""
        cell, rest = divmod(place, self._units)
        if cell >= self._count:
            return False
        before, here, after = self._taken[cell : cell + 3]
        return (
            before > rest + 1
            or 0 < here <= rest + length
            or (rest + length > self._units and 0 < after <= rest + length - self._units)
        )


def pieces(look: Look, offset: int, count: int, typecode: str, order: str) -> Iterator[tuple[int, array[int]]]:
    """A block table's entries, piece by piece, each with the index of its first."""
    width = array(typecode).itemsize
    if count * width > MOST_TABLE:
        look.add(Level.NOTE, "large-table", f"Of the table's {count * width} bytes only {MOST_TABLE} were looked at")
        count = MOST_TABLE // width
    for start in range(0, count * width, _PIECE):
        data = padded(look, offset + start, min(_PIECE, count * width - start))
        yield start // width, unpack_table(data, typecode, order)


def padded(look: Look, offset: int, length: int) -> bytes:
    """Bytes of the file, and zeroes where it ends."""
    return look.read(offset, length).ljust(length, b"\0")


def report(look: Look, message: str) -> None:
    """Tell that something lies on something else."""
    look.add(Level.UNSAFE, "overlap", message)
