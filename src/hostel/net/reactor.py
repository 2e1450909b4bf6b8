"""One thread that waits for many sockets, and for what other threads and the clock have for it.

A server of threads (:mod:`hostel.net.server`) suits few connections that carry much. This one suits many that carry
little: nothing of a connection that waits is in anybody's way.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from hostel.net.waker import Waker
from hostel.units import KiB

_BUFFER: Final = 256 * KiB
READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
# How often it is looked for more before the thread sleeps, some 50 microseconds in all: a client that asks one thing
# after the other asks again within that, and waking up takes longer. One processor it would only take from the client.
_LOOKS: Final = 150 if len(os.sched_getaffinity(0)) > 1 else 0


class Timer:
    """A call at a time; :meth:`cancel` keeps it from being made."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call; once it has been called, do nothing."""
        self.call = None


class Reactor:
    """Calls handlers when their descriptors are ready, always from the thread that is in :meth:`run`.

    Args:
        failed: told an exception that a handler let out; the loop goes on.

    Attributes:
        buffer: for handlers to receive into; what they keep of it they copy.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self.buffer = memoryview(bytearray(_BUFFER))
        self._failed = failed
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopping = False
        self._waker = Waker()
        self.add(self._waker.fileno(), READABLE, lambda _: self._waker.clear())

    def add(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Let ``handler`` be called with the events of a descriptor when there are any of ``events``."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events of a descriptor; may be called from any thread."""
        with contextlib.suppress(FileNotFoundError):
            self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Wait for nothing of a descriptor any more; called before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(fd)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call from the loop, if it still runs; may be called from any thread, and from a signal handler."""
        self._calls.append(call)
        # Also in the loop's own thread: a signal handler runs there while it waits.
        self._waker.wake()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call from the loop after a time; may be called from the loop only, and before it runs."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def _wait(self) -> list[tuple[int, int]]:
        """What has happened, as descriptors and events; nothing where a time has come."""
        poll = self._epoll.poll
        for _ in range(_LOOKS):
            if found := poll(0):
                return found
        return poll(self._timeout())

    def run(self) -> None:
        """Wait and call, until :meth:`stop`."""
        with self._waker.woken_by_signals():
            self._run()

    def _run(self) -> None:
        handlers = self._handlers
        while not self._stopping:
            for fd, events in self._wait():
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(events)
                    except Exception as error:
                        self._failed(error)
            if self._calls or self._timers:
                self._call_due()

    def stop(self) -> None:
        """Let :meth:`run` return; may be called from any thread, and from a signal handler."""
        self._stopping = True
        self._waker.wake()

    def close(self) -> None:
        """Release what waiting takes; the descriptors are their owners'."""
        self._epoll.close()
        self._waker.close()

    def _timeout(self) -> float | None:
        if self._calls:
            return 0
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _call_due(self) -> None:
        for _ in range(len(self._calls)):
            self._guarded(self._calls.popleft())
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                self._guarded(call)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._failed(error)
