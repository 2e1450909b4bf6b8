"""Differencing VHDX images: what shows through, and how the parent is found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.layout import MetadataEntry, guid_text
from hostel.block.trust import Trust
from hostel.errors import BlockError, CorruptImage, ReadOnly, UntrustedReference
from support.bounded import MIB
from support.memory import MemoryDriver
from support.vhdx import BLOCK, METADATA, attach, check, entries, fresh, header, mapped, number, patched, with_item


def locator(**values: str) -> bytes:
    """A parent locator."""
    head, tail = layout.VHDX_PARENT + bytes(2) + len(values).to_bytes(2, "little"), b""
    start = len(head) + 12 * len(values)
    for key, value in values.items():
        raw, text = key.encode("utf-16-le"), value.encode("utf-16-le")
        place = start + len(tail)
        head += number(place, 4) + number(place + len(raw), 4) + number(len(raw), 2) + number(len(text), 2)
        tail += raw + text
    return head + tail


def differencing(parent: bytes, **names: str) -> bytes:
    """A difference from ``parent``: block 3 whole, of block 5 two sectors; block 7 is zeroes."""
    driver = MemoryDriver(fresh(block_state_zero=False))
    with attach(driver) as node:
        node.pwrite(3 * BLOCK, b"3" * BLOCK)
        node.pwrite(5 * BLOCK, b"5" * BLOCK)
    data = bytes(driver.data)
    bits = bytearray(MIB)
    for sector in (1, 9, 10):
        bit = 5 * BLOCK // 512 + sector
        bits[bit // 8] |= 1 << bit % 8
    data = mapped(data, (5, entries(data)[5] & ~7 | 7), (7, 2), (4096, len(data) | 6)) + bytes(bits)
    linkage = guid_text(header(parent).data_write_guid)
    where = locator(parent_linkage=f"{{{linkage}}}", **names)
    record = MetadataEntry(item_id=layout.PARENT_LOCATOR, offset=128 << 10, length=len(where), flags=4, reserved=0)
    data = patched(patched(data, METADATA + 10, b"\6\0"), METADATA + 32 + 5 * 32, record.pack())
    data = patched(data, METADATA + (128 << 10), where)
    return with_item(data, 0, number(BLOCK | 2 << 32))


def test_a_difference_shows_its_parent_where_its_bitmap_says_so() -> None:
    content = random.Random(3).randbytes(10 * MIB)
    expected = bytearray(content)
    expected[3 * BLOCK : 4 * BLOCK] = b"3" * BLOCK
    expected[7 * BLOCK : 8 * BLOCK] = bytes(BLOCK)
    for sector in (1, 9, 10):
        start = 5 * BLOCK + sector * 512
        expected[start : start + 512] = b"5" * 512
    with attach(MemoryDriver(differencing(fresh())), read_only=True, backing=content) as node:
        assert node.read(0, node.length) == expected
        assert node.read(5 * BLOCK + 1000, 5000) == expected[5 * BLOCK + 1000 : 5 * BLOCK + 6000]
        own = [(each.offset, each.length) for each in node.extents() if each.status & Status.DATA]
    assert own == [(3 * BLOCK, BLOCK), (5 * BLOCK + 512, 512), (5 * BLOCK + 9 * 512, 1024)]
    assert check(differencing(fresh())) == (0, [])


def test_a_difference_is_not_written() -> None:
    with pytest.raises(ReadOnly, match="can only be read"):
        attach(MemoryDriver(differencing(fresh())))


@pytest.mark.parametrize(
    "names",
    [{"relative_path": ".\\base.vhdx"}, {"absolute_win32_path": "C:\\disks\\base.vhdx"}, {"volume_path": "x"}, {}],
    ids=str,
)
def test_the_parent_is_found_by_its_names_or_its_identity(tmp_path: Path, names: dict[str, str]) -> None:
    parent = MemoryDriver(fresh())
    with attach(parent) as node:
        node.pwrite(0, b"parent")
    (tmp_path / "base.vhdx").write_bytes(parent.data)
    (tmp_path / "other.vhdx").write_bytes(fresh())
    (tmp_path / "top.avhdx").write_bytes(differencing(bytes(parent.data), **names))
    with graph.open(str(tmp_path / "top.avhdx"), "vhdx") as node:
        assert node.read(0, 6) == b"parent"
        assert node.read(3 * BLOCK, 1) == b"3"


def test_a_parent_that_was_written_since_is_refused(tmp_path: Path) -> None:
    parent = MemoryDriver(fresh())
    (tmp_path / "top.vhdx").write_bytes(differencing(bytes(parent.data), relative_path="base.vhdx"))
    with attach(parent) as node:
        node.pwrite(0, b"changed")
    (tmp_path / "base.vhdx").write_bytes(parent.data)
    with pytest.raises(CorruptImage, match="or has been changed since"):
        graph.open(str(tmp_path / "top.vhdx"), "vhdx")


def test_an_untrusted_difference_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "top.vhdx").write_bytes(differencing(fresh(), relative_path="..\\..\\etc\\passwd"))
    with pytest.raises(UntrustedReference):
        graph.open(str(tmp_path / "top.vhdx"), "vhdx", trust=Trust.UNTRUSTED)


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_parent_locator_that_is_cut_off_is_refused(length: int) -> None:
    data = differencing(fresh(), relative_path="base.vhdx")
    record = MetadataEntry.unpack(data, METADATA + 32 + 5 * 32)
    data = patched(data, METADATA + 32 + 5 * 32, record.replace(length=length).pack())
    with attach(MemoryDriver(data), read_only=True) as node, pytest.raises(BlockError, match="parent"):
        node.driver.references()
