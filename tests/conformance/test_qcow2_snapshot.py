"""Internal snapshots beside real ``qemu-img`` and ``qemu-io`` on the same image."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.powers import Repair
from hostel.errors import BlockError
from support.qcow2 import check_file

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Qcow2Driver]:
    with graph.open(str(path), "qcow2", read_only=False) as node:
        assert isinstance(node.driver, Qcow2Driver)
        yield node.driver


def make(path: Path, options: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "8M")
    run("qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "write -c -P 2 2M 64k", str(path))


def reads(path: Path, pattern: int, where: str) -> None:
    assert "Pattern verification failed" not in run(
        "qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", f"read -P {pattern} {where}", str(path)
    )


def assert_clean(path: Path) -> None:
    result, lines = check_file(path)
    assert (lines, result.corruptions, result.leaks, result.check_errors) == ([], 0, 0, 0)
    run("qemu-img", "check", "-f", "qcow2", str(path))


@pytest.mark.parametrize("options", ["cluster_size=65536", "cluster_size=4096,refcount_bits=8", "compat=0.10"])
def test_created_applied_and_deleted_snapshots_are_what_qemu_expects(tmp_path: Path, options: str) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, options)
    with opened(path) as image:
        made = image.snapshot_create("first", date=(1_700_000_000, 5))
    assert made.id == "1"
    assert_clean(path)
    run("qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", "write -P 3 512k 1M", str(path))
    run("qemu-img", "snapshot", "-c", "second", str(path))
    with opened(path) as image:
        assert [(each.id, each.name) for each in image.snapshots()] == [("1", "first"), ("2", "second")]
        image.snapshot_apply("first")
    assert_clean(path)
    reads(path, 1, "0 1M")
    reads(path, 0, "1M 1M")
    reads(path, 2, "2M 64k")
    run("qemu-img", "snapshot", "-a", "2", str(path))
    reads(path, 3, "512k 1M")
    with opened(path) as image:
        image.snapshot_delete("1")
        image.snapshot_delete("second")
        assert image.snapshots() == []
    assert_clean(path)
    reads(path, 3, "512k 1M")


@pytest.mark.parametrize(
    "options", ["cluster_size=4096", "cluster_size=16384,extended_l2=on", "cluster_size=512,refcount_bits=32"]
)
def test_snapshots_of_a_fragmented_image_leave_refcounts_and_flags_as_qemu_expects(
    tmp_path: Path, options: str
) -> None:
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "8M")
    rng = random.Random(options)

    def scatter(turn: int) -> None:
        kinds, end = ["write -q -P {}", "write -q -P {}", "write -q -z", "discard -q"], 96 + 8 * turn
        parts = [f"{rng.choice(kinds).format(rng.randrange(1, 200))} {rng.randrange(end) << 16} 64k" for _ in range(60)]
        parts.append(f"write -q -P 7 {rng.randrange(2, 4)}M 1M")
        # Where nothing has been written yet: QEMU compresses nowhere else.
        parts += [f"write -q -c -P {at} {at << 16} 64k" for at in rng.sample(range(end, end + 8), 5)]
        run("qemu-io", "-t", "unsafe", "-f", "qcow2", *(word for part in parts for word in ("-c", part)), str(path))

    kept = {}
    for turn, name in enumerate(("first", "second")):
        scatter(turn)
        kept[name] = tmp_path / name
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(kept[name]))
        with opened(path) as image:
            image.snapshot_create(name, date=(1, 0))
        assert_clean(path)
    scatter(2)
    for name in ("first", "second", "first"):
        with opened(path) as image:
            image.snapshot_apply(name)
        assert_clean(path)
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(path), str(kept[name]))
    scatter(3)
    for name in ("first", "second"):
        with opened(path) as image:
            image.snapshot_delete(name)
        assert_clean(path)


def test_apply_brings_a_version_3_image_back_to_its_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=4096")
    run("qemu-img", "snapshot", "-c", "small", str(path))
    run("qemu-img", "resize", "-f", "qcow2", str(path), "64M")
    with opened(path) as image:
        image.snapshot_apply("small")
    assert_clean(path)
    with graph.open(str(path), "qcow2") as node:
        assert node.length == 8 << 20


def test_a_snapshot_that_would_overflow_a_refcount_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "refcount_bits=1")
    before = path.read_bytes()
    with opened(path) as image, pytest.raises(BlockError, match="Invalid argument"):
        image.snapshot_create("x", date=(0, 0))
    assert path.read_bytes() == before


def test_an_unknown_snapshot_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=65536")
    with opened(path) as image, pytest.raises(BlockError, match="snapshot not found"):
        image.snapshot_delete("nope")


def test_repairing_keeps_the_snapshots_of_an_image_and_clears_an_unknown_autoclear_bit(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=65536")
    run("qemu-img", "snapshot", "-c", "keep", str(path))
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(88)
        file.write(b"\x80")
    result, lines = check_file(path, Repair.ALL)
    assert (lines, result.corruptions, result.leaks) == ([], 0, 0)
    assert path.read_bytes() == before
