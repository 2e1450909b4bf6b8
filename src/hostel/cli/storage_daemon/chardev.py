"""Character devices for monitors: sockets that are listened on or connected to, standard input and output, nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hostel.block.options import SWITCH, OptionError, split_options
from hostel.cli.qemu.failure import Failure
from hostel.errors import NetworkError
from hostel.net import address, inherited
from hostel.net.address import MAX_PORT, Address, TcpAddress, UnixAddress, VsockAddress
from hostel.net.waker import Waker

# For monitors, and the others that can be added while the daemon runs.
_OF_MONITORS: Final = ("socket", "stdio", "null", "pipe")
TYPES: Final = (*_OF_MONITORS, "file", "memory", "pty", "ringbuf")
_OTHERS: Final = ("pty", "udp", "memory", "file", "ringbuf", "parallel", "mux", "serial")
_SEND_TIMEOUT: Final = 10.0  # seconds in which a client must take what is sent to it
_GLANCE: Final = 200  # milliseconds after which waiting for a first client looks whether it is over
_COMMON: Final = frozenset({"id", "backend", "logfile", "logappend", "mux", "signal"})
_OPTIONS: Final = {
    "socket": frozenset(
        {"path", "host", "port", "fd", "server", "wait", "delay", "nodelay", "reconnect", "telnet", "tn3270"}
        | {"websocket", "tls-creds", "tls-authz", "abstract", "tight", "to", "ipv4", "ipv6", "localaddr", "localport"}
    ),
    "stdio": frozenset(),
    "null": frozenset(),
    "pipe": frozenset({"path"}),
}
_UNSUPPORTED: Final = ("telnet", "tn3270", "websocket", "tls-creds")


class Channel:
    """A client: what it sends is received, and what is sent to it has to be taken within a time.

    Args:
        read: the descriptor to receive from.
        write: the descriptor to send to.
        waker: wakes when waiting must end.
        release: closes the descriptors.
    """

    def __init__(self, read: int, write: int, waker: Waker, release: Callable[[], None]) -> None:
        self._read = read
        self._write = write
        self._waker = waker
        self._release = release
        self._gone = False

    def receive(self, length: int) -> bytes:
        """Wait for bytes; nothing when the client has gone or waiting must end."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(self._waker, select.POLLIN)
        ready = dict(poll.poll())
        if self._gone or self._read not in ready:
            return b""
        try:
            return os.read(self._read, length)
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        """Send; a client that does not take it is served no more."""
        until = time.monotonic() + _SEND_TIMEOUT
        view = memoryview(data)
        poll = select.poll()
        poll.register(self._write, select.POLLOUT)
        while view and not self._gone:
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                self._gone = True
                return
            try:
                view = view[os.write(self._write, view[:512]) :]
            except BlockingIOError:
                continue
            except OSError:
                self._gone = True

    def close(self) -> None:
        """Let the client go."""
        self._gone = True
        self._release()


class CharacterDevice:
    """Where clients come from, one at a time.

    Attributes:
        label: the device's id.
        filename: what ``query-chardev`` says it is.
        kind: its type, as QEMU calls it.
        address: of a socket, where it is.
        connected: of a socket, whether somebody is at the other end.
        listens: of a socket, whether others come to it.
    """

    listens = False

    def __init__(self, label: str, filename: str, kind: str = "null") -> None:
        self.label = label
        self.filename = filename
        self.kind = kind
        self.address: dict[str, Any] | None = None
        self.connected = False
        self._waker = Waker()
        self._closed = threading.Event()

    def accept(self) -> Channel | None:
        """Wait for a client; None when there will be no more."""
        self._wait()
        return None

    def close(self) -> None:
        """End all waiting; :meth:`accept` gives None from now on."""
        self._closed.set()
        self._waker.wake()

    def _wait(self, fd: int | None = None) -> bool:
        """Wait until a descriptor is readable; False where the device is closed meanwhile."""
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        while not self._closed.is_set():
            if any(ready == fd for ready, _ in poll.poll()):
                return True
        return False


