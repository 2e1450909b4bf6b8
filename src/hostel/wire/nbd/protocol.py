"""Numbers, layouts and limits of NBD. Names are those of ``doc/proto.md`` without ``NBD_`` and its kin."""

from __future__ import annotations

import enum
import errno
import struct
from typing import Final, NamedTuple

from hostel.units import KiB, MiB

DEFAULT_PORT: Final = 10809

GREETING_MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OLDSTYLE_MAGIC: Final = 0x0000420281861253
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
EXTENDED_REQUEST_MAGIC: Final = 0x21E41C71
SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF
EXTENDED_REPLY_MAGIC: Final = 0x6E8A278C

GREETING: Final = struct.Struct(">QQH")  # magic, option magic, handshake flags
OPTION: Final = struct.Struct(">QII")  # magic, option, length of the data
OPTION_REPLY: Final = struct.Struct(">QIII")  # magic, option, type, length of the data
EXPORT: Final = struct.Struct(">QH")  # size, transmission flags
BLOCK_SIZES: Final = struct.Struct(">III")  # minimum, preferred, maximum
REQUEST: Final = struct.Struct(">IHHQQI")  # magic, flags, type, cookie, offset, length
EXTENDED_REQUEST: Final = struct.Struct(">IHHQQQ")
SIMPLE_REPLY: Final = struct.Struct(">IIQ")  # magic, error, cookie
STRUCTURED_REPLY: Final = struct.Struct(">IHHQI")  # magic, flags, type, cookie, length of the payload
EXTENDED_REPLY: Final = struct.Struct(">IHHQQQ")  # magic, flags, type, cookie, offset, length of the payload
Struct = struct.Struct
# A reply's header with what comes before the data of a read, whose place it is.
STRUCTURED_DATA: Final = struct.Struct(">IHHQIQ")
EXTENDED_DATA: Final = struct.Struct(">IHHQQQQ")
# The same replies after their magic, which tells them apart.
SIMPLE_REPLY_REST: Final = struct.Struct(">IQ")
STRUCTURED_REPLY_REST: Final = struct.Struct(">HHQI")
EXTENDED_REPLY_REST: Final = struct.Struct(">HHQQQ")
U16: Final = struct.Struct(">H")
U32: Final = struct.Struct(">I")
U64: Final = struct.Struct(">Q")
HOLE: Final = struct.Struct(">QI")  # offset, length
ERROR: Final = struct.Struct(">IH")  # error, length of the message
STATUS: Final = struct.Struct(">II")  # length, flags
EXTENDED_STATUS: Final = struct.Struct(">QQ")
RESERVED: Final = 124  # zero bytes after an export's flags, unless both sides have said NO_ZEROES

MAX_STRING: Final = 4096  # bytes of a name, a description or a query: the protocol's limit
PREFERRED: Final = 4 * KiB  # bytes of which requests are best multiples, as QEMU's server says
MAX_PAYLOAD: Final = 32 * MiB  # bytes of one read or write: what every client may expect, and QEMU's limit
MAX_OPTION: Final = 32 * MiB  # bytes of an option's data that are read over; a longer one ends the connection
MAX_OPTION_KEPT: Final = 256 * KiB  # bytes of an option's data that are looked at
MAX_STATUS: Final = 128 * KiB  # extents in one reply to BLOCK_STATUS


class HandshakeFlag(enum.IntFlag):
    """``NBD_FLAG_*`` of the greeting, and ``NBD_FLAG_C_*`` of its answer."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(enum.IntEnum):
    """``NBD_OPT_*``."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


OPTION_TEXTS: Final[dict[int, str]] = {option.value: option.name.lower().replace("_", " ") for option in Option}


