"""The event loop: the default one, or a program's own, which tells when descriptors and times are due."""

from __future__ import annotations

import itertools
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from hostel.net.waker import Waker

_READABLE, _WRITABLE, _ERROR, _HANGUP = 1, 2, 4, 8  # VIR_EVENT_HANDLE_
_POLL: Final = (
    (_READABLE, select.POLLIN),
    (_WRITABLE, select.POLLOUT),
    (_ERROR, select.POLLERR),
    (_HANGUP, select.POLLHUP),
)

HandleCallback = Callable[[int, int, int, Any], Any]
TimeoutCallback = Callable[[int, Any], Any]


class _Default:
    """Waits with ``poll``; :meth:`run` looks once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches, self._timers = itertools.count(1), itertools.count(1)
        self._handles: dict[int, tuple[int, int, HandleCallback, Any]] = {}
        self._timeouts: dict[int, tuple[int, float, TimeoutCallback, Any]] = {}
        self._waker = Waker()

    def add_handle(self, fd: int, events: int, cb: HandleCallback, opaque: Any) -> int:
        with self._lock:
            number = next(self._watches)
            self._handles[number] = (fd, events, cb, opaque)
        self._changed()
        return number

    def update_handle(self, watch: int, events: int) -> None:
        with self._lock:
            known = self._handles.get(watch)
            if known is not None:
                self._handles[watch] = (known[0], events, known[2], known[3])
        self._changed()

    def remove_handle(self, watch: int) -> int:
        with self._lock:
            found = self._handles.pop(watch, None)
        self._changed()
        return -1 if found is None else 0

    def add_timeout(self, timeout: int, cb: TimeoutCallback, opaque: Any) -> int:
        with self._lock:
            number = next(self._timers)
            self._timeouts[number] = (timeout, time.monotonic() + timeout / 1000, cb, opaque)
        self._changed()
        return number

    def update_timeout(self, timer: int, timeout: int) -> None:
        with self._lock:
            known = self._timeouts.get(timer)
            if known is not None:
                self._timeouts[timer] = (timeout, time.monotonic() + timeout / 1000, known[2], known[3])
        self._changed()

    def remove_timeout(self, timer: int) -> int:
        with self._lock:
            found = self._timeouts.pop(timer, None)
        self._changed()
        return -1 if found is None else 0

    def _changed(self) -> None:
        self._waker.wake()

    def run(self) -> None:
        """Wait until something is due, and call what is."""
        with self._lock:
            handles = dict(self._handles)
            due = [when for interval, when, _, _ in self._timeouts.values() if interval >= 0]
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        wanted: dict[int, int] = {}
        for fd, events, _, _ in handles.values():
            if events:
                wanted[fd] = wanted.get(fd, 0) | sum(bit for event, bit in _POLL if events & event)
        for fd, bits in wanted.items():
            poll.register(fd, bits)
        # Bounded, so that a signal's handler and a change that was missed are not waited for.
        wait = min([max(0.0, when - time.monotonic()) for when in due], default=60.0)
        ready = dict(poll.poll(wait * 1000))
        if ready.pop(self._waker.fileno(), 0):
            self._waker.clear()
        self._call_timeouts()
        self._call_handles(handles, ready)

    def _call_timeouts(self) -> None:
        now = time.monotonic()
        for timer, (interval, when, cb, opaque) in list(self._timeouts.items()):
            if interval >= 0 and when <= now and timer in self._timeouts:
                with self._lock:
                    if timer in self._timeouts:
                        self._timeouts[timer] = (interval, now + interval / 1000, cb, opaque)
                cb(timer, opaque)

    def _call_handles(self, handles: dict[int, tuple[int, int, HandleCallback, Any]], ready: dict[int, int]) -> None:
        for watch, (fd, _, cb, opaque) in handles.items():
            bits = ready.get(fd, 0)
            known = self._handles.get(watch)
            if bits and known is not None:
                events = sum(event for event, bit in _POLL if bits & bit) & (known[1] | _ERROR | _HANGUP)
                if events:
                    cb(watch, fd, events, opaque)


class _Own:
    """A program's own loop: its functions, which are given ours to call back."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self._functions = functions

    def add_handle(self, fd: int, events: int, cb: HandleCallback, opaque: Any) -> int:
        return int(self._functions[0](fd, events, _eventInvokeHandleCallback, (cb, opaque, None)))

    def update_handle(self, watch: int, events: int) -> None:
        self._functions[1](watch, events)

    def remove_handle(self, watch: int) -> int:
        return int(self._functions[2](watch) or 0)

    def add_timeout(self, timeout: int, cb: TimeoutCallback, opaque: Any) -> int:
        return int(self._functions[3](timeout, _eventInvokeTimeoutCallback, (cb, opaque, None)))

    def update_timeout(self, timer: int, timeout: int) -> None:
        self._functions[4](timer, timeout)

    def remove_timeout(self, timer: int) -> int:
        return int(self._functions[5](timer) or 0)


