"""What ``inspect`` says of the largest numbers that headers can hold: findings, and never an error of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block.formats.parallels.layout import Header as ParallelsHeader
from hostel.block.formats.qcow import Header as QcowHeader
from hostel.block.formats.qed.layout import Header as QedHeader
from hostel.block.formats.vdi import Header as VdiHeader
from hostel.block.formats.vhdx.layout import Header as VhdxHeader
from hostel.block.formats.vmdk.layout import SparseHeader
from hostel.block.formats.vpc.layout import DynamicHeader, Footer
from hostel.block.formats.vpc.layout import sealed as sealed_vpc
from hostel.codec.record import Record
from hostel.img.inspect import _TABLES, inspect
from hostel.img.inspection import Level
from support import images, vhdx, vmdk
from support.vmdk import SECTOR

MIB = 1 << 20
VALUES = (0, 1, 1 << 60, 1 << 63, (1 << 64) - 1)
HEADERS: dict[str, type[Record]] = {
    "parallels": ParallelsHeader,
    "qcow": QcowHeader,
    "qed": QedHeader,
    "vdi": VdiHeader,
    "vmdk": SparseHeader,
}


def fields(header: type[Record]) -> list[str]:
    """Those of 64 bits."""
    ends = [*header.OFFSET.values(), header.SIZE][1:]
    return [name for (name, start), end in zip(header.OFFSET.items(), ends, strict=True) if end - start == 8]


def changed(format: str, data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """An image with each field of its header changed to each value."""
    makers: list[tuple[type[Record], Callable[[str, int], bytes]]]
    if format == "vpc":
        footer, dynamic = Footer.unpack(data), DynamicHeader.unpack(data, SECTOR)

        def with_footer(name: str, value: int) -> bytes:
            sealed = sealed_vpc(footer.replace(**{name: value}))
            return sealed + data[SECTOR:-SECTOR] + sealed

        def with_dynamic(name: str, value: int) -> bytes:
            sealed = sealed_vpc(dynamic.replace(**{name: value}))
            return data[:SECTOR] + sealed + data[SECTOR + len(sealed) :]

        makers = [(Footer, with_footer), (DynamicHeader, with_dynamic)]
    elif format == "vhdx":
        makers = [(VhdxHeader, lambda name, value: vhdx.with_headers(data, **{name: value}))]
    else:
        header = HEADERS[format]

        def with_header(name: str, value: int) -> bytes:
            return header.unpack(data).replace(**{name: value}).pack() + data[header.SIZE :]

        makers = [(header, with_header)]
    for record, make in makers:
        for name in fields(record):
            if isinstance(getattr(record.unpack(data), name), int):
                for value in VALUES:
                    yield name, value, make(name, value)


@pytest.mark.parametrize("format", sorted(_TABLES))
def test_a_field_of_any_value_ends_in_findings(tmp_path: Path, format: str) -> None:
    path = tmp_path / "image"
    if format == "vhdx":
        path.write_bytes(vhdx.fresh(MIB))
    else:
        images.make(path, 2 * MIB, format=format)
        images.write(path, format, {0: b"data" * 1024})
    assert [each for each in inspect(str(path), expected=format).findings if each.level is Level.UNSAFE] == []
    unsafe = count = 0
    for name, value, data in changed(format, path.read_bytes()):
        path.write_bytes(data)
        try:
            found = inspect(str(path), expected=format).findings
        except Exception as error:
            error.add_note(f"{name} = {value:#x}")
            raise
        unsafe += any(each.level is Level.UNSAFE for each in found)
        count += 1
    assert 0 < unsafe < count


@pytest.mark.parametrize("sectors", [1 << 20, 1 << 60, (1 << 64) - 1])
def test_a_descriptor_of_vmdk_beyond_the_file_is_malformed(tmp_path: Path, sectors: int) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(vmdk.patched(vmdk.create(MIB), SparseHeader.OFFSET["descriptor_size"], "Q", sectors))
    (finding,) = inspect(str(path)).findings
    end = (1 + sectors) * SECTOR
    assert finding.message == f"The descriptor, from byte 512 to {end}, lies beyond the end of the file"
    assert (finding.level, finding.code) == (Level.UNSAFE, "malformed")
