"""A fault at each single call to each file under a job: the policy is followed, nothing is lost, space is given back.

A chain of three qcow2 images in memory and a target, of which one file at a time fails once: each read, write, zeroing
and sync of data and of metadata, with EIO, with ENOSPC, and with a write half done. The guest writes between the steps.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import notice
from hostel.block.bitmap import DirtyBitmap
from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync, BitmapMode
from hostel.block.jobs.bitmaps import find_bitmap
from hostel.block.jobs.commit import CommitJob
from hostel.block.jobs.copy_before_write import BackupFilter
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.mirror import ActiveCommitJob, CopyMode, MirrorJob, MirrorSettings
from hostel.block.jobs.mirror_filter import MirrorFilter
from hostel.block.jobs.policy import OnError
from hostel.block.jobs.state import JobStatus
from hostel.block.jobs.stream import StreamJob
from hostel.block.node import BlockNode
from support import images, jobs, qcow2
from support.fault import Fault, faults
from support.memory import FaultyDriver, Kind, memory_node
from support.tally import tried

__all__ = ["tried"]

CLUSTER = 4096
SIZE = 96 * CLUSTER
BITMAP = "changed"
STRIDE = 1 if os.environ.get("HOSTEL_SOAK") else 2  # of the calls that fail
NAMES = ("layer0", "layer1", "layer2", "target")
ONE_AT_A_TIME = 4 * CLUSTER  # a mirror that is told so uses one thread, whose calls have an order


class Scene:
    """The images open, each file a driver that can fail; and what the guest must read."""

    def __init__(self, stored: dict[str, bytes]) -> None:
        self.drivers = {name: FaultyDriver(data) for name, data in stored.items()}
        self.nodes: dict[str, BlockNode] = {}
        below: BlockNode | None = None
        for name in NAMES:
            driver = Qcow2Driver.open(memory_node(self.drivers[name]), OpenMode(read_only=False))
            self.nodes[name] = node = BlockNode(driver, name, read_only=False)
            if name != "target":
                if below is not None:
                    driver.children["backing"] = below
                below = node
        self.disk = self.nodes["layer2"]
        self.target = self.nodes["target"]
        self.content = bytearray(jobs.content(self.disk))
        self.start = bytes(self.content)
        self.refused: list[tuple[int, int]] = []
        self.rng = random.Random(11)

    def guest_writes(self) -> None:
        """A write, which may fail: that range then has old or new bytes."""
        offset, data = self.rng.randrange(SIZE - 3000), self.rng.randbytes(self.rng.randrange(1, 3000))
        try:
            self.disk.pwrite(offset, data)
        except OSError:
            self.refused.append((offset, offset + len(data)))
        images.apply(self.content, {offset: data})

    def holds(self, found: bytes) -> None:
        """The disk's content is what the guest wrote, but for what was refused."""
        for low, high in self.refused:
            self.content[low:high] = found[low:high]
        assert found == self.content

    def close(self) -> bool:
        """Close everything; whether that was without a failure."""
        sound = True
        for node in (self.disk, self.target):
            try:
                node.close()
            except OSError:
                sound = False
        return sound


