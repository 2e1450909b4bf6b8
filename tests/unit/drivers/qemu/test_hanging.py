"""QEMU that hangs in its last step is told from one whose guest runs, by what its process waits for and has open."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers import procstat
from hostel.drivers.qemu.hanging import _PPOLL, let_end
from hostel.drivers.qemu.status import Status
from hostel.model.domain.domain import Domain
from support.process import started

pytestmark = pytest.mark.skipif(os.uname().machine not in _PPOLL, reason="calls are not known by number here")
NETWORK = "<disk type='network'><source protocol='nbd' name='x'><host name='h'/></source><target dev='vdb'/></disk>"
# Waits as QEMU's main thread does: for some descriptors, without limit or with one, while it has files open.
WAITS = """
import ctypes, os, sys
files = [open(path) for path in sys.argv[3:]]
entries = (ctypes.c_uint64 * int(sys.argv[1]))(*[os.pipe()[0] | 1 << 32 for _ in range(int(sys.argv[1]))])
limit = (ctypes.c_long * 2)(3600, 0) if sys.argv[2] == "limit" else None
ctypes.CDLL(None).ppoll(entries, len(entries), limit, None)
"""


@contextlib.contextmanager
def waiting(count: int, *words: str) -> Iterator[int]:
    with started([sys.executable, "-I", "-c", WAITS, str(count), *(words or ("for-ever",))]) as program:
        deadline, number = time.monotonic() + 60, str(_PPOLL[os.uname().machine])
        while not Path(f"/proc/{program.pid}/syscall").read_text().startswith(f"{number} "):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield program.pid


def status(pid: int, disks: str = "", actions: str = "") -> Status:
    xml = f"<domain type='qemu'><name>guest</name>{actions}<devices>{disks}</devices></domain>"
    return Status(Domain.parse(xml), 1, pid, procstat.start_time(pid) or 0, "/nowhere", 0)


def disk(path: Path) -> str:
    return f"<disk type='file'><source file='{path}'/><target dev='vda'/></disk>"


def test_who_has_closed_its_disks_and_waits_for_itself_is_let_end(tmp_path: Path) -> None:
    for name in ("image", "other"):
        (tmp_path / name).touch()
    for disks in ("", disk(tmp_path / "image")):
        with waiting(1, "for-ever", str(tmp_path / "other")) as pid:
            assert let_end(status(pid, disks), told=False)
            assert procstat.start_time(pid) is None


def test_whose_guest_may_run_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    link = tmp_path / "link"
    link.symlink_to(path)
    for words, disks in (
        (("for-ever", str(path)), disk(path)),
        (("for-ever", str(path)), disk(link)),
        (("for-ever",), disk(tmp_path / "gone")),
        (("for-ever",), disk(path) + NETWORK),
        (("limit",), disk(path)),
    ):
        with waiting(1, *words) as pid:
            assert not let_end(status(pid, disks), told=False)
            assert procstat.start_time(pid) is not None
    with waiting(3) as pid:  # as in its main loop
        assert not let_end(status(pid), told=False)
        assert procstat.start_time(pid) is not None


def test_who_has_said_that_it_shuts_down_is_let_end_but_for_one_that_stays(tmp_path: Path) -> None:
    with waiting(3) as pid:
        assert not let_end(status(pid, NETWORK, "<on_poweroff>restart</on_poweroff>"), told=True)
        assert procstat.start_time(pid) is not None
        assert let_end(status(pid, NETWORK), told=True)
        assert procstat.start_time(pid) is None
