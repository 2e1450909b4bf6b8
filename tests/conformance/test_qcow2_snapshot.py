"""Internal snapshots beside real ``qemu-img`` and ``qemu-io`` on the same image."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from hostel.block.formats.qcow2 import snapshot
from hostel.errors import BlockError
from support.qcow2_file import Qcow2File, check_file

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(path: Path, options: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "write -c -P 2 2M 64k", str(path))


def reads(path: Path, pattern: int, where: str) -> None:
    assert "Pattern verification failed" not in run(
        "qemu-io", "-f", "qcow2", "-c", f"read -P {pattern} {where}", str(path)
    )


def assert_clean(path: Path) -> None:
    result, lines = check_file(path)
    assert (lines, result.corruptions, result.leaks, result.check_errors) == ([], 0, 0, 0)
    run("qemu-img", "check", "-f", "qcow2", str(path))


@pytest.mark.parametrize("options", ["cluster_size=65536", "cluster_size=4096,refcount_bits=8", "compat=0.10"])
def test_created_applied_and_deleted_snapshots_are_what_qemu_expects(tmp_path: Path, options: str) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, options)
    with Qcow2File(path, writable=True) as image:
        made = snapshot.create_snapshot(image, "first", date=(1_700_000_000, 5))
    assert made.id == "1"
    assert_clean(path)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 3 512k 1M", str(path))
    run("qemu-img", "snapshot", "-c", "second", str(path))
    with Qcow2File(path, writable=True) as image:
        assert [(each.id, each.name) for each in snapshot.snapshots(image)] == [("1", "first"), ("2", "second")]
        snapshot.apply_snapshot(image, "first")
    assert_clean(path)
    reads(path, 1, "0 1M")
    reads(path, 0, "1M 1M")
    reads(path, 2, "2M 64k")
    run("qemu-img", "snapshot", "-a", "2", str(path))
    reads(path, 3, "512k 1M")
    with Qcow2File(path, writable=True) as image:
        snapshot.delete_snapshot(image, "1")
        snapshot.delete_snapshot(image, "second")
        assert snapshot.snapshots(image) == []
    assert_clean(path)
    reads(path, 3, "512k 1M")


def test_apply_brings_a_version_3_image_back_to_its_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=4096")
    run("qemu-img", "snapshot", "-c", "small", str(path))
    run("qemu-img", "resize", "-f", "qcow2", str(path), "64M")
    with Qcow2File(path, writable=True) as image:
        snapshot.apply_snapshot(image, "small")
    assert_clean(path)
    with Qcow2File(path) as image:
        assert image.header.size == 8 << 20


def test_a_snapshot_that_would_overflow_a_refcount_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "refcount_bits=1")
    before = path.read_bytes()
    with Qcow2File(path, writable=True) as image, pytest.raises(BlockError, match="Invalid argument"):
        snapshot.create_snapshot(image, "x", date=(0, 0))
    assert path.read_bytes() == before


def test_an_unknown_snapshot_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=65536")
    with Qcow2File(path, writable=True) as image, pytest.raises(BlockError, match="snapshot not found"):
        snapshot.delete_snapshot(image, "nope")


def test_repairing_keeps_the_snapshots_of_an_image_with_an_unknown_autoclear_bit(tmp_path: Path) -> None:
    from hostel.block.driver import Repair

    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=65536")
    run("qemu-img", "snapshot", "-c", "keep", str(path))
    with path.open("r+b") as file:
        file.seek(88)
        file.write(b"\x80")
    before = path.read_bytes()
    result, lines = check_file(path, Repair.ALL)
    assert (lines, result.corruptions, result.leaks) == ([], 0, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("failing", range(26))
def test_a_failed_write_while_creating_leaves_no_cluster_short_of_references(tmp_path: Path, failing: int) -> None:
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", str(path), "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", str(path))
    run("qemu-img", "snapshot", "-c", "a", str(path))
    with Qcow2File(path, writable=True) as image:
        write, count = image.file.pwrite, iter(range(1000))

        def pwrite(offset: int, data: bytes | bytearray | memoryview) -> None:
            if next(count) == failing:
                raise OSError(28, "No space left on device")
            write(offset, data)

        image.file.pwrite = pwrite  # type: ignore[method-assign]
        with contextlib.suppress(OSError):
            snapshot.create_snapshot(image, "b", date=(0, 0))
    result, lines = check_file(path)
    assert (result.corruptions, result.check_errors) == (0, 0), lines
    reads(path, 1, "0 64k")
