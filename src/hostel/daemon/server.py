"""The daemon: its sockets, its clients, and the loop that they share."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import grp
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostel.cause.holder import find_unix_listeners
from hostel.daemon.access import Access, Identity
from hostel.daemon.client import Client
from hostel.daemon.config import Config, Port
from hostel.daemon.events import Events
from hostel.daemon.hosts import Hosts, local_uri
from hostel.daemon.workers import Workers
from hostel.drivers.store import Directories
from hostel.errors import NetworkError
from hostel.net.address import UnixAddress, check_path, listen, tune
from hostel.net.channel import Channel
from hostel.net.reactor import READABLE, Reactor
from hostel.net.tls import TlsCredentials
from hostel.net.tlschannel import TlsChannel

_BACKLOG: Final = 512
_AT_ONCE: Final = 64  # connections accepted before those that are there are looked after
_URGENT_WORKERS: Final = 5
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: process, user, group
_PAUSE: Final = 0.5  # seconds without accepting when the host is out of descriptors
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_WELCOME: Final = b"\1"  # what a client waits for inside TLS
_LINGER: Final = 2.0  # seconds that a stop waits for answers to be taken

Log = Callable[..., None]


class Listening(NamedTuple):
    """A socket that clients come to.

    Attributes:
        socket: it listens.
        path: what to remove at the end; None where somebody else has made the socket, or it is on no file system.
        read_only: clients may only look.
        port: what there is to know of clients of other hosts.
        credentials: ours, for TLS.
    """

    socket: socket.socket
    path: Path | None
    read_only: bool
    port: Port | None = None
    credentials: TlsCredentials | None = None

    def __str__(self) -> str:
        if self.port is not None:
            return f"{'tls' if self.credentials else 'tcp'}:{self.port.address}"
        return str(self.path or "inherited")


class Daemon:
    """Answers libvirt's clients until it is stopped.

    Args:
        config: see there.
        directories: where everything is kept.
        log: called with a message and fields.
        idle_seconds: end when there has been no client for so long; 0 never.

    Attributes:
        config: see above.
        log: see above.
        reactor: the loop.
        hosts: the drivers.
        workers: threads for calls that may wait.
        events: who wants to hear of what.
        access: who may do what.
    """

    def __init__(self, config: Config, directories: Directories, log: Log, *, idle_seconds: float = 0) -> None:
        self.config = config
        self.log = log
        self.reactor = Reactor(self.failed)
        self.hosts = Hosts(directories, lambda what, why: self.log("not started by itself", what=what, reason=why))
        self.workers = Workers(config.limits.workers, _URGENT_WORKERS, self.failed)
        self.events = Events(self.reactor.call_soon)
        self.access = Access(config.rules)
        self._directories = directories
        self._listening: list[Listening] = []
        self._accepting = False
        self._clients: dict[int, Client] = {}
        self._unopened: dict[int, Client] = {}  # oldest first
        self._numbers = 0
        self._idle_seconds = idle_seconds
        self._idle_since = time.monotonic()
        self._stopping = False

    def listen(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Make the sockets, or take those that systemd has made: of these a name that ends with ``-ro`` only looks.

        Raises:
            NetworkError: a socket cannot be made; another daemon is there.
        """
        for sock in inherited:
            name = sock.getsockname()
            read_only = isinstance(name, str) and name.endswith("-ro")
            sock.setblocking(False)
            self._listening.append(Listening(sock, None, read_only))
        if not inherited:
            self._listen_unix(self.config.socket, read_only=False)
            if self.config.read_only_socket is not None:
                self._listen_unix(self.config.read_only_socket, read_only=True)
        for port in (self.config.tcp, self.config.tls):
            if port is not None:
                credentials = TlsCredentials(port.certificates, server=True) if port.certificates else None
                for listener in listen(port.address, _BACKLOG):
                    listener.setblocking(False)
                    self._listening.append(Listening(listener, None, False, port, credentials))
        self._accept_on()

    def check(self) -> str:
        """Why the daemon could not start; empty when it could."""
        try:
            for path in (self.config.socket, self.config.read_only_socket):
                if path is not None:
                    check_path(str(path))
                    _refuse_living(path)
            if self.config.group:
                grp.getgrnam(self.config.group)
        except NetworkError as error:
            return str(error)
        except KeyError:
            return f"there is no group '{self.config.group}'"
        for path in (self.config.socket.parent, *self._directories):
            nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
            if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
                return f"nothing can be made in '{nearest}'"
        return ""

    def _listen_unix(self, path: Path, *, read_only: bool) -> None:
        _refuse_living(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if os.geteuid() == 0 else 0o700)
        mask = os.umask(0o077)
        try:
            (sock,) = listen(UnixAddress(str(path)), _BACKLOG)
        finally:
            os.umask(mask)
        sock.setblocking(False)
        self._listening.append(Listening(sock, path, read_only))
        if self.config.group:
            os.chown(path, -1, grp.getgrnam(self.config.group).gr_gid)
        if read_only:
            path.chmod(0o777)
        else:
            path.chmod(0o770 if self.config.group else 0o700)

    def start_machines(self) -> None:
        """Open the machines of this host in the background, which starts those that are marked for it.

        Looking at all of them settles what a daemon that was killed has left half moved.
        """

        def work() -> None:
            try:
                _, host = self.hosts.acquire(local_uri())
                host.drivers.hypervisor.connect_list_all_domains()
            except Exception as error:
                self.log("cannot open the machines", uri=local_uri(), reason=str(error))

        self.workers.submit(work)

    def run(self) -> None:
        """Serve until :meth:`stop`, and then take everything down in order."""
        self._sweep()
        self.log("ready", pid=os.getpid(), sockets=",".join(map(str, self._listening)))
        try:
            self.reactor.run()
        finally:
            self._take_down()

    def stop(self, reason: str) -> None:
        """Let :meth:`run` end; from any thread, and from a signal handler."""
        self.reactor.call_soon(lambda: self._stop(reason))

    def failed(self, error: Exception) -> None:
        """A mistake of ours: it goes to the log, with where it was made."""
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else ""
        self.log("internal error", kind=type(error).__name__, reason=str(error), place=place)

    # Clients.

    def client_opened(self, client: Client) -> None:
        """A client has opened something."""
        self._unopened.pop(client.number, None)

    def client_closed(self, client: Client, error: Exception | None) -> None:
        """A client is gone."""
        self._clients.pop(client.number, None)
        self._unopened.pop(client.number, None)
        self._idle_since = time.monotonic()
        self.log("client closed", client=client.number, reason=str(error) if error is not None else "end")
        self._accept_on()
        if self._stopping and not self._clients:
            self.reactor.stop()

    def is_local(self, client: Client) -> bool:
        """Whether nobody can listen in on a client's connection."""
        return client.channel.socket.family == socket.AF_UNIX or isinstance(client.channel, TlsChannel)

    def _accept_on(self) -> None:
        wanted = not self._stopping and len(self._clients) < self.config.limits.clients
        if wanted != self._accepting:
            self._accepting = wanted
            for one in self._listening:
                if wanted:
                    self.reactor.add(one.socket.fileno(), READABLE, lambda _, one=one: self._accept(one))  # type: ignore[misc]
                else:
                    self.reactor.remove(one.socket.fileno())

    def _accept(self, one: Listening) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = one.socket.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self.log("no client can be accepted", reason=os.strerror(error.errno or 0))
                    self._evict()
                    self._pause_accepting()
                return
            self._welcome(one, sock)
            if not self._accepting:
                return

    def _welcome(self, one: Listening, sock: socket.socket) -> None:
        if len(self._unopened) >= self.config.limits.unopened:
            self._evict()
        tune(sock)
        self._numbers += 1
        identity = _identity(sock)
        channel = self._channel(one, sock, self._numbers)
        needs_password = one.port is not None and one.port.scram
        client = Client(self, channel, self._numbers, identity, read_only=one.read_only, needs_password=needs_password)
        self._clients[client.number] = self._unopened[client.number] = client
        channel.start()
        self.log("client", client=client.number, user=identity.user, pid=identity.pid, read_only=one.read_only)
        self._accept_on()

    def _channel(self, one: Listening, sock: socket.socket, number: int) -> Channel:
        limit = self.config.limits.unread
        port, credentials = one.port, one.credentials
        if port is None or credentials is None:
            return Channel(self.reactor, sock, limit=limit)

        def welcome(name: str | None) -> bool:
            """Let a certificate in, or not; who is let in hears so, as libvirt's clients expect."""
            client = self._clients[number]
            allowed = port.allowed_names
            if name is None or (
                allowed is not None and not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
            ):
                self.log("certificate refused", client=number, name=name or "", reason="not in allowed_names")
                return False
            client.identity = Identity(name)
            self.reactor.call_soon(lambda: channel.send(_WELCOME))
            return True

        channel = TlsChannel(self.reactor, sock, limit=limit, credentials=credentials, welcome=welcome)
        return channel

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for one in self._listening:
                self.reactor.remove(one.socket.fileno())
            self.reactor.call_later(_PAUSE, self._accept_on)

    def _evict(self) -> None:
        """End the connection that has been open longest without opening anything."""
        for client in self._unopened.values():
            client.channel.close(NetworkError("too many connections that open nothing"))
            return

    def _sweep(self) -> None:
        """Look each second for connections that open nothing, and whether anybody is here."""
        now = time.monotonic()
        for client in list(self._unopened.values()):
            if now - client.since < self.config.limits.unopened_seconds:
                break
            client.channel.close(TimeoutError("nothing was opened in time"))
        if self._idle_seconds and not self._clients and now - self._idle_since > self._idle_seconds:
            self._stop("idle")
        self.reactor.call_later(1.0, self._sweep)

    # The end.

    def _stop(self, reason: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        self.log("stopping", reason=reason)
        self._accept_on()
        for client in list(self._clients.values()):
            client.channel.end()
        self.reactor.call_later(0 if not self._clients else _LINGER, self.reactor.stop)

    def _take_down(self) -> None:
        for one in self._listening:
            one.socket.close()
            if one.path is not None:
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(one.path.lstat().st_mode):
                        one.path.unlink()
        for client in list(self._clients.values()):
            client.channel.close(None)
        ended = self.workers.stop()
        self.events.close()
        self.hosts.close()
        self.reactor.close()
        self.log("stopped", clean=ended)


def _identity(sock: socket.socket) -> Identity:
    if sock.family != socket.AF_UNIX:
        return Identity("")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Identity(name, uid, pid)


def _refuse_living(path: Path) -> None:
    """Leave a socket alone that somebody answers on.

    Raises:
        NetworkError: so it is.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return
    who = ", ".join(find_unix_listeners(str(path)))
    hint = f"It is {who}." if who else None
    raise NetworkError(f"another daemon listens on '{path}'", errno=errno.EADDRINUSE, hint=hint)
