"""Extended L2 entries (subclusters) beside real ``qemu-img`` and ``qemu-io``."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from hostel.block import creating, graph
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
SIZE = 1_500_672


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def judge(path: Path, oracle: bytes | bytearray) -> None:
    """Both check it clean and read the same."""
    run("qemu-img", "check", "-f", "qcow2", str(path))
    expected = path.with_suffix(".raw")
    expected.write_bytes(oracle)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(path), str(expected))
    with graph.open(str(path), "qcow2") as node:
        assert node.read(0, len(oracle)) == oracle
        lines: list[str] = []
        result = node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        assert (lines, result.corruptions, result.leaks) == ([], 0, 0)


def change(node: BlockNode, oracle: bytearray, chance: random.Random) -> None:
    offset = chance.randrange(SIZE)
    length = min(SIZE - offset, chance.choice((1, 512, 2048, 5000, 16384, 70000)))
    match chance.choice("wwwzuc"):
        case "w":
            data = chance.randbytes(length)
            node.pwrite(offset, data)
            oracle[offset : offset + length] = data
        case "c":
            driver = node.driver
            assert isinstance(driver, Qcow2Driver)
            size = driver.cluster_size
            offset -= offset % size
            payload = driver.compressor()(bytes([chance.randrange(256)]) * size)
            assert payload is not None
            driver.pwrite_compressed(offset, payload)
            inside = min(size, SIZE - offset)
            oracle[offset : offset + inside] = driver_reads(node, offset, inside)
        case kind:
            node.write_zeroes(offset, length, unmap=kind == "u")
            oracle[offset : offset + length] = bytes(length)


def driver_reads(node: BlockNode, offset: int, length: int) -> bytes:
    data = bytes(node.read(offset, length))
    assert data == data[:1] * length
    return data


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("cluster_size", [16384, 65536, 2097152])
def test_random_changes_are_read_by_qemu_as_by_us(tmp_path: Path, cluster_size: int, backed: bool) -> None:
    chance = random.Random(cluster_size + backed)
    path = tmp_path / "disk.qcow2"
    oracle = bytearray(SIZE)
    options: dict[str, int | str | bool] = {"cluster_size": cluster_size, "extended_l2": True}
    if backed:
        below = chance.randbytes(900_096)
        (tmp_path / "base.raw").write_bytes(below)
        oracle[: len(below)] = below
        options |= {"backing_file": "base.raw", "backing_fmt": "raw"}
    with creating.create(str(path)) as file:
        Qcow2Driver.create(file, SIZE, options)
    for step in range(4):
        with graph.open(str(path), "qcow2", read_only=False) as node:
            for _ in range(12):
                change(node, oracle, chance)
            if step == 1:
                node.driver.snapshot_create("s", date=(1, 0))  # type: ignore[attr-defined]
                kept = bytes(oracle)
        judge(path, oracle)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {step + 1} {step * 300_000} 3000", str(path))
        oracle[step * 300_000 : step * 300_000 + 3000] = bytes([step + 1]) * 3000
        judge(path, oracle)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.driver.snapshot_apply("s")  # type: ignore[attr-defined]
    judge(path, kept)


def test_metadata_may_be_preallocated_over_a_backing_file(tmp_path: Path) -> None:
    (tmp_path / "base.raw").write_bytes(b"\x05" * 262144)
    path = tmp_path / "disk.qcow2"
    options: dict[str, Value] = {"extended_l2": True, "preallocation": "metadata"}
    options |= {"backing_file": "base.raw", "backing_fmt": "raw"}
    with creating.create(str(path)) as file:
        Qcow2Driver.create(file, 524288, options)
    judge(path, b"\x05" * 262144 + bytes(262144))
