"""Jobs whose process is killed between any two steps: what is on disk then reads as before, and is sound.

After each step the files are copied as they are, with everything still in memory missing: that is what ``kill -9``
leaves. The guest flushes at times; what it wrote before that must be there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.jobs.backup import BackupJob
from hostel.block.jobs.commit import CommitJob
from hostel.block.jobs.job import Job
from hostel.block.jobs.mirror import ActiveCommitJob, MirrorJob
from hostel.block.jobs.stream import StreamJob
from hostel.block.node import BlockNode
from hostel.block.powers import Repair
from support import images, jobs
from support.memory_folder import memory_folder

SIZE = 6 * jobs.SIZE


def _bottom(node: BlockNode) -> BlockNode:
    return list(node.chain())[-1]


def _commit(node: BlockNode, target: BlockNode) -> Job:
    assert node.backing is not None
    return CommitJob(jobs.settings(), node, node.backing, _bottom(node))


KINDS: dict[str, Callable[[BlockNode, BlockNode], Job]] = {
    "stream": lambda node, target: StreamJob(jobs.settings(), node),
    "stream to a base": lambda node, target: StreamJob(jobs.settings(), node, base=_bottom(node)),
    "commit": _commit,
    "active commit": lambda node, target: ActiveCommitJob(jobs.settings(), node, _bottom(node)),
    "mirror": lambda node, target: MirrorJob(jobs.settings(), node, target),
    "backup": lambda node, target: BackupJob(jobs.settings(), node, target),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_is_killed_leaves_what_was_flushed(folder: Path, kind: str) -> None:
    live = folder / "live"
    live.mkdir()
    paths = jobs.chain(live, 3, size=SIZE, options="cluster_size=16k")
    images.write(paths[1], "qcow2", {SIZE // 2: random.Random(5).randbytes(SIZE // 3)})
    target = jobs.empty(live / "target.qcow2", SIZE)
    rng = random.Random(7)
    states = 0
    with target, graph.open(str(paths[-1]), "qcow2", read_only=False, cache=images.UNSAFE) as node:
        job = KINDS[kind](node, target)
        flushed = jobs.content(node)
        node.flush()
        job.start()
        while not job.is_over:
            top = live / ("layer0.qcow2" if kind == "active commit" and _has_pivoted(node) else "layer2.qcow2")
            _judge(folder, live, top, flushed)
            states += 1
            job.advance()
            if job.info()["ready"]:
                job.complete()
            if states % 3 == 0:
                node.pwrite(rng.randrange(0, SIZE - 5000), rng.randbytes(5000))
                flushed = jobs.content(node)
                node.flush()
        assert job.error is None
        assert states > 5
        name = {"active commit": "layer0.qcow2", "mirror": "target.qcow2"}.get(kind, "layer2.qcow2")
        node.flush()
        _judge(folder, live, live / name, jobs.content(node))


def _has_pivoted(node: BlockNode) -> bool:
    return node.format == "forward"


def _judge(folder: Path, live: Path, top: Path, flushed: bytes) -> None:
    """Look at the files as they are, in a place where nothing is held in memory."""
    dead = folder / "dead"
    shutil.rmtree(dead, ignore_errors=True)
    shutil.copytree(live, dead)
    path = dead / top.name
    while True:
        with graph.open(str(path), "qcow2", no_backing=True) as node:
            assert isinstance(node.driver, Qcow2Driver)
            found = node.driver.check(Repair.NOTHING, lambda line: None)
            references = [each.filename for each in node.driver.references()]
        assert not found.corruptions and not found.check_errors, path
        if not references:
            break
        path = dead / Path(references[0]).name
    # Names within the images are absolute: the copy's chain is put together by hand.
    assert _read(dead, top.name) == flushed


def _read(dead: Path, name: str) -> bytes:
    with graph.open(str(dead / name), "qcow2", no_backing=True) as node:
        references = [Path(each.filename).name for each in node.driver.references()]
        below = _read(dead, references[0]) if references else b""
        content = bytearray(below[: node.length].ljust(node.length, b"\0"))
        for extent in list(node.extents()):
            if extent.status:
                content[extent.offset : extent.end] = node.read(extent.offset, extent.length)
    return bytes(content)
