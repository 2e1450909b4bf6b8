"""Reads and writes that fail under jobs: the policy is followed, nothing is lost, the graph is as it was."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph, notice
from hostel.block.driver import Supports
from hostel.block.filters.forward import ForwardDriver
from hostel.block.jobs.backup import BackupJob, BackupSettings
from hostel.block.jobs.commit import CommitJob
from hostel.block.jobs.event import JobEvent
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import ActiveCommitJob, CopyMode, MirrorJob, MirrorSettings
from hostel.block.jobs.policy import OnError
from hostel.block.jobs.state import JobStatus
from hostel.block.jobs.stream import StreamJob
from hostel.block.node import BlockNode
from hostel.block.rewiring import insert_filter
from hostel.errors import BlockError, UnsupportedFeature
from support import images, jobs


class Failing(ForwardDriver):
    """Fails where it is told to."""

    name = "failing"
    code = 0
    reads = writes = flushes = False

    def pread(self, offset: int, buf: memoryview) -> None:
        self._fail(self.reads)
        super().pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._fail(self.writes)
        super().pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self._fail(self.writes)
        super().write_zeroes(offset, length, unmap=unmap)

    def flush(self) -> None:
        self._fail(self.flushes)
        super().flush()

    def _fail(self, now: bool) -> None:
        if now:
            raise OSError(self.code, "injected")


def failing(node: BlockNode, code: int = errno.EIO, *, reads: bool = False, writes: bool = False) -> Failing:
    """Let a node fail; every request to it, by whomever."""
    insert_filter(node, Failing)
    assert isinstance(node.driver, Failing)
    node.driver.code, node.driver.reads, node.driver.writes = code, reads, writes
    assert node.driver.supports & Supports.WRITE
    return node.driver


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return jobs.chain(tmp_path, 3)


@pytest.fixture
def source(paths: list[Path]) -> Iterator[BlockNode]:
    with jobs.opened(paths[-1]) as node:
        yield node


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.empty(tmp_path / "target.raw", format="raw") as node:
        yield node


@pytest.mark.parametrize("kind", [MirrorJob, BackupJob])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_reported_failure_ends_the_job_and_leaves_the_source_alone(
    source: BlockNode, target: BlockNode, kind: type[MirrorJob | BackupJob], code: int
) -> None:
    heard, before = jobs.Heard(), jobs.content(source)
    failing(target, code, writes=True)
    job = kind(jobs.settings(heard=heard), source, target)
    job.start()
    jobs.step(job, lambda: job.is_over)
    assert job.error == {errno.EIO: "Input/output error", errno.ENOSPC: "No space left on device"}[code]
    assert heard.names() == ["BLOCK_JOB_ERROR", "BLOCK_JOB_COMPLETED"]
    assert heard.events[2].data == {"device": "job0", "operation": "write", "action": "report"}
    assert jobs.content(source) == before
    assert source.format == "qcow2"
    assert not source.blockers and not target.blockers


@pytest.mark.parametrize(
    ("policy", "code", "io_status"),
    [
        (OnError.STOP, errno.EIO, "failed"),
        (OnError.STOP, errno.ENOSPC, "nospace"),
        (OnError.ENOSPC, errno.ENOSPC, "nospace"),
        (OnError.AUTO, errno.ENOSPC, "nospace"),
    ],
)
@pytest.mark.parametrize("kind", [MirrorJob, BackupJob])
def test_a_stopped_job_goes_on_where_it_was(
    source: BlockNode, target: BlockNode, kind: type[MirrorJob | BackupJob], policy: OnError, code: int, io_status: str
) -> None:
    driver, expected = failing(target, code, writes=True), jobs.content(source)
    job = kind(jobs.settings(policy=policy), source, target)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.PAUSED)
    assert job.info()["io-status"] == io_status
    driver.writes = False
    job.resume()
    assert job.info()["io-status"] == "ok"
    jobs.step(job, lambda: job.is_over or job.status is JobStatus.READY)
    if kind is MirrorJob:
        job.complete()
        jobs.step(job, lambda: job.is_over)
    assert job.error is None
    assert jobs.content(target) == expected


def test_a_job_that_is_resumed_as_soon_as_its_failure_is_told_shows_none(source: BlockNode, target: BlockNode) -> None:
    driver = failing(target, writes=True)

    def resume(told: JobEvent) -> None:
        if told.name == "BLOCK_JOB_ERROR":
            driver.writes = False
            job.resume()

    job = MirrorJob(jobs.settings(policy=OnError.STOP)._replace(listener=resume), source, target)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.READY)
    assert (job.info()["io-status"], job.info()["paused"]) == ("ok", False)
    job.cancel(force=True)
    jobs.step(job, lambda: job.is_over)


def test_enospc_stops_only_where_there_is_no_space(source: BlockNode, target: BlockNode) -> None:
    failing(target, errno.EIO, writes=True)
    job = BackupJob(jobs.settings(policy=OnError.ENOSPC), source, target)
    job.start()
    jobs.step(job, lambda: job.is_over)
    assert job.error == "Input/output error"


@pytest.mark.parametrize("kind", [MirrorJob, BackupJob])
def test_an_ignored_failure_is_tried_again(
    source: BlockNode, target: BlockNode, kind: type[MirrorJob | BackupJob]
) -> None:
    heard, driver, expected = jobs.Heard(), failing(target, writes=True), jobs.content(source)
    job = kind(jobs.settings(heard=heard, policy=OnError.IGNORE), source, target)
    job.start()
    jobs.step(job, lambda: heard.names().count("BLOCK_JOB_ERROR") == 3)
    driver.writes = False
    jobs.step(job, lambda: job.is_over or job.status is JobStatus.READY)
    if kind is MirrorJob:
        job.complete()
        jobs.step(job, lambda: job.is_over)
    assert job.error is None
    assert jobs.content(target) == expected


def test_a_stream_that_ignores_a_failure_goes_on_and_fails_at_its_end(paths: list[Path]) -> None:
    with jobs.opened(paths[-1]) as node:
        before = jobs.content(node)
        assert node.backing is not None
        driver = failing(node.backing, reads=True)
        job = StreamJob(jobs.settings(policy=OnError.IGNORE), node)
        job.start()
        jobs.step(job, lambda: job.is_over)
        assert job.error == "Input/output error"
        driver.reads = False
        assert node.backing is not None
        assert jobs.content(node) == before
    with jobs.opened(paths[-1]) as node:
        assert len(list(node.chain())) == 3
        jobs.run(StreamJob(jobs.settings(), node))  # what is there is not copied again
        assert jobs.content(node) == before
        assert node.backing is None


@pytest.mark.parametrize("active", [False, True])
def test_a_commit_that_fails_leaves_the_chain_as_it_was(paths: list[Path], active: bool) -> None:
    with jobs.opened(paths[-1]) as node:
        before, base = jobs.content(node), list(node.chain())[-1]
        driver = failing(base, writes=True)
        assert node.backing is not None
        job: Job = (
            ActiveCommitJob(jobs.settings(), node, base)
            if active
            else CommitJob(jobs.settings(), node, node.backing, base)
        )
        job.start()
        jobs.step(job, lambda: job.is_over)
        assert job.error == "Input/output error"
        driver.writes = False
        assert jobs.content(node) == before
        assert base.read_only
        assert not any(layer.blockers for layer in node.chain())
    with jobs.opened(paths[-1]) as node:
        assert len(list(node.chain())) == 3
        assert jobs.content(node) == before


@pytest.mark.parametrize("active", [False, True])
def test_a_base_that_cannot_grow_is_only_read_again(tmp_path: Path, active: bool) -> None:
    images.make(tmp_path / "base", jobs.SIZE, format="vdi")
    below, paths = "vdi", [tmp_path / "base"]
    for name in ("middle", "top"):
        images.make(tmp_path / name, 2 * jobs.SIZE, backing=paths[-1], backing_format=below)
        below, paths = "qcow2", [*paths, tmp_path / name]
    with jobs.opened(paths[-1]) as top:
        _, middle, base = top.chain()
        job: Job = (
            ActiveCommitJob(jobs.settings(), top, base) if active else CommitJob(jobs.settings(), top, middle, base)
        )
        with pytest.raises(UnsupportedFeature, match="does not support resize"):
            job.start()
        assert base.read_only
        assert not any(layer.blockers for layer in top.chain())


def test_a_backing_name_that_does_not_fit_leaves_the_overlay_on_its_chain(paths: list[Path]) -> None:
    with jobs.opened(paths[-1]) as node:
        before, base = jobs.content(node), list(node.chain())[-1]
        job = StreamJob(jobs.settings(), node, base=base, backing_file="x" * 2000)
        job.start()
        jobs.step(job, lambda: job.is_over)
        assert job.error is not None
        assert len(list(node.chain())) == 3
        assert jobs.content(node) == before
    with jobs.opened(paths[-1]) as node:
        assert jobs.content(node) == before


def test_the_guest_is_told_that_old_data_could_not_be_saved(source: BlockNode, target: BlockNode) -> None:
    source.pwrite(jobs.SIZE - 512, b"o" * 512)
    start = jobs.content(source)
    driver = failing(target, errno.ENOSPC)
    job = BackupJob(jobs.settings(), source, target)
    job.start()
    driver.writes = True
    with pytest.raises(OSError) as raised:
        source.pwrite(jobs.SIZE - 512, b"n" * 512)
    assert raised.value.errno == errno.ENOSPC
    assert jobs.content(source) == start
    driver.writes = False
    source.pwrite(jobs.SIZE - 512, b"n" * 512)
    jobs.step(job, lambda: job.is_over)
    assert job.error is None
    assert jobs.content(target) == start


def test_a_guest_that_writes_in_both_places_does_not_see_the_target_fail(source: BlockNode, target: BlockNode) -> None:
    driver = failing(target)
    how = MirrorSettings(copy_mode=CopyMode.WRITE_BLOCKING)
    job = MirrorJob(jobs.settings(policy=OnError.STOP), source, target, how)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.READY)
    synced = [job.actively_synced]
    driver.writes = True
    source.pwrite(4000, b"kept")
    synced.append(job.actively_synced)
    assert synced == [True, False]
    jobs.step(job, lambda: job.status is JobStatus.STANDBY)
    driver.writes = False
    job.resume()
    job.complete()
    jobs.step(job, lambda: job.is_over)
    assert job.error is None
    assert target.read(4000, 4) == b"kept"


def test_a_target_that_cannot_be_synced_does_not_take_over(source: BlockNode, target: BlockNode) -> None:
    driver, before = failing(target), jobs.content(source)
    job = MirrorJob(jobs.settings(), source, target)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.READY)
    job.complete()
    driver.flushes = True
    jobs.step(job, lambda: job.is_over)
    assert job.error == "Input/output error"
    assert source.format == "qcow2"
    assert jobs.content(source) == before


@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "extended_l2=on"])
def test_zeroes_between_stay_zeroes_when_their_image_goes(tmp_path: Path, options: str) -> None:
    base, middle, top = (tmp_path / name for name in ("base", "middle", "top"))
    images.make(base, jobs.SIZE, format="raw")
    images.write(base, "raw", {0: b"below" * 1000 + b"b" * 300_000})
    images.make(middle, jobs.SIZE // 4, backing=base)
    images.write(middle, "qcow2", {65536: 65536, 1000: b"m"})
    images.make(top, jobs.SIZE, backing=middle, backing_format="qcow2", options=options)
    with graph.open(str(top), "qcow2", read_only=False) as node:
        before = jobs.content(node)
        jobs.run(StreamJob(jobs.settings(), node, base=list(node.chain())[-1]))
        assert jobs.content(node) == before
    assert images.content(top, "qcow2") == before


def test_a_mistake_of_ours_at_the_end_fails_the_job(
    source: BlockNode, target: BlockNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MirrorJob, "_prepare", lambda self: 1 // 0)
    before = jobs.content(source)
    job = MirrorJob(jobs.settings(), source, target)
    jobs.run(job)
    assert job.error == "internal error: ZeroDivisionError: integer division or modulo by zero"
    assert jobs.content(source) == before
    assert not source.blockers and not target.blockers


def test_a_stream_says_that_snapshots_inside_show_something_else_then(paths: list[Path]) -> None:
    told: list[str] = []
    with notice.listening(told.append), jobs.opened(paths[-1]) as node:
        base = list(node.chain())[-1]
        jobs.run(StreamJob(jobs.settings(), node, base=base))
        assert told == []
        node.driver.snapshot_create("one", date=(1, 0))  # type: ignore[attr-defined]
        jobs.run(StreamJob(jobs.settings(), node, base=base))
        assert told == []
        jobs.run(StreamJob(jobs.settings(), node))
    assert told == [_warning(paths[-1])]


def test_a_commit_of_the_active_layer_says_so_too(paths: list[Path]) -> None:
    told: list[str] = []
    with notice.listening(told.append), jobs.opened(paths[-1]) as node:
        node.driver.snapshot_create("one", date=(1, 0))  # type: ignore[attr-defined]
        jobs.run(ActiveCommitJob(jobs.settings(), node, list(node.chain())[-1]))
    assert told == [_warning(paths[-1])]


def _warning(path: Path) -> str:
    return f"warning: '{path}' has snapshots inside (one): what they show of its backing file changes"


@pytest.mark.parametrize("kind", [BackupJob, MirrorJob])
def test_a_disk_is_not_copied_to_what_it_stands_on(tmp_path: Path, kind: type[BackupJob | MirrorJob]) -> None:
    with jobs.opened(jobs.chain(tmp_path, 3)[-1]) as disk:
        before = jobs.content(disk)
        for below in list(disk.chain())[1:]:
            with pytest.raises(BlockError, match="unshared by node"):
                kind(jobs.settings(), disk, below)
        assert not disk.blockers
        assert jobs.content(disk) == before


def test_a_backup_is_not_compressed_where_data_is_in_a_file_of_its_own(tmp_path: Path) -> None:
    """QEMU begins, and the guest's writes fail, whose old data cannot be copied."""
    [path] = jobs.chain(tmp_path, 1)
    external = f"data_file={tmp_path / 'data'}"
    with jobs.opened(path) as disk, jobs.empty(tmp_path / "target", options=external) as target:
        with pytest.raises(UnsupportedFeature, match="Compression is not supported for this drive"):
            BackupJob(jobs.settings(), disk, target, BackupSettings(compress=True))
        assert not disk.blockers