class SocketDevice(CharacterDevice):
    """A socket that is listened on; clients come one after the other."""

    listens = True

    def __init__(self, label: str, filename: str, listener: socket.socket, path: str | None) -> None:
        super().__init__(label, filename, "socket")
        listener.setblocking(False)
        self._listener = listener
        self._path = path
        self._first: socket.socket | None = None

    def await_first(self, ended: Callable[[], bool]) -> None:
        """Wait for the first client, as ``wait=on`` wants it, unless a signal ends everything."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not ended() and not poll.poll(_GLANCE):
            pass
        with contextlib.suppress(OSError):
            self._first = self._listener.accept()[0]

    def accept(self) -> Channel | None:
        """See :class:`CharacterDevice`."""
        while self._first is not None or self._wait(self._listener.fileno()):
            sock, self._first = self._first, None
            if sock is None:
                try:
                    sock = self._listener.accept()[0]
                except OSError:
                    continue
            sock.setblocking(False)
            self.connected = True
            return Channel(sock.fileno(), sock.fileno(), self._waker, functools.partial(self._let_go, sock))
        self._listener.close()
        return None

    def _let_go(self, sock: socket.socket) -> None:
        self.connected = False
        sock.close()

    def close(self) -> None:
        """See :class:`CharacterDevice`; a Unix socket's file goes too."""
        if self._path is not None and not self._closed.is_set():
            address.remove_unix(self._path)
        super().close()


class PairDevice(CharacterDevice):
    """One client, which is there already: a connected socket, or two descriptors."""

    def __init__(self, label: str, filename: str, read: int, write: int, kind: str = "socket") -> None:
        super().__init__(label, filename, kind)
        self.connected = kind == "socket"
        self._pair: tuple[int, int] | None = (read, write)
        self._taking = threading.Lock()

    def accept(self) -> Channel | None:
        """See :class:`CharacterDevice`."""
        pair = self._take()
        if pair is None:
            return super().accept()
        return Channel(*pair, self._waker, functools.partial(self._let_go, pair))

    def close(self) -> None:
        """See :class:`CharacterDevice`; who was never served is let go too."""
        pair = self._take()
        if pair is not None:
            self._let_go(pair)
        super().close()

    def _take(self) -> tuple[int, int] | None:
        with self._taking:
            pair, self._pair = self._pair, None
            return pair

    def _let_go(self, pair: tuple[int, int]) -> None:
        self.connected = False
        if self.kind != "stdio":  # which are the process's own
            for fd in set(pair):
                os.close(fd)


def open_device(text: str, ended: Callable[[], bool]) -> CharacterDevice | None:
    """Make what ``--chardev`` describes; None where help was asked for.

    Args:
        text: the description.
        ended: whether waiting for a first client is over.

    Raises:
        Failure: the description is wrong; the text is QEMU's.
        NetworkError: the socket cannot be had.
    """
    head, comma, tail = text.partition(",")
    if head and "=" not in head:
        text = f"backend={head}{comma}{tail}"
    try:
        given = split_options(text)
    except OptionError as error:
        raise Failure(error.message) from None
    kind = given.get("backend", "")
    if kind in ("help", "?"):
        return None
    label = given.get("id")
    if label is None:
        raise Failure("chardev: no id specified")
    if not kind:
        raise Failure(f'chardev: "{label}" missing backend')
    if kind in _OTHERS:
        raise Failure(f"'{kind}' is no character device for a monitor here; there are {', '.join(_OF_MONITORS)}")
    if kind not in _OF_MONITORS:
        raise Failure(f"'{kind}' is not a valid char driver name")
    for name in given:
        if name not in _COMMON and name not in _OPTIONS[kind]:
            raise Failure(f"Invalid parameter '{name}'")
    if kind == "socket":
        return open_socket(label, given, ended)
    if kind == "stdio":
        return PairDevice(label, "stdio", 0, 1, "stdio")
    if kind == "pipe":
        return open_pipe(label, given.get("path"))
    return CharacterDevice(label, "null")


def open_socket(label: str, given: Mapping[str, str], ended: Callable[[], bool]) -> CharacterDevice:
    """Listen on a socket, or connect to one; see :func:`open_device`."""
    for name in _UNSUPPORTED:
        if given.get(name) not in (None, "off"):
            raise Failure(f"'{name}' is not supported for a monitor's socket")
    is_server, waits = _flag(given, "server", default=False), _flag(given, "wait", default=True)
    if "path" not in given and ("fd" in given or ("host" not in given and "port" not in given)):
        return inherited_socket(label, given.get("fd", ""), is_server=is_server)
    return open_at(label, _address(given), is_server=is_server, waits=waits, ended=ended)


