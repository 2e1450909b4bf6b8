"""Random requests of a guest to an image in memory of any format, and what it must read afterwards."""

from __future__ import annotations

import abc
import random
from collections.abc import Mapping
from typing import Final

from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Compressing
from support.memory import MemoryDriver

SECTOR: Final = 512


def noise(rng: random.Random, length: int) -> bytes:
    """Bytes of which each sector is another, and that compress."""
    sectors = -(-length // SECTOR)
    return b"".join(bytes((rng.randrange(1, 256), rng.randrange(256))) * (SECTOR // 2) for _ in range(sectors))[:length]


class GuestIO(abc.ABC):
    """An image under random requests.

    Attributes:
        rng: decides.
        options: those that the image was created with.
        cluster_size: bytes.
        aligned: requests are of whole sectors.
        driver: what holds the image's bytes.
        node: the open image.
        content: what the guest must read.
        flushed: what it read when the last flush, or another operation that syncs, was done.
        snapshots: id to content.
        bitmaps: name to the content that its bits tell the changes from.
        backing: the backing image's content, or None.
        original_backing: what it was at first.
    """

    rng: random.Random
    options: Mapping[str, Value]
    cluster_size: int
    aligned: bool
    driver: MemoryDriver
    node: BlockNode
    content: bytearray
    flushed: bytes
    snapshots: dict[str, bytes]
    bitmaps: dict[str, bytes]
    backing: bytes | None
    original_backing: bytes | None

    @abc.abstractmethod
    def open(self) -> BlockNode:
        """Open the image for writing."""

    @abc.abstractmethod
    def operations(self) -> dict[str, int]:
        """What can be done, with its weight."""

    @abc.abstractmethod
    def verify(self) -> None:
        """The guest reads what it must."""

    def step(self) -> str:
        """Do something; returns what."""
        weights = self.operations()
        name = self.rng.choices(list(weights), list(weights.values()))[0]
        getattr(self, name)()
        return name

    def forgets_what_it_discards(self) -> bool:
        """Whether whole clusters read as zeroes once they are discarded."""
        return True

    def place(self) -> tuple[int, int]:
        """A random range: offset and length."""
        size, cluster = len(self.content), self.cluster_size
        lengths = (1, 511, SECTOR, SECTOR, cluster, cluster, 3 * cluster, 3 * cluster + 7, 20 * cluster, 150 * cluster)
        offset, length = self.rng.randrange(size), self.rng.choice(lengths)
        if self.rng.random() < 0.3:
            offset -= offset % cluster
        if self.aligned:
            offset -= offset % SECTOR
            length = -(-length // SECTOR) * SECTOR
        return offset, min(length, size - offset)

    def write(self) -> None:
        """Write data."""
        offset, length = self.place()
        data = noise(self.rng, length)
        self.node.pwrite(offset, data)
        self.content[offset : offset + length] = data

    def zero(self) -> None:
        """Write zeroes, keeping the space."""
        self._zero(unmap=False)

    def unmap(self) -> None:
        """Write zeroes, giving the space back."""
        self._zero(unmap=True)

    def _zero(self, *, unmap: bool) -> None:
        offset, length = self.place()
        self.node.write_zeroes(offset, length, unmap=unmap)
        self.content[offset : offset + length] = bytes(length)

    def discard(self) -> None:
        """Discard: whole clusters read as zeroes then, in most formats."""
        offset, length = self.place()
        self.node.discard(offset, length)
        if not self.forgets_what_it_discards():
            return
        cluster, size, end = self.cluster_size, len(self.content), offset + length
        first = -(-offset // cluster) * cluster
        last = size if end == size else end // cluster * cluster
        if first < last:
            self.content[first:last] = bytes(last - first)

    def compress(self) -> None:
        """Write one cluster compressed."""
        driver = self.node.driver
        assert isinstance(driver, Compressing)
        offset = self.place()[0] // self.cluster_size * self.cluster_size
        # Beyond the end of the image, as everywhere, are zeroes.
        data = noise(self.rng, min(self.cluster_size, len(self.content) - offset)).ljust(self.cluster_size, b"\0")
        payload = driver.compressor()(data)
        if payload is None:
            return
        driver.pwrite_compressed(offset, payload)
        self.content[offset : offset + len(data)] = data[: len(self.content) - offset]

    def flush(self) -> None:
        """Flush."""
        self.node.flush()
        self.flushed = bytes(self.content)

    def reopen(self) -> None:
        """Close and open again."""
        self.node.close()
        self.node = self.open()
        self.flushed = bytes(self.content)

    def open_again(self) -> None:
        """Open it where :meth:`reopen` has closed it, and failed then."""
        if self.node.closed:
            self.node = self.open()
