"""A shell whose daemon goes, or is silent, beside the real one: what it says, and that the next command connects."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import hosteld

pytestmark = pytest.mark.requires_tool("virsh")

TIMEOUT = 60.0
SHELLS = {"real": ["virsh"], "ours": [sys.executable, "-m", "hostel", "virsh"]}
_REMEDY = re.compile(r"; no daemon has made it[^\n]*")


class Shell:
    """A virsh that is told what to do line by line; what it prints is kept, errors among it."""

    def __init__(self, command: list[str], uri: str, *options: str) -> None:
        self.said = ""
        self._seen = 0
        self.process = subprocess.Popen(
            [*command, "-k", "1", "-K", "1", *options, "-c", uri],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while data := self.process.stdout.read(4096):
            self.said += data.decode()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def wait(self, text: str) -> None:
        """Until it says something new that ends so far with ``text``."""
        deadline = time.monotonic() + TIMEOUT
        while (at := self.said.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        self._seen = at + len(text)

    def end(self) -> str:
        """Leave; all that it said from the first prompt on."""
        self.tell("quit")
        assert self.process.wait(TIMEOUT) == 0
        self._reader.join(TIMEOUT)
        return _REMEDY.sub("", self.said[self.said.index("virsh ") :].partition("\n\n")[2])


@contextlib.contextmanager
def shells(uri: str, *options: str) -> Iterator[list[Shell]]:
    """The real one and ours, each connected."""
    found = [Shell(command, uri, *options) for command in SHELLS.values()]
    try:
        yield found
    finally:
        for shell in found:
            shell.process.kill()
            shell.process.wait(TIMEOUT)


def test_next_command_connects_again(tmp_path: Path) -> None:
    def ask(line: str, answer: str) -> None:
        for shell in both:
            shell.tell(line)
            shell.wait(answer)
            shell.wait("virsh > ")

    with contextlib.ExitStack() as stack:
        with hosteld.process(directory=tmp_path) as served:
            uri = served.uri()
            both = stack.enter_context(shells(uri, "-r"))
            for shell in both:
                shell.wait("virsh > ")
            ask("domstate test", "running\n")
        for shell in both:
            shell.wait("due to end of file\n")
        ask("echo still here", "still here\n")
        ask("domstate test; echo next", "next\n")
        with hosteld.process(directory=tmp_path):
            ask("domstate test", "running\n")
            ask("destroy test", "virDomainDestroy\n")
        for shell in both:
            shell.wait("due to end of file\n")
        with hosteld.process(directory=tmp_path) as served:
            ask("list --name", "test\n")
            served.process.send_signal(signal.SIGSTOP)
            for shell in both:
                shell.wait("due to keepalive timeout\n")
            served.process.send_signal(signal.SIGCONT)
            ask("domstate test", "running\n")
            ask("connect", "\n")
            ask("destroy test", "virDomainDestroy\n")
            real, ours = (shell.end() for shell in both)
    assert ours == real
    assert real.count("Reconnected to the hypervisor") == 2
