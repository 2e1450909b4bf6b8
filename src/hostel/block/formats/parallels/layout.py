"""What lies where in a parallels image ("Header" and "BAT" in the specification). All numbers are little-endian."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Annotated, Final

from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.codec.record import Record, u32, u64
from hostel.errors import BlockError, InvalidImage
from hostel.units import INT64_MAX, SECTOR, MiB

MAGIC: Final = b"WithoutFreeSpace"  # entries of the table count sectors
MAGIC_EXTENDED: Final = b"WithouFreSpacExt"  # they count clusters
VERSION: Final = 2
IN_USE: Final = 0x746F6E59
CLOSED: Final = 0x312E3276  # closed by a program that knows of the format extension
DEFAULT_CLUSTER: Final = MiB
_HEADS: Final = 16
_SECTORS_PER_CYLINDER: Final = 32
_MAX_TRACKS: Final = (2**31 - 1) // 513  # sectors of a cluster, as in QEMU
_MAX_ENTRIES: Final = (2**31 - 1) // 4
_MAX_FACTOR: Final = 1 << 32  # clusters of an image


class Header(Record, endian="little"):
    """The header, at the start of the file; the table follows."""

    magic: Annotated[bytes, 16]
    version: u32
    heads: u32
    cylinders: u32
    tracks: u32  # sectors of a cluster
    bat_entries: u32
    nb_sectors: u64
    inuse: u32
    data_off: u32  # sectors
    flags: u32
    ext_off: u64  # sectors

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return self.tracks * SECTOR

    @property
    def unit(self) -> int:
        """Bytes that an entry of the table counts."""
        return self.cluster_size if self.magic == MAGIC_EXTENDED else SECTOR

    @property
    def size(self) -> int:
        """The virtual size in bytes."""
        sectors = self.nb_sectors if self.magic == MAGIC_EXTENDED else self.nb_sectors & 0xFFFFFFFF
        return sectors * SECTOR

    @property
    def table_end(self) -> int:
        """Bytes of the header and the table."""
        return self.SIZE + 4 * self.bat_entries

    @property
    def data_start(self) -> int:
        """Where the first cluster can lie, bytes: never over the table, and where an entry can say so."""
        start = max(self.data_off * SECTOR, -(-self.table_end // SECTOR) * SECTOR)
        return -(-start // self.unit) * self.unit


def read_header(file: BlockNode) -> Header:
    """Read and check the header, in QEMU's order and words.

    Raises:
        InvalidImage: it is malformed.
    """
    if file.length < Header.SIZE:
        raise InvalidImage("Image not in Parallels format")
    header = Header.unpack(file.read(0, Header.SIZE))
    if header.version != VERSION or header.magic not in (MAGIC, MAGIC_EXTENDED):
        raise InvalidImage("Image not in Parallels format")
    if not header.tracks:
        raise InvalidImage("Invalid image: Zero sectors per track")
    if header.tracks > _MAX_TRACKS:
        raise InvalidImage("Invalid image: Too big cluster", errno=errno.EFBIG)
    if header.bat_entries > _MAX_ENTRIES:
        raise InvalidImage("Catalog too large", errno=errno.EFBIG)
    if header.size > INT64_MAX:
        raise InvalidImage("Image is too big", errno=errno.EFBIG)
    if header.table_end > file.length:
        raise InvalidImage("The catalog lies beyond the end of the file: the image is truncated")
    return header


def plan(size: int, options: Mapping[str, Value]) -> Header:
    """The header of a new image.

    Raises:
        BlockError: the size or the cluster size is none that an image can have.
    """
    size = -(-size // SECTOR) * SECTOR
    cluster_size = -(-int(options.get("cluster_size", DEFAULT_CLUSTER)) // SECTOR) * SECTOR
    if cluster_size >= INT64_MAX // _MAX_FACTOR:
        raise BlockError("Cluster size is too large", errno=errno.EINVAL)
    if size >= _MAX_FACTOR * cluster_size:
        raise BlockError("Image size is too large for this cluster size", errno=errno.E2BIG)
    entries = -(-size // cluster_size)
    if entries > _MAX_ENTRIES:
        raise BlockError("Image size is too large for this cluster size", errno=errno.E2BIG)
    clusters = -(-(Header.SIZE + 4 * entries) // cluster_size)
    return Header(
        magic=MAGIC_EXTENDED,
        version=VERSION,
        heads=_HEADS,
        cylinders=size // SECTOR // _HEADS // _SECTORS_PER_CYLINDER & 0xFFFFFFFF,
        tracks=cluster_size // SECTOR,
        bat_entries=entries,
        nb_sectors=size // SECTOR,
        inuse=0,
        data_off=clusters * cluster_size // SECTOR,
        flags=0,
        ext_off=0,
    )
