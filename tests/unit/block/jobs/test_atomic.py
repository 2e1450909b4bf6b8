"""Several changes at one moment, where the rest of one of them fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hostel.block import notice
from hostel.block.jobs import atomic
from hostel.block.jobs.backup import BackupJob
from hostel.block.jobs.job import Job
from hostel.errors import BlockError
from support import jobs


class StaysHalf(atomic.Action):
    """Cannot be taken back, as an overlay is not whose file cannot be closed."""

    def prepare(self) -> None:
        pass

    def undo(self) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class FailsLate(atomic.Action):
    """Fails when it is too late to take anything back, as a bitmap's removal does where the disk refuses it."""

    def prepare(self) -> None:
        pass

    def undo(self) -> None:
        raise AssertionError("nothing is to be undone")

    def commit(self) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_job_goes_on_beside_a_change_that_fails_late(tmp_path: Path) -> None:
    [path] = jobs.chain(tmp_path, 1)
    made: list[Job] = []
    with jobs.opened(path) as node, jobs.empty(tmp_path / "target") as target:

        def make() -> Job:
            made.append(BackupJob(jobs.settings(), node, target))
            return made[0]

        with pytest.raises(OSError, match="Input/output error"):
            atomic.run([FailsLate(node), atomic.StartJob(node, make)])
        assert made[0].join(20)
        assert made[0].error is None
        assert jobs.content(target) == jobs.content(node)
        assert not node.blockers


def test_what_cannot_be_taken_back_keeps_nothing_else_from_it(tmp_path: Path) -> None:
    [path] = jobs.chain(tmp_path, 1)
    made: list[Job] = []
    told: list[str] = []
    with jobs.opened(path) as node, jobs.empty(tmp_path / "target") as target:

        def make() -> Job:
            made.append(BackupJob(jobs.settings(), node, target))
            return made[0]

        start = atomic.StartJob(node, make)
        with notice.listening(told.append), pytest.raises(BlockError, match="aborted"):
            atomic.run([start, StaysHalf(node), atomic.Abort()])
        assert not node.blockers
        assert made[0].is_over
        assert told == ["What a transaction had done could not be taken back in full: [Errno 5] Input/output error"]
        node.pwrite(0, b"goes on")
        assert jobs.content(target) == bytes(jobs.SIZE)
