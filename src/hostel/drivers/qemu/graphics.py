"""The driver's calls that connect clients to screens (``qemuDomainOpenGraphics``)."""

from __future__ import annotations

import socket
from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, QmpError

_PROTOCOLS: Final = {"vnc": "vnc", "spice": "spice", "dbus": "@dbus-display"}
_NAME: Final = "graphicsfd"


class GraphicsCalls(Calls):
    """Screens; see :class:`hostel.drivers.base.graphics.GraphicsDriver`."""

    def domain_open_graphics(self, domain: DomainRef, number: int, descriptor: int, *, skip_auth: bool = False) -> None:
        """Give QEMU a client of a screen."""
        with self._running(domain) as machine:
            _give(machine, number, descriptor, skip_auth)

    def domain_open_graphics_fd(self, domain: DomainRef, number: int, *, skip_auth: bool = False) -> int:
        """Give QEMU one end of a pair of sockets, and the caller the other."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.domain_open_graphics(domain, number, theirs.fileno(), skip_auth=skip_auth)
            return ours.detach()


def _give(machine: Running, number: int, descriptor: int, skip_auth: bool) -> None:
    screens = machine.domain.devices.graphics
    if number >= len(screens):
        raise fault(ErrorCode.INTERNAL_ERROR, f"No graphics backend with index {number}", ErrorDomain.QEMU)
    protocol = _PROTOCOLS.get(screens[number].type)
    if protocol is None:
        detail = f"Can only open VNC, SPICE or D-Bus p2p graphics backends, not {screens[number].type}"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.QEMU)
    try:
        machine.qmp.pass_file(_NAME, descriptor)
    except QmpError as error:
        raise machine.translated(error, "getfd") from error
    try:
        machine.ask("add_client", protocol=protocol, fdname=_NAME, skipauth=skip_auth)
    except BaseException:
        machine.attempt("closefd", fdname=_NAME)
        raise
