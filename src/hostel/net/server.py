"""A server that gives each connection a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from hostel.errors import NetworkError
from hostel.net import address
from hostel.net.waker import Waker

# What accept() answers when this process or the host is out of something; waiting is all that helps.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 1.0  # seconds
_STOP_TIMEOUT: Final = 60.0  # seconds for the connections to end


class Server:
    """Accepts connections and serves each in a thread, until it is told to stop.

    Args:
        listeners: listening sockets, which the server closes.
        serve: serves a connection to its end, closes it, and says whether it counted: whether the client did more
            than look.
        limit: connections at a time, 0 for any number; more wait in the listeners' queues.
        once: stop when a connection that counted has ended and none is left.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        serve: Callable[[socket.socket], bool],
        *,
        limit: int = 0,
        once: bool = False,
    ) -> None:
        self._listeners = listeners
        self._serve = serve
        self._limit = limit
        self._once = once
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._stopping = False
        self._counted = False  # whether a connection that counted has ended
        self._waker = Waker()
        for listener in listeners:
            listener.setblocking(False)

    def run(self) -> None:
        """Do :meth:`accept`, then :meth:`end`; callable once.

        Raises:
            NetworkError: a connection's thread does not end.
        """
        try:
            self.accept()
        finally:
            self.end()

    def accept(self) -> None:
        """Accept and serve until :meth:`stop`, to be followed by :meth:`end`."""
        try:
            with self._waker.woken_by_signals():
                self._accept_all()
        finally:
            for listener in self._listeners:
                listener.close()

    def end(self) -> None:
        """End every connection.

        Raises:
            NetworkError: a connection's thread does not end.
        """
        self._end_connections()
        self._waker.close()

    def stop(self) -> None:
        """Make :meth:`run` and :meth:`accept` return; may be called from any thread, and from a signal handler."""
        self._stopping = True
        self._waker.wake()

    def _accept_all(self) -> None:
        poll = select.poll()
        woken = self._waker.fileno()
        poll.register(woken, select.POLLIN)
        watched = False
        while not self._stopping:
            wanted = not self._limit or len(self._connections) < self._limit
            if wanted != watched:
                for listener in self._listeners:
                    if wanted:
                        poll.register(listener, select.POLLIN)
                    else:
                        poll.unregister(listener)
                watched = wanted
            ready = {fd for fd, _ in poll.poll()}
            if woken in ready:
                self._waker.clear()
            for listener in self._listeners:
                if listener.fileno() in ready and not self._stopping and not self._is_full():
                    self._accept(listener)

    def _is_full(self) -> bool:
        return bool(self._limit) and len(self._connections) >= self._limit

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            # Anything else is a client that was gone before it was accepted.
            if error.errno in _EXHAUSTED:
                time.sleep(_PAUSE)
            return
        sock.setblocking(True)
        address.tune(sock)
        thread = threading.Thread(target=self._run_connection, args=(sock,), name="connection", daemon=True)
        with self._lock:
            self._connections[thread] = sock
        try:
            thread.start()
        except RuntimeError:  # the host has no thread left for us
            with self._lock:
                del self._connections[thread]
            sock.close()
            time.sleep(_PAUSE)

    def _run_connection(self, sock: socket.socket) -> None:
        counted = False
        try:
            counted = self._serve(sock)
        finally:
            sock.close()
            with self._lock:
                del self._connections[threading.current_thread()]
                # The last one to end may be one that only looked, and ends late.
                self._counted |= counted
                if self._once and self._counted and not self._connections:
                    self._stopping = True
            self._waker.wake()

    def _end_connections(self) -> None:
        with self._lock:
            connections = dict(self._connections)
            for sock in connections.values():
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _STOP_TIMEOUT
        for thread in connections:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in connections):
            raise NetworkError(f"a connection did not end within {_STOP_TIMEOUT:.0f} seconds", errno=errno.EBUSY)
