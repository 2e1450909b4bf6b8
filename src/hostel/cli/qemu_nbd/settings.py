"""``qemu-nbd``'s options: what they are, and what they say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Final

from hostel.block.driver import CACHE_MODES, WRITEBACK
from hostel.block.options import OptionError, split_options
from hostel.cli.qemu.failure import Failure, HelpAsked, VersionAsked
from hostel.cli.qemu.flag import Flag, make_object
from hostel.cli.qemu.getopt import GetOpt
from hostel.wire.nbd.protocol import MAX_STRING

# Name, letter, long name, what the value is called, and what the option is for.
_TABLE: Final = (
    ("", "Connections", "", "", ""),
    ("port", "p", "port", "PORT", "the TCP port to listen on (10809)"),
    ("bind", "b", "bind", "IFACE", "the address to listen on (0.0.0.0)"),
    ("socket", "k", "socket", "PATH", "listen on this Unix socket instead"),
    ("shared", "e", "shared", "NUM", "clients at a time, 0 for any number (1)"),
    ("handshake-limit", "", "handshake-limit", "SECONDS", "for a client's handshake, 0 for any number (10)"),
    ("persistent", "t", "persistent", "", "go on when the last client has left"),
    ("verbose", "v", "verbose", "", "with -c: stay in the foreground, and say that the disk is there"),
    ("export-name", "x", "export-name", "NAME", "the export's name (none)"),
    ("description", "D", "description", "TEXT", "what the export is, for people"),
    ("", "What is exported", "", "", ""),
    ("offset", "o", "offset", "OFFSET", "leave out so many bytes at the image's start"),
    ("allocation-depth", "A", "allocation-depth", "", "let clients see which image of the chain holds what"),
    ("bitmap", "B", "bitmap", "NAME", "let clients see this persistent dirty bitmap; may be repeated"),
    ("", "The image", "", "", ""),
    ("format", "f", "format", "FORMAT", "its format; guessed from its first bytes when it is not given"),
    ("read-only", "r", "read-only", "", "clients may only read"),
    ("snapshot", "s", "snapshot", "", "keep what clients write apart, and forget it at the end"),
    ("load-snapshot", "l", "load-snapshot", "SNAPSHOT", "serve an internal snapshot, read-only: a name or id, or"),
    ("", "", "", "", "snapshot.id=ID,snapshot.name=NAME"),
    ("nocache", "n", "nocache", "", "the same as --cache=none"),
    ("cache", "", "cache", "MODE", "none, writeback (the default), writethrough, directsync or unsafe"),
    ("aio", "", "aio", "MODE", "native, io_uring or threads: accepted for scripts"),
    ("discard", "", "discard", "MODE", "ignore (the default) or unmap: whether trimming gives space back"),
    ("detect-zeroes", "", "detect-zeroes", "MODE", "off (the default), on or unmap: what becomes of written zeroes"),
    ("image-opts", "", "image-opts", "", "FILE is a list of options, such as driver=qcow2,file.filename=PATH"),
    ("", "General", "", "", ""),
    ("list", "L", "list", "", "list what the server at the address exports"),
    ("object", "", "object", "TYPE,id=ID,...", "make a secret, TLS credentials or an authorization"),
    ("tls-creds", "", "tls-creds", "ID", "use TLS, with these credentials"),
    ("tls-authz", "", "tls-authz", "ID", "let this authorization decide about clients"),
    ("tls-hostname", "", "tls-hostname", "NAME", "with -L: whose certificate the server must show"),
    ("fork", "", "fork", "", "return as soon as the server listens"),
    ("pid-file", "", "pid-file", "PATH", "write the server's process id there"),
    ("selinux-label", "", "selinux-label", "LABEL", "the socket's SELinux label"),
    ("trace", "T", "trace", "PATTERN", "accepted for scripts that trace QEMU; nothing is traced"),
    ("connect", "c", "connect", "DEV", "be a disk of this host: a device of the kernel's client, such as /dev/nbd0"),
    ("disconnect", "d", "disconnect", "", "let go of FILE, which is such a device"),
    ("help", "h", "help", "", "show this page"),
    ("version", "V", "version", "", "show the version"),
)
_FLAGS: Final = tuple(Flag(*row[:4]) for row in _TABLE if row[0])
# Options of -L that make no sense for it.
_PER_IMAGE: Final = (
    "export-name", "description", "offset", "connect", "disconnect", "format", "load-snapshot", "bitmap",
    "allocation-depth", "aio", "discard", "cache",
)  # fmt: skip
_AIO: Final = ("native", "io_uring", "threads")
_DISCARD: Final = {"ignore": False, "off": False, "unmap": True, "on": True}
_DETECT_ZEROES: Final = ("off", "on", "unmap")
_NUMBER: Final = re.compile(r"[ \t\n]*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)


class Settings:
    """What a command line says.

    Attributes:
        given: names of the options that were given.
        operands: what is no option.
        offset: bytes.
        shared: clients at a time; 0 for any number.
        handshake_limit: seconds for a handshake, 0 for any number; None where nothing was said.
        bitmaps: names, the last one given first, as QEMU numbers them.
        snapshot_parts: ``snapshot.id`` and ``snapshot.name`` of ``-l``; None where it has a name or id alone.
    """

    def __init__(self) -> None:
        self.given: set[str] = set()
        self.operands: list[str] = []
        self.values: dict[str, str] = {}
        self.bitmaps: list[str] = []
        self.offset = 0
        self.shared = 1
        self.handshake_limit: int | None = None
        self.unmap = False
        self.detect_zeroes = "off"
        self.cache = WRITEBACK
        self.read_only = False
        self.snapshot_parts: dict[str, str] | None = None

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return name in self.given

    def get(self, name: str) -> str | None:
        """An option's value, the last where it was repeated; None where it was not given."""
        return self.values.get(name)

    @property
    def socket(self) -> str | None:
        """The Unix socket to listen on, by which the kernel reaches the server too; None for TCP."""
        device = self.get("connect")
        given = self.get("socket")
        return f"/var/lock/qemu-nbd-{os.path.basename(device)}" if given is None and device is not None else given

    def conflicts_with_list(self) -> bool:
        """Whether an option was given that says something of an image."""
        return any(name in self.given and not (name == "offset" and not self.offset) for name in _PER_IMAGE)


