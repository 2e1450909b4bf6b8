"""A node's lock: every request passes it, and whoever changes the graph keeps it meanwhile.

An interruption, such as Ctrl-C, comes between any two calls. Who is interrupted on coming in is not in afterwards, and
who is interrupted on draining a node has not drained it: nobody else would ever get in again.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Union

from hostel.block.driver import BlockDriver, Threading
from hostel.block.gate import Gate
from hostel.block.interruption import INTERRUPTIONS, breaks_in
from hostel.errors import BlockError, Reentered

# A lock for a driver that takes one thread at a time, a gate for one that takes any number; a wall once it broke off.
Lock = Union["threading.RLock", Gate, "Wall"]


class Wall:
    """In the place of a lock, where nobody is let in any more.

    Attributes:
        behind: the lock that was there; whoever closes the node takes it.
    """

    __slots__ = ("_reason", "behind")

    def __init__(self, reason: str, behind: threading.RLock | Gate) -> None:
        self._reason = reason
        self.behind = behind

    def __enter__(self) -> None:
        raise BlockError(self._reason, errno=errno.EIO)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lockable:
    """A node as its lock has it.

    Attributes:
        driver: what the lock is for.
    """

    filename: str
    name: str

    def __init__(self, driver: BlockDriver) -> None:
        self.driver = driver
        # Whoever waited for it looks whether it is the node's lock still: with another driver comes another lock.
        self._lock = _lock_for(driver)
        self._drained = 0
        self._busy = False  # whether the driver is in the middle of a call; with a SERIAL one, for who has the lock
        self._stepwise: Gate | None = None

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold other threads off a driver whose threading is SERIAL, for calls of its optional powers.

        While it is held the driver is not exchanged. Each call's answer is for one ``with`` statement, in which
        requests to the node itself are refused where the driver is SERIAL.

        Raises:
            Reentered: by ``with``: in a signal handler, of a thread that is in the middle of a call to such a driver.
        """
        return Entry(self)

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """As :meth:`lock`, for several requests without another thread's in between."""
        return Entry(self, nests=True)

    @contextlib.contextmanager
    def hold_within(self, seconds: float) -> Iterator[None]:
        """As :meth:`hold`, without waiting for a request that does not end.

        Args:
            seconds: how long to wait for one; a change of the graph, which keeps nobody out for long, is not counted.

        Raises:
            BlockError: EBUSY: another thread's request did not end.
            Reentered: as of :meth:`lock`.
        """
        until = time.monotonic() + seconds
        with contextlib.ExitStack() as stack:
            while not isinstance(lock := self._lock, (Gate, Wall)):
                if not _take(lock, max(0.0, until - time.monotonic())):
                    raise BlockError(f"Requests to node '{self.name}' do not come to an end", errno=errno.EBUSY)
                if lock is self._lock:
                    stack.callback(lock.release)
                    break
                lock.release()
            stack.enter_context(self.hold())
            yield

    def _require_outside(self) -> None:
        """Refuse a signal handler what needs no lock, but is not to come in the middle of a call either."""
        if self._busy and not isinstance(self._lock, (Gate, Wall)) and _is_ours(self._lock):
            raise Reentered.of(self.filename)

    def stepwise(self) -> Gate:
        """The gate of requests that take the lock for each of their steps anew; draining the node closes it."""
        gate = self._stepwise
        if gate is None:
            with self.lock():
                gate = self._stepwise
                if gate is None:
                    gate = Gate()
                    for _ in range(self._drained):  # by us, who have the lock
                        gate.close(0.0)
                    self._stepwise = gate
        return gate

    def drain(self, seconds: float) -> int:
        """Keep the requests of other threads out and wait for those inside.

        Calls nest; see :func:`hostel.block.draining.drained`.

        Returns:
            How often we have drained it; 0, and it is as it was, where it takes too long.

        Raises:
            Reentered: in a signal handler, of a thread that is in the middle of a call to the driver.
        """
        try:
            return self._drain(seconds)
        except Reentered:
            raise Reentered.of(self.filename) from None

    def _drain(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        while True:
            gate, lock = self._stepwise, self._lock
            held = Held(lock)
            # Before the lock, which those inside need to get on.
            closed = gate.close(max(0.0, until - time.monotonic())) if gate is not None else 0
            if gate is not None and not closed:
                return 0
            try:
                taken = held.take(max(0.0, until - time.monotonic()))
                if taken and self._busy:
                    raise Reentered.of(self.filename)
                if taken and lock is self._lock and gate is self._stepwise:
                    self._drained += 1
                    return self._drained
                held.release()
                if gate is not None:
                    gate.open(closed)
            except BaseException:  # also an interruption of what was to be undone anyway
                held.release()
                if gate is not None:
                    gate.open(closed)
                raise
            if not taken:
                return 0

    @property
    def drains(self) -> int:
        """How often this thread has drained it."""
        return self._drained if _is_held(_behind(self._lock)) else 0

    def resume(self, drained: int = 0) -> None:
        """Let requests in again; once for each :meth:`drain`.

        Args:
            drained: what that gave: an interruption may have come before or after it was undone, and it may be undone
                once more. 0 for the last one.
        """
        lock = _behind(self._lock)
        release = None if isinstance(lock, Gate) else lock.release
        drained = drained or self._drained
        if _is_held(lock):
            while self._drained >= drained > 0:  # what was drained within that too, where it was not undone
                self._drained -= 1
                if release is not None:  # no interruption comes in between, for nothing is called
                    release()
        if isinstance(lock, Gate):
            lock.open(drained)
        if (gate := self._stepwise) is not None:
            gate.open(drained)

    def exchange(self, driver: BlockDriver) -> None:
        """Put another driver in the place of the present one, which stays open; only while the node is drained."""
        old, new = Held(self._lock, self._drained), _lock_for(driver)
        for _ in range(self._drained):
            Held(new).take(0.0)
        self.driver, self._lock = driver, new
        try:
            old.release()
        except BaseException:  # an interruption
            old.release()
            raise

    def divide(self) -> bool:
        """Go on in a forked child with a lock that no other thread has; False where a request is under way."""
        lock, gate = self._lock, self._stepwise
        if isinstance(lock, Wall) or self._busy or self._drained or (gate is not None and not gate.is_idle):
            return False
        if isinstance(lock, Gate):
            if not lock.is_idle:
                return False
        elif not lock.acquire(blocking=False):
            return False
        self._lock, self._stepwise = _lock_for(self.driver), None
        return True

    def _wall_off(self, reason: str) -> None:
        """Let nobody in any more, which whoever tries is told the reason of."""
        if not isinstance(self._lock, Wall):
            self._lock = Wall(reason, self._lock)

    def break_off(self) -> None:
        """Do what an interruption that has left the driver in the middle of a change calls for: the node knows."""


class Held:
    """A lock that is held, or a gate that is closed, a number of times, and how much of that is left to be undone."""

    __slots__ = ("_count", "_depth", "_lock")

    def __init__(self, lock: Lock, count: int = 0) -> None:
        self._lock = _behind(lock)
        self._depth = self._count = count

    def take(self, seconds: float) -> bool:
        """Hold it once more."""
        lock = self._lock
        if isinstance(lock, Gate):
            self._depth = lock.close(seconds)
            self._count = 1 if self._depth else 0
        else:
            self._count = 1 if _take(lock, seconds) else 0
        return self._count > 0

    def release(self) -> None:
        """Give it free; who is interrupted may begin that anew."""
        lock = self._lock
        while self._count:
            if isinstance(lock, Gate):
                lock.open(self._depth)
                self._depth -= 1
                self._count -= 1
            else:
                self._count -= 1  # no interruption comes in between, for nothing is called
                lock.release()


class Entry:
    """One passage through a node's lock; ``nests``: for requests, of which each is in the driver by itself."""

    __slots__ = ("_inside", "_lock", "_nests", "_node")

    def __init__(self, node: Lockable, *, nests: bool = False) -> None:
        self._inside = False
        self._node = node
        self._nests = nests

    def __enter__(self) -> None:
        node = self._node
        while True:
            lock = self._lock = node._lock
            if isinstance(lock, (Gate, Wall)):
                lock.__enter__()
                if lock is node._lock:
                    self._inside = True
                    return
            else:
                _take(lock)
                if node._busy:  # by this very thread, or we would not have the lock
                    lock.release()
                    raise Reentered.of(node.filename)
                if lock is node._lock:
                    node._busy = not self._nests
                    self._inside = True
                    return
            lock.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Between requests nothing is half changed; but Ctrl-C may come between any two steps of ours.
            if error is not None and (isinstance(error, INTERRUPTIONS) if self._nests else breaks_in(error)):  # noqa: SIM102
                # A driver that takes any number of threads has nothing that could be half changed.
                if not isinstance(self._lock, Gate):
                    self._node.break_off()
        finally:
            try:
                self._leave()
            except BaseException:  # an interruption
                self._leave()
                raise

    def __del__(self) -> None:
        # An interruption may come before the first step of __exit__, or of __init__.
        if getattr(self, "_inside", False):
            self._leave()

    def _leave(self) -> None:
        """Leave, unless one has left; nothing is called between the two steps, so that no interruption comes."""
        lock, me = self._lock, threading.get_ident()
        if isinstance(lock, Gate):
            if self._inside:
                self._inside = False
                lock.go(me)
                if lock.holder:
                    lock.left()
        elif isinstance(lock, Wall):
            self._inside = False
        elif self._inside:
            self._node._busy = self._inside = False
            lock.release()


def _take(lock: threading.RLock, seconds: float = -1.0) -> bool:
    """Acquire a lock; whoever is interrupted then has not acquired it."""
    was_ours = _is_ours(lock)
    try:
        return lock.acquire(timeout=seconds)
    except BaseException:
        # What is ours already is had without waiting: so it was the last step that was interrupted.
        if was_ours or _is_ours(lock):
            lock.release()
        raise


def require_free(lock: threading.RLock) -> None:
    """Refuse a signal handler a lock that its own thread has: what that keeps others from seeing is half changed.

    Raises:
        Reentered: the thread has it.
    """
    if _is_ours(lock):
        raise Reentered("A signal handler cannot use what its own thread is in the middle of changing")


def _is_ours(lock: threading.RLock) -> bool:
    return bool(lock._is_owned())  # type: ignore[attr-defined]


def _lock_for(driver: BlockDriver) -> Lock:
    lock = threading.RLock() if driver.threading is Threading.SERIAL else Gate()
    return Wall(driver.interrupted, lock) if driver.interrupted else lock


def _behind(lock: Lock) -> threading.RLock | Gate:
    return lock.behind if isinstance(lock, Wall) else lock


def _is_held(lock: threading.RLock | Gate) -> bool:
    """Whether this thread keeps others out."""
    return lock.holder == threading.get_ident() if isinstance(lock, Gate) else _is_ours(lock)
