"""Real nbdcopy and qemu-img as clients of a disk while jobs run on it, judged by bytes; and daemons that are killed."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, Daemon, daemon
from support.image import assert_clean, real_qemu_img

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-img", "qemu-io", "nbdcopy", "qemu-storage-daemon")]

MIB = 1 << 20
SIZE = 24 * MIB
PACE = 2 * MIB  # bytes a second of a job that is to last while the clients work


class Disk:
    """A daemon that exports ``top`` on ``base``, and a target beside it."""

    def __init__(self, folder: Path, running: Daemon) -> None:
        self.folder = folder
        self.monitor = running.monitor
        self.uri = f"nbd+unix:///d?socket={folder / 'nbd.sock'}"
        self.original = self.copied()

    def copied(self) -> bytes:
        """What nbdcopy reads of the export."""
        path = self.folder / "copied.raw"
        path.unlink(missing_ok=True)
        _run("nbdcopy", self.uri, str(path))
        return path.read_bytes()

    def stored(self, name: str) -> bytes:
        """What real qemu-img reads of an image, with its chain."""
        path = self.folder / "stored.raw"
        real_qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", self.folder / name, path)
        return path.read_bytes()


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


def _make(folder: Path) -> None:
    real_qemu_img("create", "-q", "-f", "qcow2", folder / "base", str(SIZE))
    _io(folder / "base", "write -P 1 0 16M")
    real_qemu_img("create", "-q", "-f", "qcow2", "-b", folder / "base", "-F", "qcow2", folder / "top")
    _io(folder / "top", "write -P 2 5M 5M", "write -z 8M 1M")
    real_qemu_img("bitmap", "--add", folder / "top", "b")
    _io(folder / "top", "write -P 3 12M 8M")
    real_qemu_img("create", "-q", "-f", "qcow2", folder / "target", str(SIZE))


def _io(path: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    _run("qemu-io", "-f", "qcow2", *words, str(path))


def _words(folder: Path) -> list[str]:
    words = []
    for name in ("top", "target"):
        words += ["--blockdev", f"driver=qcow2,node-name={name},file.driver=file,file.filename={folder / name}"]
    words += ["--nbd-server", f"addr.type=unix,addr.path={folder / 'nbd.sock'}"]
    return [*words, "--export", "type=nbd,id=e,node-name=top,name=d,writable=on"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    _make(tmp_path)
    with daemon(tmp_path, *_words(tmp_path)) as running:
        yield Disk(tmp_path, running)


JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "mirror": ("blockdev-mirror", {"target": "target", "sync": "full"}),
    "active mirror": ("blockdev-mirror", {"target": "target", "sync": "full", "copy_mode": "write-blocking"}),
    "backup": ("blockdev-backup", {"target": "target", "sync": "full"}),
    "incremental backup": ("blockdev-backup", {"target": "target", "sync": "incremental", "bitmap": "b"}),
    "stream": ("block-stream", {}),
    "active commit": ("block-commit", {}),
}


@pytest.mark.parametrize("kind", JOBS)
def test_what_nbdcopy_writes_and_reads_while_a_job_runs_is_the_disk(disk: Disk, kind: str) -> None:
    command, arguments = JOBS[kind]
    written = random.Random(kind).randbytes(SIZE // 2) + bytes(SIZE // 2)
    source = disk.folder / "source.raw"
    source.write_bytes(written)
    disk.monitor.command(command, job_id="j", device="top", speed=PACE, **arguments)
    assert disk.copied() == disk.original
    assert disk.monitor.command("query-block-jobs"), "the job is over before the clients were"
    _run("nbdcopy", "--connections=4", "--requests=16", str(source), disk.uri)
    _run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), disk.uri)
    assert disk.copied() == written
    # A backup or a stream of what the client has written all over has nothing left to do.
    disk.monitor.send('{"execute": "block-job-set-speed", "arguments": {"device": "j", "speed": 0}}')
    if command in ("blockdev-mirror", "block-commit"):
        disk.monitor.wait_for("BLOCK_JOB_READY")
        disk.monitor.command("job-complete", id="j")
    assert "error" not in disk.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
    assert disk.copied() == written
    if command == "blockdev-backup":
        kept = disk.stored("target")
        dirty = slice(12 * MIB, 20 * MIB)
        assert kept == disk.original if kind == "backup" else kept[dirty] == disk.original[dirty]
    else:
        _run("qemu-io", "-f", "raw", "-c", "flush", disk.uri)
        assert disk.stored({"stream": "top", "active commit": "base"}.get(kind, "target")) == written
    for name in ("base", "top", "target"):
        _run("qemu-img", "check", "-U", "-q", "-f", "qcow2", str(disk.folder / name))


@pytest.mark.parametrize("kind", ["incremental backup", "incremental mirror"])
def test_an_incremental_copy_goes_on_after_its_daemon_was_killed(tmp_path: Path, kind: str) -> None:
    """As long as nobody wrote meanwhile: then the bitmap is what it was."""
    _make(tmp_path)
    original = bytes(16 * MIB)
    for _ in range(2):
        with daemon(tmp_path, *_words(tmp_path)) as running:
            original = Disk(tmp_path, running).original
            _start(running, kind, speed=4 * MIB)
            running.process.kill()
            running.process.wait(20)
    with daemon(tmp_path, *_words(tmp_path)) as running:
        _start(running, kind, speed=0)
        if kind == "incremental mirror":
            running.monitor.wait_for("BLOCK_JOB_READY")
            running.monitor.command("block-job-cancel", device="j")
        assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
        nodes = running.monitor.command("query-named-block-nodes", flat=True)
        [bitmap] = next(node for node in nodes if node["node-name"] == "top")["dirty-bitmaps"]
        assert (bitmap["count"], bitmap.get("inconsistent")) == (0, None)
    real_qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "target", tmp_path / "target.raw")
    kept = (tmp_path / "target.raw").read_bytes()
    assert kept[12 * MIB : 20 * MIB] == original[12 * MIB : 20 * MIB]
    for name in ("top", "target"):
        # What a killed process has allocated and not yet referred to is leaked.
        assert subprocess.run(["qemu-img", "check", "-q", tmp_path / name], check=False, timeout=60).returncode in (
            0,
            3,
        )


def _start(running: Daemon, kind: str, *, speed: int) -> None:
    command = "blockdev-mirror" if kind.endswith("mirror") else "blockdev-backup"
    arguments = {"job_id": "j", "device": "top", "target": "target", "sync": "incremental", "bitmap": "b"}
    running.monitor.command(command, **arguments, speed=speed)


@pytest.mark.parametrize("tool", [OURS, THEIRS], ids=["ours", "theirs"])
def test_a_bitmap_of_a_daemon_that_was_killed_after_writes_is_refused_by_all(
    tmp_path: Path, tool: tuple[str, ...]
) -> None:
    _make(tmp_path)
    with daemon(tmp_path, *_words(tmp_path)) as running:
        disk = Disk(tmp_path, running)
        _run("qemu-io", "-f", "raw", "-c", "write -P 9 1M 1M", "-c", "flush", disk.uri)
        original = disk.copied()
        running.process.kill()
        running.process.wait(20)
    with daemon(tmp_path, *_words(tmp_path), tool=tool) as running:
        arguments = '"job-id": "j", "device": "top", "target": "target", "sync": "%s"'
        refused = running.monitor.send(
            '{"execute": "blockdev-backup", "arguments": {%s, "bitmap": "b"}}' % (arguments % "incremental")
        )
        assert "Bitmap 'b' is inconsistent and cannot be used" in refused["error"]["desc"]
        running.monitor.send('{"execute": "blockdev-backup", "arguments": {%s}}' % (arguments % "full"))
        assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
    real_qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "target", tmp_path / "target.raw")
    assert (tmp_path / "target.raw").read_bytes() == original
    assert_clean(tmp_path / "target", "qcow2")


def test_snapshots_are_taken_and_committed_while_nbdcopy_writes(disk: Disk) -> None:
    written = random.Random(9).randbytes(SIZE)
    source = disk.folder / "source.raw"
    source.write_bytes(written)
    below = "top"
    words = ["nbdcopy", "--connections=2", "--requests=4", str(source), disk.uri]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as writer:
        for number in range(6):
            above = f"over{number}"
            disk.monitor.command(
                "blockdev-snapshot-sync",
                node_name=below,
                snapshot_file=str(disk.folder / above),
                snapshot_node_name=above,
            )
            below = above
        assert writer.wait(60) == 0, writer.stderr and writer.stderr.read()
    assert disk.copied() == written
    _run("qemu-io", "-f", "raw", "-c", "flush", disk.uri)
    assert disk.stored(below) == written
    disk.monitor.command("block-commit", job_id="j", device=below, base_node="top")
    disk.monitor.wait_for("BLOCK_JOB_READY")
    disk.monitor.command("job-complete", id="j")
    assert "error" not in disk.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
    assert disk.copied() == written
    _run("qemu-io", "-f", "raw", "-c", "flush", disk.uri)
    assert disk.stored("top") == written
    for name in ("top", *(f"over{number}" for number in range(6))):
        _run("qemu-img", "check", "-U", "-q", "-f", "qcow2", str(disk.folder / name))
