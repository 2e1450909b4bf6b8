"""Jobs whose target's server has gone, which is waited for a minute: who cancels one need not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block.jobs.backup import BackupJob
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.mirror import MirrorJob
from hostel.block.jobs.state import JobStatus
from hostel.block.node import BlockNode
from hostel.export.nbd.export import NbdExport
from support import jobs, nbd
from support.scripted_nbd import opened

LENGTH = 1 << 20


@pytest.mark.parametrize(
    "make",
    [
        lambda settings, source, target: MirrorJob(settings, source, target),
        lambda settings, source, target: BackupJob(settings, source, target),
    ],
    ids=["mirror", "backup"],
)
def test_a_cancelled_job_waits_for_no_server(
    make: Callable[[JobSettings, BlockNode, BlockNode], Job], tmp_path: Path
) -> None:
    with (
        nbd.raw_disk(tmp_path, bytes(LENGTH), name="remote.raw") as remote,
        nbd.raw_disk(tmp_path, b"x" * LENGTH) as source,
        nbd.serving(tmp_path, NbdExport(remote)) as served,
        opened(served.path, options=",reconnect-delay=60") as target,
    ):
        heard = jobs.Heard()
        job = make(jobs.settings(heard=heard), source, target)
        served.server.stop()
        served.thread.join(20)
        waiting = threading.Event()
        connect = target.driver._connect  # type: ignore[attr-defined]

        def tell(*arguments: object) -> object:
            waiting.set()
            return connect(*arguments)

        target.driver._connect = tell  # type: ignore[attr-defined]
        thread = threading.Thread(target=jobs.run, args=(job,))
        thread.start()
        assert waiting.wait(20)
        job.cancel(force=True)
        thread.join(20)
        assert not thread.is_alive()
        assert jobs.status_of(job) is JobStatus.NULL
        assert heard.names()[-1] == "BLOCK_JOB_CANCELLED"
        assert source.read(0, LENGTH) == b"x" * LENGTH
