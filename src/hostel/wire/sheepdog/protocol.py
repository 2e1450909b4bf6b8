"""Numbers, layouts and limits of Sheepdog, as its ``sheepdog_proto.h`` has them; everything is little-endian."""

from __future__ import annotations

import enum
import errno
from typing import Annotated, Final

from hostel.codec.record import Record, u8, u16, u32, u64

VERSION: Final = 1  # with 2, servers leave out zeroes from what is read
SERVERS_VERSION: Final = 0x0A  # of the protocol between servers
DEFAULT_PORT: Final = 7000
MAX_NAME: Final = 256  # bytes of a name or a tag, with a NUL where it is shorter
MAX_OBJECTS: Final = 1 << 20  # of a disk
MIN_OBJECT_BITS: Final = 20
MAX_OBJECT_BITS: Final = 31
DEFAULT_OBJECT_BITS: Final = 22
TABLE_OFFSET: Final = 4664  # of the table in the inode
ENTRY_SIZE: Final = 4
MAX_VDIS: Final = 1 << 24  # of a cluster, snapshots among them
VDIS_LENGTH: Final = MAX_VDIS // 8  # bytes of what READ_VDIS answers: a bit for each that there is, the lowest first
MAX_STRIPS: Final = 16  # of data with erasure coding
MAX_COPIES: Final = 2 * MAX_STRIPS - 1
_HASH_START: Final = 0xCBF29CE484222325
_HASH_PRIME: Final = 0x100000001B3
_INODE_BIT: Final = 1 << 63
_VDI_SHIFT: Final = 32


class Op(enum.IntEnum):
    """``SD_OP_*``, as far as a client of a disk needs them."""

    CREATE_AND_WRITE = 0x01
    READ = 0x02
    WRITE = 0x03
    NEW_VDI = 0x11
    LOCK_VDI = 0x12
    RELEASE_VDI = 0x13
    GET_VDI_INFO = 0x14
    READ_VDIS = 0x15
    FLUSH_VDI = 0x16
    DELETE_VDI = 0x17
    GET_CLUSTER_DEFAULT = 0x18
    READ_DELETED_VDIS = 0xC9  # of the protocol between servers


class Flag(enum.IntFlag):
    """``SD_FLAG_CMD_*``."""

    NONE = 0
    WRITE = 0x01  # data comes with the request
    COW = 0x02  # what is not written is copied from another object
    CACHE = 0x04
    DIRECT = 0x08


class Result(enum.IntEnum):
    """``SD_RES_*``."""

    SUCCESS = 0x00
    UNKNOWN = 0x01
    NO_OBJECT = 0x02
    EIO = 0x03
    VDI_EXISTS = 0x04
    INVALID_PARAMETERS = 0x05
    SYSTEM_ERROR = 0x06
    VDI_LOCKED = 0x07
    NO_VDI = 0x08
    NO_BASE_VDI = 0x09
    VDI_READ = 0x0A
    VDI_WRITE = 0x0B
    BASE_VDI_READ = 0x0C
    BASE_VDI_WRITE = 0x0D
    NO_TAG = 0x0E
    STARTUP = 0x0F
    VDI_NOT_LOCKED = 0x10
    SHUTDOWN = 0x11
    NO_MEMORY = 0x12
    FULL_VDI = 0x13
    VERSION_MISMATCH = 0x14
    NO_SPACE = 0x15
    WAIT_FOR_FORMAT = 0x16
    WAIT_FOR_JOIN = 0x17
    JOIN_FAILED = 0x18
    HALT = 0x19
    READ_ONLY = 0x1A


