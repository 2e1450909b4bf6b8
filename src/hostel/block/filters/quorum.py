"""``quorum``: several copies of one disk; a read counts when enough of them agree, a write when enough took it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Self

from hostel.block import incident
from hostel.block.chain import block_status, rounded_length
from hostel.block.driver import FilterDriver, FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.filters.blkverify import first_difference
from hostel.block.filters.option import settle
from hostel.block.interruption import breaks_in, failures_ignored
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation
from hostel.errors import BlockError, Mismatch, UnsupportedFeature
from hostel.units import SECTOR


class QuorumDriver(FilterDriver):
    """Reads from all children and lets them vote, or with ``read-pattern=fifo`` from the first that can.

    One request at a time: copies that are written at once in different orders would differ.

    Attributes:
        called: the name of the node that this is the driver of; whoever names nodes says it.
        rewrites: what lost a vote is written, by reading.
    """

    name = "quorum"
    primary = ""
    alike = True
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
        self.called: Callable[[], str] = str
        self.rewrites = rewrite
        self._threshold = threshold
        self._fifo = fifo
        self._verify = verify
        self._next = len(children)
        self._take_stock()

    def _take_stock(self) -> None:
        self._copies = list(self.children.values())
        self.child = self._copies[0]
        self.supports = self.child.driver.supports & ~Supports.BACKING
        for copy in self._copies:
            self.supports &= copy.driver.supports
        # What reads as anything after a discard would make the copies differ.
        self.supports &= ~Supports.DISCARD

    @property
    def next_edge(self) -> str:
        """What the next copy will be called that is taken in."""
        return f"children.{self._next}"

    def add(self, node: BlockNode) -> str:
        """Take one more copy in, which is not written to match the others; returns its edge.

        Raises:
            BlockError: the copies are to be compared, or it has another size.
        """
        if self._verify:
            raise BlockError("Cannot add a child to a quorum in blkverify mode", errno=errno.EINVAL)
        if (length := rounded_length(node)) != self.length:
            raise BlockError(
                f"Node '{node.name}' has {length} bytes, and the copies have {self.length}", errno=errno.EINVAL
            )
        edge = self.next_edge
        self._next += 1
        self.children[edge] = node
        self._take_stock()
        return edge

    def drop(self, edge: str) -> BlockNode:
        """Leave a copy out; returns it.

        Raises:
            BlockError: too few would be left.
        """
        if len(self._copies) <= self._threshold:
            raise BlockError(
                f"The number of children cannot be lower than the vote threshold {self._threshold}", errno=errno.EINVAL
            )
        if edge == f"children.{self._next - 1}":
            self._next -= 1
        node = self.children.pop(edge)
        self._take_stock()
        return node

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
        if len(lengths := {rounded_length(copy) for copy in children.values()}) > 1:
            raise BlockError(
                "Could not refresh total sector count: Input/output error",
                errno=errno.EIO,
                hint=f"The copies have different sizes: {', '.join(map(str, sorted(lengths)))} bytes.",
            )
        return cls(children, threshold, fifo=fifo, verify=verify, rewrite=rewrite)

    @property
    def length(self) -> int:
        """The copies' common length, in whole sectors.

        Raises:
            Mismatch: they differ.
        """
        lengths = {rounded_length(copy) for copy in self._copies}
        if len(lengths) > 1:
            raise Mismatch(f"The children of the quorum have different sizes: {sorted(lengths)}")
        return lengths.pop()

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read what enough copies agree on.

        Raises:
            BlockError: too few agree, or too few can be read.
            Mismatch: they differ, where they must not (``blkverify=on``).
        """
        if self._fifo:
            self._read_first(offset, buf)
            return
        votes: dict[bytes, list[BlockNode]] = {}
        failures: list[int] = []
        for copy in self._copies:
            try:
                votes.setdefault(bytes(copy.read(offset, len(buf))), []).append(copy)
            except OSError as error:
                failures.append(self._bad("read", copy, offset, len(buf), error))
        self._require_enough(failures, offset, len(buf))
        if self._verify and len(votes) > 1:
            difference = offset + first_difference(*votes)
            raise Mismatch(f"quorum: offset={offset} bytes={len(buf)} contents mismatch at offset {difference}")
        winner = self._winner(votes, offset, len(buf))
        buf[:] = winner
        lost = [copy for content in reversed(votes) if content != winner for copy in reversed(votes[content])]
        for copy in lost:
            self._bad("read", copy, offset, len(buf))
        if self.rewrites:
            self._correct(offset, winner, lost)

    def _winner(self, votes: Mapping[bytes, list[BlockNode]], offset: int, length: int) -> bytes:
        """What most copies have; of two that as many have, what was found last, as with QEMU."""
        winner = max(reversed(list(votes)), key=lambda content: len(votes[content]))
        if len(votes) > 1 and len(votes[winner]) < self._threshold:
            self._failed(offset, length)
            raise BlockError(
                os.strerror(errno.EIO),
                errno=errno.EIO,
                hint=f"The copies differ, and fewer than {self._threshold} of them agree.",
            )
        return winner

    def _read_first(self, offset: int, buf: memoryview) -> None:
        failure: OSError | None = None
        for copy in self._copies:
            try:
                copy.pread(offset, buf)
                return
            except OSError as error:
                failure = error
                self._bad("read", copy, offset, len(buf), error)
        assert failure is not None
        raise failure

    def _correct(self, offset: int, winner: bytes, lost: Iterable[BlockNode]) -> None:
        """Overwrite what lost the vote; that this fails changes nothing for who reads."""
        for copy in lost:
            with failures_ignored():
                copy.pwrite(offset, winner)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all copies."""
        self._require_enough(
            self._all("write", offset, len(data), lambda copy: copy.pwrite(offset, data)), offset, len(data)
        )

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero in all copies."""
        self._require_enough(
            self._all("write", offset, length, lambda copy: copy.write_zeroes(offset, length, unmap=unmap)),
            offset,
            length,
        )

    def flush(self) -> None:
        """Flush all copies.

        Raises:
            BlockError: too few could be flushed; no event tells of that, as with QEMU.
        """
        self._require(self._all("flush", 0, 0, lambda copy: copy.flush()))

    def _all(self, kind: str, offset: int, length: int, call: Callable[[BlockNode], None]) -> list[int]:
        """Do something to all copies; the errors of those that failed."""
        failures: list[int] = []
        for copy in self._copies:
            try:
                call(copy)
            except OSError as error:
                failures.append(self._bad(kind, copy, offset, length, error))
        return failures

    def _require_enough(self, failures: Sequence[int], offset: int, length: int) -> None:
        """Refuse what fewer copies than the threshold did, and let it be known."""
        if len(self._copies) - len(failures) < self._threshold:
            self._failed(offset, length)
            self._require(failures)

    def _require(self, failures: Sequence[int]) -> None:
        """Refuse what fewer copies than the threshold did: the error is the one that most of them had.

        Raises:
            BlockError: it was so.
        """
        if len(self._copies) - len(failures) < self._threshold:
            # Of two that are as frequent, the one that came last.
            code = max(reversed(list(dict.fromkeys(failures))), key=failures.count)
            raise BlockError(os.strerror(code), errno=code)

    def _bad(self, kind: str, copy: BlockNode, offset: int, length: int, error: OSError | None = None) -> int:
        """Tell of a copy that failed, or that has something else than most; returns the errno.

        What came into the middle from elsewhere, such as a signal handler's error, is no failure of the copy's.
        """
        if error is not None and breaks_in(error):
            raise error
        code = (error.errno or errno.EIO) if error is not None else 0
        text = {"error": os.strerror(code)} if code else {}
        incident.tell("QUORUM_REPORT_BAD", {"type": kind, **text, "node-name": copy.name, **_sectors(offset, length)})
        return code

    def _failed(self, offset: int, length: int) -> None:
        incident.tell("QUORUM_FAILURE", {"reference": self.called(), **_sectors(offset, length)})

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Zeroes where all copies say so, else data."""
        end = offset + length
        holes = [
            [(each.offset, each.end) for each in block_status(copy, offset, length) if each.status & Status.ZERO]
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

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether all copies do."""
        if not self.supports & Supports.ZEROES:
            return False
        return all(copy.zeroes_fast(offset, length, unmap=unmap) for copy in self._copies)

    def info(self) -> FormatInfo:
        """Nothing that all copies have in common."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Refuse: copies of different sizes would be left where one of them fails."""
        raise UnsupportedFeature("Image format driver does not support resize")


def _sectors(offset: int, length: int) -> dict[str, int]:
    """A range of bytes as events tell it."""
    start = offset // SECTOR
    return {"sector-num": start, "sectors-count": -(-(offset + length) // SECTOR) - start}
