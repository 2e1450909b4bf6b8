"""Our daemon: in a process of its own for real clients, or in a thread for a client that says anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hostel.daemon.config import Config, Limits
from hostel.daemon.server import Daemon
from hostel.drivers.store import Directories
from hostel.wire.rpc.connection import Call, ClientConnection, ClientEvent, Message, Reply, StreamFrames
from hostel.wire.rpc.programs import PROGRAMS, REMOTE
from support.answers import remembered

PYTHON = "/usr/bin/python3"  # which Debian's python3-libvirt is for
TIMEOUT = 60.0


class Hosteld:
    """A daemon in a process of its own; :meth:`virsh` and :meth:`python` are real clients of it."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.process = process
        self.socket = directory / "sock"
        self.log = directory / "log"

    def uri(self, uri: str = "test:///default") -> str:
        """A URI on this daemon."""
        scheme, _, rest = uri.partition(":")
        return f"{scheme}+unix:{rest}?socket={self.socket}"

    def virsh(
        self, *arguments: str, uri: str = "test:///default", check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the real virsh; ``text`` are commands for one that reads them from its input."""
        return subprocess.run(
            ["virsh", "-c", self.uri(uri), *arguments],
            capture_output=True, text=True, timeout=TIMEOUT, check=check, env={**os.environ, "LC_ALL": "C"}, input=text,
        )  # fmt: skip

    def python(self, code: str, uri: str = "test:///default") -> str:
        """Run code with python3-libvirt, ``c`` being a connection; what it printed."""
        head = (
            "import libvirt, sys\n"
            "libvirt.registerErrorHandler(lambda context, error: None, None)\n"
            f"c = libvirt.open({self.uri(uri)!r})\n"
        )
        done = subprocess.run([PYTHON, "-c", head + code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> int:
        """End it by a signal; its exit code."""
        self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def process(
    *options: str, directory: Path | None = None, wrapper: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Iterator[Hosteld]:
    """A daemon in a process of its own; ended, and its files removed unless ``directory`` is the caller's."""
    home = directory or Path(tempfile.mkdtemp(prefix="hd-"))
    command = [
        *wrapper,
        sys.executable,
        "-m",
        "hostel",
        "daemon",
        "--socket",
        f"{home}/sock",
        "--state",
        f"{home}/state",
        *options,
    ]
    try:
        with remembered(home / "state/cache/qemu", "hostel"), _running(home, command, environment or {}) as served:
            yield served
    finally:
        if directory is None:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _running(home: Path, command: list[str], environment: dict[str, str]) -> Iterator[Hosteld]:
    with (home / "log").open("w") as log:
        started = subprocess.Popen(command, stderr=log, text=True, env={**os.environ, **environment})
    served = Hosteld(home, started)
    try:
        deadline = time.monotonic() + TIMEOUT
        while " ready " not in served.log.read_text():
            assert started.poll() is None and time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.02)
        yield served
    finally:
        if started.poll() is None:
            started.terminate()
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait(30)


@contextlib.contextmanager
def thread(directory: Path, **changes: Any) -> Iterator[Daemon]:
    """A daemon in a thread of this process; ``changes`` are of its limits, and ``rules``."""
    rules = changes.pop("rules", None)
    config = Config(directory / "s", directory / "s-ro", limits=Limits(**changes), rules=rules)
    logged: list[tuple[str, dict[str, Any]]] = []
    daemon = Daemon(
        config, Directories.under(directory / "state"), lambda message, **fields: logged.append((message, fields))
    )
    daemon.listen()
    runner = threading.Thread(target=daemon.run)
    runner.start()
    try:
        yield daemon
    finally:
        daemon.stop("test")
        runner.join(TIMEOUT)
        assert not runner.is_alive(), "the daemon does not stop"
    mistakes = [fields for message, fields in logged if message == "internal error"]
    assert not mistakes, mistakes


class RawClient:
    """A client that sends what it is told to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))  # waits, as all clients do, where a server has many to accept
        self.socket.settimeout(20)
        self.machine = ClientConnection(PROGRAMS)
        self._events: list[ClientEvent] = []

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self, name: str, *arguments: Any) -> Call:
        """Send a call."""
        call, data = self.machine.call(REMOTE, REMOTE.by_name[name], arguments)
        self.socket.sendall(data)
        return call

    def call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Call; the answer's members, an error being raised."""
        reply = self.reply_to(self.begin(name, *arguments))
        if reply.error is not None:
            raise reply.error
        return reply.result

    def reply_to(self, call: Call) -> Reply:
        """The answer of a call; what comes before it is kept for :meth:`event`."""
        put_aside: list[ClientEvent] = []
        while True:
            event = self.event()
            if isinstance(event, Reply) and event.serial == call.serial:
                self._events = [*put_aside, *self._events]
                return event
            put_aside.append(event)

    def event(self) -> ClientEvent:
        """What comes next."""
        while not self._events:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the daemon hung up")
            self._events += self.machine.receive(self.machine.splitter.feed(data))
            for answer in self.machine.out:
                self.socket.sendall(answer)
            self.machine.out.clear()
        return self._events.pop(0)

    def message(self) -> Message:
        """The next event of the daemon."""
        while not isinstance(event := self.event(), Message):
            pass
        return event

    def open(self, uri: str = "test:///default", flags: int = 0) -> RawClient:
        """Open a connection to a hypervisor."""
        self.call("connect_open", uri, flags)
        return self

    def is_cut_off(self) -> bool:
        """Whether the daemon hangs up, after whatever it still has to say."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True

    @staticmethod
    def frames(call: Call) -> StreamFrames:
        return StreamFrames.of(call)
