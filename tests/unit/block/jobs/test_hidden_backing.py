"""A copy goes to an overlay that does not stand, or not yet, on what it names: it holds all of the disk by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.jobs.backup import BackupJob
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import CopyMode, MirrorJob, MirrorSettings
from hostel.block.node import BlockNode
from hostel.block.rewiring import replace_backing
from support import images, jobs


def _mirror(source: BlockNode, target: BlockNode) -> Job:
    return MirrorJob(jobs.settings(), source, target)


def _active(source: BlockNode, target: BlockNode) -> Job:
    return MirrorJob(jobs.settings(), source, target, MirrorSettings(copy_mode=CopyMode.WRITE_BLOCKING))


def _backup(source: BlockNode, target: BlockNode) -> Job:
    return BackupJob(jobs.settings(), source, target)


@pytest.mark.parametrize("make", [_mirror, _active, _backup])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("format", ["qcow2", "qed"])
def test_what_the_disk_has_as_zeroes_the_copy_has_too(
    tmp_path: Path, make: object, elsewhere: bool, format: str
) -> None:
    size = jobs.SIZE
    images.make(tmp_path / "full", size)
    images.write(tmp_path / "full", "qcow2", {0: b"old" * (size // 3)})
    images.make(tmp_path / "sparse", size)
    images.write(tmp_path / "sparse", "qcow2", {300_000: b"new" * 50_000})
    images.make(tmp_path / "copy", size, format=format, backing=tmp_path / "full", backing_format="qcow2")
    images.make(tmp_path / "empty", size)
    target = graph.open(str(tmp_path / "copy"), format, read_only=False, no_backing=True, cache=images.UNSAFE)
    with jobs.opened(tmp_path / "sparse") as source, target:
        if elsewhere:
            replace_backing(target, jobs.opened(tmp_path / "empty", read_only=True))
        wanted = jobs.content(source)
        job = make(source, target)  # type: ignore[operator]
        jobs.run(job)
        assert job.error is None
    with jobs.opened(tmp_path / "copy", format, read_only=True) as copy:
        assert jobs.content(copy) == wanted
