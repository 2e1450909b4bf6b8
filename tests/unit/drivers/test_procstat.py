"""What the kernel says of processes, beside what they themselves know."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers import procstat

NAMES = ("a (b) c", ") Z 1 2 (", "a\nb) S")
PROGRAM = """import time
while time.process_time() < 0.2: pass
print('runs', flush=True)
time.sleep(60)
"""


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has such a name."""
    program = tmp_path / request.param
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "runs\n"
            assert Path(f"/proc/{process.pid}/comm").read_text() == f"{request.param}\n"
            yield process
        finally:
            process.kill()


def now() -> float:
    """Clock ticks since the host was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")


def test_a_process_is_known_whatever_its_name(named: subprocess.Popen[str]) -> None:
    started, ticks = procstat.start_time(named.pid), os.sysconf("SC_CLK_TCK")
    assert started is not None and now() - 60 * ticks < started <= now()
    assert procstat.runs(named.pid, started)
    assert not procstat.runs(named.pid, started - 1)
    times = procstat.cpu_times(named.pid)
    assert times is not None and 10**8 < sum(times) < 60 * 10**9
    named.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, named.pid, os.WSTOPPED)
    assert procstat.read(named.pid).state == "T"


def test_one_that_has_ended_has_only_its_number_until_it_is_asked_how(named: subprocess.Popen[str]) -> None:
    started = procstat.start_time(named.pid)
    named.kill()
    os.waitid(os.P_PID, named.pid, os.WEXITED | os.WNOWAIT)
    assert procstat.read(named.pid).state == "Z"
    assert procstat.start_time(named.pid) is None
    assert started is not None and not procstat.runs(named.pid, started)
    named.wait(20)
    assert procstat.start_time(named.pid) is None
    assert procstat.cpu_times(named.pid) is None


def test_times_are_of_the_process_or_of_one_thread() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        deadline, before = time.monotonic() + 60, time.process_time()
        while time.process_time() < before + 0.2:
            assert time.monotonic() < deadline
        idle = procstat.read(os.getpid(), thread.native_id)
    finally:
        stop.set()
        thread.join()
    assert idle.user + idle.system < 10**8
    used, whole = resource.getrusage(resource.RUSAGE_SELF), procstat.cpu_times(os.getpid())
    assert whole is not None
    for counted, known in zip(whole, (used.ru_utime, used.ru_stime), strict=True):
        assert counted / 1e9 == pytest.approx(known, abs=0.5)
    assert procstat.read(os.getpid()).cpu in range(os.cpu_count() or 1)
