"""FUSE exports under real programs: cp, dd, fallocate, qemu-img, a loop device; and beside QEMU's own export."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support import image, vhost
from support.daemon import OURS, THEIRS, Daemon, daemon

MIB = 1 << 20
SIZE = 16 * MIB
SEED = random.Random(6).randbytes(MIB)


def can_mount() -> bool:
    return os.path.exists("/dev/fuse") and (os.geteuid() == 0 or shutil.which("fusermount3") is not None)


pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("qemu-io"),
    pytest.mark.skipif(not can_mount(), reason="needs /dev/fuse, and root or fusermount3 (package fuse3)"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A qcow2 image with data at 1 MiB and at 8 MiB, and the file over which it is mounted."""
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "disk.qcow2", SIZE)
    (tmp_path / "seed").write_bytes(SEED)
    words = ["-c", f"write -q -s {tmp_path / 'seed'} 1M 1M", "-c", f"write -q -s {tmp_path / 'seed'} 8M 1M"]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, tmp_path / "disk.qcow2"], check=True, timeout=60)
    (tmp_path / "file").touch()
    yield tmp_path
    assert not os.path.ismount(tmp_path / "file"), "a mount was left"
    assert (tmp_path / "file").stat().st_size == 0


def content() -> bytearray:
    found = bytearray(SIZE)
    found[MIB : 2 * MIB] = found[8 * MIB : 9 * MIB] = SEED
    return found


@contextlib.contextmanager
def mounted(folder: Path, options: str = "writable=on", *, tool: Sequence[str] = OURS) -> Iterator[tuple[Path, Daemon]]:
    node = "driver=qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=disk.qcow2"
    export = f"fuse,id=e,node-name=disk,mountpoint=file,{options}"
    with daemon(folder, "--blockdev", node, "--export", export, tool=tool) as running:
        yield folder / "file", running


def tool(*words: object, code: int = 0) -> str:
    ended = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, f"{words}: {ended.stdout}{ended.stderr}"
    return ended.stdout + ended.stderr


def test_the_file_is_the_disk_with_its_holes(folder: Path) -> None:
    with mounted(folder, "writable=off") as (path, running):
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert path.stat().st_size == SIZE
        tool("cp", "--sparse=auto", path, folder / "copy")
        assert (folder / "copy").read_bytes() == content()
        assert (folder / "copy").stat().st_blocks * 512 < 3 * MIB
        assert tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "-U", path, folder / "disk.qcow2")
        assert os.statvfs(path).f_blocks * os.statvfs(path).f_frsize == SIZE
        assert running.stop() == 0


@pytest.mark.requires_tool("qemu-storage-daemon")
def test_data_and_holes_are_where_qemus_export_has_them(folder: Path) -> None:
    found = []
    for which in (THEIRS, OURS):
        with mounted(folder, tool=which) as (path, _), path.open("rb") as stream:
            seeks = []
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                for offset in (0, MIB - 1, MIB, 2 * MIB - 1, 2 * MIB, 9 * MIB, SIZE - 1, SIZE, SIZE + 1):
                    try:
                        seeks.append(os.lseek(stream.fileno(), offset, whence))
                    except OSError as error:
                        seeks.append(-(error.errno or 0))
            found.append((seeks, tool("qemu-img", "map", "--output=json", "-f", "raw", path)))
    assert found[1] == found[0]


def test_what_is_written_is_in_the_image(folder: Path) -> None:
    expected = content()
    with mounted(folder) as (path, running):
        tool("dd", f"if={folder / 'seed'}", f"of={path}", "bs=4000", "seek=100", "conv=notrunc,fsync")
        expected[400_000 : 400_000 + MIB] = SEED
        with path.open("r+b") as stream:
            os.pwrite(stream.fileno(), b"edge", SIZE - 4)
            assert os.pread(stream.fileno(), 100, SIZE - 4) == b"edge"
            os.fsync(stream.fileno())
            with mmap.mmap(stream.fileno(), SIZE) as mapped:
                mapped[12 * MIB : 12 * MIB + 6] = b"mapped"
        expected[-4:], expected[12 * MIB : 12 * MIB + 6] = b"edge", b"mapped"
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(expected).digest()
        assert running.stop() == 0
    image.assert_clean(folder / "disk.qcow2", "qcow2")
    assert image.content(folder / "disk.qcow2", "qcow2") == expected


