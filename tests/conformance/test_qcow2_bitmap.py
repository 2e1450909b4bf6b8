"""Persistent dirty bitmaps beside real ``qemu-img``, ``qemu-io`` and ``qemu-nbd``."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph
from hostel.block.powers import Repair
from hostel.errors import BlockError, CorruptImage, ReadOnly
from hostel.img import create
from support.process import end

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("qemu-io"),
    pytest.mark.requires_tool("qemu-nbd"),
]
SIZE = 8 << 20
GRANULARITY = 65536


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(path: Path, *options: str) -> None:
    given = [(*option.split("="), True) for option in options]
    create.create(create.plan(str(path), "qcow2", SIZE, given=given))  # type: ignore[arg-type]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    with graph.open(str(path), "qcow2", read_only=False) as node:
        yield node


def shown(path: Path) -> list[dict[str, Any]]:
    """What qemu-img says of the bitmaps."""
    info = json.loads(run("qemu-img", "info", "--output=json", str(path)))
    found: list[dict[str, Any]] = info["format-specific"]["data"].get("bitmaps", [])
    return found


def dirty_for_qemu(path: Path, name: str) -> set[int]:
    """The dirty granules as a client of real qemu-nbd sees them."""
    socket = path.with_suffix(".sock")
    server = subprocess.Popen(["qemu-nbd", "-r", "-f", "qcow2", "-B", name, "-k", str(socket), str(path)])
    try:
        for _ in range(100):
            if socket.exists():
                break
            time.sleep(0.05)
        options = f"driver=nbd,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{name}"
        entries = json.loads(run("qemu-img", "map", "--output=json", "--image-opts", options))
    finally:
        end(server)
    found: set[int] = set()
    for entry in entries:
        if not entry["data"]:  # "data" is false where it is dirty
            found.update(
                range(entry["start"] // GRANULARITY, (entry["start"] + entry["length"] - 1) // GRANULARITY + 1)
            )
    return found


def granules(*ranges: tuple[int, int]) -> set[int]:
    return {index for offset, length in ranges for index in range(offset >> 16, (offset + length - 1 >> 16) + 1)}


def assert_clean(path: Path) -> None:
    run("qemu-img", "check", "-f", "qcow2", str(path))
    with graph.open(str(path), "qcow2") as node:
        lines: list[str] = []
        result = node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        assert (lines, result.corruptions, result.leaks) == ([], 0, 0)


@pytest.mark.parametrize("options", [(), ("cluster_size=4096",), ("cluster_size=65536", "extended_l2=on")])
def test_what_we_write_is_dirty_for_qemu_and_the_reverse(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, *options)
    with opened(path) as node:
        node.driver.bitmap_add("ours", GRANULARITY)
        node.pwrite(0, b"\x01" * 100)
        node.write_zeroes(1 << 20, 70_000)
        node.discard(2 << 20, 1 << 16)
    assert shown(path) == [{"name": "ours", "granularity": GRANULARITY, "flags": ["auto"]}]
    expected = granules((0, 100), (1 << 20, 70_000), (2 << 20, 1 << 16))
    assert dirty_for_qemu(path, "ours") == expected
    assert_clean(path)
    run("qemu-img", "bitmap", "--add", "-g", str(GRANULARITY), str(path), "theirs")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 4M 1M", str(path))
    with opened(path) as node:
        for name, ranges in (("ours", expected), ("theirs", set())):
            bitmap = node.driver.bitmap(name)
            marked = {offset >> 16 for offset in range(0, SIZE, GRANULARITY) if bitmap.is_dirty(offset)}
            assert marked == ranges | granules((4 << 20, 1 << 20))
        node.pwrite(7 << 20, b"\x03")
    assert dirty_for_qemu(path, "theirs") == granules((4 << 20, 1 << 20), (7 << 20, 1))
    assert_clean(path)


def test_add_clear_disable_enable_merge_and_remove(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with opened(path) as node:
        driver = node.driver
        driver.bitmap_add("a", GRANULARITY)
        driver.bitmap_add("b", GRANULARITY, enabled=False)
        node.pwrite(0, b"x")
        driver.bitmap_enable("a", False)
        driver.bitmap_enable("b", True)
        node.pwrite(1 << 20, b"x")
    assert [each["flags"] for each in shown(path)] == [[], ["auto"]]
    assert dirty_for_qemu(path, "a") == {0}
    assert dirty_for_qemu(path, "b") == {16}
    with opened(path) as node:
        node.driver.bitmap_merge("a", node.driver.bitmap("b"))
        node.driver.bitmap_clear("b")
    assert dirty_for_qemu(path, "a") == {0, 16}
    assert dirty_for_qemu(path, "b") == set()
    with opened(path) as node:
        node.driver.bitmap_remove("a")
        node.driver.bitmap_remove("b")
    assert shown(path) == []
    assert_clean(path)


def test_bitmaps_follow_the_image_s_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with opened(path) as node:
        node.driver.bitmap_add("a", GRANULARITY)
        node.pwrite(0, bytes(SIZE))
        node.resize(1 << 20)
        node.resize(2 << 20)
    assert dirty_for_qemu(path, "a") == set(range(16))
    assert_clean(path)


def test_a_bitmap_that_was_not_stored_is_inconsistent_and_can_only_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with opened(path) as node:
        node.driver.bitmap_add("a", GRANULARITY)
    with opened(path) as node:
        node.pwrite(0, b"x")
        node.flush()
        crashed = path.read_bytes()
    copy = tmp_path / "crashed.qcow2"
    copy.write_bytes(crashed)
    assert shown(copy)[0]["flags"] == ["in-use", "auto"]
    assert_clean(copy)
    with opened(copy) as node:
        for call in (node.driver.bitmap_clear, node.driver.bitmap):
            with pytest.raises(BlockError, match="inconsistent"):
                call("a")
        with pytest.raises(BlockError, match="'a' is inconsistent and cannot be used"):
            node.resize(SIZE * 2)
        node.pwrite(1 << 20, b"y")
    assert shown(copy)[0]["flags"] == ["in-use", "auto"]
    assert_clean(copy)
    with opened(copy) as node:
        node.driver.bitmap_remove("a")
    assert shown(copy) == []
    assert_clean(copy)


def test_reading_marks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with opened(path) as node:
        node.driver.bitmap_add("a")
    before = path.read_bytes()
    with opened(path) as node:
        node.read(0, SIZE)
        node.flush()
    with graph.open(str(path), "qcow2") as node, pytest.raises(ReadOnly):
        node.driver.bitmap_add("b")  # type: ignore[attr-defined]
    assert path.read_bytes() == before


def test_limits_are_qemu_s(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with opened(path) as node:
        add = node.driver.bitmap_add
        add("a")
        for arguments, message in (
            (("a",), "already exists"),
            (("b", 256), "power of 2 and at least 512"),
            (("b", 1 << 32), "exceeds maximum"),
            (("b" * 1024,), "Name length exceeds"),
            (("b", 3000), "power of 2"),
        ):
            with pytest.raises(BlockError, match=message):
                add(*arguments)
        with pytest.raises(BlockError, match="not found"):
            node.driver.bitmap_remove("nope")
    old = tmp_path / "old.qcow2"
    make(old, "compat=0.10")
    with opened(old) as node, pytest.raises(BlockError, match="v2"):
        node.driver.bitmap_add("a")


def test_a_broken_directory_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with opened(path) as node:
        node.driver.bitmap_add("a")
    data = bytearray(path.read_bytes())
    place = data.index(bytes.fromhex("23852875")) + 8
    offset = int.from_bytes(data[place + 16 : place + 24], "big")
    data[offset + 18 : offset + 20] = bytes(2)  # a name of no bytes
    path.write_bytes(data)
    with pytest.raises(CorruptImage, match=r"Broken bitmap directory|Bitmap '' doesn't satisfy"), opened(path):
        pass
    assert path.read_bytes() == data
