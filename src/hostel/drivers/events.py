"""Events: what happened to a domain, a pool, a network, told to whoever listens, in this process or in another.

There is no daemon, so every process tells: an operation that changed something publishes it, and each listener of the
same user receives it. A :class:`Listener` is a datagram socket in the bus's directory (or, where the bus has none, a
queue in memory); publishing sends to every socket that is there. Nobody listening costs one look at a directory.

Kinds and details are libvirt's (``virDomainEventID`` and its callbacks), by the names that ``virsh event`` has for
them; numbers are those that go over the wire.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from hostel.net.waker import Waker

# The place of a name is libvirt's number for it.
DOMAIN_EVENTS: Final = (
    "lifecycle", "reboot", "rtc-change", "watchdog", "io-error", "graphics", "io-error-reason", "control-error",
    "block-job", "disk-change", "tray-change", "pm-wakeup", "pm-suspend", "balloon-change", "pm-suspend-disk",
    "device-removed", "block-job-2", "tunable", "agent-lifecycle", "device-added", "migration-iteration",
    "job-completed", "device-removal-failed", "metadata-change", "block-threshold", "memory-failure",
    "memory-device-size-change",
)  # fmt: skip
POOL_EVENTS: Final = ("lifecycle", "refresh")
NETWORK_EVENTS: Final = ("lifecycle",)
SECRET_EVENTS: Final = ("lifecycle", "value-changed")
NODE_DEVICE_EVENTS: Final = ("lifecycle", "update")

_SUFFIX: Final = ".events"
_LARGEST: Final = 128 << 10  # bytes of a datagram
_PATIENCE: Final = 1.0  # seconds that a listener has to make room
_WAITING: Final = 10_000  # events that a listener may leave unread


class Subject(enum.StrEnum):
    """What kind of object an event is about."""

    DOMAIN = "domain"
    POOL = "pool"
    NETWORK = "network"
    SECRET = "secret"
    NODE_DEVICE = "nodedev"
    MONITOR = "monitor"  # what QEMU says of a domain, by its own names


class Lifecycle(enum.IntEnum):
    """``virDomainEventType``; the detail's number depends on it."""

    DEFINED = 0
    UNDEFINED = 1
    STARTED = 2
    SUSPENDED = 3
    RESUMED = 4
    STOPPED = 5
    SHUTDOWN = 6
    PMSUSPENDED = 7
    CRASHED = 8


class Defined(enum.IntEnum):
    """``virDomainEventDefinedDetailType``."""

    ADDED = 0
    UPDATED = 1
    RENAMED = 2
    FROM_SNAPSHOT = 3


class Undefined(enum.IntEnum):
    """``virDomainEventUndefinedDetailType``."""

    REMOVED = 0
    RENAMED = 1


class Started(enum.IntEnum):
    """``virDomainEventStartedDetailType``."""

    BOOTED = 0
    MIGRATED = 1
    RESTORED = 2
    FROM_SNAPSHOT = 3
    WAKEUP = 4


class Resumed(enum.IntEnum):
    """``virDomainEventResumedDetailType``."""

    UNPAUSED = 0
    MIGRATED = 1
    FROM_SNAPSHOT = 2


class Suspended(enum.IntEnum):
    """``virDomainEventSuspendedDetailType``."""

    PAUSED = 0
    MIGRATED = 1
    IOERROR = 2
    WATCHDOG = 3
    RESTORED = 4
    FROM_SNAPSHOT = 5


class Stopped(enum.IntEnum):
    """``virDomainEventStoppedDetailType``."""

    SHUTDOWN = 0
    DESTROYED = 1
    CRASHED = 2
    MIGRATED = 3
    SAVED = 4
    FAILED = 5
    FROM_SNAPSHOT = 6


class BlockJobType(enum.IntEnum):
    """``virDomainBlockJobType``."""

    UNKNOWN = 0
    PULL = 1
    COPY = 2
    COMMIT = 3
    ACTIVE_COMMIT = 4
    BACKUP = 5