_loop: _Default | _Own | None = None


def is_registered() -> bool:
    """Whether there is a loop."""
    return _loop is not None


def virEventRegisterDefaultImpl() -> int:
    """Use the default loop; :func:`virEventRunDefaultImpl` runs it."""
    global _loop
    if _loop is None:
        _loop = _Default()
    return 0


def virEventRegisterImpl(
    addHandle: Callable[..., Any],
    updateHandle: Callable[..., Any],
    removeHandle: Callable[..., Any],
    addTimeout: Callable[..., Any],
    updateTimeout: Callable[..., Any],
    removeTimeout: Callable[..., Any],
) -> None:
    """Use a loop of the program's own, by its functions; a loop that is there already stays."""
    global _loop
    if _loop is None:
        _loop = _Own(addHandle, updateHandle, removeHandle, addTimeout, updateTimeout, removeTimeout)


def virEventRunDefaultImpl() -> int:
    """Look once: wait until something is due, and call what is.

    Raises:
        libvirtError: the default loop is not the one in use.
    """
    if not isinstance(_loop, _Default):
        from hostel.libvirt.error import libvirtError

        raise libvirtError("virEventRunDefaultImpl() failed: the default event loop is not registered")
    _loop.run()
    return 0


def virEventAddHandle(fd: int, events: int, cb: HandleCallback, opaque: Any) -> int:
    """Call ``cb(watch, fd, events, opaque)`` when a descriptor is ready; the watch.

    Raises:
        libvirtError: there is no loop.
    """
    return _known(-1 if _loop is None else _loop.add_handle(fd, events, cb, opaque), "virEventAddHandle")


def virEventUpdateHandle(watch: int, events: int) -> None:
    """Wait for other events of a watch."""
    if _loop is not None:
        _loop.update_handle(watch, events)


def virEventRemoveHandle(watch: int) -> int:
    """Wait no more.

    Raises:
        libvirtError: there is no such watch.
    """
    return _known(-1 if _loop is None else _loop.remove_handle(watch), "virEventRemoveHandle")


def virEventAddTimeout(timeout: int, cb: TimeoutCallback, opaque: Any) -> int:
    """Call ``cb(timer, opaque)`` every ``timeout`` milliseconds, -1: never, until it is updated; the timer.

    Raises:
        libvirtError: there is no loop.
    """
    return _known(-1 if _loop is None else _loop.add_timeout(timeout, cb, opaque), "virEventAddTimeout")


def virEventUpdateTimeout(timer: int, timeout: int) -> None:
    """Call at other intervals."""
    if _loop is not None:
        _loop.update_timeout(timer, timeout)


def virEventRemoveTimeout(timer: int) -> int:
    """Call no more.

    Raises:
        libvirtError: there is no such timer.
    """
    return _known(-1 if _loop is None else _loop.remove_timeout(timer), "virEventRemoveTimeout")


def _known(answer: int, what: str) -> int:
    if answer < 0:
        from hostel.libvirt.error import libvirtError

        raise libvirtError(f"{what}() failed")
    return answer


def virEventInvokeFreeCallback(opaque: Any) -> None:
    """A program's loop is done with what it was given when a handle or a timeout was added."""
    if opaque is not None and opaque[2] is not None:
        opaque[2](opaque[1])


def _eventInvokeHandleCallback(watch: int, fd: int, event: int, opaque: Any, opaquecompat: Any = None) -> None:
    callback, given = (opaque, opaquecompat) if opaquecompat else opaque[:2]
    callback(watch, fd, event, given)


def _eventInvokeTimeoutCallback(timer: int, opaque: Any, opaquecompat: Any = None) -> None:
    callback, given = (opaque, opaquecompat) if opaquecompat else opaque[:2]
    callback(timer, given)


def _dispatchEventHandleCallback(watch: int, fd: int, events: int, cbData: dict[str, Any]) -> int:
    cbData["cb"](watch, fd, events, cbData["opaque"])
    return 0


def _dispatchEventTimeoutCallback(timer: int, cbData: dict[str, Any]) -> int:
    cbData["cb"](timer, cbData["opaque"])
    return 0
