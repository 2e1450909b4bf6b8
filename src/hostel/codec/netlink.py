"""Messages of netlink and their attributes: a header, a body, and lengths with kinds in front of values (netlink(7)).

All numbers are in the order of the host's bytes.

>>> [*attributes(attribute(3, b"eth0"))]
[(3, b'eth0')]
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

ERROR: Final = 2  # NLMSG_ERROR: an error's number, or 0 for what went well
REQUEST, ACKNOWLEDGE = 0x1, 0x4  # NLM_F_REQUEST, NLM_F_ACK
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr
_NESTED: Final = 0x8000  # NLA_F_NESTED
_KIND: Final = 0x3FFF  # NLA_TYPE_MASK


class Message(NamedTuple):
    """A message.

    Attributes:
        kind: what it is.
        sequence: the number by which an answer is known.
        body: what follows its header.
    """

    kind: int
    sequence: int
    body: bytes


def pack(message: Message, *, flags: int, sender: int) -> bytes:
    """A message as bytes; ``sender`` is the port that the answer goes to."""
    return _HEADER.pack(_HEADER.size + len(message.body), message.kind, flags, message.sequence, sender) + message.body


def unpack(data: bytes) -> Message:
    """The first message of what was received.

    Raises:
        ValueError: it is none.
    """
    if len(data) < _HEADER.size:
        raise ValueError("malformed netlink response message")
    length, kind, _, sequence, _ = _HEADER.unpack_from(data)
    if not _HEADER.size <= length <= len(data):
        raise ValueError("malformed netlink response message")
    return Message(kind, sequence, data[_HEADER.size : length])


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute as bytes, filled up to what the next one is aligned to."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, *inner: bytes) -> bytes:
    """An attribute that has others in it."""
    return attribute(kind | _NESTED, b"".join(inner))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a body, with their kinds.

    Raises:
        ValueError: the lengths are wrong.
    """
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise ValueError("malformed netlink attribute")
        yield kind & _KIND, data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
