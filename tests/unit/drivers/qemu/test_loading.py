"""Memory that was saved packed, and the tool that unpacks it."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

import pytest

from hostel.drivers.qemu import loading
from support.held import write_held


def test_what_a_tool_unpacks_is_read_and_the_tool_is_gone(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(b"memory" * 100_000)
    with packed.open("rb") as file, loading._unpacked(file.fileno(), ["sh", "-c", "echo $$; exec cat"]) as pipe:
        pid = int(os.read(pipe, 100).splitlines()[0])
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has ptrace(2) as it is used here")
def test_a_tool_that_cannot_be_ended_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_END_SECONDS", 0.2, raising=False)
    command, release = tmp_path / "unpack", tmp_path / "release"
    write_held(command, release)
    start = 0.0
    try:
        with open(os.devnull, "rb") as file, loading._unpacked(file.fileno(), [str(command)]) as pipe:
            assert select.select([pipe], [], [], 20)[0]
            if os.read(pipe, 1) == b"-":
                pytest.skip("this user may not trace a process")
            start = time.monotonic()
        assert time.monotonic() - start < 10
    finally:
        release.touch()
