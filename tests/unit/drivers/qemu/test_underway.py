"""What the holder of a domain is about is said while it lives, and no longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hostel.drivers.qemu import underway
from hostel.errors import ErrorCode
from support.refusal import refused

_KILLED = """
import os, pathlib, sys
from hostel.drivers.qemu import underway
with underway.job(pathlib.Path(sys.argv[1]), "domain save") as job:
    job.tell({"memory_processed": 5})
    os._exit(0)
"""


def test_job_is_told_of_and_ends_where_somebody_wants_it(tmp_path: Path) -> None:
    with underway.job(tmp_path, "domain save") as job:
        job.tell({"memory_processed": 5})
        assert underway.progress(tmp_path) == {"memory_processed": 5}
        job.check()
        (tmp_path / "job-abort").touch()
        with refused(ErrorCode.OPERATION_ABORTED, "operation aborted: domain save: canceled by client"):
            job.check()
    assert underway.progress(tmp_path) is None
    assert not underway.end(tmp_path)


def test_job_of_one_who_was_killed_is_none(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, tmp_path], check=True, timeout=60)
    assert (tmp_path / "job").exists()
    assert underway.progress(tmp_path) is None
    assert not underway.end(tmp_path)
