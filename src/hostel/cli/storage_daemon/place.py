"""Where servers listen: the schema's ``SocketAddress``, flat or as older commands nest it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed
from hostel.errors import NetworkError
from hostel.net import address, inherited
from hostel.net.address import Address, TcpAddress, UnixAddress, VsockAddress

_TYPE: Final = needed("type", values=("inet", "unix", "vsock", "fd"))
PARTS: Final[Mapping[str, tuple[Parameter, ...]]] = {
    "inet": (
        needed("host"),
        needed("port"),
        Parameter("numeric", Kind.BOOL),
        Parameter("to", Kind.UINT16),
        Parameter("ipv4", Kind.BOOL),
        Parameter("ipv6", Kind.BOOL),
        Parameter("keep-alive", Kind.BOOL),
        Parameter("mptcp", Kind.BOOL),
    ),
    "unix": (needed("path"), Parameter("abstract", Kind.BOOL), Parameter("tight", Kind.BOOL)),
    "vsock": (needed("cid"), needed("port")),
    "fd": (needed("str"),),
}


class Place(NamedTuple):
    """An address that was checked: its type, and its parts by their names."""

    type: str
    parts: Mapping[str, Any]

    def listen(self, backlog: int = socket.SOMAXCONN) -> list[socket.socket]:
        """Listen there.

        Raises:
            QmpError: it is of a type that is not supported.
            NetworkError: with QEMU's text.
        """
        if self.type == "fd":
            return [_inherited(self.parts["str"])]
        return address.listen(self.address(), backlog, dual_stack=True)

    def address(self) -> Address:
        """Where that is, of a type that has a name.

        Raises:
            QmpError: it is of a type that is not supported.
        """
        parts = self.parts
        if self.type == "unix":
            return UnixAddress(parts["path"], bool(parts.get("abstract")), parts.get("tight"))
        if self.type == "inet":
            return TcpAddress(
                parts["host"],
                parts["port"],
                ipv4=parts.get("ipv4"),
                ipv6=parts.get("ipv6"),
                numeric=bool(parts.get("numeric")),
                last=parts.get("to"),
            )
        if self.type == "vsock":
            return VsockAddress(parts["cid"], parts["port"])
        raise generic(f"{self.type} addresses have no name")

    def path(self) -> str | None:
        """The Unix socket's path, from wherever we may be later; None where it is none."""
        if self.type == "unix" and not self.parts.get("abstract"):
            return os.path.abspath(str(self.parts["path"]))
        return None


def read(given: Mapping[str, Any], *, text: bool, nested: bool = False, path: str = "addr.") -> Place:
    """Check an address.

    Raises:
        QmpError: with QEMU's text.
    """
    kind = check((_TYPE,), {key: value for key, value in given.items() if key == "type"}, text=text, path=path)["type"]
    rest = {key: value for key, value in given.items() if key != "type"}
    if nested:
        rest = check((needed("data", Kind.OBJECT),), rest, text=text, path=path)["data"]
        path += "data."
    return Place(kind, check(PARTS[kind], rest, text=text, path=path))


def _inherited(text: str) -> socket.socket:
    if not text.isascii() or not text.isdigit():
        raise NetworkError(f"File descriptor named '{text}' has not been found")
    try:
        sock = inherited.take(int(text))
    except OSError as error:
        raise NetworkError(f"File descriptor '{text}' is not a socket", errno=error.errno) from None
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        inherited.give_back(sock)
        raise NetworkError(f"File descriptor '{text}' is not a listening socket")
    return sock
