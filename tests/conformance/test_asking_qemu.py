"""What the real QEMU is asked by running it: it answers, and does not stay behind where who asks is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hostel.drivers.qemu import probe
from support.process import programs_of

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
EMULATOR = """#!/bin/sh
touch {home}/begun
exec qemu-system-x86_64 -name {home} {words}
"""
# It dies when there is a QEMU, which it has told nothing by then.
ASKING = """
import os, signal, subprocess, sys, time
from pathlib import Path
from hostel.drivers.qemu import probe

def die(*_, **_unused):
    deadline = time.monotonic() + 20
    while {begun} and not os.path.exists(sys.argv[2]) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

subprocess.Popen.communicate = die
{call}
"""
QUESTIONS = {
    "conversation": ('"$@"', "probe.target(sys.argv[1], Path(sys.argv[1] + '.cache'))"),
    "KVM that runs no guest": ("-S -nodefaults -display none", "probe._try_kvm(sys.argv[1])"),
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in programs_of(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "when it runs"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_qemu_outlives_who_asks_it(question: str, begun: bool, home: Path) -> None:
    words, call = QUESTIONS[question]
    emulator = home / "qemu"
    emulator.write_text(EMULATOR.format(home=home, words=words))
    emulator.chmod(0o755)
    asking = [sys.executable, "-c", ASKING.format(begun=begun, call=call), str(emulator), str(home / "begun")]
    with (home / "said").open("w+b") as said:
        ended = subprocess.run(asking, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=60)
    assert ended.returncode == -signal.SIGKILL, (home / "said").read_text()
    deadline = time.monotonic() + 10
    while left := programs_of(home):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_an_accelerator_that_runs_guests_is_known_by_the_one_that_ran(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 60.0)  # on a busy host
    emulator = home / "qemu"
    emulator.write_text('#!/bin/sh\n[ "$1 $2" = "-accel kvm" ] && shift 2 && exec qemu-system-x86_64 -accel tcg "$@"\n')
    emulator.chmod(0o755)
    assert probe._try_kvm(str(emulator))