def test_holes_are_punched_and_ranges_zeroed(folder: Path) -> None:
    expected = content()
    with mounted(folder) as (path, running):
        before = path.stat().st_blocks
        tool("fallocate", "-p", "-o", MIB, "-l", "512K", path)
        tool("fallocate", "-z", "-n", "-o", 8 * MIB + 100, "-l", 1000, path)
        tool("fallocate", "-p", "-o", SIZE - 4096, "-l", "1M", path)
        tool("fallocate", "-o", 0, "-l", MIB, path, code=1)  # what is there already cannot be reserved
        expected[MIB : MIB + MIB // 2] = bytes(MIB // 2)
        expected[8 * MIB + 100 : 8 * MIB + 1100] = bytes(1000)
        assert path.read_bytes() == expected
        assert path.stat().st_size == SIZE
        assert path.stat().st_blocks < before
        assert running.stop() == 0
    image.assert_clean(folder / "disk.qcow2", "qcow2")
    assert image.content(folder / "disk.qcow2", "qcow2") == expected


def test_a_growable_file_grows_by_what_is_written_behind_its_end(folder: Path) -> None:
    with mounted(folder, "writable=on,growable=on") as (path, running):
        tool("dd", f"if={folder / 'seed'}", f"of={path}", "bs=1M", "seek=20", "conv=notrunc")
        assert path.stat().st_size == 21 * MIB
        tool("fallocate", "-o", 21 * MIB, "-l", MIB, path)
        assert path.stat().st_size == 22 * MIB
        tool("fallocate", "-z", "-o", 22 * MIB, "-l", MIB, path)
        assert path.stat().st_size == 23 * MIB
        os.truncate(path, 24 * MIB + 100)
        assert path.stat().st_size == 24 * MIB + 512  # whole sectors
        os.truncate(path, 2 * MIB)
        assert path.stat().st_size == 2 * MIB
        assert path.read_bytes() == content()[: 2 * MIB]
        assert running.stop() == 0
    assert image.content(folder / "disk.qcow2", "qcow2") == content()[: 2 * MIB]


def test_a_file_that_does_not_grow_takes_what_fits(folder: Path) -> None:
    with mounted(folder) as (path, _), path.open("r+b") as stream:
        assert os.pwrite(stream.fileno(), b"x" * 100, SIZE - 10) == 10
        assert path.stat().st_size == SIZE


def test_a_read_only_file_cannot_be_changed(folder: Path) -> None:
    with mounted(folder, "writable=off") as (path, _), open(os.open(path, os.O_RDWR), "r+b", buffering=0) as stream:
        changes: list[Callable[[], object]] = [
            lambda: os.pwrite(stream.fileno(), b"x", 0),
            lambda: os.ftruncate(stream.fileno(), 0),
            lambda: os.posix_fallocate(stream.fileno(), SIZE, 4096),
        ]
        for change in changes:
            with pytest.raises(OSError) as caught:
                change()
            assert caught.value.errno == errno.EACCES
        with pytest.raises(OSError) as caught:
            os.chmod(path, 0o600)
        assert caught.value.errno == errno.EROFS
    assert image.content(folder / "disk.qcow2", "qcow2") == content()


def test_the_mode_and_the_owner_can_be_changed_as_far_as_others_may_use_it(folder: Path) -> None:
    with mounted(folder, "writable=on,allow-other=off") as (path, _):
        os.chmod(path, 0o400)
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        changes: list[Callable[[], None]] = [
            lambda: os.chmod(path, 0o644),
            lambda: os.chown(path, 1, 1),
            lambda: os.utime(path),
        ]
        for change in changes:
            with pytest.raises(OSError) as caught:
                change()
            assert caught.value.errno in (errno.EPERM, errno.ENOTSUP)
    if os.geteuid():
        return
    with mounted(folder, "writable=on,allow-other=on") as (path, _):
        os.chmod(path, 0o644)
        os.chown(path, 1, 2)
        assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (1, 2, 0o644)


def test_exports_come_and_go_while_the_daemon_runs(folder: Path) -> None:
    with mounted(folder) as (path, running):
        (folder / "other").touch()
        export = {"type": "fuse", "id": "two", "node_name": "disk", "mountpoint": "file"}
        answer = running.monitor.send(
            '{"execute": "block-export-add", "arguments": '
            '{"type": "fuse", "id": "two", "node-name": "disk", "mountpoint": "file"}}'
        )
        assert answer["error"]["desc"] == "There already is a FUSE export on 'file'"
        running.monitor.command("block-export-add", **{**export, "mountpoint": "other"})
        with path.open("r+b") as stream:
            stream.write(b"seen by both")
            stream.flush()
            assert (folder / "other").read_bytes()[:12] == b"seen by both"
        running.monitor.command("block-export-del", id="e")
        assert running.monitor.wait_for("BLOCK_EXPORT_DELETED")["data"] == {"id": "e"}
        assert path.stat().st_size == 0
        assert (folder / "other").stat().st_size == SIZE
        assert running.stop() == 0
    assert not os.path.ismount(folder / "other")


def test_it_is_unmounted_though_somebody_has_it_open(folder: Path) -> None:
    with mounted(folder) as (path, running):
        fd = os.open(path, os.O_RDONLY)
        assert running.stop() == 0
        assert path.stat().st_size == 0
        with pytest.raises(OSError) as caught:
            os.pread(fd, 10, 0)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to end the mount that is left")
def test_a_mount_that_a_killed_daemon_left_is_told_with_the_way_out(folder: Path) -> None:
    with mounted(folder) as (path, running):
        running.process.kill()
        running.process.wait(20)
        with pytest.raises(OSError) as caught:
            path.stat()
        assert caught.value.errno == errno.ENOTCONN
        words = ["--blockdev", "null-co,node-name=n", "--export", "fuse,id=e,node-name=n,mountpoint=file"]
        ended = subprocess.run([*OURS, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert "Failed to stat 'file': Transport endpoint is not connected" in ended.stderr
        assert "fusermount3 -u file" in ended.stderr
        tool("umount", path)


@pytest.mark.slow
@pytest.mark.requires_tool("mke2fs")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a loop device")
def test_a_loop_device_on_it_holds_a_file_system(folder: Path) -> None:
    with mounted(folder) as (path, running):
        ended = subprocess.run(["losetup", "-f", "--show", str(path)], capture_output=True, text=True, check=False)
        if ended.returncode:
            pytest.skip(f"no loop device here: {ended.stderr}")
        device = ended.stdout.strip()
        try:
            (folder / "tree").mkdir()
            (folder / "tree" / "seed").write_bytes(SEED)
            tool("mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", device)
        finally:
            tool("losetup", "-d", device)
        assert running.stop() == 0
    image.qemu_img("convert", "-f", "qcow2", "-O", "raw", folder / "disk.qcow2", folder / "out.raw")
    tool("e2fsck", "-fn", folder / "out.raw")
    tool("debugfs", "-R", f"dump /seed {folder / 'back'}", folder / "out.raw")
    assert (folder / "back").read_bytes() == SEED
    image.assert_clean(folder / "disk.qcow2", "qcow2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_way_of_ending_it_unmounts(folder: Path, number: signal.Signals) -> None:
    with mounted(folder) as (path, running):
        running.process.send_signal(number)
        assert running.process.wait(20) == 0
        assert path.stat().st_size == 0


def test_a_machine_hears_of_every_other_size(folder: Path) -> None:
    """QMP, a truncated file, one that grows while it is written: whoever changes the size, the front end is told."""
    with (folder / "disk.raw").open("wb") as file:
        file.truncate(SIZE)
    node = "driver=raw,node-name=disk,file.driver=file,file.node-name=bytes,file.filename=disk.raw"
    with (
        daemon(
            folder,
            *("--blockdev", node, "--export", "fuse,id=f,node-name=disk,mountpoint=file,writable=on,growable=on"),
            *("--export", "vhost-user-blk,id=v,node-name=disk,writable=on,addr.type=unix,addr.path=vhost.sock"),
        ) as running,
        vhost.driver(folder / "vhost.sock") as (front, queue),
    ):
        channel = front.open_channel()
        assert struct.unpack_from("<Q", front.config())[0] == SIZE // 512
        assert queue.request(vhost.OUT, 0, b"a" * 512)[0] == 0  # past the nodes, from now on
        for change, size in (
            (lambda size: running.monitor.command("block_resize", node_name="disk", size=size), SIZE + MIB),
            (lambda size: os.truncate(folder / "file", size), SIZE + 2 * MIB),
            (lambda size: os.truncate(folder / "file", size), SIZE - MIB),
            (lambda size: _write(folder / "file", size - 512, b"w" * 512), SIZE),
        ):
            change(size)
            assert struct.unpack("<III", channel.recv(12)) == (2, 1, 0)
            assert struct.unpack_from("<Q", front.config())[0] == size // 512
            assert queue.request(vhost.OUT, size // 512 - 1, b"b" * 512)[0] == 0
            assert queue.request(vhost.OUT, size // 512, b"c" * 512)[0] == 1
            assert (folder / "disk.raw").stat().st_size == size


def _write(path: Path, offset: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)
