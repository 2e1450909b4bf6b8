"""The log of VHDX images: changes go through it, and what it holds is done or refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph, notice
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.formats.vhdx.layout import LogDescriptor, LogEntry, sealed
from hostel.block.node import BlockNode
from hostel.block.powers import Repair
from hostel.errors import BlockError, ReadOnly, UnsupportedFeature
from hostel.img.inspect import inspect
from support.bounded import MIB, bounded
from support.memory import Kind, LoggedDriver, MemoryDriver
from support.vhdx import BLOCK, FIRST, LOG, TABLE, attach, fresh, header, patched, with_headers


def cut(count: int, change: Callable[[BlockNode], None]) -> bytes:
    """An image after a change of which ``count`` writes have reached the disk."""
    driver = LoggedDriver(fresh())
    initial = bytes(driver.data)
    with attach(driver) as node:
        change(node)
        node.flush()
        log = list(driver.log)
    disk = MemoryDriver(initial)
    for entry in [each for each in log if each.kind is not Kind.FLUSH][:count]:
        entry.apply(disk)
    return bytes(disk.data)


def write(node: BlockNode) -> None:
    node.pwrite(3 * BLOCK, b"data" * 128)


def test_a_change_of_the_table_is_logged_then_counts_then_is_done() -> None:
    driver = LoggedDriver(fresh())
    node = attach(driver)
    write(node)
    driver.log.clear()
    node.flush()
    one, two = layout.HEADER_OFFSETS
    assert [(each.kind, each.offset) for each in driver.log] == [
        (Kind.WRITE, LOG),
        (Kind.FLUSH, 0),
        (Kind.WRITE, one),
        (Kind.FLUSH, 0),
        (Kind.WRITE, TABLE),
        (Kind.FLUSH, 0),
        (Kind.WRITE, two),
        (Kind.FLUSH, 0),
    ]
    node.close()


def test_a_log_that_counts_is_done_when_the_image_is_opened_for_writing() -> None:
    # Both headers, room in the table and the log, the file's new length, data, the log, a header: now it counts.
    before, after = cut(7, write), cut(8, write)
    with attach(MemoryDriver(before), read_only=True) as node:
        assert node.read(3 * BLOCK, 4) == bytes(4)
    with pytest.raises(ReadOnly, match="opened read-only, but contains a log that needs to be replayed") as caught:
        attach(MemoryDriver(after), read_only=True)
    assert caught.value.hint == "To replay the log, run:\nqemu-img check -r all 'memory'"
    driver = MemoryDriver(after)
    with attach(driver) as node:
        assert node.read(3 * BLOCK, 4) == b"data"
    with attach(driver, read_only=True) as node:
        assert node.read(3 * BLOCK, 4) == b"data"
    assert header(driver.data).log_guid == layout.NO_GUID


def test_a_repair_says_that_the_log_was_done() -> None:
    with attach(MemoryDriver(cut(8, write)), check=True) as node:
        assert isinstance(node.driver, VhdxDriver)
        assert node.driver.check(Repair.ALL, print).corruptions_fixed == 1
        assert node.driver.check(Repair.NOTHING, print).corruptions_fixed == 0


@pytest.mark.parametrize("place", [LOG, LOG + 64, LOG + 100, LOG + 4096, LOG + 5000, LOG + 8188])
def test_a_log_that_is_damaged_anywhere_is_not_done(place: int) -> None:
    data = cut(8, write)
    damaged = patched(data, place, bytes([data[place] ^ 1]))
    with attach(MemoryDriver(damaged), read_only=True) as node:
        assert node.read(3 * BLOCK, 4) == bytes(4)


def entry(
    descriptors: list[LogDescriptor], data: bytes = b"", *, number: int = 1, file: int = FIRST, **fields: int
) -> bytes:
    heads = -(-(len(descriptors) + 2) // 128) * 4096
    start = LogEntry(
        signature=b"loge",
        checksum=0,
        entry_length=heads + len(data),
        tail=0,
        sequence_number=number,
        descriptor_count=len(descriptors),
        reserved=0,
        log_guid=b"g" * 16,
        flushed_file_offset=file,
        last_file_offset=file,
    )
    head = start.replace(**fields).pack() + b"".join(each.pack() for each in descriptors)
    return sealed(head.ljust(heads, b"\0") + data)


def zeroing(offset: int, length: int, number: int = 1) -> LogDescriptor:
    return LogDescriptor(
        signature=b"zero",
        trailing=bytes(4),
        leading=length.to_bytes(8, "little"),
        file_offset=offset,
        sequence_number=number,
    )


def writing(offset: int, data: bytes, number: int = 1) -> tuple[LogDescriptor, bytes]:
    descriptor = LogDescriptor(
        signature=b"desc", trailing=data[-4:], leading=data[:8], file_offset=offset, sequence_number=number
    )
    return descriptor, b"data" + bytes(4) + data[8:-4] + number.to_bytes(4, "little")


def logged(*parts: tuple[int, bytes], data: bytes | None = None) -> bytes:
    """An image with these bytes in its log, by their offsets there."""
    image = with_headers(data or fresh(), log_guid=b"g" * 16)
    for offset, part in parts:
        image = patched(image, LOG + offset, part)
    return image


def test_several_entries_are_done_in_order_also_where_the_log_goes_round() -> None:
    sector = bytes(range(256)) * 16
    first, one = writing(TABLE + 4096, b"1" * 4096, 7)
    second, two = writing(TABLE + 4096, sector, 8)
    third = zeroing(TABLE + 8192, 4096, 9)
    image = logged(
        (MIB - 8192, entry([first], one, number=7)),
        (0, entry([second], two, number=8)),
        (8192, entry([third], number=9)),
        (20480, entry([zeroing(TABLE + 4096, 4096, 5)], number=5)),  # older, and not before them
        data=patched(fresh(), TABLE + 8192, b"9" * 4096),
    )
    driver = MemoryDriver(image)
    attach(driver).close()
    assert driver.data[TABLE + 4096 : TABLE + 12288] == sector + bytes(4096)


def test_a_log_makes_the_file_as_long_as_it_was() -> None:
    image = logged((0, entry([zeroing(TABLE + 4096, 4096)], last_file_offset=FIRST + 5 * MIB)))
    driver = MemoryDriver(image)
    attach(driver).close()
    assert len(driver.data) == FIRST + 5 * MIB


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (entry([zeroing(0, 4096)]), "The log writes 4096 bytes at offset 0"),
        (entry([zeroing(64 << 10, 4096)]), "The log writes 4096 bytes at offset 65536"),
        (entry([zeroing(LOG + 4096, 4096)]), "The log writes 4096 bytes at offset 1052672"),
        (entry([zeroing(TABLE, 1 << 62)]), "The log writes 4611686018427387904 bytes at offset 2097152"),
        (entry([zeroing(1 << 60, 4096)]), "The log writes 4096 bytes at offset 1152921504606846976"),
        (entry([], last_file_offset=1 << 60), "The log makes a file of 1152921504606846976 bytes"),
        (entry([], file=FIRST + 512), "The file has 8388608 bytes, and 8389120 when its log was written"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_log_that_reaches_where_it_must_not_is_refused_and_nothing_of_it_done(part: bytes, message: str) -> None:
    driver = MemoryDriver(logged((0, part)))
    before = bytes(driver.data)
    with pytest.raises(BlockError) as caught:
        attach(driver)
    assert str(caught.value).startswith(message)
    assert driver.data == before


@pytest.mark.parametrize(
    "fields",
    [
        {"descriptor_count": 0xFFFFFFFF},  # QEMU's issue 3860
        {"descriptor_count": 2},
        {"entry_length": 0},
        {"entry_length": 4097},
        {"entry_length": 2 * MIB},
        {"sequence_number": 0},
    ],
    ids=str,
)
def test_an_entry_that_is_none_is_passed_over_and_that_is_told(tmp_path: Path, fields: dict[str, int]) -> None:
    """QEMU says that there is a log before it writes the first entry, and a crash between leaves a sound image."""
    data = logged((0, entry([zeroing(TABLE, 4096)], b"", **fields)))
    told: list[str] = []
    with notice.listening(told.append), attach(MemoryDriver(data), read_only=True) as node:
        assert node.length == 10 * MIB
    assert told == [
        "warning: 'memory' was not closed properly, and no entry of its log is whole: the last changes may be lost"
    ]
    path = tmp_path / "image"
    path.write_bytes(data)
    assert [each.code for each in inspect(str(path)).findings] == ["dirty"]
    with graph.open(str(path), "vhdx", read_only=False) as node:
        node.pwrite(0, b"data")
    assert inspect(str(path)).findings == ()


def test_a_log_of_gigabytes_is_not_looked_through(tmp_path: Path) -> None:
    image = with_headers(fresh(), log_guid=b"g" * 16, log_length=0xFFF00000, log_offset=1 << 40)
    with pytest.raises(BlockError, match="are looked through at most"):
        attach(MemoryDriver(image), read_only=True)


def test_a_log_full_of_heads_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    head = entry([zeroing(TABLE, 4096)], entry_length=MIB)
    path.write_bytes(logged(*((offset, head) for offset in range(0, MIB, 4096))))

    def look() -> int:
        with graph.open(str(path), "vhdx") as node:
            return node.length

    assert bounded(look, seconds=20) == 10 * MIB


def test_a_head_of_millions_of_descriptors_takes_nothing(tmp_path: Path) -> None:
    """In a log of 256 MiB that the file has no bytes for; the descriptors were all kept before any was looked at."""
    path = tmp_path / "disk"
    image = with_headers(fresh(), log_guid=b"g" * 16, log_offset=64 * MIB, log_length=256 * MIB)
    head = entry([zeroing(TABLE, 4096)], descriptor_count=8_000_000, entry_length=256 * MIB)
    with path.open("wb") as file:
        file.write(image)
        for offset in range(64 * MIB, 320 * MIB, MIB):
            file.seek(offset)
            file.write(head)
        file.truncate(320 * MIB)

    def look() -> int:
        with graph.open(str(path), "vhdx") as node:
            return node.length

    assert bounded(look, memory=32 * MIB, seconds=20) == 10 * MIB


@pytest.mark.parametrize("read_only", [False, True])
def test_a_log_that_changes_too_much_is_refused(read_only: bool) -> None:
    driver = MemoryDriver(logged((0, entry([zeroing(TABLE, 4096)] * (1 << 14)))))
    with pytest.raises(ReadOnly) if read_only else attach(driver):
        attach(driver, read_only=read_only)
    driver = MemoryDriver(logged((0, entry([zeroing(TABLE, 4096)] * ((1 << 14) + 1)))))
    before = bytes(driver.data)
    with pytest.raises(UnsupportedFeature, match="The log changes over 16384 places"):
        attach(driver, read_only=read_only)
    assert driver.data == before


def test_more_changes_than_fit_into_the_log_are_made_in_turns() -> None:
    size = 4 << 40
    driver = LoggedDriver(fresh(size))
    rng = random.Random(5)
    offsets = sorted(rng.sample(range(0, size, 512 * MIB), 300))
    with attach(driver) as node:
        for at, offset in enumerate(offsets):
            node.pwrite(offset, at.to_bytes(4, "little"))
        driver.log.clear()
        node.flush()
        assert sum(each.offset == LOG for each in driver.log) == 2
    with attach(driver, read_only=True) as node:
        for at, offset in enumerate(offsets):
            assert node.read(offset, 4) == at.to_bytes(4, "little")
