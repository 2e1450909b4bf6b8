"""The headers of VHDX images: which one counts, and what a write makes of them."""

from __future__ import annotations

import pytest

from hostel.block import registry
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.formats.vhdx.layout import (
    Header,
    LogDescriptor,
    LogEntry,
    MetadataEntry,
    MetadataTable,
    RegionEntry,
    RegionTable,
    guid,
    guid_text,
)
from hostel.codec.checksum import crc32c
from hostel.errors import InvalidImage
from support.bounded import MIB
from support.memory import MemoryDriver
from support.vhdx import attach, fresh, header, with_header, with_headers


def test_records_have_their_sizes() -> None:
    assert [each.SIZE for each in (Header, RegionTable, RegionEntry, MetadataTable, MetadataEntry)] == [
        80,
        16,
        32,
        32,
        32,
    ]
    assert (LogEntry.SIZE, LogDescriptor.SIZE) == (64, 32)


def test_checksums_are_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_a_guid_is_written_as_it_is_read() -> None:
    text = "2dc27766-f623-4200-9d64-115e9bfd4a08"
    assert guid_text(guid(text)) == text
    assert guid(text)[:8] == bytes.fromhex("6677c22d23f60042")


def test_it_is_probed_by_its_signature() -> None:
    assert VhdxDriver.probe(fresh()[:512], "") == 100
    assert VhdxDriver.probe(bytes(512), "") == 0
    assert registry.format_driver("vhdx") is VhdxDriver


def test_the_header_with_the_higher_number_counts() -> None:
    data = fresh()
    low = header(data).sequence_number
    for index, counts in ((0, low + 5), (1, low + 5)):
        other = with_header(data, index, sequence_number=counts, data_write_guid=bytes([index + 1]) * 16)
        with attach(MemoryDriver(other), read_only=True) as node:
            assert node.driver.unique_id == guid_text(bytes([index + 1]) * 16)


def test_a_damaged_header_is_made_up_for_by_the_other() -> None:
    data = fresh()
    for index in (0, 1):
        damaged = with_header(data, index, seal=False, checksum=1)
        with attach(MemoryDriver(damaged), read_only=True) as node:
            assert node.length == 10 * MIB
    damaged = with_header(damaged, 0, seal=False, checksum=1)
    with pytest.raises(InvalidImage, match="No valid VHDX header found"):
        attach(MemoryDriver(damaged))


def test_two_headers_with_one_number_must_be_equal() -> None:
    data = with_headers(fresh(), sequence_number=7, file_write_guid=bytes(16), data_write_guid=bytes(16))
    with attach(MemoryDriver(data)) as node:  # as Disk2vhd makes them
        node.pwrite(0, b"x")
    with attach(MemoryDriver(data), read_only=True) as node:
        assert node.length == 10 * MIB
    with pytest.raises(InvalidImage, match="No valid VHDX header found"):
        attach(MemoryDriver(with_header(data, 1, data_write_guid=b"y" * 16)))


def test_the_first_write_says_that_the_disk_is_another_one_and_the_second_does_not() -> None:
    driver = MemoryDriver(fresh())
    before = header(driver.data)
    node = attach(driver)
    node.read(0, 512)
    assert header(driver.data) == before
    node.pwrite(0, b"x")
    after = header(driver.data)
    assert (after.file_write_guid, after.data_write_guid) != (before.file_write_guid, before.data_write_guid)
    assert after.sequence_number == before.sequence_number + 2
    node.pwrite(0, b"y")
    assert header(driver.data) == after
    node.close()
    found = [Header.unpack(bytes(driver.data), offset) for offset in layout.HEADER_OFFSETS]
    assert found[0].log_guid == found[1].log_guid == layout.NO_GUID
    assert found[0].data_write_guid == found[1].data_write_guid


def test_an_image_without_numbers_for_headers_is_read_and_not_written() -> None:
    driver = MemoryDriver(with_header(fresh(), 0, sequence_number=2**64 - 1))
    before = bytes(driver.data)
    with attach(driver) as node:
        assert node.read(0, 512) == bytes(512)
        with pytest.raises(InvalidImage, match="is no honest one"):
            node.pwrite(0, b"x")
    assert driver.data == before
