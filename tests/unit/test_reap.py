"""The process below which tests run: what detaches itself is buried at once, and the end of the program is its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REAP = Path(__file__).parents[2] / "tools/reap.py"
# A grandchild outlives its parent, says whose child it is then, and ends; it is waited for until it is no zombie.
_DETACH = """
import os, time
read, write = os.pipe()
if not (child := os.fork()):
    parent = os.getpid()
    if not os.fork():
        while os.getppid() == parent:
            time.sleep(0.01)
        os.write(write, b"%d %d" % (os.getpid(), os.getppid()))
    os._exit(0)
os.waitpid(child, 0)
orphan, parent = os.read(read, 40).split()
assert int(parent) == os.getppid(), "it is another's"
deadline = time.monotonic() + 20
while os.path.exists(f"/proc/{int(orphan)}"):
    assert time.monotonic() < deadline, "it is a zombie"
    time.sleep(0.01)
"""


def reap(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(REAP), *command], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -KILL $$", 137), ("true", 0)])
def test_it_ends_as_the_program_does(script: str, code: int) -> None:
    with reap("sh", "-c", script) as process:
        assert process.wait(20) == code


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to another process than the first")
def test_what_detaches_itself_is_its_child_and_buried() -> None:
    with reap(sys.executable, "-c", _DETACH) as process:
        assert process.wait(40) == 0


def test_a_request_to_end_is_passed_on() -> None:
    with reap("sh", "-c", "trap 'exit 9' TERM; echo there; while :; do sleep 0.02; done") as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 9
