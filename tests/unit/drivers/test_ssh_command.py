"""The command that reaches a daemon over ssh ends with its connection, or is left where it cannot."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hostel.drivers.remote import transport, uri
from support.held import write_held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has ptrace(2) as it is used here")


def test_a_command_that_cannot_be_ended_does_not_keep_close_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_END_SECONDS", 0.2)
    command, release = tmp_path / "ssh", tmp_path / "release"
    write_held(command, release)
    written = f"qemu+ssh://host/system?command={command}"
    found = uri.parse(urlsplit(written), written)
    assert found is not None
    reached = transport.SshTransport(found, read_only=False)
    process = reached._process
    try:
        reached.settimeout(20)
        answer = bytearray(1)
        assert reached.recv_into(memoryview(answer)) == 1
        if answer == b"-":
            pytest.skip("this user may not trace a process")
        start = time.monotonic()
        reached.close()
        assert time.monotonic() - start < 10
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0)  # it is there still
    finally:
        process.kill()
        release.touch()
        process.wait(20)