class BlockJobStatus(enum.IntEnum):
    """``virConnectDomainEventBlockJobStatus``."""

    COMPLETED = 0
    FAILED = 1
    CANCELED = 2
    READY = 3


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        subject: what kind of object it happened to.
        kind: which event, by virsh's name: one of :data:`DOMAIN_EVENTS` or of the other tables.
        name: the object's name.
        uuid: the object's UUID; empty for node devices, which have none.
        id: a domain's number while it runs, else -1.
        detail: what the callback of libvirt is given besides: numbers and strings, by libvirt's names for them.
    """

    subject: Subject
    kind: str
    name: str
    uuid: str = ""
    id: int = -1
    detail: Mapping[str, Any] = {}

    def encode(self) -> bytes:
        """The event as it goes from process to process."""
        return json.dumps([*self[:5], dict(self.detail)]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Event | None:
        """Read what :meth:`encode` wrote; None for anything else."""
        try:
            subject, kind, name, uuid, number, detail = json.loads(data)
            return cls(Subject(subject), str(kind), str(name), str(uuid), int(number), dict(detail))
        except (ValueError, TypeError):
            return None


class EventSource(Protocol):
    """Where a connection's events come from."""

    def listen(self) -> Listener:
        """Begin to listen; close the listener when done."""


class Listener:
    """Events since it was made, oldest first; close it, or use it as a context manager."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._queue: queue.Queue[Event | None] = queue.Queue(_WAITING)
        self._ending: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, timeout: float) -> Event | None:
        """The next event; None when there was none for ``timeout`` seconds, or the listener was closed."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def put(self, event: Event | None) -> None:
        """Deliver; what a listener that reads nothing has no room for is lost."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(event)

    def before_close(self, end: Callable[[], None]) -> None:
        """Have something called when the listener is closed: what was begun for it ends with it."""
        self._ending.append(end)

    def close(self) -> None:
        """Stop listening; may be called twice, from any thread."""
        while self._ending:
            self._ending.pop()()
        self._bus.leave(self)
        self.put(None)


class EventBus:
    """Brings events to the listeners of one user's session, or of one process where there is no directory."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._listeners: dict[int, Listener] = {}
        self._sockets: dict[int, _Inbox] = {}
        self._lock = threading.Lock()

    def listen(self) -> Listener:
        """Begin to listen.

        Raises:
            OSError: no socket can be made in the directory.
        """
        listener = Listener(self)
        self.enter(listener)
        return listener

    def enter(self, listener: Listener) -> None:
        """Deliver to a listener that was made for this bus, until it leaves.

        Raises:
            OSError: no socket can be made in the directory.
        """
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            inbox = _Inbox(self._directory, listener)
            with self._lock:
                self._sockets[id(listener)] = inbox
        with self._lock:
            self._listeners[id(listener)] = listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener; one that has left already is no mistake."""
        with self._lock:
            self._listeners.pop(id(listener), None)
            inbox = self._sockets.pop(id(listener), None)
        if inbox is not None:
            inbox.close()

    def publish(self, event: Event) -> None:
        """Tell every listener. A listener that makes no room for a second, or is gone, is passed over."""
        if self._directory is None:
            with self._lock:
                listeners = list(self._listeners.values())
            for listener in listeners:
                listener.put(event)
            return
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX)]
        except OSError:
            return
        if names:
            _send(self._directory, names, event.encode())


class _Inbox:
    """A listener's socket and the thread that empties it."""

    def __init__(self, directory: Path, listener: Listener) -> None:
        self._path = directory / f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
        self._listener = listener
        self._is_over = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._waker = Waker()
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the directory's descriptor: a socket's path has 108 bytes.
            self._socket.bind(f"/proc/self/fd/{descriptor}/{self._path.name}")
            self._path.chmod(0o600)
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(descriptor)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.closing(self._waker), self._socket:
            poll = select.poll()  # select() takes no descriptor beyond 1023, and a daemon of many clients has more
            poll.register(self._socket, select.POLLIN)
            poll.register(self._waker, select.POLLIN)
            while not self._is_over:
                if self._socket.fileno() in dict(poll.poll()):
                    event = Event.decode(self._socket.recv(_LARGEST))
                    if event is not None:
                        self._listener.put(event)

    def close(self) -> None:
        """Take the socket away and end the thread, which closes what it has waited for."""
        self._is_over = True
        self._path.unlink(missing_ok=True)
        self._waker.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)


def _send(directory: Path, names: list[str], data: bytes) -> None:
    if len(data) > _LARGEST:
        return
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
        sender.setblocking(False)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        stack.callback(os.close, descriptor)
        for name in names:
            _send_to(sender, f"/proc/self/fd/{descriptor}/{name}", directory / name, data)


def _send_to(sender: socket.socket, place: str, path: Path, data: bytes) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            sender.sendto(data, place)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # its process was killed
                with contextlib.suppress(OSError):
                    path.unlink()
        return
