"""A process that writes to an image from several threads until it is killed, and what the image may hold then.

Each thread has blocks of its own and says on a pipe what it begins and what is done, so that of each sector is known
what was flushed last, and what may have come after. The images are files, opened as every tool opens them.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel.block import graph
from hostel.block.node import BlockNode

SECTOR: Final = 512
BLOCK: Final = 4096
THREADS: Final = 3
_PIPE: Final = 1 << 20  # bytes that are said before anybody listens
_BEGIN = 60.0  # seconds for its first write
_KINDS: Final = ("write",) * 12 + ("zero", "unmap", "discard", "flush", "flush", "flush")
_ZEROES: Final = bytes(BLOCK)


class Step(NamedTuple):
    """What a thread does: a number of its own, a kind, and the first of so many blocks that it is done to."""

    thread: int
    number: int
    kind: str
    start: int
    length: int

    def block(self, block: int) -> bytes:
        """What it writes to a block."""
        if self.kind != "write":
            return _ZEROES
        return b"".join(b"%d:%d:%d:%d;" % (*self[:2], block, each) for each in range(8)).ljust(BLOCK, b".")


def steps(thread: int, blocks: int, rng: random.Random) -> Iterator[Step]:
    """What a thread does, for ever."""
    span = blocks // THREADS
    number = rng.randrange(1 << 40) << 20
    while True:
        number += 1
        kind = rng.choice(_KINDS)
        count = min(rng.choice((1, 1, 2, 5, 16, 40)), span)
        yield Step(thread, number, kind, thread * span + rng.randrange(span - count + 1), count)


class Killed:
    """An image, and what each block of it may hold.

    Args:
        path: of the image, which is empty.
        format: its driver.
        size: of the disk, bytes.
        seed: what is done follows from it; how far that comes does not.
    """

    def __init__(self, path: Path, format: str, size: int, seed: int) -> None:
        self.path = path
        self.format = format
        self.blocks = size // BLOCK
        self._rng = random.Random(seed)
        self._content = bytes(size)
        self._may: list[list[bytes]] = []
        self.flushes = 0  # that were answered
        self.done = 0  # requests that were answered

    def write(self, seconds: float) -> None:
        """Have a process write, and kill it after a time from its first write."""
        seed = self._rng.randrange(1 << 60)
        heard, said = os.pipe()
        fcntl.fcntl(heard, fcntl.F_SETPIPE_SZ, _PIPE)
        child = os.fork()
        if child == 0:
            self._child(said, seed)
        os.close(said)
        with os.fdopen(heard, "rb") as stream:
            begun, _, _ = select.select([heard], [], [], _BEGIN)
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), f"it ended by itself: {stream.readlines()[:1]}"
            assert begun, "it began nothing"
            self._follow(stream.readlines())

    def _child(self, said: int, seed: int) -> None:
        try:
            with graph.open(str(self.path), self.format, read_only=False) as node:
                threads = [
                    threading.Thread(target=self._run, args=(node, said, each, random.Random(seed + each)), daemon=True)
                    for each in range(THREADS)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    def _run(self, node: BlockNode, said: int, thread: int, rng: random.Random) -> None:
        try:
            for step in steps(thread, self.blocks, rng):
                os.write(said, b"%d %d %s %d %d\n" % (*step[:2], step.kind.encode(), *step[3:]))
                _do(node, step)
                os.write(said, b"%d %d done 0 0\n" % step[:2])
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _follow(self, lines: list[bytes]) -> None:
        """Work out what each block may hold from what was said."""
        self._may = [[self._content[place * BLOCK :][:BLOCK]] for place in range(self.blocks)]
        waiting: dict[int, list[Step]] = {each: [] for each in range(THREADS)}
        for line in lines:
            thread, number, kind, start, count = line.split()
            step = Step(int(thread), int(number), kind.decode(), int(start), int(count))
            mine = waiting[step.thread]
            if step.kind != "done":
                mine.append(step)
                continue
            self.done += 1
            if mine[-1].kind == "flush":
                self.flushes += 1
                for each in mine[:-1]:
                    self._take(each, certain=True)
                mine.clear()
        for mine in waiting.values():
            for each in mine:
                self._take(each, certain=False)

    def _take(self, step: Step, *, certain: bool) -> None:
        if step.kind == "flush":
            return
        for block in range(step.start, step.start + step.length):
            data = step.block(block)
            self._may[block] = [data] if certain and step.kind != "discard" else [*self._may[block], data]

    def judge(self, content: bytes) -> list[str]:
        """What is wrong with the content of the disk, of which the next process goes on."""
        wrong = []
        for block, may in enumerate(self._may):
            data = content[block * BLOCK :][:BLOCK]
            if data in may:
                continue
            for place in range(0, BLOCK, SECTOR):
                sectors = [each[place : place + SECTOR] for each in may]
                if not _is_one_of(data[place : place + SECTOR], sectors):
                    wrong.append(f"block {block} at {place}: {data[place:][:40]!r}, and not one of {sectors}")
                    break
        self._content = content
        return wrong


def _is_one_of(sector: bytes, may: list[bytes]) -> bool:
    """Whether a sector is one of those that it may be, or two of them with one cut.

    The kernel ends the copy of a write from a page that is not there yet, such as of fresh zeroes, when the process is
    killed: that may be anywhere in a sector.
    """
    for each in may:
        cut = next((at for at, pair in enumerate(zip(sector, each, strict=True)) if pair[0] != pair[1]), SECTOR)
        if any(sector[cut:] == other[cut:] for other in may):
            return True
    return False


def _do(node: BlockNode, step: Step) -> None:
    offset, length = step.start * BLOCK, step.length * BLOCK
    match step.kind:
        case "write":
            node.pwrite(offset, b"".join(step.block(step.start + each) for each in range(step.length)))
        case "zero" | "unmap":
            node.write_zeroes(offset, length, unmap=step.kind == "unmap")
        case "discard":
            node.discard(offset, length)
        case "flush":
            node.flush()