def stored_images() -> dict[str, bytes]:
    """The chain, each image with data and zeroes of its own, and an empty target; as bytes."""
    rng = random.Random(2)
    stored: dict[str, bytes] = {}
    for level, name in enumerate(NAMES):
        driver = FaultyDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
        with qcow2.attach(driver) as node:
            if name != "target":
                for offset, data in images.scatter(rng, SIZE, 8).items():
                    if isinstance(data, int):
                        node.write_zeroes(offset, data, unmap=True)
                    else:
                        node.pwrite(offset, data)
                assert isinstance(node.driver, Qcow2Driver)
                if level:
                    node.driver.change_backing(NAMES[level - 1], "qcow2")
            if name == "layer2":
                node.driver.bitmap_add(BITMAP, CLUSTER)  # type: ignore[attr-defined]
                node.pwrite(SIZE // 2, b"since" * 5000)
        stored[name] = bytes(driver.data)
    return stored


STORED = stored_images()


def _dirty() -> DirtyBitmap:
    with qcow2.attach(FaultyDriver(STORED["layer2"]), read_only=True) as node:
        return node.driver.bitmap(BITMAP)  # type: ignore[attr-defined, no-any-return]


DIRTY = _dirty()
Make = Callable[[Scene, JobSettings], Job]


def mirror(mode: CopyMode) -> Make:
    how = MirrorSettings(copy_mode=mode, buf_size=ONE_AT_A_TIME)
    return lambda scene, settings: MirrorJob(settings, scene.disk, scene.target, how)


def incremental(scene: Scene, settings: JobSettings) -> Job:
    how = BackupSettings(BackupSync.BITMAP, find_bitmap(scene.disk, BITMAP), BitmapMode.ON_SUCCESS)
    return BackupJob(settings, scene.disk, scene.target, how)


KINDS: dict[str, Make] = {
    "stream": lambda scene, settings: StreamJob(settings, scene.disk),
    "stream to a base": lambda scene, settings: StreamJob(settings, scene.disk, base=scene.nodes["layer0"]),
    "commit": lambda scene, settings: CommitJob(settings, scene.disk, scene.nodes["layer1"], scene.nodes["layer0"]),
    "active commit": lambda scene, settings: ActiveCommitJob(settings, scene.disk, scene.nodes["layer0"]),
    "mirror": mirror(CopyMode.BACKGROUND),
    "active mirror": mirror(CopyMode.WRITE_BLOCKING),
    "backup": lambda scene, settings: BackupJob(settings, scene.disk, scene.target),
    "compressed backup": lambda scene, settings: BackupJob(
        settings, scene.disk, scene.target, BackupSettings(compress=True)
    ),
    "incremental backup": incremental,
    "pulled backup": lambda scene, settings: BackupJob(
        settings, scene.disk, scene.target, BackupSettings(BackupSync.NONE)
    ),
}


class Trial:
    """One run of a job with one fault."""

    def __init__(self, kind: str, name: str, fault: Fault, policy: OnError) -> None:
        self.kind, self.name, self.fault = kind, name, fault
        self.scene = Scene(STORED)
        self.driver = self.scene.drivers[name]
        self.heard = jobs.Heard()
        self.job = KINDS[kind](self.scene, jobs.settings(heard=self.heard, policy=policy))
        self.driver.arm(fault.at, fault.code, short=fault.short)
        self.resumed: list[str] = []
        self.told: list[str] = []

    @property
    def has_run(self) -> bool:
        """Whether the job has started at all."""
        return "running" in self.heard.states()

    def run(self) -> list[Kind]:
        """Take the job to its end, with the guest writing; the calls to the file."""
        with notice.listening(self.told.append):
            self._run()
        calls = list(self.driver.calls)
        self.driver.armed = False
        return calls

    def _run(self) -> None:
        scene, job = self.scene, self.job
        try:
            job.start()
        except OSError:
            assert self.driver.fired
        for number in range(400):
            if job.is_over:
                break
            if number % 3 == 1 and number < 30:
                scene.guest_writes()
            if number > 12 and self.kind == "pulled backup":
                self.pull()
                job.cancel()
            if number > 12 and job.info()["ready"]:
                job.complete()
            if job.status in (JobStatus.PAUSED, JobStatus.STANDBY):
                self.resumed.append(job.io_status)
                job.resume()
            if number > 100:  # a sync that has failed fails ever after
                job.cancel(force=True)
            job.advance()
        assert job.is_over, f"the job stays {job.status.value}"

    def pull(self) -> None:
        """What a client reads that pulls the backup is the content at the start."""
        driver = self.scene.disk.driver
        assert isinstance(driver, BackupFilter)
        found = bytearray(SIZE)
        armed, self.driver.armed = self.driver.armed, False
        driver.block_copy.read(0, memoryview(found))
        self.driver.armed = armed
        assert found == self.scene.start

    def judge(self) -> None:
        """The disk reads as the guest wrote it, also from what is stored; nothing of the job is left in the graph."""
        scene, job = self.scene, self.job
        scene.holds(jobs.content(scene.disk))
        for node in scene.nodes.values():
            assert not node.blockers
            assert not any(isinstance(each.driver, (MirrorFilter, BackupFilter)) for each in _below(node))
        if job.error is None and self.has_run and self.kind != "pulled backup":
            self.judge_copy()
        pivoted = scene.disk.format == "forward"
        sound = scene.close()
        for name in NAMES:
            result, lines, _ = qcow2.check(scene.drivers[name].data)
            assert qcow2.faults(result) == (0, 0), (name, lines)
            assert not result.leaks or not sound or self.told, (name, lines)
        if sound:
            top = {"active commit": "layer0"}.get(self.kind, "target") if pivoted else "layer2"
            scene.holds(_stored(scene, top))

    def judge_copy(self) -> None:
        """A job that has succeeded has done what it is for."""
        scene = self.scene
        copy = jobs.content(scene.target)
        if self.kind in ("backup", "compressed backup"):
            assert copy == scene.start
        elif self.kind == "incremental backup":
            for offset in range(0, SIZE, CLUSTER):
                wanted = scene.start[offset : offset + CLUSTER] if DIRTY.is_dirty(offset) else bytes(CLUSTER)
                assert copy[offset : offset + CLUSTER] in (wanted, scene.start[offset : offset + CLUSTER])
        elif self.kind.endswith("mirror"):
            scene.holds(copy)


def _below(node: BlockNode) -> list[BlockNode]:
    found = [node]
    for each in found:
        found += each.driver.children.values()
    return found


def _stored(scene: Scene, name: str) -> bytes:
    """What an image's bytes, and those of the images that they name, make together."""
    with qcow2.attach(FaultyDriver(scene.drivers[name].data), read_only=True) as node:
        for reference in node.driver.references():
            node.driver.children["backing"] = qcow2.disk(_stored(scene, reference.filename))
        return jobs.content(node)


def _calls(kind: str, name: str) -> list[Kind]:
    """What a run without a fault asks of a file."""
    trial = Trial(kind, name, Fault(-1, 0, False), OnError.REPORT)
    calls = trial.run()
    assert trial.job.error is None or kind == "pulled backup"
    trial.judge()
    return calls


CASES = [(kind, name) for kind in KINDS for name in NAMES]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_reported_fault_ends_the_job_and_harms_nothing(kind: str, name: str, tried: Counter[str]) -> None:
    calls = _calls(kind, name)
    for fault in list(faults(calls))[::STRIDE]:
        tried["faults"] += 1
        trial = Trial(kind, name, fault, OnError.REPORT)
        try:
            trial.run()
            if trial.driver.fired and trial.job.error is None:
                # The guest was told, or whoever started the job, or what nobody needs any more could not be closed.
                told = trial.scene.refused or trial.told or not trial.has_run
                assert told or calls[fault.at] is Kind.DISCARD, "the error was swallowed"
            if trial.job.error is not None and kind != "pulled backup":
                assert trial.job.error == os.strerror(fault.code)
            trial.judge()
        except BaseException as error:
            error.add_note(f"{fault} is a {calls[fault.at].value} of {len(calls)}")
            raise


@pytest.mark.parametrize("policy", [OnError.STOP, OnError.ENOSPC, OnError.IGNORE])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_fault_that_does_not_come_again_is_got_over(
    kind: str, name: str, policy: OnError, tried: Counter[str]
) -> None:
    calls = _calls(kind, name)
    for fault in list(faults(calls))[:: 3 * STRIDE]:
        tried["faults got over"] += 1
        trial = Trial(kind, name, fault, policy)
        try:
            trial.run()
            told = [event.data for event in trial.heard.events if event.name == "BLOCK_JOB_ERROR"]
            stops = policy is OnError.STOP or (policy is OnError.ENOSPC and fault.code == errno.ENOSPC)
            wanted = "stop" if stops else "ignore" if policy is OnError.IGNORE else "report"
            assert all(each["action"] == wanted for each in told)
            assert len(told) <= 1 or trial.driver.calls[fault.at] is Kind.FLUSH
            if stops and told:
                assert trial.resumed[0] == ("nospace" if fault.code == errno.ENOSPC else "failed")
            again = wanted != "report" and calls[fault.at] is not Kind.FLUSH  # a failed sync fails ever after
            if told and again and not (kind.startswith("stream") and wanted == "ignore"):
                assert trial.job.error is None
            trial.judge()
        except BaseException as error:
            error.add_note(f"{fault} is a {calls[fault.at].value} of {len(calls)}")
            raise


@pytest.mark.requires_tool("qemu-img")
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_real_qemu_img_finds_what_a_fault_leaves_sound(kind: str, name: str, tmp_path: Path) -> None:
    calls = _calls(kind, name)
    chosen = list(faults(calls))
    for fault in random.Random(f"{kind} {name}").sample(chosen, min(3, len(chosen))):
        trial = Trial(kind, name, fault, OnError.REPORT)
        trial.run()
        trial.judge()
        for each, driver in trial.scene.drivers.items():
            (tmp_path / each).write_bytes(driver.data)
            done = subprocess.run(
                ["qemu-img", "check", "-q", "-f", "qcow2", str(tmp_path / each)],
                check=False,
                capture_output=True,
                timeout=60,
                cwd=tmp_path,
            )
            assert done.returncode in (0, 3), (each, fault, done.stdout, done.stderr)
