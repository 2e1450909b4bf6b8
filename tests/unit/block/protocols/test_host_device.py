"""Devices of the host: what is refused, and a loop device where one may be made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import blockdev, graph
from hostel.block.driver import OpenMode
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation
from hostel.block.protocols.file import open_file
from hostel.errors import BlockError, ImageLocked, NoSpace, OutOfRange, UnsupportedFeature
from hostel.img import create
from support.image import qemu_img

SIZE = 1 << 20


def described(driver: str, path: str) -> blockdev.Described:
    return blockdev.from_options({"driver": driver, "filename": path, "locking": "off"})


@pytest.mark.parametrize("driver", ["host_device", "host_cdrom", "host_floppy"])
def test_what_is_no_device_is_refused(tmp_path: Path, driver: str) -> None:
    (tmp_path / "file").write_bytes(bytes(512))
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(BlockError, match=f"^'{driver}' driver requires '{path}' to be either a character or block"):
            graph.open(described(driver, str(path)))


def test_a_device_is_no_file() -> None:
    with pytest.raises(BlockError, match=r"^'file' driver requires '/dev/null' to be a regular file$"):
        graph.open(described("file", "/dev/null"))


def test_a_character_device_has_no_size_and_is_opened_only_by_name() -> None:
    with pytest.raises(BlockError, match=r"^'file' driver requires '/dev/null' to be a regular file$"):
        open_file("/dev/null", OpenMode())
    driver = open_file("/dev/null", OpenMode(), "host_device")
    with BlockNode(driver, "/dev/null", read_only=True) as node:
        assert (node.format, node.length) == ("host_device", 0)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A loop device of SIZE bytes."""
    path = tmp_path / "loop"
    path.write_bytes(b"l" * SIZE)
    losetup = shutil.which("losetup")
    if losetup is None:
        pytest.skip("there is no losetup")
    done = subprocess.run([losetup, "--show", "-f", str(path)], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        pytest.skip(f"no loop device may be made here: {done.stderr.strip()}")
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run([losetup, "-d", done.stdout.strip()], check=True, timeout=30)


def test_a_block_device_is_opened_with_its_own_driver(loop: str) -> None:
    with graph.open(loop, "raw", read_only=False) as node:
        assert node.file is not None
        assert (node.file.format, node.length) == ("host_device", SIZE)
        node.pwrite(1000, b"x" * 100)
        node.write_zeroes(4096, 8192)
        node.write_zeroes(65536 + 1, 100)
        node.discard(SIZE // 2, 4096)
        assert node.read(0, 4096) == b"l" * 1000 + b"x" * 100 + b"l" * 2996
        assert node.read(4096, 8192) == bytes(8192)
        assert node.read(65536, 102) == b"l" + bytes(100) + b"l"
        assert [extent.status for extent in node.extents()] == [Status.DATA | Status.ALLOCATED]
        node.flush()


def test_nothing_is_beyond_the_end_of_a_device(loop: str) -> None:
    with graph.open(loop, "raw", read_only=False) as node:
        with pytest.raises(OutOfRange):
            node.pwrite(SIZE - 1, b"xy")
        for size in (SIZE - 512, SIZE + 512):
            with pytest.raises(UnsupportedFeature, match=r"^Cannot resize device files$"):
                node.resize(size)
        with pytest.raises(BlockError, match="unsupported for this non-regular file"):
            node.resize(SIZE, Preallocation.FULL)
        node.resize(SIZE)


def test_a_read_only_device_is_not_opened_for_writing(loop: str) -> None:
    subprocess.run(["blockdev", "--setro", loop], check=True, timeout=30)
    try:
        with pytest.raises(BlockError, match=r"not writable|Permission denied|Read-only"):
            graph.open(loop, "raw", read_only=False)
        with graph.open(loop, "raw") as node:
            assert node.read(0, 10) == b"l" * 10
    finally:
        subprocess.run(["blockdev", "--setrw", loop], check=True, timeout=30)


def test_a_device_is_written_directly(loop: str) -> None:
    with graph.open(blockdev.from_options(
        {"driver": "raw", "cache.direct": "on", "file.driver": "host_device", "file.filename": loop}
    ), read_only=False) as node:  # fmt: skip
        node.pwrite(513, b"direct")
        assert node.read(512, 8) == b"ldirectl"


def test_a_device_is_made_an_image_by_its_drivers_name(loop: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"d" * (SIZE // 2))
    qemu_img("convert", "-f", "raw", "-O", "host_device", tmp_path / "disk", loop)
    with graph.open(loop, "host_device") as node:
        assert (node.format, bytes(node.read(0, SIZE))) == ("host_device", b"d" * (SIZE // 2) + b"l" * (SIZE // 2))
    create.create(create.plan(loop, "host_device", SIZE // 4))
    with graph.open(loop, "host_device") as node:  # whoever guesses shall find nothing of what was there
        assert node.read(0, 1024) == bytes(512) + b"d" * 512
    with pytest.raises(BlockError, match=r"^Cannot grow device files$"):
        create.create(create.plan(loop, "host_device", SIZE + 512))


@pytest.mark.parametrize("format", ["qcow2", "vdi", "vpc", "vhdx", "parallels", "vmdk", "qcow"])
def test_an_image_is_laid_out_on_a_device(loop: str, format: str) -> None:
    size = 2 * SIZE
    try:
        create.create(create.plan(loop, format, size))
    except NoSpace:  # 8 MiB for a log and tables, 1 MiB before the first cluster
        assert format in ("vhdx", "parallels")
        return
    with graph.open(loop, format, read_only=False) as node:
        assert node.read(0, size) == bytes(size)
        with pytest.raises(NoSpace, match="cannot grow"):
            for offset in range(0, size, SIZE // 4):
                node.pwrite(offset, b"x" * (SIZE // 4))
    with graph.open(loop, format) as node:
        assert set(node.read(0, size)) <= set(b"\0x")


def test_what_needs_a_file_that_is_cut_is_not_laid_out_on_a_device(loop: str) -> None:
    with pytest.raises(UnsupportedFeature, match=r"^Cannot resize"):
        create.create(create.plan(loop, "qed", SIZE))
    with graph.open(loop, "raw") as node:
        assert node.read(0, 1024) == b"l" * 1024


def test_a_device_in_use_is_made_no_image(loop: str) -> None:
    with (
        graph.open(loop, "raw", read_only=False, exclusive=True),
        pytest.raises(ImageLocked),
    ):
        create.create(create.plan(loop, "qcow2", SIZE))


def test_a_device_is_found_by_its_drivers_prefix(loop: str) -> None:
    create.create(create.plan(f"host_device:{loop}", "qcow2", SIZE))
    with graph.open(loop, "qcow2") as node:
        assert node.length == SIZE
    with pytest.raises(BlockError, match="It exists and is no regular file"):
        create.create(create.plan(f"file:{loop}", "qcow2", SIZE))
