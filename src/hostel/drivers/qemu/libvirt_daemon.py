"""Programs of libvirt's that serve its driver, and serve ours: virtlockd and virtlogd.

Root's are the host's, on sockets below ``/run/libvirt``. A user's own is started where it does not run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers.fault import system_fault
from hostel.drivers.store import Directories
from hostel.drivers.tool import find
from hostel.errors import ErrorDomain, ProtocolError
from hostel.wire.rpc.connection import ClientConnection, Reply
from hostel.wire.rpc.procedure import Program

_SYSTEM: Final = Path("/run/libvirt")
_SECONDS: Final = 30.0  # that an answer may take
_START_SECONDS: Final = 10.0
_IDLE: Final = 120  # seconds after which one that was started for us ends when nobody needs it
_FILES: Final = 8  # of one answer, at most


class LibvirtDaemon(NamedTuple):
    """One such program.

    Attributes:
        name: what it is called; its socket is called so, too.
        program: what it answers.
        domain: whom errors are of.
        folder: where its socket is.
        is_privileged: whether it is the host's, and not this user's.
    """

    name: str
    program: Program
    domain: ErrorDomain
    folder: Path
    is_privileged: bool

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection.

        Raises:
            VirtError: ``SYSTEM_ERROR``: it is not there, or does not start.
        """
        path = self.folder / f"{self.name}-sock"
        try:
            connection = Connection(self, self._connect(path))
        except OSError as error:
            what = f"Failed to connect socket to '{path}'"
            if isinstance(error, FileNotFoundError | ConnectionRefusedError):
                fix = f"systemctl start {self.name}.socket" if self.is_privileged else "install libvirt-daemon"
                error = type(error)(error.errno, f"{os.strerror(error.errno or 0)}; {self.name} does not run: {fix}")
            raise system_fault(error, what, self.domain) from error
        with connection:
            yield connection

    def _connect(self, path: Path) -> socket.socket:
        """Connect; a user's own is started where it does not run."""
        try:
            return _opened(path)
        except (FileNotFoundError, ConnectionRefusedError):
            program = find(self.name)
            if self.is_privileged or program is None:
                raise
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.folder.parent)}
        try:
            done = subprocess.run(
                [program, "--daemon", f"--timeout={_IDLE}"],
                env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=_START_SECONDS, check=False, start_new_session=True, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            what = f"{self.name} has not started within {_START_SECONDS:.0f} seconds"
            raise OSError(errno.ETIMEDOUT, what) from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it says nothing"]
            raise OSError(errno.ECHILD, f"{self.name} does not start: {said[-1]}")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return _opened(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.05)


class Connection:
    """Calls, one after the other."""

    def __init__(self, daemon: LibvirtDaemon, connected: socket.socket) -> None:
        self._daemon = daemon
        self._socket = connected
        self._machine = ClientConnection({daemon.program.number: daemon.program})

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for file in self._machine.splitter.fds:
            os.close(file)
        self._machine.splitter.fds.clear()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def call(self, name: str, *arguments: Any) -> Reply:
        """Call; open files of the answer are the caller's to close.

        Raises:
            VirtError: the daemon's own; ``SYSTEM_ERROR``: it does not answer.
        """
        program, splitter = self._daemon.program, self._machine.splitter
        call, data = self._machine.call(program, program.by_name[name], arguments)
        try:
            self._socket.sendall(data)
            while True:
                received, files, _, _ = socket.recv_fds(self._socket, 1 << 16, _FILES, socket.MSG_CMSG_CLOEXEC)
                if not received:
                    raise ConnectionResetError(errno.ECONNRESET, f"{self._daemon.name} has ended the connection")
                splitter.fds += files
                for event in self._machine.receive(splitter.feed(received)):
                    if isinstance(event, Reply) and event.serial == call.serial:
                        if event.error is not None:
                            raise event.error
                        return event
        except (OSError, ProtocolError) as error:
            reason = error if isinstance(error, OSError) else OSError(errno.EPROTO, str(error))
            raise system_fault(reason, f"{self._daemon.name} did not answer", self._daemon.domain) from error


def folder_of(directories: Directories, *, is_privileged: bool) -> Path:
    """Where such programs have their sockets: the host's, or a user's own."""
    return _SYSTEM if is_privileged else runtime_folder(directories) / "libvirt"


def runtime_folder(directories: Directories) -> Path:
    """Where a user's programs keep their sockets, each in a folder of its own."""
    own = directories.state.name == "hostel"
    return directories.state.parent if own else directories.cache.parent


def _opened(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connected.settimeout(_SECONDS)
        connected.connect(str(path))
    except BaseException:
        connected.close()
        raise
    return connected
