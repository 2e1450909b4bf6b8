"""Zeroing on targets that do as little as the standard lets them."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from hostel.block.node import BlockNode
from hostel.block.protocols.iscsi.driver import IscsiDriver
from hostel.errors import BlockError

BLOCK = 512
SIZE = 64 * BLOCK


class Lazy:
    """A thin unit that keeps what it may give back; it may know how to zero, or not."""

    block_size, blocks, unmap_granule = BLOCK, SIZE // BLOCK, 1
    thin = unmaps = zeroes_thin = True

    def __init__(self, *, zeroes: bool) -> None:
        self.disk = bytearray(b"o" * SIZE)
        self.writes = 0
        self._zeroes = zeroes

    def read(self, block: int, buf: memoryview) -> None:
        buf[:] = self.disk[block * BLOCK :][: len(buf)]

    def write(self, block: int, data: memoryview) -> None:
        self.writes += 1
        self.disk[block * BLOCK : block * BLOCK + len(data)] = data

    def unmap(self, block: int, count: int) -> None:
        """Nothing is given back."""

    def zero(self, block: int, count: int, *, unmap: bool) -> None:
        if not self._zeroes:
            raise BlockError("iSCSI WRITE SAME failed: ILLEGAL REQUEST", errno=errno.EINVAL)
        self.disk[block * BLOCK : (block + count) * BLOCK] = bytes(count * BLOCK)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("unmap", [True, False])
@pytest.mark.parametrize("zeroes", [True, False])
@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (5, 3 * BLOCK), (BLOCK, BLOCK), (7, 20)])
def test_what_is_zeroed_reads_as_zeroes(unmap: bool, zeroes: bool, offset: int, length: int) -> None:
    unit: Any = Lazy(zeroes=zeroes)
    expected = bytearray(b"o" * SIZE)
    expected[offset : offset + length] = bytes(length)
    with BlockNode(IscsiDriver(unit, "unit", no_flush=False, creating=False), "unit", read_only=False) as node:
        for _ in range(2):
            node.write_zeroes(offset, length, unmap=unmap)
            assert node.read(0, SIZE) == expected
    assert unit.disk == expected
    if zeroes and not offset:
        assert not unit.writes
