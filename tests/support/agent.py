"""The other side of a guest agent's channel: the real agent, or one that does nothing but remember."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def real(directory: Path) -> Iterator[Path]:
    """A real agent, which looks at this host; gives its socket."""
    path = directory / "agent"
    argv = ["qemu-ga", "-m", "unix-listen", "-p", str(path), "-f", str(directory / "pid"), "-t", str(directory)]
    agent = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert agent.poll() is None, "qemu-ga ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield path
    finally:
        agent.kill()  # asked to end while it goes from one conversation to the next, it does not
        agent.wait(20)


class Remembering:
    """An agent that is told what to answer, for what must not be done to this host; a context manager.

    Attributes:
        path: its socket.
        heard: the commands with their arguments.
    """

    def __init__(self, path: Path, answers: Mapping[str, Any]) -> None:
        self.path = path
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._answers = answers
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Remembering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, connection.makefile("rwb") as lines:
                    for line in lines:
                        lines.write(self._answer(json.loads(line.lstrip(b"\xff"))))
                        lines.flush()

    def _answer(self, request: dict[str, Any]) -> bytes:
        command, arguments = request["execute"], request.get("arguments", {})
        if command == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
        self.heard.append((command, arguments))
        answer = self._answers.get(command, {"return": {}})
        return b"" if answer is None else json.dumps(answer).encode() + b"\n"
