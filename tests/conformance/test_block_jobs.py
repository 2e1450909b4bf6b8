"""Jobs under our storage daemon, with real qemu-io and nbdcopy as its clients and real qemu-img as the judge."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, Daemon, daemon
from support.image import assert_clean, real_qemu_img

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]

MIB = 1 << 20
SIZE = 48 * MIB


def _node(name: str, path: Path) -> list[str]:
    return ["--blockdev", f"driver=qcow2,node-name={name},file.driver=file,file.filename={path}"]


class Disk:
    """A daemon that exports an overlay, and the images beside it."""

    def __init__(self, folder: Path, running: Daemon) -> None:
        self.folder = folder
        self.monitor = running.monitor
        self.process = running.process
        self.uri = f"nbd+unix:///d?socket={folder / 'nbd.sock'}"

    def io(self, *commands: str) -> None:
        words = [word for command in commands for word in ("-c", command)]
        ended = subprocess.run(["qemu-io", "-f", "raw", *words, self.uri], capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        assert "failed" not in ended.stdout, ended.stdout

    def content(self) -> bytes:
        path = self.folder / "content.raw"
        real_qemu_img("convert", "-f", "raw", "-O", "raw", self.uri, path)
        return path.read_bytes()

    def reads(self, path: Path) -> bytes:
        raw = self.folder / "reads.raw"
        real_qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", path, raw)
        return raw.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    base, middle, top, target, other = (
        tmp_path / f"{name}.qcow2" for name in ("base", "middle", "top", "target", "other")
    )
    real_qemu_img("create", "-q", "-f", "qcow2", base, str(SIZE))
    _write(base, "write -P 1 0 20M")
    real_qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
    _write(middle, "write -P 2 5M 5M", "write -z 8M 1M")
    real_qemu_img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
    _write(top, "write -P 3 7M 20M")
    for path in (target, other):
        real_qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    words = [
        *_node("disk", top),
        *_node("target", target),
        *_node("other", other),
        "--nbd-server",
        f"addr.type=unix,addr.path={tmp_path / 'nbd.sock'}",
        "--export",
        "type=nbd,id=e,node-name=disk,name=d,writable=on",
    ]
    with daemon(tmp_path, *words) as running:
        yield Disk(tmp_path, running)


def _write(path: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, str(path)], check=True, capture_output=True, timeout=60)


class Client:
    """One real qemu-io, and so one connection, for several writes."""

    def __init__(self, uri: str) -> None:
        words = ["qemu-io", "-f", "raw", uri]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, value: int, offset: str) -> None:
        """Write 4 KiB, and wait until that is done."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"write -P {value} {offset} 4k\n")
        self._process.stdin.flush()
        while "wrote" not in (line := self._process.stdout.readline()):
            assert line and "failed" not in line, line

    def close(self) -> None:
        self._process.communicate(timeout=20)


