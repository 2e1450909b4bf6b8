"""The types of objects and of character devices, as QEMU's object model has them: parents, properties, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hostel.block.filters.throttle import PROPERTIES

_INT: Final = "int"
_TEXT: Final = "string"


class Property(NamedTuple):
    """A property of a type.

    Attributes:
        default: what it is where nothing was said.
        settable: it can be changed once the object is there.
    """

    name: str
    type: str
    default: Any = ""
    settable: bool = False


class Type(NamedTuple):
    """A type.

    Attributes:
        parent: the one that it is a kind of; None for none.
        properties: its own, beside those of its parents.
    """

    parent: str | None
    properties: tuple[Property, ...] = ()
    abstract: bool = False
    creatable: bool = False


_SECRET: Final = (
    Property("iv", _TEXT, settable=True),
    Property("keyid", _TEXT, settable=True),
    Property("loaded", "bool", True),
    Property("format", "QCryptoSecretFormat", "raw", settable=True),
)
_TLS: Final = (
    Property("endpoint", "QCryptoTLSCredsEndpoint", "client"),
    Property("dir", _TEXT),
    Property("verify-peer", "bool", True),
    Property("priority", _TEXT),
)
_SOCKET: Final = (Property("connected", "bool", False), Property("addr", "SocketAddress", None))
TYPES: Final[Mapping[str, Type]] = {
    "object": Type(None, (Property("type", _TEXT),), abstract=True),
    "container": Type("object"),
    "authz": Type("object", abstract=True),
    "authz-simple": Type("authz", (Property("identity", _TEXT, settable=True),), creatable=True),
    "authz-list": Type(
        "authz",
        (
            Property("policy", "QAuthZListPolicy", "deny", settable=True),
            Property("rules", "QAuthZListRule", [], settable=True),
        ),
        creatable=True,
    ),
    "authz-list-file": Type("authz", (Property("filename", _TEXT), Property("refresh", "bool", True)), creatable=True),
    "event-loop-base": Type(
        "object",
        (
            Property("thread-pool-min", _INT, 0, settable=True),
            Property("aio-max-batch", _INT, 0, settable=True),
            Property("thread-pool-max", _INT, 64, settable=True),
        ),
        abstract=True,
        creatable=True,
    ),
    "iothread": Type(
        "event-loop-base",
        (
            Property("poll-max-ns", _INT, 32768, settable=True),
            Property("poll-grow", _INT, 0, settable=True),
            Property("poll-shrink", _INT, 0, settable=True),
        ),
        creatable=True,
    ),
    "secret_common": Type("object", _SECRET, abstract=True, creatable=True),
    "secret": Type(
        "secret_common",
        (Property("file", _TEXT, settable=True), Property("data", _TEXT, settable=True)),
        creatable=True,
    ),
    "throttle-group": Type(
        "object",
        (
            *(Property(f"x-{name}", _INT) for name in PROPERTIES),
            Property("limits", "ThrottleLimits", settable=True),
        ),
        creatable=True,
    ),
    "tls-creds": Type("object", _TLS, abstract=True),
    "tls-creds-x509": Type(
        "tls-creds",
        (Property("sanity-check", "bool", True), Property("passwordid", _TEXT), Property("loaded", "bool", True)),
        creatable=True,
    ),
    "chardev": Type("object", abstract=True),
    "chardev-fd": Type("chardev", abstract=True),
    "chardev-file": Type("chardev-fd"),
    "chardev-memory": Type("chardev-ringbuf"),
    "chardev-null": Type("chardev"),
    "chardev-pipe": Type("chardev-fd"),
    "chardev-pty": Type("chardev"),
    "chardev-ringbuf": Type("chardev"),
    "chardev-socket": Type("chardev", _SOCKET),
    "chardev-stdio": Type("chardev-fd"),
}
# What command lines call by another name than the object model.
SPELLED: Final = {"authz-listfile": "authz-list-file"}


def properties(name: str) -> dict[str, Property]:
    """All properties of a type, those of its parents too."""
    row = TYPES[name]
    inherited = {} if row.parent is None else properties(row.parent)
    return {**inherited, **{each.name: each for each in row.properties}}


def is_a(name: str, ancestor: str) -> bool:
    """Whether a type is another one, or a kind of it."""
    kind: str | None = name
    while kind is not None:
        if kind == ancestor:
            return True
        kind = TYPES[kind].parent
    return False
