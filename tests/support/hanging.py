"""A disk that hangs: an image that nbdkit serves, which is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.daemon import listens


class HangingDisk:
    """Served until it is told to hang."""

    def __init__(self, process: subprocess.Popen[bytes], sock: Path) -> None:
        self._process = process
        self._sock = sock

    def blockdev(self, name: str) -> str:
        """What ``--blockdev`` takes for it."""
        return f"nbd,node-name={name},server.type=unix,server.path={self._sock}"

    @property
    def options(self) -> dict[str, object]:
        """What ``blockdev-add`` takes for it."""
        return {"driver": "nbd", "server": {"type": "unix", "path": str(self._sock)}}

    def die(self) -> None:
        """Be gone, and not come back."""
        self._process.kill()
        self._process.wait(20)

    def hang(self) -> None:
        """Answer nothing any more."""
        self._process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 20
        while os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG) is None:  # until then threads go on
            assert time.monotonic() < until
            time.sleep(0.01)

    def go_on(self) -> None:
        """Answer again, also what has been asked meanwhile."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def hanging_disk(image: Path) -> Iterator[HangingDisk]:
    """Serve an image, for the length of a block; who still waits for it then is told that it has gone."""
    sock = image.with_suffix(".sock")
    with subprocess.Popen(["nbdkit", "-f", "-U", sock, "file", image]) as process:
        try:
            until = time.monotonic() + 20
            while not listens(sock):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            yield HangingDisk(process, sock)
        finally:
            process.kill()
