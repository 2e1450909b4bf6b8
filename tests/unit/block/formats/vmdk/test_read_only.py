"""VMware disks that are only read: those of ESX, and newer versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.errors import InvalidImage, UnsupportedFeature
from support import vmdk
from support.bounded import MIB
from support.memory import MemoryDriver
from support.vmdk import SECTOR, attach, descriptor, opened, patched, refusal, write_files


@pytest.mark.parametrize(("kind", "name"), [("VMFSSPARSE", "COWD"), ("SESPARSE", "seSparse")])
def test_disks_of_esx_are_read_only(tmp_path: Path, kind: str, name: str) -> None:
    make_extent = vmdk.cowd if name == "COWD" else vmdk.sesparse
    grains = {0: b"a" * 4096, 5000: b"b" * 4096}
    write_files(
        tmp_path,
        {"d": descriptor("seSparse" if name == "seSparse" else "vmfsSparse", f'RW 80000 {kind} "x"'),
         "x": make_extent(80000, grains)},
    )  # fmt: skip
    with opened(tmp_path / "d") as node:
        assert node.length == 80000 * SECTOR
        assert node.read(0, 4097) == b"a" * 4096 + b"\0"
        assert node.read(5000 * 4096, 4096) == b"b" * 4096
    assert refusal(tmp_path / "d", read_only=False) == f"No write support for {name} images available"


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (0, 1, "Bad const header magic: 0x0000000000000001"),
        (1, 2, "Unsupported version: 0x0000000000000002"),
        (3, 16, "Unsupported grain size: 16"),
        (4, 32, "Unsupported grain table size: 32"),
        (5, 1, "Unsupported flags: 0x0000000000000001"),
        (8, 3, "Unsupported reserved bits: "),
        (10, 2, "Bad volatile header magic: "),
        (10, 2**63, "Could not read volatile header"),
        (16, 2**63, "lies beyond the end of every file"),
        (16, 2**40, "Could not read l1 table"),
        (17, 2**60, "L1 size too big"),
        (2, 2**60, "The capacity of the extent is too large"),
        (2, 2**40, "too short for the extent's capacity"),
    ],
)
def test_an_sesparse_header_that_nobody_has_described_is_refused(
    tmp_path: Path, word: int, value: int, message: str
) -> None:
    write_files(
        tmp_path,
        {
            "d": descriptor("seSparse", 'RW 64 SESPARSE "x"'),
            "x": vmdk.sesparse(64, {0: b"a"}, **{f"word{word}": value}),
        },
    )
    assert message in refusal(tmp_path / "d")


def test_an_sesparse_disk_with_a_journal_to_replay_is_refused(tmp_path: Path) -> None:
    data = patched(vmdk.sesparse(64, {0: b"a"}), SECTOR + 24, "Q", 1)
    write_files(tmp_path, {"d": descriptor("seSparse", 'RW 64 SESPARSE "x"'), "x": data})
    assert refusal(tmp_path / "d") == "Image is dirty, Replaying journal not supported"


def test_version_3_without_compression_is_read_only() -> None:
    data = patched(vmdk.create(MIB), 4, "I", 3)
    attach(MemoryDriver(data), read_only=True).close()
    with pytest.raises(InvalidImage, match="VMDK version 3 must be read only"):
        attach(MemoryDriver(data))
    with pytest.raises(UnsupportedFeature, match="Unsupported VMDK version 4"):
        attach(MemoryDriver(patched(data, 4, "I", 4)), read_only=True)
