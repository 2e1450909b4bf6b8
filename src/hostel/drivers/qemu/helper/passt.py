"""passt: a user's network without privileges, whose ports of the host lead into the guest (``qemu_passt.c``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hostel.drivers.qemu.command.context import alias_of
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.process import Helper, ground, user_of
from hostel.model.address import read_address
from hostel.model.domain.devices.interface import Interface, InterfaceType, PortForward, PortRange
from hostel.model.domain.domain import Domain


def is_passt(interface: Interface) -> bool:
    """Whether an interface is served by passt."""
    backend = interface.backend
    return interface.type == InterfaceType.USER and backend is not None and backend.type == "passt"


def helpers(domain: Domain, run: Path) -> list[Helper]:
    """What serves a document's interfaces of this kind, as who QEMU is.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: passt is not there, or ports are to lead to where they cannot.
    """
    for interface in domain.devices.interfaces:
        if interface.port_forwards and not is_passt(interface):
            raise unsupported("<portForward> is what passt does; write <backend type='passt'/> into this interface")
    return [_helper(interface, run) for interface in domain.devices.interfaces if is_passt(interface)]


def _helper(interface: Interface, run: Path) -> Helper:
    program = shutil.which("passt")
    if program is None:
        raise unsupported("<backend type='passt'/> needs passt, which is not there; install the package passt")
    socket = ground(run) / f"{alias_of(interface)}.passt"
    words = arguments(interface, socket, as_root=0 in (user_of(run) or (os.geteuid(),)))
    return Helper(f"passt of '{alias_of(interface)}'", [program, *words], socket)


def arguments(interface: Interface, socket: Path, *, as_root: bool) -> Iterator[str]:
    """What passt is told; it ends with the one QEMU that connects."""
    yield from ("--foreground", "--one-off", "--socket", str(socket))
    if as_root:
        yield from ("--runas", "0")  # as another it could not make a socket here; it takes its rights away by itself
    if interface.mtu:
        yield from ("--mtu", str(interface.mtu))
    if interface.source is not None and interface.source.dev is not None:
        yield from ("--interface", interface.source.dev)
    log = interface.backend.log_file if interface.backend is not None else None
    yield from ("--stderr",) if log is None else ("--log-file", log)
    for ip in interface.ips:
        yield from ("--address", ip.address)
        if ip.prefix and read_address(ip.address, "/interface/ip/@address").version == 4:
            yield from ("--netmask", str(ip.prefix))
    for forward in interface.port_forwards:
        yield from (f"--{forward.proto}-ports", _ports(forward))


def _ports(forward: PortForward) -> str:
    device = f"%{forward.dev}" if forward.dev is not None else ""
    where = f"{forward.address}{device}/" if forward.address is not None else ""
    return where + (",".join(map(_range, forward.ranges)) or "all")


def _range(ports: PortRange) -> str:
    start, end = ports.start or 0, ports.end
    shown = f"{'~' if ports.exclude else ''}{start}" + (f"-{end}" if end else "")
    if ports.to:
        shown += f":{ports.to}" + (f"-{end + ports.to - start}" if end else "")
    return shown
