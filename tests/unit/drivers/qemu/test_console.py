"""What a guest's console is attached by: one thread reads, another writes, and a third may detach meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.qemu.console import PtyStream
from hostel.drivers.qemu.migration.tunnel import PipeTunnel
from hostel.errors import VirtError
from support.bystander import Bystander


@pytest.fixture
def guest() -> Iterator[tuple[int, str]]:
    """QEMU's end of a pseudo terminal, and the name of the other."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    yield ours, name
    os.close(ours)
    os.close(theirs)


class Held:
    """Holds the first call of a function of ``os`` at its beginning, with the descriptor that it is about to use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.number = -1
        self._real = getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, fd: int, data: bytes | int) -> object:
        if self.number < 0:
            self.number = fd
            self.reached.set()
            self.go.wait(20)
        return self._real(fd, data)


def test_bytes_go_both_ways_until_it_is_detached(guest: tuple[int, str], tmp_path: Path) -> None:
    ours, name = guest
    stream = PtyStream(name, tmp_path / "lock", force=False, kind="console session")
    os.write(ours, b"login: ")
    assert stream.read(100, 20) == b"login: "
    assert stream.read(100, 0) is None
    stream.write(b"root")
    assert os.read(ours, 100) == b"root"
    with pytest.raises(VirtError, match="Active console session exists"):
        PtyStream(name, tmp_path / "lock", force=False, kind="console session")
    stream.close()
    stream.close()
    assert stream.read(100, 20) == b""
    with pytest.raises(OSError) as caught:
        stream.write(b"late")
    assert caught.value.errno == errno.EBADF
    PtyStream(name, tmp_path / "lock", force=False, kind="console session").close()


def test_what_is_written_to_a_console_that_is_detached_goes_into_no_file(
    guest: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = PtyStream(guest[1], tmp_path / "lock", force=False, kind="console session")
    held = Held(monkeypatch, "write")
    writer = threading.Thread(target=stream.write, args=(b"typed",), daemon=True)
    writer.start()
    assert held.reached.wait(20)
    stream.close()
    with Bystander(tmp_path / "other", held.number) as other:
        other.take()
        held.go.set()
        writer.join(20)
        assert other.untouched()


def test_what_is_read_of_a_console_that_is_detached_comes_from_no_file(
    guest: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = PtyStream(guest[1], tmp_path / "lock", force=False, kind="console session")
    os.write(guest[0], b"said")
    held = Held(monkeypatch, "read")
    found: list[bytes | None] = []
    reader = threading.Thread(target=lambda: found.append(stream.read(100, 20)), daemon=True)
    reader.start()
    assert held.reached.wait(20)
    stream.close()
    with Bystander(tmp_path / "other", held.number) as other:
        other.take()
        held.go.set()
        reader.join(20)
        assert other.untouched()
    assert found == [b"said"]


def test_a_tunnel_that_is_given_up_puts_no_guest_memory_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = os.pipe()
    tunnel = PipeTunnel(writes)
    held = Held(monkeypatch, "write")
    sender = threading.Thread(target=tunnel.send, args=(b"memory" * 100_000,), daemon=True)
    sender.start()
    assert held.reached.wait(20)
    tunnel.abort()
    with Bystander(tmp_path / "other", held.number) as other:
        other.take()
        held.go.set()
        while os.read(reads, 1 << 20):
            pass
        sender.join(20)
        assert other.untouched()
    with pytest.raises(VirtError):
        tunnel.send(b"more")
    os.close(reads)
