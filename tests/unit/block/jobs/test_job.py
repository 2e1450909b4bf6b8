"""States, commands and events of jobs, on a mirror and a backup that are made to go step by step."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync
from hostel.block.jobs.event import JobEvent
from hostel.block.jobs.mirror import MirrorJob, MirrorSettings, Sync
from hostel.block.jobs.state import JobStatus
from hostel.block.jobs.stream import StreamJob
from hostel.block.jobs.table import JobTable
from hostel.block.jobs.transaction import JobTransaction
from hostel.block.node import BlockNode
from hostel.errors import BlockError
from support import jobs


@pytest.fixture
def source(tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.opened(jobs.chain(tmp_path, 2)[-1]) as node:
        node.pwrite(0, b"x" * jobs.SIZE)
        yield node


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlockNode]:
    with jobs.empty(tmp_path / "target.qcow2") as node:
        yield node


def test_a_mirror_goes_through_the_states_of_qemu(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    jobs.run(MirrorJob(jobs.settings(heard=heard), source, target))
    assert heard.states() == ["created", "running", "ready", "waiting", "pending", "concluded", "null"]
    assert heard.names() == ["BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED"]
    done = heard.events[-3].data
    assert done == {"type": "mirror", "device": "job0", "len": jobs.SIZE, "offset": jobs.SIZE, "speed": 0}


def test_a_backup_has_no_ready_state(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    jobs.run(BackupJob(jobs.settings(heard=heard), source, target))
    assert heard.states() == ["created", "running", "waiting", "pending", "concluded", "null"]


def test_a_cancelled_job_aborts(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    job = BackupJob(jobs.settings(heard=heard), source, target)
    job.start()
    job.advance()
    job.cancel()
    assert job.advance() is None
    assert heard.states() == ["created", "running", "aborting", "concluded", "null"]
    assert heard.names() == ["BLOCK_JOB_CANCELLED"]
    assert job.error == "Operation canceled"
    assert source.format == "qcow2"


def test_a_mirror_cancelled_before_it_is_ready_is_no_success(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    job = MirrorJob(jobs.settings(heard=heard), source, target)
    job.start()
    job.cancel()
    jobs.step(job, lambda: job.is_over)
    assert heard.names() == ["BLOCK_JOB_CANCELLED"]


def test_the_end_of_a_job_is_waited_for_once(
    source: BlockNode, target: BlockNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, go_on = threading.Event(), threading.Event()
    job = BackupJob(jobs.settings()._replace(auto_finalize=False), source, target)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.PENDING)
    flush = target.driver.flush

    def slow() -> None:
        hangs.set()
        go_on.wait(30)
        flush()

    monkeypatch.setattr(target.driver, "flush", slow)
    first = threading.Thread(target=job.finalize)
    first.start()
    try:
        assert hangs.wait(30)
        with pytest.raises(BlockError, match="is at its end already, and waits"):
            job.finalize()
    finally:
        go_on.set()
        first.join(30)
    assert job.status is JobStatus.NULL
    with pytest.raises(BlockError, match="cannot accept command verb 'finalize'"):
        job.finalize()


def test_a_ready_mirror_that_is_forced_to_end_is_cancelled(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    job = MirrorJob(jobs.settings(heard=heard), source, target)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.READY)
    job.cancel(force=True)
    jobs.step(job, lambda: job.is_over)
    assert heard.names() == ["BLOCK_JOB_READY", "BLOCK_JOB_CANCELLED"]
    assert source.format == "qcow2"


@pytest.mark.parametrize("verb", ["complete", "finalize", "dismiss"])
def test_a_running_job_refuses_what_comes_at_its_end(source: BlockNode, target: BlockNode, verb: str) -> None:
    job = MirrorJob(jobs.settings(), source, target)
    job.start()
    with pytest.raises(BlockError) as raised:
        getattr(job, verb)()
    assert str(raised.value) == f"Job 'job0' in state 'running' cannot accept command verb '{verb}'"
    job.cancel(force=True)
    job.advance()


def test_a_paused_job_copies_nothing(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    job = MirrorJob(jobs.settings(heard=heard), source, target)
    job.start()
    job.pause()
    with pytest.raises(BlockError, match="Job is already paused"):
        job.pause()
    for _ in range(50):
        job.advance()
    assert jobs.status_of(job) is JobStatus.PAUSED
    assert job.offset == 0
    job.resume()
    with pytest.raises(BlockError, match="Can't resume a job that was not paused"):
        job.resume()
    jobs.step(job, lambda: job.status is JobStatus.READY)
    job.pause()
    job.advance()
    assert jobs.status_of(job) is JobStatus.STANDBY
    job.resume()
    job.complete()
    jobs.step(job, lambda: job.is_over)
    assert heard.states()[:6] == ["created", "running", "paused", "running", "ready", "standby"]


def test_jobs_that_wait_for_commands_end_when_they_are_told_to(source: BlockNode, target: BlockNode) -> None:
    heard = jobs.Heard()
    chosen = jobs.settings(heard=heard)._replace(auto_finalize=False, auto_dismiss=False)
    job = BackupJob(chosen, source, target)
    job.start()
    jobs.step(job, lambda: job.is_done)
    assert jobs.status_of(job) is JobStatus.PENDING
    assert heard.names() == ["BLOCK_JOB_PENDING"]
    assert source.format == "copy-before-write"  # the graph is as it was while the job ran
    job.finalize()
    assert jobs.status_of(job) is JobStatus.CONCLUDED
    assert source.format == "qcow2"
    job.dismiss()
    assert jobs.status_of(job) is JobStatus.NULL


def test_a_mirror_that_waits_to_be_finalized_stays_equal(source: BlockNode, target: BlockNode) -> None:
    job = MirrorJob(jobs.settings()._replace(auto_finalize=False), source, target)
    job.start()
    jobs.step(job, lambda: job.status is JobStatus.READY)
    job.complete()
    jobs.step(job, lambda: job.status is JobStatus.PENDING)
    source.pwrite(77, b"while it waits")
    source.discard(0, 65536)
    expected = jobs.content(source)
    job.finalize()
    assert job.error is None
    assert jobs.content(target) == jobs.content(source) == expected


def test_a_limit_makes_a_job_wait(source: BlockNode, target: BlockNode) -> None:
    job = BackupJob(jobs.settings()._replace(speed=64 * jobs.KIB), source, target)
    job.start()
    assert job.advance() == 0.0
    copied = job.offset
    assert copied
    owed = job.advance()
    assert owed is not None and owed > copied / (64 * jobs.KIB) - 1
    assert job.offset == copied
    job.set_speed(0)
    jobs.step(job, lambda: job.is_over)
    assert job.error is None


def test_a_negative_limit_is_refused(source: BlockNode, target: BlockNode) -> None:
    with pytest.raises(BlockError, match="Parameter 'speed' expects a non-negative value"):
        BackupJob(jobs.settings()._replace(speed=-1), source, target)
    assert not source.blockers and not target.blockers


def test_a_node_in_use_by_a_job_refuses_another_job_and_a_resize(source: BlockNode, target: BlockNode) -> None:
    job = MirrorJob(jobs.settings(), source, target)
    busy = f"Node '{source.name}' is busy: block device is in use by block job: mirror"
    for attempt in (
        lambda: StreamJob(jobs.settings("other"), source),
        lambda: BackupJob(jobs.settings("other"), source, target),
        lambda: source.resize(jobs.SIZE * 2),
    ):
        with pytest.raises(BlockError) as raised:
            attempt()
        assert str(raised.value) == busy
        assert raised.value.errno == errno.EBUSY
    jobs.run(job)
    source.resize(jobs.SIZE * 2)
    assert target.length == jobs.SIZE * 2  # which the source has become


def test_a_node_may_be_backed_up_to_two_places_at_once(source: BlockNode, target: BlockNode, tmp_path: Path) -> None:
    with jobs.empty(tmp_path / "second.qcow2") as second:
        first = BackupJob(jobs.settings("one"), source, target)
        first.start()
        start = jobs.content(source)
        source.pwrite(0, b"between")
        between = jobs.content(source)
        other = BackupJob(jobs.settings("two"), source, second)
        other.start()
        source.pwrite(0, b"afterwards")
        jobs.step(first, lambda: first.is_over)
        jobs.step(other, lambda: other.is_over)
        assert jobs.content(target) == start
        assert jobs.content(second) == between
        assert source.format == "qcow2"


def test_a_target_of_another_size_is_refused(source: BlockNode, tmp_path: Path) -> None:
    refusal = "Source and target image have different sizes"
    with jobs.empty(tmp_path / "small.qcow2", jobs.SIZE // 2) as small:
        with pytest.raises(BlockError, match=refusal):
            BackupJob(jobs.settings(), source, small)
        assert not source.blockers
        # As in QEMU, a mirror begins, and says so as its error.
        job = MirrorJob(jobs.settings(), source, small)
        job.start()
        job.advance()
        assert job.error == refusal
        assert source.format == "qcow2"


def test_a_node_that_is_not_the_source_is_not_replaced(source: BlockNode, target: BlockNode, tmp_path: Path) -> None:
    refusal = "would not lead to an abrupt change of visible data"
    with jobs.empty(tmp_path / "other.qcow2") as other, pytest.raises(BlockError, match=refusal):
        MirrorJob(jobs.settings(), source, target, MirrorSettings(replaces=other))


def test_of_a_group_none_ends_before_all_are_done(source: BlockNode, target: BlockNode, tmp_path: Path) -> None:
    with jobs.empty(tmp_path / "second.qcow2") as second:
        group = JobTransaction()
        one = BackupJob(jobs.settings("one")._replace(transaction=group), source, target)
        two = BackupJob(jobs.settings("two")._replace(transaction=group), source, second)
        one.start()
        two.start()
        jobs.step(one, lambda: one.is_done)
        assert one.status is JobStatus.WAITING
        jobs.step(two, lambda: two.is_done)
        assert one.is_over and two.is_over
        assert one.error is two.error is None


def test_a_group_fails_together(source: BlockNode, target: BlockNode, tmp_path: Path) -> None:
    with jobs.empty(tmp_path / "second.qcow2") as second:
        group, heard = JobTransaction(), jobs.Heard()
        one = BackupJob(jobs.settings("one", heard)._replace(transaction=group), source, target)
        two = BackupJob(jobs.settings("two", heard)._replace(transaction=group), source, second)
        one.start()
        two.start()
        jobs.step(one, lambda: one.is_done)
        two.cancel()
        jobs.step(two, lambda: two.is_over)
        assert one.is_over
        assert heard.names() == ["BLOCK_JOB_CANCELLED", "BLOCK_JOB_CANCELLED"]
        assert source.format == "qcow2"


def test_a_job_in_a_thread_ends_and_is_joined(source: BlockNode, target: BlockNode) -> None:
    table = JobTable()
    job = table.add(lambda: MirrorJob(jobs.settings(), source, target), "job0")
    with pytest.raises(BlockError, match="Job ID 'job0' already in use"):
        table.require_free("job0")
    stop = threading.Event()

    def guest() -> None:
        number = 0
        while not stop.is_set():
            source.pwrite(number * 4096 % jobs.SIZE, number.to_bytes(4, "big") * 1024)
            number += 1
            time.sleep(0.0005)

    writer = threading.Thread(target=guest)
    writer.start()
    try:
        job.launch()
        until = time.monotonic() + 30
        while job.status is not JobStatus.READY and time.monotonic() < until:
            time.sleep(0.01)
        job.complete()
        assert job.join(30)
    finally:
        stop.set()
        writer.join(10)
    assert job.error is None
    assert not table
    assert jobs.content(source) == jobs.content(target)


def test_the_table_ends_what_runs(source: BlockNode, target: BlockNode) -> None:
    table = JobTable()
    how = BackupSettings(sync=BackupSync.NONE)
    job = table.add(lambda: BackupJob(jobs.settings(), source, target, how), "job0")
    job.launch()
    table.end(job, 60.0)
    assert job.is_over
    assert source.format == "qcow2"


def test_ids_are_as_qemu_wants_them() -> None:
    with pytest.raises(BlockError, match="Invalid job ID '1st'"):
        JobTable().require_free("1st")


def test_a_mirror_without_a_start_follows_only_what_is_written(source: BlockNode, target: BlockNode) -> None:
    job = MirrorJob(jobs.settings(), source, target, MirrorSettings(sync=Sync.NONE, granularity=4096))
    job.start()
    source.pwrite(8192, b"new" * 100)
    jobs.step(job, lambda: job.status is JobStatus.READY)
    job.cancel()
    jobs.step(job, lambda: job.is_over)
    assert target.read(8192, 4096) == source.read(8192, 4096)
    assert not any(target.read(0, 8192))


@pytest.mark.parametrize("state", ["ready", "concluded", "null"])
def test_it_can_be_waited_for_that_a_state_which_can_be_seen_is_told(
    source: BlockNode, target: BlockNode, state: str
) -> None:
    table, reached, go_on = JobTable(), threading.Event(), threading.Event()

    class Held(jobs.Heard):
        def __call__(self, event: JobEvent) -> None:
            if event.data.get("status") == state:
                reached.set()
                go_on.wait(30)
            super().__call__(event)

    heard = Held()
    job = table.add(lambda: MirrorJob(jobs.settings(heard=heard), source, target), "job0")
    thread = threading.Thread(target=jobs.run, args=(job,))
    thread.start()
    try:
        assert reached.wait(30)
        assert list(table) == ([] if state != "ready" else ["job0"])
        assert not table.wait_told(0.05)
        go_on.set()
        assert table.wait_told(30)
        assert state in heard.states()
    finally:
        go_on.set()
        thread.join(30)
