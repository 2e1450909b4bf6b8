"""A guest's console, at a real terminal whose other side reads nothing."""

from __future__ import annotations

import os
import pty
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from hostel.daemon.client import Client
from hostel.daemon.stream import Console
from hostel.drivers.qemu.console import PtyStream
from hostel.errors import ErrorCode, VirtError
from hostel.wire.rpc.connection import StreamData, StreamEnd, StreamFrames


class Far:
    """Who is on the other side of the connection: what is sent there, and when the answer to an end came."""

    def __init__(self) -> None:
        self.answered = threading.Event()

    def pause(self, *_: object) -> None:
        pass

    def forget(self, *_: object) -> None:
        self.answered.set()

    def send(self, _: bytes) -> None:
        pass


@pytest.fixture
def console(tmp_path: Path) -> Iterator[PtyStream]:
    far, near = pty.openpty()
    try:
        tty.setraw(near)
        yield PtyStream(os.ttyname(near), tmp_path / "lock", force=False, kind="console")
    finally:
        os.close(far)
        os.close(near)


@pytest.mark.parametrize("error", [None, VirtError(ErrorCode.RPC, "given up")], ids=["finished", "aborted"])
def test_an_end_is_answered_though_the_guest_reads_nothing(console: PtyStream, error: VirtError | None) -> None:
    far = Far()
    stream = Console(cast("Client", far), StreamFrames(1, 1, 1), console)
    thread = threading.Thread(target=stream.run)
    thread.start()
    stream.receive(StreamData(1, bytes(100_000)))
    time.sleep(0.2)  # the writer has begun, and gets no further
    stream.receive(StreamEnd(1, error))
    assert far.answered.wait(10), "it waits for a guest that reads nothing"
    thread.join(30)
    assert not thread.is_alive()
