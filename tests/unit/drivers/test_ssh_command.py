"""The command that reaches a daemon over ssh ends with its connection, or is left where it cannot."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hostel.drivers.remote import transport, uri

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has ptrace(2) as it is used here")

# Who traces a process is told of its end first, and its parent only after that: as where the kernel cannot end it yet.
_HELD = """
import ctypes, os, pathlib, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.prctl(0x59616D61, 2**64 - 1, 0, 0, 0)  # PR_SET_PTRACER, any
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    while True:
        signal.pause()
seized = libc.ptrace(0x4206, os.getppid(), 0, 0) == 0  # PTRACE_SEIZE
os.write(1, b"+" if seized else b"-")
deadline = time.monotonic() + 30
while not os.path.exists(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.02)
"""


def test_a_command_that_cannot_be_ended_does_not_keep_close_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_END_SECONDS", 0.2)
    script, release = tmp_path / "held.py", tmp_path / "release"
    script.write_text(_HELD)
    command = tmp_path / "ssh"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{script}' '{release}'\n")
    command.chmod(0o755)
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
