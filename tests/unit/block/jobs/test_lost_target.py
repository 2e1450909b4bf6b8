"""Jobs whose target's server has gone, which is waited for a minute: who cancels one need not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block.jobs import copying
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync, BitmapMode
from hostel.block.jobs.bitmaps import add_bitmap
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.mirror import MirrorJob, MirrorSettings
from hostel.block.jobs.state import JobStatus
from hostel.block.node import BlockNode
from hostel.export.nbd.export import NbdExport
from support import images, jobs, nbd
from support.hanging import HangingDisk, hanging_disk
from support.scripted_nbd import opened

LENGTH = 1 << 20
UNIT = 1 << 16


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


@pytest.mark.requires_tool("nbdkit")
@pytest.mark.parametrize("ending", [HangingDisk.die, HangingDisk.hang])
@pytest.mark.parametrize("kind", [MirrorJob, BackupJob])
def test_a_bitmap_says_nothing_of_a_target_whose_server_does_not_sync_it(
    kind: type[MirrorJob | BackupJob],
    ending: Callable[[HangingDisk], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copying, "PATIENCE", 1.0)
    remote = tmp_path / "remote.raw"
    remote.write_bytes(bytes(LENGTH))
    images.make(tmp_path / "disk", LENGTH)
    images.write(tmp_path / "disk", "qcow2", {0: b"x" * LENGTH})
    with (
        jobs.opened(tmp_path / "disk") as source,
        hanging_disk(remote) as disk,
        opened(remote.with_suffix(".sock"), options=",reconnect-delay=60") as target,
    ):
        bitmap = add_bitmap(source, "b", UNIT, persistent=True)
        job: Job
        if kind is MirrorJob:
            how = MirrorSettings(bitmap=bitmap, bitmap_mode=BitmapMode.ALWAYS)
            job = MirrorJob(jobs.settings(), source, target, how)
        else:
            job = BackupJob(jobs.settings(), source, target, BackupSettings(BackupSync.FULL, bitmap, BitmapMode.ALWAYS))
        job.start()
        jobs.step(job, lambda: job.offset == LENGTH)
        ending(disk)
        try:
            job.cancel(force=True)
            thread = threading.Thread(target=job.advance, daemon=True)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
            assert job.is_over
            assert bitmap.bits.count == LENGTH // UNIT
        finally:
            disk.die()
