"""How far a node has been written, and from where on somebody wants to hear of a write."""

from __future__ import annotations

import threading

from hostel.block.forked import in_child
from hostel.block.gate import BYPASS

_lock = threading.RLock()  # one write tells that a threshold was passed; a signal handler may come here again
in_child(_lock._at_fork_reinit)  # type: ignore[attr-defined]


class Marks:
    """A node's marks, in bytes from its start. Writers look at :attr:`level` alone, which costs them next to nothing.

    Attributes:
        highest: where the write that reached furthest ended.
        threshold: the end of a write beyond it is told, once; 0 for none.
        level: writes up to here are nothing new.
    """

    __slots__ = ("highest", "level", "threshold")

    def __init__(self) -> None:
        self.highest = self.threshold = self.level = 0

    def watch(self, threshold: int) -> None:
        """Have it told when a write ends beyond ``threshold``; 0 ends that. The bypass has to be closed."""
        self.threshold = threshold
        self.level = -1 if threshold else self.highest

    def reach(self, end: int, name: str) -> None:
        """A write of the node of this name ends at ``end``, which is above the level; any thread may tell it."""
        self.highest = max(self.highest, end)
        if not self.threshold:
            self.level = self.highest
        elif end > self.threshold:
            self.exceed(end, name)

    def exceed(self, end: int, name: str) -> None:
        """Tell, where there is a threshold still, that a request ends beyond it, and forget the threshold."""
        with _lock:
            threshold = self.threshold
            if not 0 < threshold < end:
                return
            self.watch(0)
            BYPASS.changed()
        from hostel.block import incident

        incident.tell(
            "BLOCK_WRITE_THRESHOLD",
            {"node-name": name, "amount-exceeded": end - threshold, "write-threshold": threshold},
        )


class DiscardCount:
    """What became of a file's discards.

    Attributes:
        done: how many gave space back.
        length: bytes in those.
        failed: how many did nothing.
    """

    __slots__ = ("done", "failed", "length")

    def __init__(self) -> None:
        self.done = self.failed = self.length = 0

    def count(self, length: int) -> None:
        """One more, of ``length`` bytes; 0 where it failed."""
        if length:
            self.done += 1
            self.length += length
        else:
            self.failed += 1
