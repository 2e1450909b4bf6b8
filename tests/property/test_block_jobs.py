"""Jobs on a disk that is written meanwhile: what the guest reads never changes, and the copies are what they should be.

The guest's requests and the job's steps are put in every order that hypothesis thinks of; nothing depends on threads.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync, BitmapMode
from hostel.block.jobs.bitmaps import add_bitmap, find_bitmap
from hostel.block.jobs.commit import CommitJob
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import ActiveCommitJob, CopyMode, MirrorJob, MirrorSettings, Sync
from hostel.block.jobs.stream import StreamJob
from hostel.block.node import BlockNode
from hostel.block.powers import Repair
from support import images, jobs
from support.jobs import KIB, SIZE
from support.memory_folder import memory_folder

pytestmark = pytest.mark.filterwarnings("error")


class Action(NamedTuple):
    """A request of the guest, or steps of the job."""

    kind: str
    offset: int
    length: int
    value: int


def _ranges() -> st.SearchStrategy[tuple[int, int]]:
    unit = st.sampled_from([512, 4 * KIB, 64 * KIB])
    return st.tuples(unit, st.integers(0, SIZE), st.integers(1, 4)).map(
        lambda drawn: (
            min(SIZE - 512, drawn[1] // drawn[0] * drawn[0]),
            max(1, min(drawn[0] * drawn[2], SIZE - min(SIZE - 512, drawn[1] // drawn[0] * drawn[0]))),
        )
    )


ACTIONS = st.lists(
    st.builds(
        lambda kind, span, value: Action(kind, span[0], span[1], value),
        st.sampled_from(["write", "write", "zero", "unmap", "discard", "flush", "step", "step", "step"]),
        _ranges(),
        st.integers(1, 255),
    ),
    max_size=24,
)


class Guest:
    """Writes to a node, and knows what it must read."""

    def __init__(self, node: BlockNode) -> None:
        self.node = node
        self.expected = bytearray(jobs.content(node))

    def do(self, action: Action, job: Job) -> None:
        kind, offset, length, value = action
        if kind == "step":
            for _ in range(value % 4 + 1):
                job.advance()
        elif kind == "write":
            self.node.pwrite(offset, bytes([value]) * length)
            self.expected[offset : offset + length] = bytes([value]) * length
        elif kind == "flush":
            self.node.flush()
        elif kind == "discard":
            self.node.discard(offset, length)
            self.expected[offset : offset + length] = self.node.read(offset, length)
        else:
            self.node.write_zeroes(offset, length, unmap=kind == "unmap")
            self.expected[offset : offset + length] = bytes(length)

    def check(self) -> None:
        assert jobs.content(self.node) == self.expected


def _assert_clean(path: Path) -> None:
    with jobs.opened(path, read_only=True) as node:
        assert isinstance(node.driver, Qcow2Driver)
        found = node.driver.check(Repair.NOTHING, lambda line: None)
    assert not found.corruptions and not found.leaks and not found.check_errors


@settings(max_examples=40)
@given(actions=ACTIONS, depth=st.integers(2, 4), whole=st.booleans())
def test_a_streamed_overlay_reads_as_before_and_stands_on_the_base(
    actions: list[Action], depth: int, whole: bool
) -> None:
    with memory_folder() as folder:
        paths = jobs.chain(folder, depth)
        with jobs.opened(paths[-1]) as node:
            guest = Guest(node)
            base = None if whole else list(node.chain())[-1]
            job = StreamJob(jobs.settings(), node, base=base)
            job.start()
            for action in actions:
                guest.do(action, job)
                guest.check()
            jobs.step(job, lambda: job.is_over)
            assert job.error is None
            guest.check()
            assert node.backing is base
        with jobs.opened(paths[-1]) as node:
            assert jobs.content(node) == guest.expected
            assert (node.backing is None) == whole
        _assert_clean(paths[-1])


@settings(max_examples=40)
@given(actions=ACTIONS, lengths=st.lists(st.sampled_from([SIZE // 2, SIZE, SIZE * 2]), min_size=3, max_size=3))
def test_images_committed_from_within_a_chain_leave_its_content_alone(
    actions: list[Action], lengths: list[int]
) -> None:
    with memory_folder() as folder:
        paths: list[Path] = []
        for level, size in enumerate([*lengths, SIZE]):
            paths += _layer(folder, level, size, paths[-1] if paths else None)
        with jobs.opened(paths[-1]) as node:
            guest = Guest(node)
            base = list(node.chain())[-1]
            assert node.backing is not None
            job = CommitJob(jobs.settings(), node, node.backing, base)
            job.start()
            for action in actions:
                guest.do(action, job)
                guest.check()
            jobs.step(job, lambda: job.is_over)
            assert job.error is None
            guest.check()
            assert node.backing is base
            assert base.read_only
        with jobs.opened(paths[-1]) as node:
            assert jobs.content(node) == guest.expected
            assert len(list(node.chain())) == 2
        _assert_clean(paths[0])


def _layer(folder: Path, level: int, size: int, below: Path | None) -> list[Path]:
    path = folder / f"layer{level}.qcow2"
    images.make(path, size, options="cluster_size=64k", backing=below, backing_format="qcow2")
    images.write(path, "qcow2", images.scatter(random.Random(level), size, 6))
    return [path]


@settings(max_examples=40)
@given(actions=ACTIONS, depth=st.integers(2, 4))
def test_a_committed_active_layer_gives_way_to_the_base(actions: list[Action], depth: int) -> None:
    with memory_folder() as folder:
        paths = jobs.chain(folder, depth)
        with jobs.opened(paths[-1]) as node:
            guest = Guest(node)
            base = list(node.chain())[-1]
            job = ActiveCommitJob(jobs.settings(), node, base)
            job.start()
            half = len(actions) // 2
            for action in actions[:half]:
                guest.do(action, job)
                guest.check()
            jobs.step(job, lambda: job.info()["ready"])
            job.complete()
            for action in actions[half:]:
                guest.do(action, job)
                guest.check()
            jobs.step(job, lambda: job.is_over)
            assert job.error is None
            node.pwrite(0, b"after")
            guest.expected[:5] = b"after"
            guest.check()
        with jobs.opened(paths[0]) as node:
            assert jobs.content(node) == guest.expected
        _assert_clean(paths[0])


@settings(max_examples=40)
@given(
    actions=ACTIONS,
    mode=st.sampled_from(CopyMode),
    sync=st.sampled_from([Sync.FULL, Sync.TOP]),
    granularity=st.sampled_from([0, 512, 16 * KIB, 256 * KIB]),
    target_format=st.sampled_from(["qcow2", "raw"]),
    pivot=st.booleans(),
)
def test_a_mirror_is_equal_when_it_takes_over_and_when_it_is_left_alone(
    actions: list[Action], mode: CopyMode, sync: Sync, granularity: int, target_format: str, pivot: bool
) -> None:
    with memory_folder() as folder:
        paths = jobs.chain(folder, 2)
        target_path = folder / "target"
        if sync is Sync.TOP:
            images.make(target_path, SIZE, backing=paths[0], backing_format="qcow2")
            target, target_format = jobs.opened(target_path), "qcow2"
        else:
            target = jobs.empty(target_path, format=target_format)
        with target, jobs.opened(paths[-1]) as node:
            # What is there before must not matter.
            if sync is Sync.FULL:
                target.pwrite(SIZE // 3, b"old" * 9999)
            guest = Guest(node)
            job = MirrorJob(
                jobs.settings(), node, target, MirrorSettings(sync=sync, copy_mode=mode, granularity=granularity)
            )
            job.start()
            half = len(actions) // 2
            for action in actions[:half]:
                guest.do(action, job)
            jobs.step(job, lambda: job.info()["ready"])
            for action in actions[half:]:
                guest.do(action, job)
            guest.check()
            job.complete() if pivot else job.cancel()
            jobs.step(job, lambda: job.is_over)
            assert job.error is None
            assert jobs.content(target) == guest.expected
            node.pwrite(5, b"later")
            assert (jobs.content(target) == guest.expected) != pivot
            guest.expected[5:10] = b"later"
            guest.check()
        with jobs.opened(target_path if pivot else paths[-1], target_format if pivot else "qcow2") as node:
            assert jobs.content(node) == guest.expected


@settings(max_examples=40)
@given(
    actions=ACTIONS,
    before=ACTIONS,
    sync=st.sampled_from([BackupSync.FULL, BackupSync.BITMAP]),
    mode=st.sampled_from(BitmapMode),
    persistent=st.booleans(),
    cluster=st.sampled_from(["4k", "64k", "256k"]),
    compress=st.booleans(),
    cancelled=st.booleans(),
)
def test_a_backup_is_the_content_at_its_start_and_its_bitmap_lacks_nothing(
    actions: list[Action],
    before: list[Action],
    sync: BackupSync,
    mode: BitmapMode,
    persistent: bool,
    cluster: str,
    compress: bool,
    cancelled: bool,
) -> None:
    if sync is BackupSync.FULL and mode is BitmapMode.NEVER:
        mode = BitmapMode.ALWAYS
    with memory_folder() as folder:
        paths = jobs.chain(folder, 2)
        target = jobs.empty(folder / "target", options=f"cluster_size={cluster}")
        with target, jobs.opened(paths[-1]) as node:
            guest = Guest(node)
            add_bitmap(node, "since", persistent=persistent)
            last = jobs.content(node)  # as of the last backup
            target.pwrite(0, last)
            for action in before:
                if action.kind != "step":
                    guest.do(action, None)  # type: ignore[arg-type]
            start = bytes(guest.expected)
            how = BackupSettings(sync, find_bitmap(node, "since"), mode, compress)
            job = BackupJob(jobs.settings(), node, target, how)
            job.start()
            for action in actions:
                guest.do(action, job)
            if cancelled and not job.is_over:
                job.cancel()
            jobs.step(job, lambda: job.is_over)
            guest.check()
            if job.error is None:
                assert jobs.content(target) == start
            # The next backup by this bitmap, on the last one that succeeded, is complete.
            bitmap = find_bitmap(node, "since")
            assert not bitmap.busy
            if job.error is not None and mode is not BitmapMode.ALWAYS:
                with jobs.empty(folder / "again") as again:
                    again.pwrite(0, last)
                    jobs.run(BackupJob(jobs.settings(), node, again, how._replace(sync=BackupSync.BITMAP)))
                    assert jobs.content(again) == guest.expected
            else:
                next_how = BackupSettings(BackupSync.INCREMENTAL, bitmap)
                jobs.run(BackupJob(jobs.settings(), node, target, next_how))
                assert jobs.content(target) == guest.expected
        _assert_clean(paths[-1])
        _assert_clean(folder / "target")
