"""A stream's callback: a thread waits until the stream can be used, and wakes the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from hostel.libvirt import event
from hostel.libvirt.method import Peer
from hostel.net.waker import Waker

_READABLE, _WRITABLE = 1, 2  # VIR_STREAM_EVENT_
_PIECE: Final = 0.2  # seconds that one look takes at most


class Watching:
    """Calls back, from the event loop, while a stream is what it is watched for.

    Args:
        peer: the stream's other side. Sending may always begin: what does not fit is waited for.
        events: what is waited for.
        told: called with those events that are there.
    """

    def __init__(self, peer: Peer, events: int, told: Callable[[int], None]) -> None:
        self._peer = peer
        self._events = events
        self._told = told
        self._changed = threading.Condition()
        self._is_due = False  # the loop has been woken, and has not called back yet
        self._is_over = False
        self._waker = Waker()
        self._watch = event.virEventAddHandle(self._waker.fileno(), _READABLE, self._call, None)
        self._thread = threading.Thread(target=self._run, name="stream-events", daemon=True)
        self._thread.start()

    def update(self, events: int) -> None:
        """Wait for other events."""
        with self._changed:
            self._events = events
            self._changed.notify()

    def close(self) -> None:
        """Call nobody any more."""
        with self._changed:
            if self._is_over:
                return
            self._is_over = True
            self._changed.notify()
        event.virEventRemoveHandle(self._watch)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._waker.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_over and (self._is_due or not self._events & (_READABLE | _WRITABLE)):
                    self._changed.wait()
                if self._is_over:
                    return
                can_send = self._events & _WRITABLE
            if can_send or self._peer.wait(_PIECE):
                with self._changed:
                    if self._is_over:
                        return
                    self._is_due = True
                    self._waker.wake()

    def _call(self, watch: int, fd: int, events: int, opaque: Any) -> None:
        self._waker.clear()
        ready = self._events & _WRITABLE
        if self._events & _READABLE and self._peer.wait(0):
            ready |= _READABLE
        try:
            if ready:
                self._told(ready)
        finally:
            with self._changed:
                self._is_due = False
                self._changed.notify()
