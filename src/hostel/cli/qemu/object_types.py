"""The types of objects and of character devices, as QEMU's object model has them: parents, properties, defaults.

What a command line or a monitor may say of an object, what ``help`` shows of it and what the commands of the object
model tell is all read from here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hostel.block.filters.throttle import PROPERTIES

INT: Final = "int"
SWITCH: Final = "bool"
TEXT: Final = "string"
# The types that are one of several words.
WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "QAuthZListFormat": ("exact", "glob"),
    "QAuthZListPolicy": ("deny", "allow"),
    "QCryptoSecretFormat": ("raw", "base64"),
    "QCryptoTLSCredsEndpoint": ("client", "server"),
}


class Property(NamedTuple):
    """A property of a type.

    Attributes:
        type: as the object model calls it.
        default: what it is where nothing was said.
        settable: it can be changed once the object is there.
        needed: it must be said.
        many: several are said; the type is that of each.
        fixed: whoever says it is told that it cannot be written.
        told: it cannot be said at all.
    """

    name: str
    type: str
    default: Any = ""
    settable: bool = False
    needed: bool = False
    many: bool = False
    fixed: bool = False
    told: bool = False


class Type(NamedTuple):
    """A type.

    Attributes:
        parent: the one that it is a kind of; None for none.
        properties: its own, beside those of its parents, in the order in which QEMU reads them.
    """

    parent: str | None
    properties: tuple[Property, ...] = ()
    abstract: bool = False
    creatable: bool = False


# The types that have members of their own.
MEMBERS: Final[Mapping[str, tuple[Property, ...]]] = {
    "QAuthZListRule": (
        Property("match", TEXT, needed=True),
        Property("policy", "QAuthZListPolicy", needed=True),
        Property("format", "QAuthZListFormat", "exact"),
    ),
    "ThrottleLimits": tuple(Property(name, INT) for name in PROPERTIES),
}
_LOADED: Final = Property("loaded", SWITCH, True, fixed=True)
_SECRET: Final = (
    _LOADED,
    Property("format", "QCryptoSecretFormat", "raw", settable=True),
    Property("keyid", TEXT, settable=True),
    Property("iv", TEXT, settable=True),
)
_TLS: Final = (
    Property("verify-peer", SWITCH, True),
    Property("dir", TEXT),
    Property("endpoint", "QCryptoTLSCredsEndpoint", "client"),
    Property("priority", TEXT),
)
_SOCKET: Final = (Property("connected", SWITCH, False), Property("addr", "SocketAddress", None))
TYPES: Final[Mapping[str, Type]] = {
    "object": Type(None, (Property("type", TEXT, told=True),), abstract=True),
    "container": Type("object"),
    "authz": Type("object", abstract=True),
    "authz-simple": Type("authz", (Property("identity", TEXT, settable=True, needed=True),), creatable=True),
    "authz-list": Type(
        "authz",
        (
            Property("policy", "QAuthZListPolicy", "deny", settable=True),
            Property("rules", "QAuthZListRule", [], settable=True, many=True),
        ),
        creatable=True,
    ),
    "authz-list-file": Type(
        "authz", (Property("filename", TEXT, needed=True), Property("refresh", SWITCH, True)), creatable=True
    ),
    "event-loop-base": Type(
        "object",
        (
            Property("aio-max-batch", INT, 0, settable=True),
            Property("thread-pool-min", INT, 0, settable=True),
            Property("thread-pool-max", INT, 64, settable=True),
        ),
        abstract=True,
        creatable=True,
    ),
    "iothread": Type(
        "event-loop-base",
        (
            Property("poll-max-ns", INT, 32768, settable=True),
            Property("poll-grow", INT, 0, settable=True),
            Property("poll-shrink", INT, 0, settable=True),
        ),
        creatable=True,
    ),
    "main-loop": Type("event-loop-base", creatable=True),
    "pr-manager": Type("object", abstract=True, creatable=True),
    "pr-manager-helper": Type("pr-manager", (Property("path", TEXT, settable=True, needed=True),), creatable=True),
    "secret_common": Type("object", _SECRET, abstract=True, creatable=True),
    "secret": Type(
        "secret_common",
        (Property("data", TEXT, settable=True), Property("file", TEXT, settable=True)),
        creatable=True,
    ),
    "secret_keyring": Type(
        "secret_common", (Property("serial", "int32_t", 0, settable=True, needed=True),), creatable=True
    ),
    "thread-context": Type(
        "object",
        (
            Property("cpu-affinity", INT, [], many=True),
            Property("node-affinity", INT, [], many=True),
            Property("thread-id", INT, -1, told=True),
        ),
        creatable=True,
    ),
    "throttle-group": Type(
        "object",
        (
            Property("limits", "ThrottleLimits", settable=True),
            *(Property(f"x-{name}", INT) for name in PROPERTIES),
        ),
        creatable=True,
    ),
    "tls-creds": Type("object", _TLS, abstract=True),
    "tls-cipher-suites": Type("tls-creds", creatable=True),
    "tls-creds-anon": Type("tls-creds", (_LOADED,), creatable=True),
    "tls-creds-psk": Type("tls-creds", (_LOADED, Property("username", TEXT)), creatable=True),
    "tls-creds-x509": Type(
        "tls-creds",
        (_LOADED, Property("sanity-check", SWITCH, True), Property("passwordid", TEXT)),
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
_CALLED: Final = {kind: name for name, kind in SPELLED.items()}
# The types that daemons can make, and those that all tools can, as command lines call them.
OF_DAEMONS: Final = tuple(_CALLED.get(kind, kind) for kind, row in TYPES.items() if row.creatable and not row.abstract)
OF_TOOLS: Final = tuple(name for name in OF_DAEMONS if name != "iothread")
# Types of the machine emulator: known by name, and made by no tool.
OF_MACHINES: Final = (
    "authz-pam", "can-bus", "can-host-socketcan", "colo-compare", "cryptodev-backend", "cryptodev-backend-builtin",
    "cryptodev-backend-lkcf", "cryptodev-vhost-user", "dbus-vmstate", "filter-buffer", "filter-dump", "filter-mirror",
    "filter-redirector", "filter-replay", "filter-rewriter", "input-barrier", "input-linux", "memory-backend-epc",
    "memory-backend-file", "memory-backend-memfd", "memory-backend-ram", "pef-guest", "qtest", "rng-builtin",
    "rng-egd", "rng-random", "s390-pv-guest", "sev-guest", "x-remote-object", "x-vfio-user-server",
)  # fmt: skip


@functools.cache
def properties(name: str) -> Mapping[str, Property]:
    """All properties of a type, those of its parents too, and before its own."""
    row = TYPES[SPELLED.get(name, name)]
    inherited = {} if row.parent is None else properties(row.parent)
    return {**inherited, **{each.name: each for each in row.properties}}


def sayable(name: str) -> list[Property]:
    """What can be said of an object of a type, in the order in which QEMU reads it."""
    return [each for each in properties(name).values() if not each.told]


def is_a(name: str, ancestor: str) -> bool:
    """Whether a type is another one, or a kind of it."""
    kind: str | None = name
    while kind is not None:
        if kind == ancestor:
            return True
        kind = TYPES[kind].parent
    return False
