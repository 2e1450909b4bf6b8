"""What lies where in a qed image ("Header" and "Tables" in the specification). All numbers are little-endian."""

from __future__ import annotations

import enum
from typing import Final

from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say
from hostel.codec.record import Record, u32, u64
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, KiB, MiB

MAGIC: Final = b"QED\0"
DEFAULT_CLUSTER: Final = 64 * KiB
MIN_CLUSTER: Final = 4 * KiB
MAX_CLUSTER: Final = 64 * MiB
DEFAULT_TABLE: Final = 4  # clusters
MIN_TABLE: Final = 1
MAX_TABLE: Final = 16
MAX_BACKING_NAME: Final = 1023  # bytes: QEMU keeps names in 1024
ZERO_CLUSTER: Final = 1  # an L2 entry: reads as zeroes, has no place


class Feature(enum.IntFlag):
    """Bits without which an image must not be opened."""

    NONE = 0
    BACKING_FILE = 1
    NEED_CHECK = 2  # was not closed properly
    BACKING_FORMAT_NO_PROBE = 4  # the backing file is raw

    KNOWN = 7


class Header(Record, endian="little"):
    """The header, at the start of the file."""

    magic: u32
    cluster_size: u32  # bytes
    table_size: u32  # clusters, of L1 and L2 tables
    header_size: u32  # clusters
    features: u64
    compat_features: u64
    autoclear_features: u64
    l1_table_offset: u64  # bytes
    image_size: u64  # bytes
    backing_filename_offset: u32  # bytes
    backing_filename_size: u32  # bytes

    @property
    def table_bytes(self) -> int:
        """Bytes of a table."""
        return self.table_size * self.cluster_size

    @property
    def table_entries(self) -> int:
        """Entries of a table."""
        return self.table_bytes // 8

    @property
    def header_bytes(self) -> int:
        """Bytes in front of the first regular cluster."""
        return self.header_size * self.cluster_size

    @property
    def l1_entries(self) -> int:
        """Entries of the L1 table that the image needs."""
        return -(-self.image_size // (self.table_entries * self.cluster_size))

    def is_cluster(self, offset: int, end: int) -> bool:
        """Whether a cluster can lie at a host offset, in a file of which whole clusters reach to ``end``."""
        return not offset % self.cluster_size and self.header_bytes <= offset < end

    def is_table(self, offset: int, end: int) -> bool:
        """Whether a table can lie at a host offset."""
        return self.is_cluster(offset, end) and offset + self.table_bytes <= end

    def is_in_l1(self, offset: int, length: int) -> bool:
        """Whether a range of bytes lies on the L1 table: what is written there is taken for places of tables."""
        return offset < self.l1_table_offset + self.table_bytes and self.l1_table_offset < offset + length


def max_image_size(cluster_size: int, table_size: int) -> int:
    """The virtual size that tables of a size can map, bytes."""
    entries = table_size * cluster_size // 8
    return entries * entries * cluster_size


def is_size(image_size: int, cluster_size: int, table_size: int) -> bool:
    """Whether an image can have a virtual size."""
    limit = min(INT64_MAX, max_image_size(cluster_size, table_size))
    return not image_size % SECTOR and image_size <= limit


def is_power(value: int, low: int, high: int) -> bool:
    """Whether a value is a power of two within bounds."""
    return low <= value <= high and not value & (value - 1)


def whole_clusters(file: BlockNode, header: Header) -> int:
    """Where the last whole cluster of the file ends, bytes; a file has whole sectors, as QEMU sees it."""
    length = -(-file.length // SECTOR) * SECTOR
    return length - length % header.cluster_size


def read_header(file: BlockNode) -> Header:
    """Read and check the header, in QEMU's order and words.

    Raises:
        InvalidImage: it is malformed.
        UnsupportedFeature: it has features that nobody knows.
        BlockError: it cannot be read.
    """
    if file.length < Header.SIZE:
        raise InvalidImage("Image not in QED format")
    header = Header.unpack(read_or_say(file, 0, Header.SIZE, "Failed to read QED header", reason=False))
    if header.magic != int.from_bytes(MAGIC, "little"):
        raise InvalidImage("Image not in QED format")
    unknown = header.features & ~int(Feature.KNOWN)
    if unknown:
        raise UnsupportedFeature(f"Unsupported QED features: {unknown:x}")
    if not is_power(header.cluster_size, MIN_CLUSTER, MAX_CLUSTER):
        raise InvalidImage("QED cluster size is invalid")
    if not is_power(header.table_size, MIN_TABLE, MAX_TABLE):
        raise InvalidImage("QED table size is invalid")
    if not is_size(header.image_size, header.cluster_size, header.table_size):
        raise InvalidImage("QED image size is invalid")
    if not header.is_table(header.l1_table_offset, whole_clusters(file, header)):
        raise InvalidImage("QED table offset is invalid")
    if header.header_bytes >= 1 << 32:
        raise InvalidImage("QED header size is too large")
    return header


def read_backing_name(file: BlockNode, header: Header) -> str | None:
    """The backing file's name; None where there is none.

    Raises:
        InvalidImage: it is too long, or does not lie in front of the first regular cluster.
        BlockError: it cannot be read.
    """
    if not header.features & Feature.BACKING_FILE:
        return None
    offset, length = header.backing_filename_offset, header.backing_filename_size
    if offset + length > header.header_bytes or offset + length > file.length:
        raise InvalidImage("QED backing filename offset is invalid")
    if length > MAX_BACKING_NAME:
        raise InvalidImage(
            "Failed to read backing filename", hint=f"It has {length} bytes, and may have {MAX_BACKING_NAME}."
        )
    name = read_or_say(file, offset, length, "Failed to read backing filename", reason=False)
    return name.split(b"\0")[0].decode(errors="surrogateescape") or None  # an empty one is none, as to QEMU
