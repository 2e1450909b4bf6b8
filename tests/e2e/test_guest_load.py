"""Guests that write as fast as they can while our side is disturbed: what they were told is flushed is there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support import image
from support.daemon import Monitor, daemon
from support.guest_exports import KINDS, attached, exported
from support.guest_load import Load, Report, missing
from support.small_disk import small_disk

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
]
SIZE = 6 << 20
SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))  # with more, all three exports are tried


def node(path: Path) -> str:
    return f"qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename={path}"


@contextlib.contextmanager
def load(folder: Path, args: Sequence[str]) -> Iterator[Load]:
    """A guest that writes to the disk that QEMU's arguments make."""
    running = Load(folder, args, SIZE)
    try:
        running.start()
        yield running
    finally:
        running.close()


def judge(path: Path, said: Report) -> None:
    """All that was flushed is in the image, the guest read it as it is, and the image is sound."""
    content = image.content(path, "qcow2")
    assert missing(content, said, SIZE) == []
    assert said.digest == hashlib.sha256(content).hexdigest()
    image.assert_clean(path, "qcow2")


def test_a_back_end_that_is_killed_takes_nothing_with_it_that_was_flushed(tmp_path: Path) -> None:
    """What qcow2 held back in memory is gone, and the guest hears of it: none of its flushes succeeds any more."""
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    with contextlib.ExitStack() as stack:
        running: Load | None = None
        while running is None or "<U " not in running.machine.serial:  # a kill may find that nothing is held back
            with daemon(tmp_path, *exported("vhost-user-blk", tmp_path, node(path))) as killed:
                running = running or stack.enter_context(load(tmp_path, attached("vhost-user-blk", tmp_path)))
                running.wait_for(">", 6)
                killed.process.kill()
                killed.process.wait(20)
            (tmp_path / "export.sock").unlink()
        with daemon(tmp_path, *exported("vhost-user-blk", tmp_path, node(path))) as last:
            said = running.end()
            assert last.stop() == 0
            assert last.process.stderr is not None
            assert "no flush succeeds before the guest resets the disk" in last.process.stderr.read()
    assert any(said.flushed.values())
    judge(path, said)


def test_a_full_disk_fails_writes_and_nothing_that_was_flushed(tmp_path: Path) -> None:
    """Once there is room again, the guest goes on; no flush ever failed."""
    for kind in KINDS if SOAK > 1 else ("fuse",):
        with small_disk(tmp_path / f"small-{kind}", 1 << 20) as small:
            path = small.folder / "disk.qcow2"
            image.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, SIZE)
            with daemon(tmp_path, *exported(kind, tmp_path, node(path))) as running:
                with load(tmp_path, attached(kind, tmp_path)) as guest:
                    guest.wait_for("<E ", 3)
                    subprocess.run(["mount", "-o", "remount,size=64M", small.folder], check=True, timeout=30)
                    guest.wait_for("<F ", 9)
                    said = guest.end()
                assert running.stop() == 0
            assert any(said.failed.values())
            assert (said.unflushed, said.wrong) == ([], [])
            judge(path, said)


def test_jobs_under_a_guest_are_not_seen_by_it(tmp_path: Path) -> None:
    """A mirror that is cancelled, a stopped daemon, an overlay that is committed again, a mirror that takes over."""
    for kind in ("nbd", "vhost-user-blk") if SOAK > 1 else ("nbd",):  # no mirror copies a writable FUSE export's node
        folder = tmp_path / kind
        folder.mkdir()
        for name, backing in (("disk", None), ("cancelled", None), ("overlay", "disk"), ("mirror", None)):
            below: list[str | Path] = ["-b", folder / backing, "-F", "qcow2"] if backing else []
            image.qemu_img("create", "-q", "-f", "qcow2", *below, folder / name, SIZE)
        with daemon(folder, *exported(kind, folder, node(folder / "disk"))) as running:
            with load(folder, attached(kind, folder)) as guest:
                work = Work(running.monitor, folder)
                work.run("mirror", lambda: guest.wait_for("<F ", 1), "cancelled", speed=1 << 20, sync="full")
                running.process.send_signal(signal.SIGSTOP)
                time.sleep(0.5)
                running.process.send_signal(signal.SIGCONT)
                work.add("overlay", backing=None)
                work.monitor.command("blockdev-snapshot", node="disk", overlay="overlay")
                guest.wait_for("<F ", 3)
                work.top = "overlay"
                work.run("commit", lambda: guest.wait_for("<F ", 1), None)
                work.top = "disk"
                work.monitor.command("blockdev-del", node_name="overlay")
                work.run("mirror", lambda: guest.wait_for("<F ", 1), "mirror", completes=True, sync="full")
                guest.wait_for("<F ", 3)
                said = guest.end()
            assert running.stop() == 0
        assert (said.unflushed, said.wrong) == ([], [])
        assert not any(said.failed.values())
        judge(folder / "mirror", said)
        for name in ("disk", "overlay"):
            image.assert_clean(folder / name, "qcow2")


class Work:
    """Jobs on a node that is exported.

    Attributes:
        top: what they run on.
    """

    def __init__(self, monitor: Monitor, folder: Path) -> None:
        self.monitor = monitor
        self.top = "disk"
        self._folder = folder

    def add(self, name: str, **more: object) -> None:
        """Open an image of that name."""
        file = {"driver": "file", "filename": str(self._folder / name)}
        self.monitor.command("blockdev-add", driver="qcow2", node_name=name, file=file, discard="unmap", **more)

    def run(
        self,
        kind: str,
        meanwhile: Callable[[], object],
        target: str | None,
        *,
        completes: bool = False,
        **given: object,
    ) -> None:
        """Run a job, do something meanwhile, and cancel it or, a commit always, have it take over."""
        if target is not None:
            self.add(target)
            given["target"] = target
        command = "block-commit" if kind == "commit" else f"blockdev-{kind}"
        self.monitor.command(command, job_id="job", device=self.top, **given)
        meanwhile()
        if completes or kind == "commit":
            self.monitor.wait_for("BLOCK_JOB_READY")
            self.monitor.command("block-job-complete", device="job")
            self.monitor.wait_for("BLOCK_JOB_COMPLETED")
        else:
            self.monitor.command("block-job-cancel", device="job", force=True)
            self.monitor.wait_for("BLOCK_JOB_CANCELLED")
