"""vhost-user's messages: a header of 12 bytes, a payload by the request's kind, and descriptors beside the bytes."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from hostel.codec.record import Record, u16, u32, u64
from hostel.errors import InvalidImage, RemoteProtocolError

HEADER: Final = struct.Struct("<III")  # request, flags, bytes of payload
U64: Final = struct.Struct("<Q")
_VERSION: Final = 1
_VERSION_MASK: Final = 3
_REPLY: Final = 4
_NEED_REPLY: Final = 8
MAX_PAYLOAD: Final = 4096
MAX_DESCRIPTORS: Final = 8  # that come with one message
MAX_REGIONS: Final = 8  # of a memory table
MAX_CONFIG: Final = 256  # bytes of a configuration space

PROTOCOL_FEATURES: Final = 1 << 30  # among virtio's features: those of the protocol are agreed on too
NO_DESCRIPTOR: Final = 1 << 8  # in what names a queue's eventfd
VRING_MASK: Final = 0xFF


class Request(enum.IntEnum):
    """What the front end asks for."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38


class BackendRequest(enum.IntEnum):
    """What the back end asks for, on a channel of its own."""

    CONFIG_CHANGE_MSG = 2


class ProtocolFeature(enum.IntFlag):
    """What both ends agree on beside virtio."""

    MQ = 1 << 0
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    CONFIGURE_MEM_SLOTS = 1 << 15


class MemoryRegion(Record, endian="little"):
    """A range of the guest's memory, whose descriptor comes beside it.

    ``user`` is its address in the front end; ``offset`` is where in the descriptor's file it begins.
    """

    guest: u64
    size: u64
    user: u64
    offset: u64


class VringState(Record, endian="little"):
    """A queue, and a number that is said of it."""

    index: u32
    number: u32


class VringAddress(Record, endian="little"):
    """Where a queue's tables are, in the front end's addresses."""

    index: u32
    flags: u32
    descriptors: u64
    used: u64
    available: u64
    log: u64


class Inflight(Record, endian="little"):
    """A buffer that the front end keeps for its back ends, for the queues that are named; sizes in bytes."""

    mmap_size: u64
    mmap_offset: u64
    num_queues: u16
    queue_size: u16


class ConfigSpace(Record, endian="little"):
    """A part of the configuration space; its bytes follow."""

    offset: u32
    size: u32
    flags: u32


class Message(NamedTuple):
    """A message as it was received.

    Attributes:
        request: a :class:`Request`, or a number that is none of ours.
        needs_reply: an answer is wanted even where the request has none of its own.
    """

    request: int
    needs_reply: bool
    payload: bytes
    descriptors: tuple[int, ...] = ()

    def u64(self) -> int:
        """The payload, where it is a number.

        Raises:
            RemoteProtocolError: it is of another length.
        """
        if len(self.payload) != U64.size:
            raise self.malformed()
        return int(U64.unpack(self.payload)[0])

    def state(self) -> VringState:
        """The payload, where it is a queue's state."""
        if len(self.payload) != VringState.SIZE:
            raise self.malformed()
        return VringState.unpack(self.payload)

    def address(self) -> VringAddress:
        """The payload, where it is the addresses of a queue."""
        if len(self.payload) != VringAddress.SIZE:
            raise self.malformed()
        return VringAddress.unpack(self.payload)

    def config(self) -> tuple[ConfigSpace, bytes]:
        """The payload, where it is a part of the configuration space."""
        try:
            head = ConfigSpace.unpack(self.payload)
        except InvalidImage:
            raise self.malformed() from None
        data = self.payload[ConfigSpace.SIZE :]
        if head.size > MAX_CONFIG or head.offset > MAX_CONFIG or len(data) != head.size:
            raise self.malformed()
        return head, data

    def inflight(self) -> Inflight:
        """The payload, where it is a buffer; QEMU's ends with bytes that mean nothing."""
        if len(self.payload) not in (Inflight.SIZE, Inflight.SIZE + 4):
            raise self.malformed()
        return Inflight.unpack(self.payload)

    def regions(self) -> list[MemoryRegion]:
        """The payload, where it is a memory table: a number, then so many regions."""
        count = struct.unpack_from("<I", self.payload)[0] if len(self.payload) >= 8 else 0
        if not 0 < count <= MAX_REGIONS or len(self.payload) != 8 + count * MemoryRegion.SIZE:
            raise self.malformed()
        return [MemoryRegion.unpack(self.payload, 8 + index * MemoryRegion.SIZE) for index in range(count)]

    def region(self) -> MemoryRegion:
        """The payload, where it is one region, after 8 bytes that mean nothing."""
        if len(self.payload) != 8 + MemoryRegion.SIZE:
            raise self.malformed()
        return MemoryRegion.unpack(self.payload, 8)

    def malformed(self) -> RemoteProtocolError:
        """The error that a payload of the wrong length is."""
        return RemoteProtocolError(f"{name(self.request)} has a payload of {len(self.payload)} bytes, which is wrong")


def read_header(data: bytes) -> tuple[int, bool, int]:
    """Take a header apart: the request, whether it needs a reply, and the bytes of its payload.

    Raises:
        RemoteProtocolError: it is of another version, or too long.
    """
    request, flags, size = HEADER.unpack(data)
    if flags & _VERSION_MASK != _VERSION or flags & _REPLY:
        raise RemoteProtocolError(f"a message has the flags {flags:#x}")
    if size > MAX_PAYLOAD:
        raise RemoteProtocolError(f"{name(request)} has {size} bytes of payload")
    return request, bool(flags & _NEED_REPLY), size


def reply(request: int, payload: bytes) -> bytes:
    """The answer to a request."""
    return HEADER.pack(request, _VERSION | _REPLY, len(payload)) + payload


def send(request: int, payload: bytes = b"", *, needs_reply: bool = False) -> bytes:
    """A request of our own."""
    return HEADER.pack(request, _VERSION | (_NEED_REPLY if needs_reply else 0), len(payload)) + payload


def name(request: int) -> str:
    """How a request is called in messages."""
    try:
        return Request(request).name
    except ValueError:
        return f"request {request}"