def _address(given: Mapping[str, str]) -> Address:
    if "path" in given:
        return UnixAddress(given["path"], _flag(given, "abstract", default=False), _switch(given, "tight"))
    if "port" not in given:
        raise Failure("chardev: socket: no port given")
    last = given.get("to")
    if last is not None and not (last.isdecimal() and int(last) <= MAX_PORT):
        raise Failure("Parameter 'to' expects a port")
    return TcpAddress(
        given.get("host", ""),
        given["port"],
        ipv4=_switch(given, "ipv4"),
        ipv6=_switch(given, "ipv6"),
        numeric=_flag(given, "numeric", default=False),
        last=None if last is None else int(last),
    )


def open_at(label: str, where: Address, *, is_server: bool, waits: bool, ended: Callable[[], bool]) -> CharacterDevice:
    """Listen on a socket, or connect to one; see :func:`open_device`.

    Args:
        label: the device's name.
        where: the socket's place.
        is_server: listen there.
        waits: for the first client.
        ended: tells that waiting must end.

    Raises:
        NetworkError: with QEMU's text.
    """
    name, told = _shown(where, is_server=is_server)
    if not is_server:
        sock = address.connect(where)
        pair = PairDevice(label, name, sock.fileno(), sock.detach())
        pair.address = told
        return pair
    listener = address.listen(where, 1, dual_stack=True)[0]
    file = None
    if isinstance(where, TcpAddress):
        name = f"tcp:{where.host}:{listener.getsockname()[1]}"
    elif isinstance(where, UnixAddress) and not where.abstract:
        file = os.path.abspath(where.path)
    shown = name if isinstance(where, VsockAddress) else f"{name},server=on"  # as QEMU has it
    device = SocketDevice(label, shown, listener, file)
    device.address = told
    if waits:
        device.await_first(ended)
    return device


def _shown(where: Address, *, is_server: bool) -> tuple[str, dict[str, Any]]:
    """What a socket's place is called, and its parts, as the monitor tells them."""
    if isinstance(where, TcpAddress):
        return f"tcp:{where}", {"type": "inet", "host": where.host, "port": where.port}
    if isinstance(where, VsockAddress):
        return f"vsock:{where}", {"type": "vsock", "cid": where.cid, "port": where.port}
    told: dict[str, Any] = {"type": "unix", "path": where.path}
    if not where.abstract:
        return f"unix:{where}", told
    # Who listens knows, as QEMU does, how long the name has become; who connects what was asked for.
    tight = where.tight is not False if is_server else bool(where.tight)
    return (
        f"unix:{where},abstract=on{',tight=on' * tight}",
        {**told, "abstract": True, "tight": where.tight is not False},
    )


def inherited_socket(label: str, text: str, *, is_server: bool) -> CharacterDevice:
    """A socket whose number we were given."""
    if not text.isdigit():
        raise Failure(f"Unable to parse FD number {text}")
    try:
        sock = inherited.take(int(text))
    except OSError as error:
        raise NetworkError(f"Unable to use file descriptor {text}: {error.strerror}", errno=error.errno) from None
    if is_server:
        return SocketDevice(label, f"fd:{text},server=on", sock, None)
    return PairDevice(label, f"fd:{text}", sock.fileno(), sock.detach())


def open_pipe(label: str, path: str | None) -> CharacterDevice:
    """Open named pipes; see :func:`open_device`."""
    if path is None:
        raise Failure("chardev: pipe: no device path given")
    try:
        if os.path.exists(f"{path}.in") and os.path.exists(f"{path}.out"):
            read = os.open(f"{path}.in", os.O_RDWR | os.O_CLOEXEC)
            try:
                write = os.open(f"{path}.out", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                os.close(read)
                raise
            return PairDevice(label, f"pipe:{path}", read, write, "pipe")
        both = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"Could not open '{path}': {error.strerror}") from None
    return PairDevice(label, f"pipe:{path}", both, both, "pipe")


def _flag(given: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = _switch(given, name)
    return default if value is None else value


def _switch(given: Mapping[str, str], name: str) -> bool | None:
    value = given.get(name)
    if value is not None and value not in SWITCH:
        raise Failure(f"Parameter '{name}' expects 'on' or 'off'")
    return None if value is None else SWITCH[value]