# What QEMU said of them.
_TEXTS: Final = {
    Result.SUCCESS: "Success",
    Result.UNKNOWN: "Unknown error",
    Result.NO_OBJECT: "No object found",
    Result.EIO: "I/O error",
    Result.VDI_EXISTS: "VDI exists already",
    Result.INVALID_PARAMETERS: "Invalid parameters",
    Result.SYSTEM_ERROR: "System error",
    Result.VDI_LOCKED: "VDI is already locked",
    Result.NO_VDI: "No vdi found",
    Result.NO_BASE_VDI: "No base VDI found",
    Result.VDI_READ: "Failed read the requested VDI",
    Result.VDI_WRITE: "Failed to write the requested VDI",
    Result.BASE_VDI_READ: "Failed to read the base VDI",
    Result.BASE_VDI_WRITE: "Failed to write the base VDI",
    Result.NO_TAG: "Failed to find the requested tag",
    Result.STARTUP: "The system is still booting",
    Result.VDI_NOT_LOCKED: "VDI isn't locked",
    Result.SHUTDOWN: "The system is shutting down",
    Result.NO_MEMORY: "Out of memory on the server",
    Result.FULL_VDI: "We already have the maximum vdis",
    Result.VERSION_MISMATCH: "Protocol version mismatch",
    Result.NO_SPACE: "Server has no space for new objects",
    Result.WAIT_FOR_FORMAT: "Sheepdog is waiting for a format operation",
    Result.WAIT_FOR_JOIN: "Sheepdog is waiting for other nodes joining",
    Result.JOIN_FAILED: "Target node had failed to join sheepdog",
    Result.HALT: "Sheepdog is stopped serving IO request",
    Result.READ_ONLY: "Object is read-only",
}
_ERRNOS: Final = {
    Result.NO_VDI: errno.ENOENT,
    Result.NO_TAG: errno.ENOENT,
    Result.VDI_LOCKED: errno.EBUSY,
    Result.VDI_EXISTS: errno.EEXIST,
    Result.NO_SPACE: errno.ENOSPC,
    Result.NO_MEMORY: errno.ENOMEM,
    Result.READ_ONLY: errno.EROFS,
}


def result_text(result: int) -> str:
    """What a result means; servers of later versions may have others."""
    return next((text for known, text in _TEXTS.items() if known == result), "Invalid error code")


def result_errno(result: int) -> int:
    """The errno that a result comes down to."""
    return next((code for known, code in _ERRNOS.items() if known == result), errno.EIO)


class ObjectRequest(Record, endian="little"):
    """``struct sd_req`` about an object."""

    version: u8
    op: u8
    flags: u16
    epoch: u32
    id: u32
    data_length: u32
    oid: u64
    cow_oid: u64
    copies: u8
    copy_policy: u8
    ec_index: u8
    reserved: u8
    target_epoch: u32
    offset: u32
    padding: u32


class VdiRequest(Record, endian="little"):
    """``struct sd_req`` about a disk."""

    version: u8
    op: u8
    flags: u16
    epoch: u32
    id: u32
    data_length: u32
    size: u64
    base_id: u32
    copies: u8
    copy_policy: u8
    store_policy: u8
    object_bits: u8
    snapshot_id: u32
    lock_type: u32
    padding: u64


class ReplyHeader(Record, endian="little"):
    """``struct sd_rsp``, whose last bytes mean what the request asked for."""

    version: u8
    op: u8
    flags: u16
    epoch: u32
    id: u32
    data_length: u32
    result: u32
    rest: Annotated[bytes, 28]


class VdiAnswer(Record, endian="little"):
    """The rest of a reply about a disk."""

    reserved: u32
    vdi_id: u32
    attribute_id: u32
    copies: u8
    object_bits: u8
    padding: Annotated[bytes, 14]


class ClusterAnswer(Record, endian="little"):
    """The rest of a reply about what the cluster does where nothing else is asked for."""

    copies: u8
    copy_policy: u8
    object_bits: u8
    padding: Annotated[bytes, 25]


class Inode(Record, endian="little"):
    """The beginning of ``struct sd_inode``."""

    name: Annotated[bytes, 256]
    tag: Annotated[bytes, 256]
    created: u64
    snapshotted: u64  # when; 0 for a disk that is written
    vm_clock_nsec: u64
    size: u64
    vm_state_size: u64
    copy_policy: u8
    store_policy: u8
    copies: u8
    object_bits: u8
    snapshot_id: u32
    vdi_id: u32
    parent_id: u32


def first_vdi_id(name: str) -> int:
    """Where the numbers of the disks and snapshots of a name begin: the low bits of its 64-bit FNV-1a hash."""
    value = _HASH_START
    for byte in name.encode(errors="surrogateescape"):
        value = (value ^ byte) * _HASH_PRIME % 2**64
    return value % MAX_VDIS


def inode_oid(vdi_id: int) -> int:
    """The inode object of a disk."""
    return _INODE_BIT | vdi_id << _VDI_SHIFT


def data_oid(vdi_id: int, index: int) -> int:
    """A data object of a disk."""
    return vdi_id << _VDI_SHIFT | index
