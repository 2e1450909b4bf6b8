"""Having nobody in nodes for a moment, nor past them in their files: who is inside leaves, and who comes waits.

Nobody waits for a node while holding another one closed for long: a drain that does not come to an end opens everything
again, and begins anew.

An interruption, such as Ctrl-C, may come while everybody is let in again, and nobody would ever be. So each step of
that can be made once more, whether it was made before or not, and all of them are where one comes.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from hostel.block.gate import BYPASS, Gate
from hostel.block.powers import Bypassed
from hostel.block.restraint import below, unrestrained
from hostel.errors import BlockError

if TYPE_CHECKING:
    from hostel.block.node import BlockNode

DRAIN_TIMEOUT: Final = 60.0  # seconds
ATTEMPT: Final = 0.25  # seconds that everybody is kept out while waiting for those inside
_PAUSE: Final = 0.005  # seconds that others are let in between two attempts

Undo = Callable[[], None]
Attempted = TypeVar("Attempted")


@contextlib.contextmanager
def drained(*nodes: BlockNode, timeout: float = DRAIN_TIMEOUT) -> Iterator[None]:
    """Have no request of another thread in any of the nodes; theirs wait until the block is left.

    Args:
        nodes: which; each once or more.
        timeout: seconds.

    Raises:
        BlockError: requests did not come to an end in time, or a node is closed.
        Reentered: in a signal handler, of a thread that is in the middle of one.
    """
    names = ", ".join(f"'{node.name}'" for node in nodes)
    with (
        unrestrained(*nodes),
        _closed(lambda: _drain_all(nodes), f"Requests to {names} do not come to an end", timeout),
    ):
        yield


@contextlib.contextmanager
def requests_ended(node: BlockNode) -> Iterator[None]:
    """Have no request of another thread in a node, nor past it, as :func:`drained` does, while no graph changes.

    So nobody who is about to change that of another disk is waited for.

    Raises:
        BlockError: requests did not come to an end in time.
        Reentered: in a signal handler, of a thread that is in the middle of one.
    """
    failure = f"Requests to '{node.filename}' do not come to an end"
    with unrestrained(node), _closed(lambda: _drain_all((node,), changes=False), failure, DRAIN_TIMEOUT):
        yield


@contextlib.contextmanager
def bypass_closed(*nodes: BlockNode, timeout: float = DRAIN_TIMEOUT) -> Iterator[None]:
    """Have no request go past nodes to the files below them meanwhile.

    Args:
        nodes: which.
        timeout: seconds.

    Raises:
        BlockError: requests did not come to an end in time.
    """
    with _closed(lambda: _shut_out(nodes), "Requests do not come to an end", timeout):
        yield


@contextlib.contextmanager
def _closed(attempt: Callable[[], Undo | None], failure: str, timeout: float) -> Iterator[None]:
    undo = insist(attempt, timeout)
    if undo is None:
        raise BlockError(failure, errno=errno.EBUSY)
    try:
        yield
    finally:
        try:
            undo()
        except BaseException:  # an interruption
            undo()
            raise


def insist(attempt: Callable[[], Attempted], timeout: float) -> Attempted:
    """Attempt something until something comes of it.

    Args:
        attempt: gives something that is true, or what is not; it keeps others out for :data:`ATTEMPT` at most.
        timeout: seconds after which it is not attempted again.

    Returns:
        What the last attempt gave.
    """
    until = time.monotonic() + timeout
    while not (found := attempt()) and time.monotonic() < until:
        time.sleep(_PAUSE)
    return found


def _drain_all(nodes: Sequence[BlockNode], *, changes: bool = True) -> Undo | None:
    """Drain all nodes or none: two requests may each wait for something that only the other's end gives free.

    Returns:
        What undoes that; None where somebody did not leave.
    """
    let_in = _shut_out(nodes, changes=changes)
    if let_in is None:
        return None
    drains: list[tuple[BlockNode, int]] = []

    def undo() -> None:
        for node, drains_of_it in reversed(drains):
            node.resume(drains_of_it)
        let_in()

    try:
        for node in nodes:
            count = node.drain(ATTEMPT)
            if not count:
                break
            drains.append((node, count))
            if changes:
                node.require_open()
        else:
            return undo
        undo()
    except BaseException:
        undo()
        raise
    return None


def _shut_out(nodes: Sequence[BlockNode], *, changes: bool = True) -> Undo | None:
    """Have nobody go past the nodes to the files below them; what undoes that, None where it takes too long.

    Where the graph ``changes``, nobody finds out meanwhile what it is.
    """
    closed: list[tuple[Gate, int]] = []

    def undo() -> None:
        for gate, count in reversed(closed):
            gate.open(count)
        BYPASS.changed()  # after that: who has been told that something changes looks again

    try:
        if changes:
            count = BYPASS.changing.close(ATTEMPT)
            if not count:
                return None
            closed.append((BYPASS.changing, count))
        BYPASS.changed()  # after that: who finds out too early that nothing changes has seen another number
        for driver in [node.driver for node in below(nodes)]:
            if isinstance(driver, Bypassed):
                gate = driver.past
                count = gate.close(ATTEMPT)
                if not count:
                    break
                closed.append((gate, count))
        else:
            return undo
        undo()
    except BaseException:
        undo()
        raise
    return None
