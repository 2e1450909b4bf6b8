"""A storage daemon in a process of its own, ours or QEMU's, and a client of its monitor."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

OURS = (sys.executable, "-m", "hostel", "qemu-storage-daemon")
THEIRS = ("qemu-storage-daemon",)


class Monitor:
    """A QMP client that says what it is told to, and takes what comes."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        self.stream = self.sock.makefile("r")
        self.events: list[dict[str, Any]] = []
        self.greeting = json.loads(self.stream.readline())

    def send(self, text: str) -> dict[str, Any]:
        """Send text; the answer, before which events are put aside."""
        self.sock.sendall(text.encode() + b"\n")
        while True:
            line = self.stream.readline()
            assert line, "the monitor ended"
            answer = json.loads(line)
            if "event" not in answer:
                return dict(answer)
            self.events.append(answer)

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Run a command that must succeed; underscores in arguments' names are dashes."""
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        answer = self.send(json.dumps({"execute": name, "arguments": given}))
        assert "error" not in answer, answer
        return answer["return"]

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for an event."""
        while True:
            for index, found in enumerate(self.events):
                if found["event"] == event:
                    return self.events.pop(index)
            line = self.stream.readline()
            assert line, "the monitor ended"
            self.events.append(json.loads(line))

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


class Daemon:
    """A running daemon."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path
        self.monitor = Monitor(path)
        self.monitor.send('{"execute": "qmp_capabilities"}')

    def stop(self) -> int:
        """End it as a service manager does; returns its exit status."""
        self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def daemon(folder: Path, *words: object, tool: Sequence[str] = OURS) -> Iterator[Daemon]:
    """Run a daemon with a monitor in a folder, for the length of a block."""
    path, ready = folder / "monitor.sock", folder / "monitor.pid"
    for left in (path, ready):
        left.unlink(missing_ok=True)
    monitor = ["--chardev", f"socket,id=monitor,path={path},server=on,wait=off", "--monitor", "monitor"]
    # QEMU 7.2's never answers, now and then, a client that comes before it is up, which it is when this file is there.
    is_up = ready.exists if tool is THEIRS else functools.partial(listens, path)
    arguments = [*tool, *map(str, words), *monitor, *(("--pidfile", str(ready)) if tool is THEIRS else ())]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        try:
            until = time.monotonic() + 30
            while not is_up():
                if process.poll() is not None:
                    raise AssertionError(f"{arguments}: {process.stderr and process.stderr.read()}")
                assert time.monotonic() < until
                time.sleep(0.02)
            running = Daemon(process, path)
            try:
                yield running
            finally:
                running.monitor.close()
        finally:
            end(process, is_ours=tool is OURS)


def end(process: subprocess.Popen[Any], *, is_ours: bool) -> None:
    """Tell a daemon to end; ours has to."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        # QEMU 7.2's hangs now and then: its main thread waits for a client that its monitor's thread has let in.
        if is_ours:
            process.send_signal(signal.SIGABRT)
            _, said = process.communicate(timeout=30)
            raise AssertionError(f"the daemon does not end:\n{said}") from None
    finally:
        process.kill()


def listens(path: Path) -> bool:
    """Whether somebody listens on a socket; it is not connected to, since that would be a client."""
    with open("/proc/net/unix") as stream:
        # The flag says that the socket accepts connections.
        return any(line.split()[3] == "00010000" and line.split()[-1] == str(path) for line in stream)