class Writer(threading.Thread):
    """Real qemu-io that writes, zeroes and discards until it is told to stop."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.failure: BaseException | None = None
        self.rounds = 0
        self._stop_now = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop_now.is_set():
                value = self.rounds % 200 + 10
                offset = self.rounds * 1300 % 40000
                self.disk.io(
                    f"write -P {value} {offset}k 700k",
                    f"write -z -u {offset + 3000}k 100k",
                    f"discard {offset + 5000}k 1M",
                    "flush",
                )
                self.rounds += 1
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        self._stop_now.set()
        self.join(60)
        assert self.failure is None
        assert self.rounds


def _complete(disk: Disk, job: str) -> None:
    disk.monitor.wait_for("BLOCK_JOB_READY")
    disk.monitor.command("block-job-complete", device=job)


def _assert_ended(disk: Disk) -> dict[str, Any]:
    data: dict[str, Any] = disk.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
    assert "error" not in data
    until = time.monotonic() + 60
    while disk.monitor.command("query-jobs") and time.monotonic() < until:
        time.sleep(0.02)
    return data


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_a_mirror_takes_over_under_a_client_that_writes(disk: Disk, tmp_path: Path, mode: str) -> None:
    writer = Writer(disk)
    writer.start()
    disk.monitor.command("blockdev-mirror", job_id="j", device="disk", target="target", sync="full", copy_mode=mode)
    _complete(disk, "j")
    _assert_ended(disk)
    time.sleep(0.3)  # so that the client writes to what has taken over
    writer.stop()
    expected = disk.content()
    disk.monitor.command("blockdev-del", node_name="disk")
    disk.monitor.command("block-export-del", id="e", mode="hard")
    assert disk.reads(tmp_path / "target.qcow2") == expected
    disk.monitor.command("blockdev-del", node_name="target")
    assert_clean(tmp_path / "target.qcow2", "qcow2")
    assert_clean(tmp_path / "top.qcow2", "qcow2")


def test_a_backup_is_what_the_disk_was_at_its_start(disk: Disk, tmp_path: Path) -> None:
    disk.monitor.command("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
    start = disk.content()
    disk.monitor.command("blockdev-backup", job_id="j", device="disk", target="target", sync="full", speed=40 * MIB)
    writer = Writer(disk)
    writer.start()
    _assert_ended(disk)
    writer.stop()
    assert disk.reads(tmp_path / "target.qcow2") == start
    # What changed since, and nothing else, brings the copy up to date.
    expected = disk.content()
    disk.monitor.command("blockdev-backup", job_id="k", device="disk", target="target", sync="incremental", bitmap="b")
    data = _assert_ended(disk)
    assert data["len"] < SIZE
    disk.monitor.command("blockdev-del", node_name="target")
    assert disk.reads(tmp_path / "target.qcow2") == expected
    assert_clean(tmp_path / "target.qcow2", "qcow2")


def test_a_transaction_backs_up_and_begins_a_bitmap_at_one_moment(disk: Disk, tmp_path: Path) -> None:
    backup = {"device": "disk", "target": "target", "sync": "full", "job-id": "j"}
    bitmap = {"node": "disk", "name": "new"}
    writer = Writer(disk)
    writer.start()
    disk.monitor.command(
        "transaction",
        actions=[
            {"type": "block-dirty-bitmap-add", "data": bitmap},
            {"type": "blockdev-backup", "data": backup},
        ],
    )
    _assert_ended(disk)
    writer.stop()
    expected = disk.content()
    disk.monitor.command(
        "blockdev-backup", job_id="k", device="disk", target="target", sync="incremental", bitmap="new"
    )
    _assert_ended(disk)
    disk.monitor.command("blockdev-del", node_name="target")
    assert disk.reads(tmp_path / "target.qcow2") == expected


def test_a_transaction_of_which_one_part_fails_does_nothing(disk: Disk) -> None:
    data = {"node": "disk", "name": "new"}
    answer = disk.monitor.send(
        '{"execute": "transaction", "arguments": {"actions": ['
        '{"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "new"}},'
        '{"type": "block-dirty-bitmap-clear", "data": {"node": "disk", "name": "other"}}]}}'
    )
    assert answer["error"]["desc"] == "Dirty bitmap 'other' not found"
    disk.monitor.command("block-dirty-bitmap-add", **data)  # which is not there yet


def test_a_stream_and_a_commit_shorten_the_chain_under_a_client(disk: Disk, tmp_path: Path) -> None:
    writer = Writer(disk)
    writer.start()
    names = [node["node-name"] for node in disk.monitor.command("query-named-block-nodes", flat=True)]
    assert "disk" in names
    disk.monitor.command("block-stream", job_id="s", device="disk", base=str(tmp_path / "base.qcow2"))
    _assert_ended(disk)
    disk.monitor.command("block-commit", job_id="c", device="disk")
    _complete(disk, "c")
    _assert_ended(disk)
    writer.stop()
    expected = disk.content()
    disk.monitor.command("block-export-del", id="e", mode="hard")
    assert disk.reads(tmp_path / "base.qcow2") == expected
    info = real_qemu_img("info", "-U", tmp_path / "top.qcow2")
    assert f"backing file: {tmp_path / 'base.qcow2'}" in info
    disk.monitor.command("blockdev-del", node_name="disk")
    assert_clean(tmp_path / "base.qcow2", "qcow2")
    assert_clean(tmp_path / "top.qcow2", "qcow2")


@pytest.mark.parametrize("wait", [0.1, 0.4, 0.8])
def test_a_killed_stream_loses_nothing_and_is_finished_by_another(disk: Disk, tmp_path: Path, wait: float) -> None:
    expected = disk.content()
    disk.monitor.command("block-stream", job_id="s", device="disk", speed=8 * MIB)
    time.sleep(wait)
    disk.process.kill()
    disk.process.wait(20)
    top = tmp_path / "top.qcow2"
    assert "No errors" in real_qemu_img("check", top) or "leaked" in real_qemu_img("check", top)
    assert disk.reads(top) == expected
    with daemon(tmp_path, *_node("disk", top)) as again:
        again.monitor.command("block-stream", job_id="s", device="disk")
        again.monitor.wait_for("BLOCK_JOB_COMPLETED")
    assert "backing file" not in real_qemu_img("info", top)
    assert disk.reads(top) == expected


def test_a_file_that_is_served_past_the_nodes_is_left_when_another_takes_over(tmp_path: Path) -> None:
    words = ["--nbd-server", f"addr.type=unix,addr.path={tmp_path / 'nbd.sock'}"]
    for name in ("disk", "target", "saved"):
        real_qemu_img("create", "-q", "-f", "raw", tmp_path / name, str(SIZE))
        words += ["--blockdev", f"driver=raw,node-name={name},file.driver=file,file.filename={tmp_path / name}"]
    words += ["--export", "type=nbd,id=e,node-name=disk,name=d,writable=on"]
    with daemon(tmp_path, *words) as running:
        disk = Disk(tmp_path, running)
        disk.io("write -P 7 0 30M")
        client = Client(disk.uri)
        client.write(1, "0")
        start = disk.content()
        running.monitor.command("blockdev-backup", job_id="b", device="disk", target="saved", sync="full")
        client.write(2, "1M")
        client.write(2, "29M")
        _assert_ended(disk)
        running.monitor.command("blockdev-mirror", job_id="m", device="disk", target="target", sync="full")
        running.monitor.wait_for("BLOCK_JOB_READY")
        client.write(3, "2M")
        running.monitor.command("block-job-complete", device="m")
        _assert_ended(disk)
        left = (tmp_path / "disk").read_bytes()
        client.write(4, "3M")
        running.monitor.command("blockdev-del", node_name="disk")
        client.write(5, "4M")
        client.close()
        expected = disk.content()
    for value in range(1, 6):
        place = 29 * MIB if value == 2 else (value - 1) * MIB
        assert expected[place : place + 4096] == bytes([value]) * 4096
    assert (tmp_path / "target").read_bytes() == expected
    assert (tmp_path / "disk").read_bytes() == left
    assert (tmp_path / "saved").read_bytes() == start


@pytest.mark.parametrize("sync", ["full", "top"])
def test_a_mirror_makes_its_own_target(disk: Disk, tmp_path: Path, sync: str) -> None:
    new = tmp_path / "new.qcow2"
    disk.monitor.command("drive-mirror", job_id="j", device="disk", target=str(new), sync=sync, format="qcow2")
    writer = Writer(disk)
    writer.start()
    _complete(disk, "j")
    _assert_ended(disk)
    writer.stop()
    expected = disk.content()
    disk.monitor.command("block-export-del", id="e", mode="hard")
    assert disk.reads(new) == expected
    assert ("backing file: " + str(tmp_path / "middle.qcow2") in real_qemu_img("info", new)) == (sync == "top")
    disk.monitor.command("blockdev-del", node_name="disk")
    assert_clean(new, "qcow2")


def _own_bytes(path: Path) -> int:
    """How many bytes an overlay has itself, in the words of the real tool."""
    extents = json.loads(real_qemu_img("map", "-U", "--output=json", "-f", "qcow2", path))
    return sum(extent["length"] for extent in extents if extent["depth"] == 0)


@pytest.mark.parametrize("sync", ["full", "top", "none"])
def test_a_backup_makes_its_own_target(disk: Disk, tmp_path: Path, sync: str) -> None:
    new = tmp_path / "new.qcow2"
    start = disk.content()
    backup = {"job-id": "j", "device": "disk", "target": str(new), "sync": sync, "speed": 30 * MIB}
    disk.monitor.command("transaction", actions=[{"type": "drive-backup", "data": backup}])
    disk.io("write -P 9 0 3M", "write -z 12M 1M", "discard 20M 2M")
    if sync == "none":
        # An overlay of the disk: what was overwritten is in it.
        disk.monitor.command("job-cancel", id="j")
        disk.monitor.wait_for("BLOCK_JOB_CANCELLED")
        # The event is told before the target is closed.
        until = time.monotonic() + 60
        while _own_bytes(new) < 4 * MIB:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert disk.reads(new)[: 3 * MIB] == start[: 3 * MIB]
        return
    _assert_ended(disk)
    assert disk.reads(new) == start
    assert_clean(new, "qcow2")


@pytest.mark.requires_tool("qemu-storage-daemon")
@pytest.mark.parametrize("tool", [OURS, THEIRS], ids=["ours", "theirs"])
def test_a_pulled_backup_is_what_the_disk_was(tmp_path: Path, tool: Sequence[str]) -> None:
    for name in ("top", "kept"):
        real_qemu_img("create", "-q", "-f", "qcow2", tmp_path / f"{name}.qcow2", str(SIZE))
    _write(tmp_path / "top.qcow2", "write -P 3 7M 20M")
    words = [
        *_node("disk", tmp_path / "top.qcow2"),
        *_node("kept", tmp_path / "kept.qcow2"),
        *("--blockdev", "driver=copy-before-write,node-name=copying,file=disk,target=kept"),
        *("--blockdev", "driver=snapshot-access,node-name=past,file=copying"),
        *("--nbd-server", f"addr.type=unix,addr.path={tmp_path / 'nbd.sock'}"),
        *("--export", "type=nbd,id=e,node-name=copying,name=d,writable=on"),
        *("--export", "type=nbd,id=p,node-name=past,name=past"),
    ]
    with daemon(tmp_path, *words, tool=tool) as running:
        disk = Disk(tmp_path, running)
        start = disk.content()
        writer = Writer(disk)
        writer.start()
        real_qemu_img("convert", "-f", "raw", "-O", "raw", disk.uri.replace("/d?", "/past?"), tmp_path / "pulled")
        writer.stop()
        assert (tmp_path / "pulled").read_bytes() == start
        assert disk.content() != start