def read(words: Sequence[str]) -> Settings:
    """Read a command line; each option is looked at when its turn comes, so that the first mistake is reported.

    Raises:
        UsageError: an option is unknown or lacks its value.
        Failure: a value is wrong; the text is QEMU's.
        HelpAsked: ``-h`` was met.
        VersionAsked: ``-V`` was met.
    """
    settings = Settings()
    options = GetOpt(_FLAGS, words)
    for flag, value in options:
        take = _TAKERS.get(flag.name)
        if take is not None:
            take(settings, value)
        settings.given.add("cache" if flag.name == "nocache" else flag.name)
        settings.values[flag.name] = value
    settings.operands = options.operands
    return settings


def _help(settings: Settings, value: str) -> None:
    raise HelpAsked


def _version(settings: Settings, value: str) -> None:
    raise VersionAsked


def _cache(settings: Settings, value: str) -> None:
    if settings.has("cache"):
        raise Failure("-n and --cache can only be specified once")
    mode = value or "none"  # -n has no value
    if mode not in CACHE_MODES:
        raise Failure(f"Invalid cache mode `{mode}'")
    settings.cache = CACHE_MODES[mode]


def _aio(settings: Settings, value: str) -> None:
    if settings.has("aio"):
        raise Failure("--aio can only be specified once")
    if value not in _AIO:
        raise Failure(f"Invalid aio mode '{value}'")


