"""Screens of machines that start: ports for them, and what QEMU is told, or tells, once it runs."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.display import VNC_ID
from hostel.drivers.qemu.monitor import Monitor
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.domain import Domain

_FIRST: Final = 5900
_LAST: Final = 65535
_PASSING: Final = (errno.EADDRINUSE, errno.EACCES)


def reserve(domain: Domain, held: contextlib.ExitStack) -> None:
    """Give servers their ports where these are automatic, and keep others of ours from them until QEMU has them.

    A socket that is bound, and does not listen, keeps the port from whoever looks for a free one in this way; QEMU
    binds beside it, since both let addresses be used again. VNC goes on from there should it be taken; SPICE cannot.

    Args:
        domain: the live document.
        held: keeps the sockets open.

    Raises:
        VirtError: ``INTERNAL_ERROR``: no port is free, or the address is not this host's.
    """
    for screen in domain.devices.graphics:
        is_spice = screen.type == GraphicsType.SPICE
        if not _has_port(screen) or not (is_spice or screen.type == GraphicsType.VNC):
            continue
        if screen.is_automatic or (is_spice and screen.port == -1):
            screen.port = _reserve(screen.listens[0].address or "127.0.0.1", held)
        if is_spice and screen.autoport:
            screen.tls_port = None


def _reserve(address: str, held: contextlib.ExitStack) -> int:
    for port in range(_FIRST, _LAST + 1):
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            end = socket.socket(found[0], found[1])
            with contextlib.ExitStack() as broken:
                broken.callback(end.close)
                end.bind(found[4])
                end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                broken.pop_all()
        except OSError as error:
            if error.errno in _PASSING:
                continue
            reason = f"cannot listen for a screen on '{address}': {error.strerror}"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.QEMU) from error
        held.callback(end.close)
        return port
    reason = f"Unable to find an unused port in range 'display' ({_FIRST}-{_LAST})"
    raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.QEMU)


def complete(domain: Domain, qmp: Monitor) -> None:
    """Write the ports that QEMU chose into the live document, and tell it the passwords.

    Raises:
        QmpError: QEMU refuses.
    """
    servers = {server["id"]: server.get("server") for server in qmp.execute("query-vnc-servers")}
    for index, screen in enumerate(domain.devices.graphics):
        if screen.type == GraphicsType.VNC and _has_port(screen) and (place := servers[f"{VNC_ID}{index}"]):
            screen.port = int(place[0]["service"])
        if screen.passwd:
            qmp.execute("set_password", protocol=str(screen.type), password=screen.passwd)


def _has_port(screen: Graphics) -> bool:
    return bool(screen.listens) and screen.listens[0].type == "address"
