"""Overlays put above a disk in use: no write is lost, and the disk below is left as it was."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hostel.block import draining, rewiring
from hostel.block.jobs import atomic, mirror, overlay
from hostel.block.jobs.bitmaps import add_bitmap, all_bitmaps
from hostel.block.jobs.mirror import CopyMode, MirrorJob, MirrorSettings, Sync
from hostel.block.jobs.overlay import Overlay
from hostel.block.node import BlockNode
from hostel.block.nodes import NodeTable
from hostel.block.permission import Permission
from hostel.block.uses import Use
from hostel.errors import BlockError
from support import images, jobs

GUEST = Use("an unnamed block device", "root", Permission.CONSISTENT_READ | Permission.WRITE)
NUMBER_OF_OVERLAYS = 4


@pytest.fixture
def table(tmp_path: Path) -> Iterator[NodeTable]:
    nodes = NodeTable()
    [path] = jobs.chain(tmp_path, 1)
    nodes.add(_image(path, "disk"))
    yield nodes
    nodes.close()
    assert not nodes


def _image(path: Path, name: str) -> dict[str, object]:
    return {"driver": "qcow2", "node-name": name, "file": {"driver": "file", "filename": str(path)}}


def _overlay(table: NodeTable, path: Path, name: str, *, size: int = jobs.SIZE) -> BlockNode:
    images.make(path, size)
    return table.add(_image(path, name))


def _append(table: NodeTable, below: str, above: str) -> atomic.Action:
    return Overlay(table, table[below], lambda _: table[above])


@pytest.fixture
def guest(table: NodeTable) -> Iterator[BlockNode]:
    """The node as whoever uses the disk holds it."""
    node = table["disk"].share()
    table.hold(node, GUEST)
    yield node
    node.close()


def test_what_is_written_goes_to_the_overlay_alone(tmp_path: Path, table: NodeTable, guest: BlockNode) -> None:
    before = bytearray(jobs.content(guest))
    overlay = _overlay(table, tmp_path / "over", "over")
    atomic.run([_append(table, "disk", "over")])
    guest.pwrite(1000, b"new" * 1000)
    after = bytearray(before)
    images.apply(after, {1000: b"new" * 1000})
    assert jobs.content(guest) == jobs.content(overlay) == after
    assert jobs.content(table["disk"]) == before
    assert table["disk"].read_only
    assert table["disk"] is not guest
    assert overlay.backing is table["disk"]


def test_a_transaction_that_fails_takes_the_overlay_out_again(
    tmp_path: Path, table: NodeTable, guest: BlockNode
) -> None:
    expected = bytearray(jobs.content(guest))
    overlay = _overlay(table, tmp_path / "over", "over")
    for _ in range(2):
        with pytest.raises(BlockError, match="aborted"):
            atomic.run([_append(table, "disk", "over"), atomic.Abort()])
        assert table["disk"] is guest
        assert table.uses(guest) == [GUEST]
        assert overlay.backing is None
        images.apply(expected, {5000: b"old" * 1000})
        guest.pwrite(5000, b"old" * 1000)
        assert jobs.content(guest) == expected
        assert not any(overlay.read(0, jobs.SIZE))
    table.remove("over")


def test_overlays_go_in_under_a_guest_that_writes(tmp_path: Path, table: NodeTable, guest: BlockNode) -> None:
    expected = bytearray(jobs.content(guest))
    stop, failure = threading.Event(), list[BaseException]()

    def write() -> None:
        rng = random.Random(3)
        try:
            while not stop.is_set():
                offset, data = rng.randrange(jobs.SIZE - 9000), rng.randbytes(rng.randrange(1, 9000))
                guest.pwrite(offset, data)
                expected[offset : offset + len(data)] = data
                assert guest.read(offset, len(data)) == data
        except BaseException as error:
            failure.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        below = "disk"
        for number in range(NUMBER_OF_OVERLAYS):
            _overlay(table, tmp_path / f"over{number}", f"over{number}")
            with pytest.raises(BlockError, match="aborted"):
                atomic.run([_append(table, below, f"over{number}"), atomic.Abort()])
            atomic.run([_append(table, below, f"over{number}")])
            below = f"over{number}"
    finally:
        stop.set()
        writer.join(60)
    assert not failure
    assert jobs.content(guest) == expected
    assert len(list(table[below].chain())) == NUMBER_OF_OVERLAYS + 1


def test_bitmaps_stay_with_the_disk(tmp_path: Path, table: NodeTable, guest: BlockNode) -> None:
    add_bitmap(guest, "passing")
    add_bitmap(guest, "stored", persistent=True)
    guest.pwrite(0, b"x")
    _overlay(table, tmp_path / "over", "over")
    atomic.run([_append(table, "disk", "over")])
    guest.pwrite(jobs.SIZE - 1, b"x")
    assert [(each.name, each.bits.count) for each in all_bitmaps(table["disk"])] == [("passing", 1), ("stored", 1)]
    assert not all_bitmaps(table["over"])


def test_an_overlay_may_be_longer_than_the_disk(tmp_path: Path, table: NodeTable, guest: BlockNode) -> None:
    before = jobs.content(guest)
    _overlay(table, tmp_path / "over", "over", size=2 * jobs.SIZE)
    atomic.run([_append(table, "disk", "over")])
    assert jobs.content(guest) == before.ljust(2 * jobs.SIZE, b"\0")


def test_nothing_is_put_in_where_the_disk_cannot_be_synced(tmp_path: Path, table: NodeTable, guest: BlockNode) -> None:
    _overlay(table, tmp_path / "over", "over")
    guest.pwrite(0, b"x")
    file = guest.file
    assert file is not None

    def fail() -> None:
        raise OSError(5, "injected")

    file.driver.flush = fail  # type: ignore[method-assign]
    try:
        with pytest.raises(BlockError, match="An IO error has occurred"):
            atomic.run([_append(table, "disk", "over")])
    finally:
        del file.driver.flush
    assert table["disk"] is guest
    assert table["over"].backing is None


@pytest.mark.parametrize("completed", [False, True])
def test_a_mirror_of_what_is_written_from_now_on_becomes_an_overlay_of_the_disk(
    tmp_path: Path, table: NodeTable, guest: BlockNode, completed: bool
) -> None:
    expected = bytearray(jobs.content(guest))
    images.make(tmp_path / "new", jobs.SIZE, backing=tmp_path / "layer0.qcow2", backing_format="qcow2")
    target = table.add({**_image(tmp_path / "new", "new"), "backing": None})
    job = MirrorJob(
        jobs.settings(),
        guest,
        target,
        MirrorSettings(sync=Sync.NONE, onto_source=True, granularity=512, replaced=table.rebind),
    )
    job.start()
    rng = random.Random(4)
    for number in range(40):
        offset, data = rng.randrange(jobs.SIZE - 3000), rng.randbytes(rng.randrange(1, 3000))
        if number % 4:
            guest.pwrite(offset, data)
        else:
            data = bytes(len(data))
            guest.write_zeroes(offset, len(data), unmap=True)
        images.apply(expected, {offset: data})
        if number % 3 == 0:
            job.advance()
    assert not job.is_over
    jobs.step(job, lambda: job.info()["ready"] is True)
    assert jobs.content(guest) == expected
    if completed:
        job.complete()
        jobs.step(job, lambda: job.is_over)
        assert target.backing is table["disk"]
    else:
        job.cancel()
        jobs.step(job, lambda: job.is_over)
        assert target.backing is None
    assert job.error is None
    assert jobs.content(guest) == expected
    guest.pwrite(0, b"later")
    if completed:
        expected[:5] = b"later"
        assert jobs.content(guest) == jobs.content(target) == expected


@contextlib.contextmanager
def _hanging_request(module: ModuleType, node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a request come to a node just as another one becomes it, that takes longer than is waited for."""
    reached, go = threading.Event(), threading.Event()

    def hang() -> None:
        with node.lock():
            reached.set()
            go.wait(20)

    thread = threading.Thread(target=hang)

    def redirect(former: BlockNode, to: BlockNode) -> BlockNode:
        thread.start()
        reached.wait(0.2)
        return rewiring.redirect(former, to)

    monkeypatch.setattr(module, "redirect", redirect)
    monkeypatch.setitem(draining.drained.__wrapped__.__kwdefaults__, "timeout", 0.5)  # type: ignore[attr-defined]
    timer = threading.Timer(5, go.set)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        go.set()
        thread.join(20)