class Answer(enum.IntEnum):
    """``NBD_REP_*``: the types of answers to options."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009
    ERR_EXT_HEADER_REQD = 0x8000000A


ANSWER_IS_ERROR: Final = 0x80000000
ANSWER_TEXTS: Final[dict[int, str]] = {
    Answer.ACK: "ack",
    Answer.SERVER: "server",
    Answer.INFO: "info",
    Answer.META_CONTEXT: "meta context",
    Answer.ERR_UNSUP: "unsupported",
    Answer.ERR_POLICY: "denied by policy",
    Answer.ERR_INVALID: "invalid",
    Answer.ERR_PLATFORM: "platform lacks support",
    Answer.ERR_TLS_REQD: "TLS required",
    Answer.ERR_UNKNOWN: "export unknown",
    Answer.ERR_SHUTDOWN: "server shutting down",
    Answer.ERR_BLOCK_SIZE_REQD: "block size required",
    Answer.ERR_TOO_BIG: "option payload too big",
    Answer.ERR_EXT_HEADER_REQD: "extended headers required",
}


class Info(enum.IntEnum):
    """``NBD_INFO_*``."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class ExportFlag(enum.IntFlag):
    """``NBD_FLAG_*`` of an export: what may be done with it."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11
    BLOCK_STATUS_PAYLOAD = 1 << 12


class Command(enum.IntEnum):
    """``NBD_CMD_*``."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


COMMAND_TEXTS: Final[dict[int, str]] = {
    command.value: command.name.lower().replace("_", " ").replace("disc", "disconnect") for command in Command
}


class CommandFlag(enum.IntFlag):
    """``NBD_CMD_FLAG_*``."""

    NONE = 0
    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4
    PAYLOAD_LEN = 1 << 5


class Chunk(enum.IntEnum):
    """``NBD_REPLY_TYPE_*``: the types of a structured reply's chunks."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


CHUNK_IS_ERROR: Final = 0x8000
CHUNK_DONE: Final = 1  # NBD_REPLY_FLAG_DONE: the last chunk of a reply

# Flags of an extent, by context.
STATE_HOLE: Final = 1  # base:allocation: no space is allocated
STATE_ZERO: Final = 2  # base:allocation: reads as zeroes
STATE_DIRTY: Final = 1  # qemu:dirty-bitmap:*
BASE_ALLOCATION: Final = "base:allocation"
ALLOCATION_DEPTH: Final = "qemu:allocation-depth"
DIRTY_BITMAP: Final = "qemu:dirty-bitmap:"

# NBD's errors are Linux's numbers, but only these; ENOTSUP is EOPNOTSUPP's 95 there.
_WIRE_ERRORS: Final = frozenset(
    {
        errno.EPERM,
        errno.EIO,
        errno.ENOMEM,
        errno.EINVAL,
        errno.ENOSPC,
        errno.EOVERFLOW,
        errno.ENOTSUP,
        errno.ESHUTDOWN,
    }
)
_NEAREST: Final = {
    errno.EROFS: errno.EPERM,
    errno.EACCES: errno.EPERM,
    errno.EDQUOT: errno.ENOSPC,
    errno.EFBIG: errno.ENOSPC,
}


def to_wire_error(code: int | None) -> int:
    """NBD's error for an errno of this host; one that it has no number for is EIO.

    QEMU says EINVAL for those, which tells the client that it did something wrong.
    """
    code = _NEAREST.get(code or 0, code)
    return code if code in _WIRE_ERRORS else errno.EIO


def from_wire_error(code: int) -> int:
    """The errno for an error that a server sent; an unknown one is EINVAL, as the protocol asks for."""
    return code if code in _WIRE_ERRORS else errno.EINVAL


def option_text(number: int) -> str:
    """An option as QEMU's messages show it: ``7 (go)``."""
    return f"{number} ({OPTION_TEXTS.get(number, '<unknown>')})"


def answer_text(number: int) -> str:
    """An answer's type as QEMU's messages show it: ``1 (ack)``."""
    return f"{number} ({ANSWER_TEXTS.get(number, '<unknown>')})"


def command_text(number: int) -> str:
    """A command's name, for messages."""
    return COMMAND_TEXTS.get(number, "<unknown>")


class Offer(NamedTuple):
    """An export as the handshake presents it.

    Attributes:
        size: bytes.
        minimum: bytes; requests are of multiples of it.
        preferred: bytes; multiples of it are fast.
        maximum: bytes of one read or write.
        contexts: names of the meta contexts that can be asked for; a context's id is its place here.
    """

    name: str
    size: int
    flags: ExportFlag
    description: str | None = None
    minimum: int = 1
    preferred: int = PREFERRED
    maximum: int = MAX_PAYLOAD
    contexts: tuple[str, ...] = ()
