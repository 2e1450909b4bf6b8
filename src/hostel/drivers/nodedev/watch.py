"""Devices that come and go, told as events: the kernel's news, or udev's where it runs, have the host looked at anew.

What is told is the difference of two looks, so that no order of news, and no lost one, tells a thing twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.events import Event, EventSource, Listener, Subject
from hostel.errors import VirtError
from hostel.net.waker import Waker

_NEWS: Final = 15  # NETLINK_KOBJECT_UEVENT
_FROM_KERNEL, _FROM_UDEV = 1, 2  # its groups
_UDEV: Final = Path("/run/udev/control")
_DEFINITIONS: Final = Path("/etc/mdevctl.d")
_QUIET: Final = 0.2  # seconds without news after which the host is looked at
_IMPATIENT: Final = 2.0  # seconds after which it is looked at all the same
_LOOK: Final = 1.0  # seconds between two looks at what is defined
_BLIND: Final = 5.0  # seconds between two looks at the host where no news are to be had
_CREATED, _DELETED, _DEFINED, _UNDEFINED = 0, 1, 2, 3  # virNodeDeviceEventLifecycleType


class Seen(NamedTuple):
    """What there was of a device when the host was looked at.

    Attributes:
        is_active: it was there.
        is_persistent: it was defined.
        document: what it was.
    """

    is_active: bool
    is_persistent: bool
    document: str


Look = Callable[[], Mapping[str, Seen]]


def differences(before: Mapping[str, Seen], after: Mapping[str, Seen]) -> Iterator[Event]:
    """What has happened between two looks at the host."""
    nothing = Seen(False, False, "")
    for name in sorted({*before, *after}):
        old, new = before.get(name, nothing), after.get(name, nothing)
        if old.is_active and not new.is_active:
            yield _lifecycle(name, _DELETED)
        if old.is_persistent and not new.is_persistent:
            yield _lifecycle(name, _UNDEFINED)
        if new.is_persistent and not old.is_persistent:
            yield _lifecycle(name, _DEFINED)
        if new.is_active and not old.is_active:
            yield _lifecycle(name, _CREATED)
        if old[:2] == new[:2] and old.document != new.document:
            yield Event(Subject.NODE_DEVICE, "update", name)


def _lifecycle(name: str, number: int) -> Event:
    return Event(Subject.NODE_DEVICE, "lifecycle", name, detail={"event": number, "detail": 0})


class WatchedDevices:
    """A source of events to which those of the host's devices are added.

    Args:
        source: of the other events.
        look: looks at the host.
        definitions: where ``mdevctl`` keeps what is defined.
    """

    def __init__(self, source: EventSource, look: Look, definitions: Path = _DEFINITIONS) -> None:
        self._source = source
        self._look = look
        self._definitions = definitions

    def listen(self) -> Listener:
        """Begin to listen; close the listener when done."""
        listener = self._source.listen()
        watch = DeviceWatch(self._look, listener.put, self._definitions)
        listener.before_close(watch.stop)
        watch.start()
        return listener


class DeviceWatch:
    """A thread that tells what happens to devices.

    Args:
        look: looks at the host.
        tell: is given each event.
        definitions: where ``mdevctl`` keeps what is defined.
    """

    def __init__(self, look: Look, tell: Callable[[Event], None], definitions: Path) -> None:
        self._look = look
        self._tell = tell
        self._definitions = definitions
        self._stopping = threading.Event()
        self._seen: Mapping[str, Seen] = {}
        self._news = _open_news()
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="devices", daemon=True)

    def start(self) -> None:
        """Look at the host, and tell from now on what becomes different."""
        with contextlib.suppress(VirtError):
            self._seen = self._look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._waker.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(5)  # looking at the host may take longer

    def _run(self) -> None:
        with contextlib.closing(self._waker), self._news or contextlib.nullcontext():
            self._follow()

    def _follow(self) -> None:
        defined, looked = self._signature(), time.monotonic()
        while not self._stopping.is_set():
            has_news = self._wait(_LOOK)
            if has_news:
                self._settle()
            now = self._signature()
            is_blind = self._news is None and time.monotonic() - looked > _BLIND
            if has_news or now != defined or is_blind:
                defined, looked = now, time.monotonic()
                self._compare()

    def _compare(self) -> None:
        try:
            after = self._look()
        except VirtError:
            return  # what cannot be seen now is told after the next look
        for event in differences(self._seen, after):
            self._tell(event)
        self._seen = after

    def _wait(self, seconds: float) -> bool:
        """Whether there are news, which are read away."""
        poll = select.poll()  # select() takes no descriptor beyond 1023, and a daemon of many clients has more
        poll.register(self._waker, select.POLLIN)
        if self._news is not None:
            poll.register(self._news, select.POLLIN)
        ready = dict(poll.poll(seconds * 1000))
        if self._news is None or self._news.fileno() not in ready:
            return False
        self._read_away(self._news)
        return True

    def _settle(self) -> None:
        """Let what comes in many pieces come to its end."""
        deadline = time.monotonic() + _IMPATIENT
        while not self._stopping.is_set() and time.monotonic() < deadline and self._wait(_QUIET):
            pass

    def _read_away(self, news: socket.socket) -> None:
        try:
            while True:
                news.recv(1)
        except OSError as error:
            # There were more than it can hold; the look at the host makes up for those.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self._stopping.wait(_QUIET)

    def _signature(self) -> frozenset[tuple[str, int, int]]:
        """What tells that definitions have changed."""
        found = set()
        for path in self._definitions.glob("*/*"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.add((str(path), stat.st_mtime_ns, stat.st_ino))
        return frozenset(found)


def _open_news() -> socket.socket | None:
    """The socket that the news come by; None where this process may have none."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NEWS)
    try:
        news.bind((0, _FROM_UDEV if os.path.exists(_UDEV) else _FROM_KERNEL))
    except OSError:
        news.close()
        return None
    return news
