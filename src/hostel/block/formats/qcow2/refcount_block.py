"""A refcount block in memory: one byte a cluster, and refcounts of 255 and more beside.

So looking for free clusters is ``bytes.find``, and counting a run is ``bytes.translate``.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Final

from hostel.block.formats.qcow2.refcount_bytes import WIDE, has_above, pack_counts
from hostel.errors import BlockError

NARROW: Final = "The refcounts are too narrow for it."
_USED: Final = bytes(min(value, 1) for value in range(256))
_INCREMENT: Final = bytes(min(value + 1, WIDE) for value in range(256))
_DECREMENT: Final = bytes(max(value - 1, 0) for value in range(256))


class NegativeCount(ArithmeticError):
    """A refcount would get negative: that of ``slot``."""

    def __init__(self, slot: int) -> None:
        super().__init__(slot)
        self.slot = slot


class Block:
    """The refcounts that one block on the disk has.

    Attributes:
        values: one byte a cluster; :data:`WIDE` says that ``wide`` has it.
        wide: slot to refcount.
        low: the first slot that differs from the disk.
        high: one after the last slot that differs.
        before: what ``values`` were when the transaction began; None outside one or where nothing changed.
    """

    __slots__ = ("_usable", "_wide_before", "before", "high", "low", "values", "wide")

    def __init__(self, values: bytearray, wide: dict[int, int]) -> None:
        self.values = values
        self.wide = wide
        self.low = len(values)
        self.high = 0
        self.before: bytes | None = None
        self._wide_before: dict[int, int] = {}
        self._usable: bytes | None = None  # what usable() said, while that holds

    def get(self, slot: int) -> int:
        """A refcount."""
        value = self.values[slot]
        return self.wide[slot] if value == WIDE else value

    def add(self, slot: int, length: int, delta: int, most: int) -> None:
        """Add ``delta`` to the refcounts of ``length`` neighbours; where that fails, some may have got it.

        Args:
            slot: the first of them.
            length: how many they are.
            delta: what to add.
            most: the largest refcount that there may be.

        Raises:
            BlockError: a refcount cannot get that large (EINVAL).
            NegativeCount: a refcount would get negative.
        """
        self.touch(slot, slot + length)
        if length == 1 and (value := self.values[slot]) != WIDE and 0 <= value + delta <= min(most, WIDE - 1):
            self.values[slot] = value + delta
            return
        part = self.values[slot : slot + length]
        if delta == 1 and not has_above(part, min(most, WIDE - 1) - 1):
            self.values[slot : slot + length] = part.translate(_INCREMENT)
            return
        if delta == -1 and 0 not in part and WIDE not in part:
            self.values[slot : slot + length] = part.translate(_DECREMENT)
            return
        for at in range(slot, slot + length):
            value = self.get(at) + delta
            if value < 0:
                raise NegativeCount(at)
            if value > most:
                raise BlockError("Invalid argument", errno=errno.EINVAL, hint=NARROW)
            self.wide.pop(at, None)
            if value >= WIDE:
                self.wide[at] = value
            self.values[at] = min(value, WIDE)

    def put_back(self, slot: int, values: bytes, wide: dict[int, int]) -> None:
        """Undo :meth:`add`: the values from ``slot`` on, and all wide refcounts, are what they were."""
        self.touch(slot, slot + len(values))
        self.values[slot : slot + len(values)] = values
        self.wide = wide

    # ---- what differs from the disk

    def touch(self, low: int, high: int) -> None:
        """Slots ``low`` to ``high`` changed."""
        self.low = min(self.low, low)
        self.high = max(self.high, high)
        self._usable = None

    @property
    def dirty(self) -> bool:
        """Whether the disk has something else."""
        return self.low < self.high

    def clean(self) -> None:
        """The disk has the same now."""
        self.low, self.high = len(self.values), 0

    def pack(self, low: int, high: int, bits: int) -> bytes:
        """Slots ``low`` to ``high`` as they lie on disk, ``bits`` each."""
        wide = {slot - low: value for slot, value in self.wide.items() if low <= slot < high}
        return pack_counts(self.values[low:high], wide, bits)

    # ---- transactions

    def record(self) -> None:
        """Keep what it is from now on, where that is not kept yet."""
        if self.before is None:
            self.before, self._wide_before = bytes(self.values), dict(self.wide)

    def usable(self) -> bytes | bytearray:
        """Zeroes for the clusters that are free; in a transaction, what is free must have been free before as well."""
        if self.before is None:
            return self.values
        if self._usable is None:
            both = int.from_bytes(self.values, "little") | int.from_bytes(self.before, "little")
            self._usable = both.to_bytes(len(self.before), "little")
        return self._usable

    def freed(self) -> Iterator[tuple[int, int]]:
        """The runs of slots that were in use before and are free now: the first of each, and how many."""
        if self.before is None or self.before == self.values:
            return
        # Quicker than looking at each.
        used, still = (int.from_bytes(values.translate(_USED), "little") for values in (self.before, self.values))
        if gone := used ^ used & still:
            for run in re.finditer(rb"\x01+", gone.to_bytes(len(self.before), "little")):
                yield run.start(), len(run[0])

    def roll_back(self) -> None:
        """Be what was kept, if anything was."""
        if self.before is not None:
            self.values[:] = self.before
            self.wide = self._wide_before
            self._usable = None

    def end(self) -> None:
        """Keep nothing any more; the disk has what is here."""
        self.before, self._wide_before, self._usable = None, {}, None
        self.clean()
