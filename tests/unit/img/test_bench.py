"""Requests of one size, a step apart."""

from __future__ import annotations

import errno

import pytest

from hostel.block.node import BlockNode
from hostel.errors import BlockError
from hostel.img.bench import Pattern, bench
from support import qcow2
from support.memory import Entry, FaultyDriver, Kind, LoggedDriver

SIZE = 64 << 10


class SizedDriver(LoggedDriver):
    """A log of requests to an image of a fixed size."""

    supports = LoggedDriver.supports & ~LoggedDriver.supports.GROWS

    def __init__(self, data: bytes | bytearray = b"") -> None:
        super().__init__(data)
        self.reads: list[tuple[int, int]] = []

    def pread(self, offset: int, buf: memoryview) -> None:
        self.reads.append((offset, len(buf)))
        super().pread(offset, buf)


def node_of(driver: SizedDriver) -> BlockNode:
    """A node that shows ``driver``."""
    return BlockNode(driver, "sized", read_only=False)


@pytest.mark.parametrize("depth", [1, 4, 64])
def test_every_request_is_sent_once_and_offsets_wrap(depth: int) -> None:
    driver = SizedDriver(bytes(SIZE))
    assert bench(node_of(driver), Pattern(requests=20, depth=depth, length=4096, offset=8192, step=4096)) > 0
    assert sorted(driver.reads) == sorted(((8192 + number * 4096) % SIZE, 4096) for number in range(20))
    assert driver.log == []


def test_writes_have_the_pattern() -> None:
    driver = SizedDriver(bytes(SIZE))
    bench(node_of(driver), Pattern(requests=3, depth=2, length=512, step=1024, fill=7))
    assert driver.data == (bytes([7]) * 512 + bytes(512)) * 3 + bytes(SIZE - 3072)


@pytest.mark.parametrize("depth", [1, 4])
def test_a_drained_flush_parts_the_requests_before_from_those_after(depth: int) -> None:
    driver = SizedDriver(bytes(SIZE))
    bench(node_of(driver), Pattern(requests=10, depth=depth, length=512, step=512, fill=1, flush_interval=4))
    flushes = [index for index, entry in enumerate(driver.log) if entry.kind is Kind.FLUSH]
    assert flushes == [4, 9]
    assert sorted(entry.offset for entry in driver.log[:4]) == [0, 512, 1024, 1536]


def test_without_draining_there_are_as_many_flushes() -> None:
    driver = SizedDriver(bytes(SIZE))
    bench(node_of(driver), Pattern(requests=10, depth=4, length=512, step=512, fill=1, flush_interval=4, drain=False))
    assert driver.log.count(Entry(Kind.FLUSH)) == 2
    assert len(driver.log) == 12


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 512), (0, SIZE + 512), (SIZE - 512, 1024)])
def test_a_request_beyond_the_end_fails(offset: int, length: int) -> None:
    with pytest.raises(BlockError, match=r"^Failed request: Input/output error$"):
        bench(
            node_of(SizedDriver(bytes(SIZE))), Pattern(requests=5, depth=2, length=length, offset=offset, step=length)
        )


def test_an_image_without_bytes_is_refused() -> None:
    with pytest.raises(BlockError, match="no bytes"):
        bench(node_of(SizedDriver()), Pattern(requests=1, depth=1, length=512, step=512))


@pytest.mark.parametrize("depth", [1, 8])
def test_the_first_failure_ends_the_run(depth: int) -> None:
    driver = FaultyDriver(qcow2.create(1 << 20))
    with qcow2.attach(driver) as node:
        driver.arm(50, errno.ENOSPC)
        with pytest.raises(BlockError, match=r"^Failed request: No space left on device$"):
            bench(node, Pattern(requests=100_000, depth=depth, length=512, step=512, fill=1))
        assert len(driver.calls) < 1000
        driver.armed = False
