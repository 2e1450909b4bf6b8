"""virtio-blk (virtio 1.2, section 5.2): features, the configuration space, requests."""

from __future__ import annotations

import enum
import struct
from typing import Final

from hostel.codec.record import Record, u8, u16, u32, u64

REQUEST: Final = struct.Struct("<IIQ")  # type, reserved, sector
RANGE: Final = struct.Struct("<QII")  # sector, sectors, flags: what is discarded or zeroed
BARRIER: Final = 0x80000000  # a flag of the type, from before there were flushes; it means nothing
UNMAP: Final = 1  # a flag of a range
ID_BYTES: Final = 20  # of a disk's name
MAX_SEGMENTS: Final = 126  # buffers of data in a request
MAX_RANGE: Final = 32768  # sectors that one request discards or zeroes


class Feature(enum.IntFlag):
    """What device and driver agree on; the last ones are every virtio device's."""

    SIZE_MAX = 1 << 1
    SEG_MAX = 1 << 2
    GEOMETRY = 1 << 4
    RO = 1 << 5
    BLK_SIZE = 1 << 6
    FLUSH = 1 << 9
    TOPOLOGY = 1 << 10
    CONFIG_WCE = 1 << 11
    MQ = 1 << 12
    DISCARD = 1 << 13
    WRITE_ZEROES = 1 << 14
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32


class RequestType(enum.IntEnum):
    """What a request wants."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class Status(enum.IntEnum):
    """The byte that ends a request."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


class Config(Record, endian="little"):
    """The configuration space; ``capacity`` and the discard and zero fields in sectors, sizes in bytes."""

    capacity: u64
    size_max: u32
    seg_max: u32
    cylinders: u16
    heads: u8
    sectors: u8
    blk_size: u32
    physical_block_exp: u8
    alignment_offset: u8
    min_io_size: u16
    opt_io_size: u32
    wce: u8
    unused0: u8
    num_queues: u16
    max_discard_sectors: u32
    max_discard_seg: u32
    discard_sector_alignment: u32
    max_write_zeroes_sectors: u32
    max_write_zeroes_seg: u32
    write_zeroes_may_unmap: u8
    unused1: u8
    unused2: u16
