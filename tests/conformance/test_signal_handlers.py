"""Signal handlers that use a disk on others' servers, nbdkit and nginx, while their own thread reads or writes it."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.errors import Reentered
from support.daemon import listens
from support.web import nginx

MIB = 1 << 20
CONTENT = random.Random(1).randbytes(4 * MIB)


@contextlib.contextmanager
def nbdkit(folder: Path) -> Iterator[str]:
    """A disk of 4 MiB in nbdkit's memory; its URI."""
    path = folder / "socket"
    with subprocess.Popen(["nbdkit", "-f", "-U", str(path), "memory", "4M"]) as process:
        try:
            deadline = time.monotonic() + 20
            while not listens(path):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"nbd+unix:///?socket={path}"
        finally:
            process.kill()
            process.wait(20)


@contextlib.contextmanager
def alarms(handler: Callable[[], None]) -> Iterator[None]:
    former = signal.signal(signal.SIGALRM, lambda number, frame: handler())
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.requires_tool("nbdkit")
def test_handler_is_refused_a_disk_on_nbdkit_that_its_thread_waits_for(tmp_path: Path) -> None:
    refused = answered = 0

    def handler() -> None:
        nonlocal refused, answered
        try:
            assert node.read(3 * MIB, 512) == bytes(512)
            answered += 1
        except Reentered:
            refused += 1

    with nbdkit(tmp_path) as uri, graph.open(uri, "raw", read_only=False) as node:
        until = time.monotonic() + 60
        with alarms(handler):
            for offset in range(0, 3 * MIB, 65536):
                node.pwrite(offset, CONTENT[offset : offset + 65536])
                assert node.read(offset, 65536) == CONTENT[offset : offset + 65536]
            while not refused and time.monotonic() < until:
                node.flush()
        assert refused
        assert node.read(0, 4 * MIB) == CONTENT[: 3 * MIB] + bytes(MIB)


@pytest.mark.requires_tool("nginx")
def test_handler_reads_a_disk_on_nginx_that_its_thread_reads(tmp_path: Path) -> None:
    pytest.importorskip("pycurl")
    folder, work = tmp_path / "served", tmp_path / "work"
    for each in (folder, work):
        each.mkdir()
    (folder / "disk").write_bytes(CONTENT)
    for each in (tmp_path.parent, tmp_path, folder):
        each.chmod(0o755)
    rng = random.Random(2)
    answered = 0

    def read() -> None:
        offset = rng.randrange(3 * MIB)
        assert node.read(offset, MIB) == CONTENT[offset : offset + MIB]

    def handler() -> None:
        nonlocal answered
        if answered < 100:
            answered += 1
            read()

    with nginx(folder, work) as url, graph.open(f"{url}/disk", "raw") as node, alarms(handler):
        for _ in range(30):
            read()
    assert answered