def test_a_disk_does_not_become_a_mirror_that_cannot_be_put_on_what_it_was(
    tmp_path: Path, table: NodeTable, guest: BlockNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = jobs.content(guest)
    images.make(tmp_path / "new", jobs.SIZE, backing=tmp_path / "layer0.qcow2", backing_format="qcow2")
    target = table.add({**_image(tmp_path / "new", "new"), "backing": None})
    how = MirrorSettings(sync=Sync.NONE, onto_source=True, granularity=512, replaced=table.rebind)
    job = MirrorJob(jobs.settings(), guest, target, how)
    job.start()
    jobs.step(job, lambda: job.info()["ready"] is True)
    with _hanging_request(mirror, target, monkeypatch):
        job.complete()
        jobs.step(job, lambda: job.is_over)
    assert jobs.content(guest) == expected
    assert job.error is None
    assert target.backing is table["disk"]


def test_a_disk_does_not_become_an_overlay_that_cannot_be_put_on_it(
    tmp_path: Path, table: NodeTable, guest: BlockNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = jobs.content(guest)
    over = _overlay(table, tmp_path / "over", "over")
    with _hanging_request(overlay, over, monkeypatch):
        atomic.run([_append(table, "disk", "over")])
    assert jobs.content(guest) == expected
    assert over.backing is table["disk"]


@pytest.mark.parametrize("mode", CopyMode)
@pytest.mark.parametrize("cluster", [4096, 65536, 2 << 20])
def test_a_target_may_be_put_on_its_base_while_it_is_mirrored_to(tmp_path: Path, mode: CopyMode, cluster: int) -> None:
    paths = jobs.chain(tmp_path, 2, size=4 * jobs.SIZE)
    copy = tmp_path / "base copy"
    shutil.copy(paths[0], copy)
    images.make(tmp_path / "new", 4 * jobs.SIZE, options=f"cluster_size={cluster}")
    with contextlib.closing(NodeTable()) as table:
        source, target = table.add(_image(paths[1], "disk")), table.add(_image(tmp_path / "new", "new"))
        table.add({**_image(copy, "copy"), "read-only": True})
        expected = bytearray(jobs.content(source))
        how = MirrorSettings(sync=Sync.TOP, copy_mode=mode, granularity=512, replaced=table.rebind)
        job = MirrorJob(jobs.settings(), source, target, how)
        use = Use("block job", "target", Permission.WRITE)
        table.hold(target, use)
        job.start()
        rng = random.Random(5)
        for number in range(20):
            offset, data = rng.randrange(4 * jobs.SIZE - 3000), rng.randbytes(rng.randrange(1, 3000))
            data = data if number % 4 else bytes(len(data))
            source.pwrite(offset, data)
            images.apply(expected, {offset: data})
            job.advance()
        atomic.run([Overlay(table, table["copy"], lambda _: target)])
        jobs.step(job, lambda: job.info()["ready"] is True)
        source.pwrite(100, b"last")
        images.apply(expected, {100: b"last"})
        job.complete()
        jobs.step(job, lambda: job.is_over)
        table.release(target, use)
        assert job.error is None
        assert jobs.content(target) == expected
        assert target.backing is table["copy"]
