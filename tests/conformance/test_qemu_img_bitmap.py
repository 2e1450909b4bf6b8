"""qemu-img bitmap beside the real one: messages, exit codes, and what both tools then find in the image."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.powers import BitmapInfo, BitmapStore
from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
# Where QEMU has a node's generated name and we the file's.
_NODE = re.compile(r"#block\d+")


@pytest.fixture
def images(twins: Twins) -> Twins:
    """``a`` with the bitmaps x (written to) and y (empty, disabled), ``other`` with the bitmap z, and ``raw``."""
    twins.prepare("qemu-img create -q -f qcow2 a 8M")
    twins.prepare("qemu-img bitmap --add -g 64k a x")
    twins.prepare("qemu-img bitmap --add --disable -g 4k a y")
    twins.prepare("qemu-io -c 'write -P 1 1M 128k' a")
    twins.prepare("qemu-img create -q -f qcow2 other 8M")
    twins.prepare("qemu-img bitmap --add other z")
    twins.prepare("qemu-io -c 'write -P 1 4M 64k' other")
    twins.truncate("raw", 1 << 20)
    return twins


@pytest.mark.parametrize(
    "command",
    [
        "--add a new",
        "--add -g 512 a new",
        "--add --granularity 2G a new",
        "--add -g 0 a new",
        "--add --disable a new",
        "--remove a x",
        "--clear a x",
        "--enable a y",
        "--disable a x",
        "--merge x a y",
        "--merge z --source-file other --source-format qcow2 a y",
        "--merge z -b other --merge z a y",
        "--clear --merge y --enable --merge x --disable a y",
        "--add --merge x --merge y --remove a new",
        "--add -f qcow2 a new",
        "--add --image-opts driver=qcow2,file.filename=a new",
        "--add a 日本語",
    ],
)
def test_actions_leave_what_qemu_leaves(images: Twins, command: str) -> None:
    assert images.same(f"bitmap {command}").code == 0
    _look_alike(images)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "a",
        "a x",
        "--add a",
        "--add a x y",
        "--remove a missing",
        "--clear a missing",
        "--enable a missing",
        "--disable a missing",
        "--merge missing a x",
        "--merge x a missing",
        "--merge missing -b other a x",
        "--merge x -b missing a x",
        "--merge x -b raw -F raw a x",
        "--add a x",
        "--add a ''",
        "--add -g 256 a new",
        "--add -g 3k a new",
        "--add -g 1.5 a new",
        "--add -g x a new",
        "--add -g -1 a new",
        "--remove -g 4k a x",
        "--merge x -F qcow2 a y",
        "--add -b other a new",
        "--add missing new",
        "--remove -f raw raw x",
        "--merge x -f raw raw x",
        "--add -f qcow2 --image-opts driver=qcow2,file.filename=a new",
        "--merge",
        "--nonsense a x",
    ],
)
def test_mistakes_are_refused_as_by_qemu(images: Twins, command: str) -> None:
    images.refused(f"bitmap {command}")


@pytest.mark.parametrize("command", [f"--add a {'n' * 1024}", "--add -f raw raw new", "--add old new"])
def test_what_cannot_keep_a_bitmap_says_why(images: Twins, command: str) -> None:
    images.prepare("qemu-img create -q -f qcow2 -o compat=v2 old 1M")
    words = ["bitmap", *command.split()]
    real, ours = images.run_real(words), images.run_ours(words)
    name = words[-2]
    assert (ours.code, ours.out, ours.err) == (real.code, real.out, _NODE.sub(name, real.err))
    assert real.code == 1


def test_what_was_done_before_a_failure_stays(images: Twins) -> None:
    assert images.same("bitmap --add --merge x --merge missing --remove a new").code == 1
    _look_alike(images)


def test_an_inconsistent_bitmap_can_only_be_dropped(images: Twins) -> None:
    images.prepare("sh -c \"qemu-io -c 'write 0 64k' -c 'sigraise 9' a || true\"")
    for action in ("--clear", "--enable", "--disable", "--merge y"):
        assert images.same(f"bitmap {action} a x").code == 1
    assert images.same("bitmap --merge x a y").code == 1
    images.refused("resize a 8M")
    assert images.same("bitmap --remove a x").code == 0
    _look_alike(images)


def _look_alike(images: Twins) -> None:
    """Both folders' images have the same bitmaps with the same bits, and nothing leaks."""
    assert _bitmaps(images.real / "a") == _bitmaps(images.ours / "a")
    for folder in (images.real, images.ours):
        subprocess.run(["qemu-img", "check", "-q", str(folder / "a")], check=True, timeout=60)


def _bitmaps(path: Path) -> dict[BitmapInfo, bytes | None]:
    with graph.open(str(path)) as node:
        store = node.driver
        assert isinstance(store, BitmapStore)
        return {
            info: None if "in-use" in info.flags else bytes(store.bitmap(info.name).bits) for info in store.bitmaps()
        }
