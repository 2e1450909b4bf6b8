"""What ``sheepdog:`` names and options say: which server, which disk, and which snapshot of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib import parse
from urllib.parse import urlsplit

from hostel.block.options import Kind, Option, OptionError, Options
from hostel.net.address import TcpAddress, UnixAddress
from hostel.wire.sheepdog.protocol import DEFAULT_PORT, MAX_NAME

OPTIONS: Final = Options(
    Option("server.type", Kind.STRING, "inet or unix"),
    Option("server.host", Kind.STRING, "Host of a server of the cluster"),
    Option("server.port", Kind.STRING, "Its port"),
    Option("server.path", Kind.STRING, "Socket of a server of the cluster"),
    Option("vdi", Kind.STRING, "Name of the disk"),
    Option("snap-id", Kind.NUMBER, "Number of a snapshot of it"),
    Option("tag", Kind.STRING, "Name of a snapshot of it"),
)
_DEFAULT_HOST: Final = "localhost"
_UNIX: Final = "sheepdog+unix"
_SCHEMES: Final = ("sheepdog", "sheepdog+tcp", _UNIX)


class Disk(NamedTuple):
    """A disk of a cluster.

    Attributes:
        name: of the disk.
        snapshot_id: 0 where it is named by its tag, or where the disk is meant that is written.
        tag: likewise, empty.
    """

    server: TcpAddress | UnixAddress
    name: str
    snapshot_id: int
    tag: str

    @property
    def is_snapshot(self) -> bool:
        """Whether a snapshot is meant."""
        return bool(self.snapshot_id or self.tag)

    def __str__(self) -> str:
        """The URI that names it."""
        snapshot = f"#{self.snapshot_id or _quoted(self.tag)}" if self.is_snapshot else ""
        name = _quoted(self.name, "")
        if isinstance(self.server, UnixAddress):
            return f"sheepdog+unix:///{name}?socket={_quoted(self.server.path)}{snapshot}"
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"sheepdog://{host}:{self.server.port}/{name}{snapshot}"


def parse_filename(name: str) -> dict[str, str]:
    """The options that a name stands for.

    ``sheepdog[+tcp]://[HOST[:PORT]]/VDI[#SNAPSHOT]``, ``sheepdog+unix:///VDI?socket=PATH[#SNAPSHOT]``, and the older
    ``sheepdog:[HOST:PORT:]VDI[:SNAPSHOT]``; a snapshot is its number or its tag.

    Raises:
        OptionError: it is no such name.
    """
    return _parse_uri(name) if "://" in name else _parse_old(name)


def _parse_old(name: str) -> dict[str, str]:
    place, disk = "", name.removeprefix("sheepdog:")
    if disk.count(":") >= 2:
        host, port, disk = disk.split(":", 2)
        place = f"{host}:{port}"
    vdi, _, snapshot = disk.partition(":")
    try:
        return _parse_uri(f"sheepdog://{place}/{_quoted(vdi, safe='')}" + (f"#{_quoted(snapshot)}" if snapshot else ""))
    except OptionError:
        raise OptionError("Can't parse filename") from None


def _parse_uri(name: str) -> dict[str, str]:
    try:
        uri = urlsplit(name)
        host, port = uri.hostname, uri.port
    except ValueError:
        raise OptionError(f"invalid URI '{name}'") from None
    if uri.scheme not in _SCHEMES:
        raise OptionError("URI scheme must be 'sheepdog', 'sheepdog+tcp', or 'sheepdog+unix'")
    vdi = _unquoted(uri.path.removeprefix("/"))
    if not vdi:
        raise OptionError("missing file path in URI")
    if _length(vdi) >= MAX_NAME:
        raise OptionError("VDI name is too long")
    query = parse.parse_qsl(uri.query, keep_blank_values=True, errors="surrogateescape")
    if uri.scheme == _UNIX:
        if uri.netloc:
            raise OptionError(f"URI scheme {uri.scheme} doesn't accept a server address")
        if not query:
            raise OptionError(f"URI scheme {uri.scheme} requires query parameter 'socket'")
        if [key for key, _ in query] != ["socket"]:
            raise OptionError("unexpected query parameters")
        options = {"server.type": "unix", "server.path": query[0][1]}
    else:
        if query:
            raise OptionError("unexpected query parameters")
        options = {
            "server.type": "inet",
            "server.host": _unquoted(host or _DEFAULT_HOST),
            "server.port": str(port or DEFAULT_PORT),
        }
    return {**options, "vdi": vdi, **_snapshot(_unquoted(uri.fragment))}


def _snapshot(text: str) -> dict[str, str]:
    """A number, or else a tag."""
    if not text:
        return {}
    if text.isascii() and text.isdecimal():
        if not 0 < int(text) < 2**32:
            raise OptionError(f"'{text}' is not a valid snapshot ID")
        return {"snap-id": text}
    if _length(text) >= MAX_NAME:
        raise OptionError(f"'{text}' is not a valid snapshot ID")
    return {"tag": text}


def disk(values: Mapping[str, Any]) -> Disk:
    """What converted options name.

    Raises:
        OptionError: one is missing or wrong.
    """
    server = _server(values)
    if "vdi" not in values:
        raise OptionError("parameter 'vdi' is missing")
    for name in ("vdi", "tag"):
        if _length(values.get(name, "")) >= MAX_NAME:
            raise OptionError(f"value of parameter '{name}' is too long")
    snapshot_id = values.get("snap-id")
    if snapshot_id is not None and not 0 < snapshot_id < 2**32:
        raise OptionError(f"'snap-id={snapshot_id}' is not a valid snapshot ID")
    return Disk(server, values["vdi"], snapshot_id or 0, values.get("tag", ""))


def _server(values: Mapping[str, Any]) -> TcpAddress | UnixAddress:
    kind = values.get("server.type")
    if kind is None:
        missing = "server.type" if any(name.startswith("server.") for name in values) else "server"
        raise OptionError(f"Parameter '{missing}' is missing")
    if kind not in ("inet", "unix"):
        raise OptionError(f"Parameter 'server.type' does not accept value '{kind}'")
    for name in ("path",) if kind == "unix" else ("host", "port"):
        if f"server.{name}" not in values:
            raise OptionError(f"Parameter 'server.{name}' is missing")
    if kind == "unix":
        return UnixAddress(values["server.path"])
    return TcpAddress(values["server.host"], values["server.port"])


def _length(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _quoted(text: str, safe: str = "/") -> str:
    return parse.quote(text, safe=safe, errors="surrogateescape")


def _unquoted(text: str) -> str:
    return parse.unquote(text, errors="surrogateescape")
