"""Who is in a node, or past it in its file, and how to have nobody there for a moment.

A node's driver, and what it stands on, can be exchanged while requests come in. Every request passes the node's gate,
which costs it a tenth of a microsecond; whoever changes the graph closes the gate and waits for those inside.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from types import TracebackType
from typing import Final

from hostel.block.forked import in_child
from hostel.errors import BlockError, Reentered

_PATIENCE: Final = 120.0  # seconds that a request waits at a closed gate
_GLANCE: Final = 0.01  # seconds after which the one who waits looks for himself
_PAUSE: Final = 1.0  # seconds likewise, for one who waits at a closed gate


class Gate:
    """Lets any number of threads in, until one closes it.

    The thread that closed it passes freely. Those that come meanwhile wait until it is opened. Where a call costs too
    much, ``come`` and ``go`` are the way in and out, by whoever sees after coming that there is no ``holder``. An
    interruption that ``come`` raises, as of Ctrl-C, is raised when one is in: both belong in one ``try`` statement.

    Attributes:
        come: to be called with the thread's identity.
        go: likewise; to be followed by :meth:`left` where there is a holder then.
        holder: the identity of the thread that has closed it; 0 while it is open.
    """

    __slots__ = ("_changed", "_depth", "_inside", "_mutex", "come", "go", "holder")

    def __init__(self) -> None:
        # A deque's append and remove are single steps of the interpreter: keeping count of threads needs no lock.
        self._inside: deque[int] = deque()
        self.come = self._inside.append
        self.go = self._inside.remove
        self.holder = 0
        self._depth = 0
        self._mutex = threading.RLock()  # taken by itself: Condition's own way in may be interrupted in between
        self._changed = threading.Condition(self._mutex)

    def __enter__(self) -> None:
        me = threading.get_ident()
        try:
            self.come(me)
            if self.holder:
                self._wait(me)
        except BaseException:
            self.go(me)
            raise

    def enter_at_once(self) -> bool:
        """Come in, to be followed by :meth:`step_out`; False, and one is not in, where the gate is closed to us."""
        me = threading.get_ident()
        try:
            self.come(me)
            if self.holder in (0, me):
                return True
        except BaseException:
            self.go(me)
            raise
        self.step_out()
        return False

    def rejoin(self) -> None:
        """Come in again after :meth:`step_out`, before the end of the same ``with`` statement."""
        try:
            self.__enter__()
        except BaseException:
            self.come(threading.get_ident())  # which the end of the statement takes back
            raise

    def step_out(self) -> None:
        """Leave for a while, within a ``with`` statement."""
        self.go(threading.get_ident())
        if self.holder:
            self.left()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go(threading.get_ident())
        if self.holder:
            self.left()

    @property
    def is_idle(self) -> bool:
        """Whether nobody is inside, nor has closed it."""
        return not self._inside and not self.holder

    def left(self) -> None:
        """Tell the one who waits at a closed gate that somebody has gone."""
        with self._mutex:
            self._changed.notify_all()

    def _wait(self, me: int) -> None:
        """Step back from a closed gate, and come in when it is open; one is in also where this fails."""
        until = time.monotonic() + _PATIENCE
        while self.holder not in (0, me):
            try:
                self.go(me)
                with self._mutex:
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: not self.holder, _PAUSE)
            finally:
                self.come(me)
            if self.holder and time.monotonic() >= until:
                raise BlockError("The block graph is being changed, and that does not end", errno=errno.EBUSY)

    def close(self, seconds: float) -> int:
        """Close the gate and wait until nobody is inside.

        The thread that has closed it may do so again, and opens it as often.

        Returns:
            How often we have closed it; 0, and the gate is open, where it takes too long.

        Raises:
            Reentered: by a signal handler, of a thread that is inside: it would wait for itself.
        """
        until, me = time.monotonic() + seconds, threading.get_ident()
        closed = 0
        try:
            with self._mutex:
                closed = self._close(me, until)
        except BaseException:  # an interruption, also of the last step, when the gate is closed already
            if closed:
                self.open(closed)
            raise
        return closed

    def _close(self, me: int, until: float) -> int:
        if self.holder == me:
            self._depth += 1
            return self._depth
        if me in self._inside:
            raise Reentered("A signal handler cannot keep others out of what its own thread is in the middle of using")
        while self.holder:
            if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                return 0
        try:
            self.holder, self._depth = me, 1
            while self._inside:
                if time.monotonic() >= until:
                    self._let_in()
                    return 0
                self._changed.wait(_GLANCE)
        except BaseException:
            self._let_in()
            raise
        return 1

    def open(self, closed: int = 0) -> None:
        """Let everyone in again, once it was opened as often as closed.

        Args:
            closed: what :meth:`close` gave: an interruption may have come before or after that was undone, and it may
                be undone once more; what was closed since is undone with it. 0 for what was closed last.
        """
        if closed and (self.holder != threading.get_ident() or self._depth < closed):
            return
        self._depth = (closed or self._depth) - 1
        if not self._depth:  # no interruption comes in between, for nothing is called
            self.holder = 0
        with self._mutex:
            self._changed.notify_all()

    def _let_in(self) -> None:
        self.holder = 0
        self._changed.notify_all()


class Bypass:
    """Requests that go past the nodes, straight to a file's descriptor, because they know that nothing is in between.

    Each file that is used so has a gate for them. Whoever uses it looks at :attr:`generation`, and then finds out which
    file that is; with the file's gate held it looks again, and asks the graph anew when the number is another one.

    Attributes:
        generation: counts the changes of any graph, at their beginning and at their end.
        changing: a gate that nobody passes; closed by the one thread that changes a graph. What is found out of a graph
            meanwhile may be neither what was nor what will be.
    """

    __slots__ = ("_counting", "changing", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self.divide()

    def divide(self) -> None:
        """Begin anew, as a forked child does: what other threads of its parent held nobody gives free there."""
        self.changing = Gate()
        self._counting = threading.RLock()  # a signal handler may come here again

    def changed(self) -> None:
        """Let everybody ask the graph anew; any thread may call it."""
        with self._counting:
            self.generation += 1


BYPASS: Final = Bypass()
in_child(BYPASS.divide)
