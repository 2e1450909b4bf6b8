"""Where a peer is: a TCP host and port, a Unix socket's path, a machine's CID and port; connecting and listening."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any, Final, NamedTuple

from hostel.cause import explain
from hostel.cause.holder import port_hint
from hostel.errors import NetworkError
from hostel.units import MiB

_MAX_PATH: Final = 108  # bytes of sockaddr_un.sun_path, its NUL included
_SEND_BUFFER: Final = 2 * MiB
MAX_PORT: Final = 65535
_MAX_VSOCK: Final = 2**32 - 1
_MAX_DIGITS: Final = 64  # of a number, with as many zeroes before it as anybody writes
_UNIX: Final[int | None] = getattr(socket, "AF_UNIX", None)  # Windows' Python has none
_VSOCK: Final[int | None] = getattr(socket, "AF_VSOCK", None)  # Linux has them


class TcpAddress(NamedTuple):
    """A host, by name or number, and a port, by number or service name; an empty host listens everywhere.

    Attributes:
        ipv4: whether it is by IPv4; None where that is left open, unless IPv6 is asked for.
        ipv6: the same of IPv6.
        numeric: names are not looked up when listening.
        last: the last port that is tried when listening, where those before are taken; None for no other one.
    """

    host: str
    port: str
    ipv4: bool | None = None
    ipv6: bool | None = None
    numeric: bool = False
    last: int | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_for_both(self) -> bool:
        """Whether a socket of IPv6 may serve IPv4 too: unless one of the two is asked for."""
        return self.ipv4 is self.ipv6 is None or bool(self.ipv4 and self.ipv6)

    @property
    def family(self) -> socket.AddressFamily:
        """What host names are looked up for.

        Raises:
            NetworkError: for nothing.
        """
        if self.ipv4 is False and self.ipv6 is False:
            raise NetworkError("Cannot disable IPv4 and IPv6 at same time", errno=errno.EINVAL)
        if self.ipv4 and self.ipv6:
            return socket.AF_UNSPEC
        if self.ipv6 or self.ipv4 is False:
            return socket.AF_INET6
        return socket.AF_INET if self.ipv4 or self.ipv6 is False else socket.AF_UNSPEC


class UnixAddress(NamedTuple):
    """The path of a Unix socket, or its name in Linux's abstract namespace.

    Attributes:
        abstract: it is such a name, for which there is no file.
        tight: an abstract name ends with its last byte; False where it is filled with zeroes, None where nobody said.
    """

    path: str
    abstract: bool = False
    tight: bool | None = None

    def __str__(self) -> str:
        return self.path

    @property
    def target(self) -> str | bytes:
        """What a socket is bound or connected to.

        Raises:
            NetworkError: it is too long.
        """
        check_path(self.path)
        if not self.abstract:
            return self.path
        name = b"\0" + os.fsencode(self.path)
        return name.ljust(_MAX_PATH, b"\0") if self.tight is False else name


class VsockAddress(NamedTuple):
    """The context id of a machine, or of its host, and a port there; both as they were given."""

    cid: str
    port: str

    def __str__(self) -> str:
        return f"{self.cid}:{self.port}"

    @property
    def target(self) -> tuple[int, int]:
        """What a socket is bound or connected to.

        Raises:
            NetworkError: one is no number of 32 bits; with QEMU's text.
        """
        for name, text in (("cid", self.cid), ("port", self.port)):
            if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= _MAX_VSOCK):
                raise NetworkError(f"Failed to parse {name} '{text}'", errno=errno.EINVAL)
        return int(self.cid), int(self.port)


Address = TcpAddress | UnixAddress | VsockAddress


def connect(address: Address, timeout: float | None = None) -> socket.socket:
    """Connect to a server, trying each of its addresses; the socket is blocking again afterwards.

    Args:
        address: where it is.
        timeout: seconds for each of them.

    Raises:
        NetworkError: with QEMU's text.
    """
    if isinstance(address, UnixAddress):
        target = address.target
        if _UNIX is None:
            raise NetworkError(f"Failed to connect to '{address}': this system has no Unix sockets", errno=errno.ENOSYS)
        # As QEMU, which names all of the place for it: an abstract socket that nobody listens at.
        candidates: list[tuple[int, Any]] = [(_UNIX, target or "\0" * _MAX_PATH)]
    elif isinstance(address, VsockAddress):
        place = address.target
        candidates = [(_vsock_family(f"Failed to connect to '{address}'"), place)]
    else:
        candidates = _resolve(address, passive=False)
    failure: OSError | None = None
    for family, target in candidates:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(target)
            sock.settimeout(None)
            tune(sock)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise _failed(f"Failed to connect to '{address}'", failure, _why_unreached(address, failure))


def listen(address: Address, backlog: int, *, dual_stack: bool = False) -> list[socket.socket]:
    """Listen on every address that a name stands for; at least one socket is returned.

    A Unix socket that is there already is replaced: it is what a server that was killed leaves behind.

    Args:
        address: where.
        backlog: clients that may wait.
        dual_stack: one of IPv6 serves IPv4 too, as QEMU's do, unless the address asks for one of the two.

    Raises:
        NetworkError: with QEMU's text.
    """
    if isinstance(address, UnixAddress):
        return [_listen_unix(address, backlog)]
    if isinstance(address, VsockAddress):
        return [_listen_vsock(address, backlog)]
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    hint: str | None = None
    for family, (host, port, *rest) in _resolve(address, passive=True):
        last = port if address.last is None else address.last
        if last < port:
            raise NetworkError(f"Failed to create a socket: no port from {port} to {last}", errno=errno.EINVAL)
        for each in range(port, last + 1):
            try:
                target = (host, each, *rest)
                listeners.append(_listen_tcp(family, target, backlog, dual_stack=dual_stack and address.is_for_both))
            except OSError as error:
                failure, hint = error, _why_not_bound((host, each), error)
                if error.errno != errno.EADDRINUSE:
                    break
            else:
                break
    if not listeners:
        in_use = failure is not None and failure.errno == errno.EADDRINUSE
        raise _failed("Failed to find an available port" if in_use else "Failed to bind socket", failure, hint)
    return listeners


def tune(sock: socket.socket) -> None:
    """Send small messages at once, let large ones be under way, and notice a peer that has vanished."""
    if sock.family == _UNIX:
        # TCP finds its own size; this one is what the kernel allows of it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _listen_tcp(family: int, target: tuple[Any, ...], backlog: int, *, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        sock.bind(target)
        sock.listen(backlog)
        return sock
    except BaseException as error:
        sock.close()
        if dual_stack and family == socket.AF_INET6 and isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return _listen_tcp(family, target, backlog, dual_stack=False)  # somebody has the port of IPv4
        raise


def _listen_unix(address: UnixAddress, backlog: int) -> socket.socket:
    target, path = address.target, address.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not address.abstract:
            _make_way(path)
        sock.bind(target)
        sock.listen(backlog)
        return sock
    except OSError as error:
        sock.close()
        if isinstance(error, NetworkError):
            raise
        hint = None if address.abstract else explain(error.errno, path)
        raise _failed(f"Failed to bind socket to {path}", error, hint) from None


def _vsock_family(what: str) -> int:
    """The number of the family.

    Raises:
        NetworkError: this system has no such sockets.
    """
    if _VSOCK is not None:
        with contextlib.suppress(OSError), socket.socket(_VSOCK, socket.SOCK_STREAM):
            return _VSOCK
    raise NetworkError(
        f"{what}: {os.strerror(errno.EAFNOSUPPORT)}",
        errno=errno.EAFNOSUPPORT,
        hint="This system has no sockets between machines and hosts; on Linux: modprobe vsock",
    )


def _listen_vsock(address: VsockAddress, backlog: int) -> socket.socket:
    target = address.target
    sock = socket.socket(_vsock_family("Failed to create socket"), socket.SOCK_STREAM)
    try:
        sock.bind(target)
        sock.listen(backlog)
        return sock
    except OSError as error:
        sock.close()
        hint = None
        if error.errno == errno.EADDRNOTAVAIL:
            hint = f"The CID is not this host's; {_MAX_VSOCK} stands for any that it has."
        raise _failed("Failed to bind socket", error, hint) from None


def _make_way(path: str) -> None:
    """Remove the socket that a server which was killed has left behind."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise NetworkError(f"Failed to unlink socket {path}: It is no socket", errno=errno.EEXIST)
        os.unlink(path)


