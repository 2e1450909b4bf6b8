"""Host ranges that nothing refers to any more, but the disk until what is held back is written."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.block.formats.qcow2.geometry import Geometry
from hostel.units import MiB

_MAX_RUNS: Final = 8192
_MAX_BYTES: Final = 8 * MiB  # of the last few runs: rather than make the file longer, use them again
_LATELY: Final = 4


class Run(NamedTuple):
    """A range, in bytes; ``discard`` says that its space goes back to the host."""

    offset: int
    length: int
    discard: bool


class Released:
    """The ranges, neighbours joined as they come."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._runs: list[Run] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, run: Run) -> None:
        """A range is given up."""
        if self._runs:
            last = self._runs[-1]
            joins = last.discard == run.discard and last.offset + last.length == run.offset
            if joins and not self._geometry.in_cluster(run.offset | run.length):
                self._runs[-1] = Run(last.offset, last.length + run.length, last.discard)
                return
        self._runs.append(run)

    def take(self) -> Run:
        """The range that came last, which is free now."""
        return self._runs.pop()

    def put_back(self, run: Run) -> None:
        """What was taken could not be freed."""
        self._runs.append(run)

    @property
    def are_many(self) -> bool:
        """Whether it is time to write what is held back, so that they can be used again."""
        return self.are_scattered or sum(run.length for run in self._runs[-_LATELY:]) >= _MAX_BYTES

    @property
    def are_scattered(self) -> bool:
        """Whether they are too many to keep, however large they are."""
        return len(self._runs) > _MAX_RUNS


class Holes:
    """Ranges whose space goes back to the host and whose place stays, joined as they come.

    In an external data file a guest cluster has one place; what is mapped again before the disk knows that it was not
    is kept.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, start: int, end: int) -> None:
        """A range is given up; ``start`` and ``end`` are offsets in bytes."""
        if self._runs and self._runs[-1][1] == start:
            start, _ = self._runs.pop()
        self._runs.append((start, end))

    def keep(self, start: int, end: int) -> None:
        """A range is about to be written."""
        if any(low < end and start < high for low, high in self._runs):
            parts = ((low, min(high, start)) for low, high in self._runs)
            rest = ((max(low, end), high) for low, high in self._runs)
            self._runs = sorted(run for run in {*parts, *rest} if run[0] < run[1])

    def take(self) -> tuple[int, int]:
        """A range that nothing refers to now: its start and its end."""
        return self._runs.pop()

    @property
    def are_many(self) -> bool:
        """Whether it is time to write what is held back."""
        return len(self._runs) > _MAX_RUNS
