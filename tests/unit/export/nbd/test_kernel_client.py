"""The kernel's NBD client: what waits for its disk may be there longer than the disk."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hostel.export.nbd import kernel_client
from hostel.export.nbd.kernel_client import KernelClient


def test_a_device_that_is_closed_while_its_disk_is_waited_for_is_asked_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had its number by then was."""
    path = tmp_path / "device"
    path.touch()
    asked: list[int] = []
    looked, go = threading.Event(), threading.Event()

    def pause(_seconds: float) -> None:
        looked.set()
        go.wait(20)

    def ask(fd: int, _request: int, _value: int) -> int:
        asked.append(fd)
        return 0

    monkeypatch.setattr(kernel_client, "_IOCTL", ask)
    monkeypatch.setattr(time, "sleep", pause)
    client = KernelClient(str(path))
    waiting = threading.Thread(target=client._wait_for_disk, args=(lambda: None,), daemon=True)
    waiting.start()
    assert looked.wait(20)
    client.close()
    client.close()
    monkeypatch.setattr(kernel_client, "_START_SECONDS", 0.0)
    with path.open("rb"):  # whose number is that of the device
        go.set()
        waiting.join(20)
    assert not waiting.is_alive()
    assert asked == []