def _discard(settings: Settings, value: str) -> None:
    if settings.has("discard"):
        raise Failure("--discard can only be specified once")
    if value not in _DISCARD:
        raise Failure(f"Invalid discard mode `{value}'")
    settings.unmap = _DISCARD[value]


def _detect_zeroes(settings: Settings, value: str) -> None:
    if value not in _DETECT_ZEROES:
        raise Failure(f"Failed to parse detect_zeroes mode: invalid parameter value: {value}")
    if value == "unmap" and not settings.unmap:
        raise Failure("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
    settings.detect_zeroes = value


def _offset(settings: Settings, value: str) -> None:
    found = _number(value)
    if found is None or found >= 2**64:
        raise Failure(f"Invalid offset '{value}'")
    settings.offset = found


def _load_snapshot(settings: Settings, value: str) -> None:
    settings.read_only = True
    settings.snapshot_parts = None
    if not value.startswith("snapshot."):
        return
    try:
        parts = split_options(value)
    except OptionError as error:
        raise Failure(f"{error}\nFailed in parsing snapshot param `{value}'") from None
    for name in parts:
        if name not in ("snapshot.id", "snapshot.name"):
            raise Failure(f"Invalid parameter '{name}'\nFailed in parsing snapshot param `{value}'")
    settings.snapshot_parts = parts


def _read_only(settings: Settings, value: str) -> None:
    settings.read_only = True


def _bitmap(settings: Settings, value: str) -> None:
    settings.bitmaps.insert(0, value)


def _object(settings: Settings, value: str) -> None:
    make_object(value)


def _socket(settings: Settings, value: str) -> None:
    if not value.startswith("/"):
        raise Failure("socket path must be absolute")


def _shared(settings: Settings, value: str) -> None:
    found = _number(value)
    if found is None or found >= 2**31:
        raise Failure(f"Invalid shared device number '{value}'")
    settings.shared = found


def _handshake_limit(settings: Settings, value: str) -> None:
    found = _number(value)
    if found is None or found >= 2**32:
        raise Failure(f"Invalid handshake limit '{value}'")
    settings.handshake_limit = found


def _text(what: str) -> Callable[[Settings, str], None]:
    def take(settings: Settings, value: str) -> None:
        if len(value.encode("utf-8", "surrogateescape")) > MAX_STRING:
            raise Failure(f"export {what} '{value}' too long")

    return take


_TAKERS: Final[dict[str, Callable[[Settings, str], None]]] = {
    "aio": _aio,
    "bitmap": _bitmap,
    "cache": _cache,
    "description": _text("description"),
    "detect-zeroes": _detect_zeroes,
    "discard": _discard,
    "export-name": _text("name"),
    "handshake-limit": _handshake_limit,
    "help": _help,
    "load-snapshot": _load_snapshot,
    "nocache": _cache,
    "object": _object,
    "offset": _offset,
    "read-only": _read_only,
    "shared": _shared,
    "socket": _socket,
    "version": _version,
}


def _number(text: str) -> int | None:
    """A number as C writes it: decimal, or octal or hexadecimal by what it begins with; None where it is none."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = match.group(1)
    return int(digits, 8) if digits[0] == "0" and digits[1:2] not in ("x", "X") else int(digits, 0)


def usage(prog: str) -> str:
    """What ``--help`` prints."""
    lines = [f"Usage: {prog} [OPTIONS] FILE", f"  or:  {prog} -L [OPTIONS]", "Serve a disk image over NBD"]
    for name, short, long, value, text in _TABLE:
        if name:
            option = f"{'-' + short + ', ' if short else '    '}--{long}{'=' + value if value else ''}"
            lines.append(f"  {option:<27} {text}" if len(option) < 28 else f"  {option}\n{'':29} {text}")
        elif text:
            lines.append(f"{'':29} {text}")
        else:
            lines += ["", f"{short}:"]
    return "\n".join(lines) + "\n"