def remove_unix(path: str) -> None:
    """Remove the socket that a server leaves behind."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def check_path(path: str) -> None:
    """Refuse a path that is too long for a Unix socket.

    Raises:
        NetworkError: so it is.
    """
    if len(os.fsencode(path)) >= _MAX_PATH:
        raise NetworkError(
            f"UNIX socket path '{path}' is too long",
            errno=errno.ENAMETOOLONG,
            hint=f"Path must be less than {_MAX_PATH} bytes",
        )


def _resolve(address: TcpAddress, *, passive: bool) -> list[tuple[int, Any]]:
    """Families and socket addresses of a host and a port."""
    if address.port.isdigit() and int(address.port) > MAX_PORT:
        raise NetworkError(f"address resolution failed for {address}: ports end at {MAX_PORT}", errno=errno.EINVAL)
    # Who connects reaches a host that has IPv4 only by an IPv6 socket too.
    flags = socket.AI_PASSIVE if passive else socket.AI_V4MAPPED
    if passive and address.numeric:
        flags |= socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    host, port, family = address.host or None, address.port or None, address.family
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else str(error)
        raise NetworkError(f"address resolution failed for {address}: {reason}", errno=errno.EINVAL) from None
    return [(each, target) for each, _, _, _, target in found]


def _failed(what: str, error: OSError | None, hint: str | None = None) -> NetworkError:
    code = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno if error is not None else None
    return NetworkError(f"{what}: {os.strerror(code) if code else error}", errno=code, hint=hint)


def _why_unreached(address: Address, error: OSError | None) -> str | None:
    """What is behind a failed connection to a socket of this host, or to a machine on it."""
    if error is not None and isinstance(address, VsockAddress):
        return _why_no_machine(error)
    if error is None or not isinstance(address, UnixAddress) or address.abstract:
        return None
    if not address.path:
        return "The path of the socket is empty."
    if error.errno == errno.ECONNREFUSED and not _is_socket(address.path):
        return f"'{address}' is no socket."
    if error.errno == errno.ECONNREFUSED:
        return f"Nobody listens on '{address}' any more: the server that made it has ended."
    return explain(error.errno, address.path, write=True)


def _why_no_machine(error: OSError) -> str | None:
    if error.errno == errno.ENODEV:
        return (
            "No machine has that CID; machines on this host have one where vhost_vsock is there (modprobe vhost_vsock)."
        )
    if error.errno == errno.ETIMEDOUT or isinstance(error, TimeoutError):
        return "Nobody answers at that CID; for 1, which is this host itself: modprobe vsock_loopback"
    return None


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # it is gone meanwhile
        return True


def _why_not_bound(target: Any, error: OSError | None) -> str | None:
    """Who has an address, or why it cannot be had."""
    if error is None or not isinstance(target, tuple):
        return None
    if error.errno == errno.EADDRINUSE:
        return port_hint(target[1])
    if error.errno == errno.EACCES:
        return "Ports below net.ipv4.ip_unprivileged_port_start (1024) take CAP_NET_BIND_SERVICE."
    return None
