"""What ``nbd:`` names and options say: where the server is, which export, and how to be sure of it."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from hostel.block.options import Kind, Option, OptionError, Options
from hostel.net.address import Address, TcpAddress, UnixAddress, VsockAddress
from hostel.wire.nbd.protocol import DEFAULT_PORT, MAX_STRING

_EXPORT_NAME: Final = ":exportname="
_TCP: Final = ("nbd", "nbd+tcp", "nbds", "nbds+tcp")
_UNIX: Final = ("nbd+unix", "nbds+unix")
SCHEMES: Final = (*_TCP, *_UNIX)

# server.* is an address of QEMU; host, port and path are the older words for it.
OPTIONS: Final = Options(
    Option("server.type", Kind.STRING, "inet, unix or vsock"),
    Option("server.host", Kind.STRING, "TCP host to connect to"),
    Option("server.port", Kind.STRING, "TCP port to connect to"),
    Option("server.ipv4", Kind.BOOL, "whether to connect by IPv4"),
    Option("server.ipv6", Kind.BOOL, "whether to connect by IPv6"),
    Option("server.numeric", Kind.BOOL, "whether names are not looked up; of servers only"),
    Option("server.to", Kind.NUMBER, "the last port to try; of servers only"),
    Option("server.keep-alive", Kind.BOOL, "ignored: connections are always kept alive"),
    Option("server.mptcp", Kind.BOOL, "ignored"),
    Option("server.cid", Kind.STRING, "context id of the machine to connect to"),
    Option("server.path", Kind.STRING, "Unix socket path to connect to"),
    Option("server.abstract", Kind.BOOL, "whether the path is a name without a file"),
    Option("server.tight", Kind.BOOL, "whether such a name ends with its last byte", "on"),
    Option("host", Kind.STRING, "TCP host to connect to"),
    Option("port", Kind.STRING, "TCP port to connect to"),
    Option("path", Kind.STRING, "Unix socket path to connect to"),
    Option("export", Kind.STRING, "Name of the NBD export to open"),
    Option("tls-creds", Kind.STRING, "ID of the TLS credentials to use"),
    Option("tls-certificates", Kind.STRING, "Directory of the TLS certificates to use"),
    Option("tls-hostname", Kind.STRING, "Name that the server's certificate must have"),
    Option("x-dirty-bitmap", Kind.STRING, "Meta context to show in place of block status"),
    Option("reconnect-delay", Kind.NUMBER, "Seconds for which requests wait for a lost server to come back", "0"),
    Option("open-timeout", Kind.NUMBER, "Seconds for which a server that is not there yet is waited for", "0"),
)
_PARTS: Final = {
    "inet": frozenset({"host", "port", "ipv4", "ipv6", "numeric", "to", "keep-alive", "mptcp"}),
    "unix": frozenset({"path", "abstract", "tight"}),
    "vsock": frozenset({"cid", "port"}),
}


def parse_filename(name: str) -> dict[str, str]:
    """The options that a name stands for.

    ``nbd:HOST:PORT[:exportname=NAME]``, ``nbd:unix:PATH[:exportname=NAME]``, ``nbd://HOST[:PORT][/NAME]`` and
    ``nbd+unix:///[NAME]?socket=PATH``; with ``nbds`` in place of ``nbd`` inside TLS, by the certificates of
    ``?tls-certificates=DIRECTORY``.

    Raises:
        OptionError: it is no such name.
    """
    if "://" in name:
        return _parse_uri(name)
    if not name.startswith("nbd:"):
        raise OptionError("File name string for NBD must start with 'nbd:'")
    options: dict[str, str] = {}
    place, found, export = name.removeprefix("nbd:").partition(_EXPORT_NAME)
    if found and export:
        options["export"] = export
    if place.startswith("unix:"):
        return {"server.type": "unix", "server.path": place.removeprefix("unix:"), **options}
    if not place:
        return options
    host, port = _split_host(place)
    return {"server.type": "inet", "server.host": host, "server.port": port, **options}


def _split_host(place: str) -> tuple[str, str]:
    """``HOST:PORT``, where the host may be an IPv6 address in brackets; what follows a comma only tunes."""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
    else:
        host, colon, rest = place.partition(":")
        rest = colon + rest
    port = rest[1:].partition(",")[0]
    if not rest.startswith(":") or not port:
        raise OptionError(f"error parsing address '{place}'")
    return host, port


def _parse_uri(name: str) -> dict[str, str]:
    uri = urlsplit(name)
    try:
        port = uri.port
    except ValueError:
        raise _bad_uri() from None
    query = parse_qsl(uri.query, keep_blank_values=True)
    options = dict(query)
    if len(options) != len(query) or uri.scheme not in SCHEMES:
        raise _bad_uri()
    socket = options.pop("socket", None)
    secure = uri.scheme.startswith("nbds")
    if not options.keys() <= ({"tls-certificates", "tls-hostname"} if secure else set()):
        raise _bad_uri()
    if secure and not options.get("tls-certificates"):
        raise OptionError(
            f"TLS needs certificates: '{name}' names none",
            hint="Add ?tls-certificates=DIRECTORY, with ca-cert.pem in it, or use the option tls-creds.",
        )
    export = unquote(uri.path.removeprefix("/"))
    if export:
        options["export"] = export
    return {**_uri_server(uri, port, socket), **options}


def _uri_server(uri: SplitResult, port: int | None, socket: str | None) -> dict[str, str]:
    if uri.scheme in _UNIX:
        if uri.netloc or socket is None:
            raise _bad_uri()
        return {"server.type": "unix", "server.path": socket}
    if not uri.netloc or not uri.hostname or socket is not None:
        raise _bad_uri()
    # urlsplit() puts host names into lower case, which changes nothing for a resolver.
    return {"server.type": "inet", "server.host": unquote(uri.hostname), "server.port": str(port or DEFAULT_PORT)}


def _bad_uri() -> OptionError:
    return OptionError("No valid URL specified")


def convert(given: Mapping[str, Any]) -> dict[str, str]:
    """Options as text, with the older words for an address replaced.

    Raises:
        OptionError: one is unknown, missing, or contradicts another.
    """
    options: dict[str, str] = {}
    for name, value in given.items():
        if name not in OPTIONS:
            if name.startswith("server."):
                raise OptionError(f"Parameter '{name.removeprefix('server.')}' is unexpected")
            raise OptionError(f"Block protocol 'nbd' doesn't support the option '{name}'")
        options[name] = str(value) if not isinstance(value, bool) else "on" if value else "off"
        OPTIONS[name].convert(options[name])
    path, host, port = (options.pop(name, None) for name in ("path", "host", "port"))
    if path is not None or host is not None or port is not None:
        if any(name.startswith("server.") for name in options):
            raise OptionError("Cannot use 'server' and path/host/port at the same time")
        if path is not None and host is not None:
            raise OptionError("path and host may not be used at the same time")
        if path is not None and port is not None:
            raise OptionError("port may not be used without host")
        if path is not None:
            options.update({"server.type": "unix", "server.path": path})
        elif host is not None:
            options.update({"server.type": "inet", "server.host": host, "server.port": port or str(DEFAULT_PORT)})
    if len(options.get("export", "").encode("utf-8", "surrogateescape")) > MAX_STRING:
        raise OptionError("export name too long to send to server")
    return options


def server_address(options: Mapping[str, str]) -> Address:
    """Where the server is.

    Raises:
        OptionError: the options do not say.
    """
    kind = options.get("server.type")
    if not any(name.startswith("server.") for name in options):
        raise OptionError("NBD server address missing")
    if kind is None:
        raise _missing("type")
    for name in options:
        part = name.removeprefix("server.")
        if name != part and part != "type" and part not in _PARTS.get(kind, (part,)):
            raise OptionError(f"Parameter '{part}' is unexpected")
    if kind == "unix":
        if "server.path" not in options:
            raise _missing("path")
        abstract, tight = (_switch(options, name) for name in ("abstract", "tight"))
        return UnixAddress(options["server.path"], bool(abstract), tight)
    if kind == "inet":
        for name in ("host", "port"):
            if f"server.{name}" not in options:
                raise _missing(name)
        ipv4, ipv6 = (_switch(options, name) for name in ("ipv4", "ipv6"))
        return TcpAddress(options["server.host"], options["server.port"], ipv4=ipv4, ipv6=ipv6)
    if kind == "vsock":
        for name in ("cid", "port"):
            if f"server.{name}" not in options:
                raise _missing(name)
        return VsockAddress(options["server.cid"], options["server.port"])
    if kind == "fd":
        raise OptionError(f"Server addresses of type '{kind}' are not supported", errno=errno.ENOTSUP)
    raise OptionError(f"Parameter 'type' does not accept value '{kind}'")


def _switch(options: Mapping[str, str], name: str) -> bool | None:
    text = options.get(f"server.{name}")
    return None if text is None else bool(OPTIONS[f"server.{name}"].convert(text))


def _missing(name: str) -> OptionError:
    return OptionError(f"Parameter '{name}' is missing")


def show(address: Address, export: str | None) -> str:
    """The name by which QEMU calls an image on this server."""
    if isinstance(address, UnixAddress):
        return f"nbd+unix://{'' if export is None else '/' + export}?socket={address.path}"
    if isinstance(address, VsockAddress):
        told = {"driver": "nbd", "server": {"type": "vsock", "cid": address.cid, "port": address.port}}
        return "json:" + json.dumps(told if export is None else {**told, "export": export})
    return f"nbd://{address}{'' if export is None else '/' + export}"
