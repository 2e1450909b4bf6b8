"""``quorum``: several copies of one disk; a read counts when enough of them agree, a write when enough took it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

from hostel.block.driver import FilterDriver, FormatInfo, OpenMode, Preallocation, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.filters.blkverify import first_difference
from hostel.block.filters.option import settle
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.errors import BlockError, Mismatch, UnsupportedFeature


class QuorumDriver(FilterDriver):
    """Reads from all children and lets them vote, or with ``read-pattern=fifo`` from the first that can.

    One request at a time: copies that are written at once in different orders would differ.
    """

    name = "quorum"
    primary = ""
    threading = Threading.SERIAL
    options: Final = Options(  # type: ignore[misc]
        Option("vote-threshold", Kind.NUMBER, "The number of vote needed for reaching quorum", "0"),
        Option("blkverify", Kind.BOOL, "Trigger block verify mode if set", "off"),
        Option("rewrite-corrupted", Kind.BOOL, "Rewrite corrupted block on read quorum", "off"),
        Option("read-pattern", Kind.STRING, "Allowed pattern: quorum, fifo. Quorum is default", "quorum"),
    )

    def __init__(
        self, children: Mapping[str, BlockNode], threshold: int, *, fifo: bool, verify: bool, rewrite: bool
    ) -> None:
        super().__init__(children)
        self._copies = list(children.values())
        self._threshold = threshold
        self._fifo = fifo
        self._verify = verify
        self._rewrite = rewrite
        for copy in self._copies:
            self.supports &= copy.driver.supports
        # What reads as anything after a discard would make the copies differ.
        self.supports &= ~Supports.DISCARD

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the copies together.

        Raises:
            OptionError: the options contradict the number of copies, or each other.
        """
        count = len(children)
        if not count:
            raise OptionError("Number of provided children must be 1 or more")
        values = settle(cls.name, cls.options, mode.options)
        threshold = int(values["vote-threshold"])
        if not 1 <= threshold < 2**63:
            raise OptionError("Parameter 'vote-threshold' expects a value >= 1")
        if threshold > count:
            raise OptionError("threshold may not exceed children count")
        if values["read-pattern"] not in ("quorum", "fifo"):
            raise OptionError("Please set read-pattern as fifo or quorum")
        fifo = values["read-pattern"] == "fifo"
        verify = bool(values["blkverify"]) and not fifo
        if verify and not count == threshold == 2:
            raise OptionError("blkverify=on can only be set if there are exactly two files and vote-threshold is 2")
        rewrite = bool(values["rewrite-corrupted"]) and not fifo
        if rewrite and verify:
            raise OptionError("rewrite-corrupted=on cannot be used with blkverify=on")
        if len(lengths := {copy.length for copy in children.values()}) > 1:
            raise BlockError(
                "Could not refresh total sector count: Input/output error",
                errno=errno.EIO,
                hint=f"The copies have different sizes: {', '.join(map(str, sorted(lengths)))} bytes.",
            )
        return cls(children, threshold, fifo=fifo, verify=verify, rewrite=rewrite)

    @property
    def length(self) -> int:
        """The copies' common length.

        Raises:
            Mismatch: they differ.
        """
        lengths = {copy.length for copy in self._copies}
        if len(lengths) > 1:
            raise Mismatch(f"The children of the quorum have different sizes: {sorted(lengths)}")
        return lengths.pop()

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read what enough copies agree on.

        Raises:
            Mismatch: too few agree.
            OSError: too few can be read.
        """
        if self._fifo:
            self._read_first(offset, buf)
            return
        votes: dict[bytes, list[BlockNode]] = {}
        failures: list[OSError] = []
        for copy in self._copies:
            try:
                votes.setdefault(bytes(copy.read(offset, len(buf))), []).append(copy)
            except OSError as error:
                failures.append(error)
        if len(self._copies) - len(failures) < self._threshold:
            raise failures[0]
        if self._verify and len(votes) > 1:
            difference = offset + first_difference(*votes)
            raise Mismatch(f"quorum: offset={offset} bytes={len(buf)} contents mismatch at offset {difference}")
        winner = max(votes, key=lambda content: len(votes[content]))
        if len(votes[winner]) < self._threshold:
            raise Mismatch(f"quorum: offset={offset} bytes={len(buf)}: too few of the copies agree")
        buf[:] = winner
        if self._rewrite:
            self._correct(offset, winner, votes)

    def _read_first(self, offset: int, buf: memoryview) -> None:
        failure: OSError | None = None
        for copy in self._copies:
            try:
                copy.pread(offset, buf)
                return
            except OSError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    def _correct(self, offset: int, winner: bytes, votes: Mapping[bytes, list[BlockNode]]) -> None:
        """Overwrite what lost the vote; that this fails changes nothing for who reads."""
        for content, copies in votes.items():
            for copy in copies if content != winner else ():
                if copy.read_only:
                    continue
                try:
                    copy.pwrite(offset, winner)
                except OSError:
                    continue

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all copies."""
        self._all(lambda copy: copy.pwrite(offset, data))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero in all copies."""
        self._all(lambda copy: copy.write_zeroes(offset, length, unmap=unmap))

    def flush(self) -> None:
        """Flush all copies."""
        self._all(lambda copy: copy.flush())

    def _all(self, call: Callable[[BlockNode], None]) -> None:
        """Do something to all copies.

        Raises:
            OSError: fewer than the threshold could; the error is the one that most of them had.
        """
        codes: list[int] = []
        for copy in self._copies:
            try:
                call(copy)
            except OSError as error:
                codes.append(error.errno or 5)
        if len(self._copies) - len(codes) < self._threshold:
            code = max(codes, key=codes.count)
            raise BlockError(os.strerror(code), errno=code)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Zeroes where all copies say so, else data."""
        end = offset + length
        holes = [
            [(each.offset, each.end) for each in copy.extents(offset, length) if each.status & Status.ZERO]
            for copy in self._copies
        ]
        common = holes[0]
        for other in holes[1:]:
            common = [(max(a, c), min(b, d)) for a, b in common for c, d in other if max(a, c) < min(b, d)]
        for start, stop in common:
            if offset < start:
                yield Extent(offset, start - offset, Status.DATA | Status.ALLOCATED)
            yield Extent(start, stop - start, Status.ZERO | Status.ALLOCATED)
            offset = stop
        if offset < end:
            yield Extent(offset, end - offset, Status.DATA | Status.ALLOCATED)

    def zeroes_fast(self, *, unmap: bool) -> bool:
        """Whether all copies do."""
        return bool(self.supports & Supports.ZEROES) and all(copy.zeroes_fast(unmap=unmap) for copy in self._copies)

    def info(self) -> FormatInfo:
        """Nothing that all copies have in common."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Refuse: copies of different sizes would be left where one of them fails."""
        raise UnsupportedFeature("Image format driver 'quorum' does not support resize")
