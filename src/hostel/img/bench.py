"""Requests of one size, a step apart, and how long they take."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.block.node import BlockNode
from hostel.cause import failed
from hostel.errors import BlockError, OutOfRange

_MAX_THREADS: Final = 16


class Pattern(NamedTuple):
    """The requests of a run; sizes and offsets are bytes.

    Attributes:
        requests: how many.
        depth: how many at once; beyond 16 more are not.
        length: of each.
        offset: of the first.
        step: from the start of one to the start of the next; beyond the image's end they begin at its start again.
        fill: the byte to write; None to read.
        flush_interval: requests after which to flush; 0 for never.
        drain: wait for all that are under way before a flush.
    """

    requests: int
    depth: int
    length: int
    offset: int = 0
    step: int = 0
    fill: int | None = None
    flush_interval: int = 0
    drain: bool = True


def bench(node: BlockNode, pattern: Pattern) -> float:
    """Carry out a run; returns the seconds that it took.

    Raises:
        BlockError: a request or a flush failed; the text is QEMU's.
    """
    if not node.length:
        raise BlockError("Failed request: the image has no bytes", errno=errno.EINVAL)
    if node.length <= pattern.offset and pattern.requests:
        raise _failed("request", OutOfRange(""))
    run = _Run(node, pattern)
    begun = time.perf_counter()
    if pattern.flush_interval and pattern.drain:
        for first in range(0, pattern.requests, pattern.flush_interval):
            run.requests(first, min(pattern.requests, first + pattern.flush_interval))
            if first + pattern.flush_interval <= pattern.requests:
                run.flush()
    else:
        run.requests(0, pattern.requests)
    return time.perf_counter() - begun


class _Run:
    """A run on a node."""

    def __init__(self, node: BlockNode, pattern: Pattern) -> None:
        self._node = node
        self._pattern = pattern
        self._threads = max(1, min(pattern.depth, _MAX_THREADS, pattern.requests))
        self._failed = False

    def requests(self, first: int, end: int) -> None:
        """Carry out requests ``first`` to ``end``, several at once; the first failure ends all."""
        counter = itertools.count(first)

        def following() -> int | None:
            number = next(counter)
            return None if self._failed or number >= end else number

        if self._threads == 1:
            self._work(following)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self._threads) as pool:
            for worker in [pool.submit(self._work, following) for _ in range(self._threads)]:
                worker.result()

    def _work(self, following: Callable[[], int | None]) -> None:
        node, pattern = self._node, self._pattern
        buffer = bytearray(bytes([pattern.fill or 0]) * pattern.length)
        view, size = memoryview(buffer), node.length
        interval = 0 if pattern.drain else pattern.flush_interval
        request = node.pread if pattern.fill is None else node.pwrite
        while (number := following()) is not None:
            try:
                request((pattern.offset + number * pattern.step) % size, view)
            except OSError as error:
                self._failed = True
                raise _failed("request", error) from None
            if interval and (number + 1) % interval == 0:
                self.flush()

    def flush(self) -> None:
        """Flush the image."""
        try:
            self._node.flush()
        except OSError as error:
            self._failed = True
            raise _failed("flush request", error) from None


def _failed(what: str, error: OSError) -> BlockError:
    if isinstance(error, OutOfRange):
        # For QEMU, what lies beyond the image's end is an input/output error.
        return BlockError(f"Failed {what}: {os.strerror(errno.EIO)}", errno=errno.EIO)
    return failed(f"Failed {what}", error)
