"""Screens of machines that start: where they listen, and what QEMU is told, or tells, once it runs."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.link import device
from hostel.drivers.qemu.command.display import VNC_ID
from hostel.drivers.qemu.command.spice import needed_ports
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.qemu.settings import ScreenSettings, Settings
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.completing.display import valid_until
from hostel.model.domain.devices.graphics import Gl, Graphics, GraphicsType
from hostel.model.domain.domain import Domain
from hostel.model.network import Network

_ROUTED: Final = ("nat", "route", "open")
_PASSING: Final = (errno.EADDRINUSE, errno.EACCES)


def choose_listeners(domain: Domain, run: Path, settings: Settings, address_of: Callable[[str], str]) -> None:
    """Say where screens listen whose document leaves it open (``qemuProcessGraphicsSetupListen``).

    Args:
        domain: the live document.
        run: the directory of the run's sockets.
        settings: what holds for all machines.
        address_of: finds the host's address in a network.

    Raises:
        VirtError: a network has no address.
    """
    for screen in domain.devices.graphics:
        usual = _settings(screen, settings)
        for listen in screen.listens if usual is not None else []:
            if listen.type == "network" and listen.network and not listen.address:
                screen.listen = listen.address = address_of(listen.network)
            elif usual is not None and listen.type == "address" and not listen.address and usual.unix:
                listen.type, listen.socket = "socket", str(run / str(screen.type))
                screen.port = screen.tls_port = screen.autoport = screen.websocket = screen.listen = None
                screen.socket = listen.socket if screen.type == GraphicsType.VNC else None
            elif usual is not None and listen.type == "address" and not listen.address:
                screen.listen = listen.address = usual.listen


def choose_render_nodes(domain: Domain, folder: Path = Path("/dev/dri")) -> None:
    """Choose a device of the host for what draws by OpenGL and names none (``virHostGetDRMRenderNode``).

    Raises:
        VirtError: ``INTERNAL_ERROR``: the host has none.
    """
    for screen in domain.devices.graphics:
        uses = screen.gl is not None and screen.gl.enable and screen.type in (GraphicsType.SPICE, GraphicsType.DBUS)
        if not (uses or screen.type == GraphicsType.EGL_HEADLESS):
            continue
        gl = screen.gl = screen.gl or Gl()
        if gl.rendernode is None:
            node = next(iter(sorted(folder.glob("renderD*"))), None)
            if node is None:
                what = f"No DRM render nodes available: there is no {folder}/renderD*; this host has no driver for one"
                raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
            gl.rendernode = str(node)


def host_address(network: Network) -> str:
    """The host's address in a network, at which its guests reach screens (``qemuProcessGetNetworkAddress``).

    Raises:
        VirtError: ``INTERNAL_ERROR``: it has none.
    """
    interface = _interface(network)
    if interface is None:
        first = next((ip.address for ip in network.ips if ip.address), None)
        if first is None:
            raise fault(
                ErrorCode.INTERNAL_ERROR, f"network '{network.name}' doesn't have an IP address", ErrorDomain.QEMU
            )
        return first
    found = device.ip_json("address", "show", "dev", interface)
    addresses = [entry["local"] for item in found for entry in item.get("addr_info", ())]
    if not addresses:
        raise fault(ErrorCode.INTERNAL_ERROR, f"interface '{interface}' has no address", ErrorDomain.QEMU)
    return str(addresses[0])


def _interface(network: Network) -> str | None:
    """The interface of the host that a network's guests share with it; None where the network has its own."""
    forward = network.forward
    if forward is None or forward.mode in _ROUTED:
        return None
    if forward.mode == "bridge" and network.bridge is not None and network.bridge.name:
        return network.bridge.name
    name = forward.interfaces[0].dev if forward.interfaces else forward.dev
    if name is None:
        what = f"network '{network.name}' has no associated interface or bridge"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
    return name


def _settings(screen: Graphics, settings: Settings) -> ScreenSettings | None:
    return {GraphicsType.VNC: settings.vnc, GraphicsType.SPICE: settings.spice}.get(screen.type)


def reserve(domain: Domain, settings: Settings, held: contextlib.ExitStack) -> None:
    """Give servers their ports where these are automatic, and keep others of ours from them until QEMU has them.

    A socket that is bound, and does not listen, keeps the port from whoever looks for a free one in this way; QEMU
    binds beside it, since both let addresses be used again. VNC goes on from there should it be taken; SPICE cannot.

    Args:
        domain: the live document, which says where they listen.
        settings: what holds for all machines.
        held: keeps the sockets open.

    Raises:
        VirtError: ``INTERNAL_ERROR``: no port is free, or the address is not this host's; ``CONFIG_UNSUPPORTED``: TLS
            is asked for and not configured.
    """
    for screen in domain.devices.graphics:
        if not _has_port(screen):
            continue
        address = screen.listens[0].address or "127.0.0.1"
        if screen.type == GraphicsType.SPICE:
            plain, encrypted = needed_ports(screen, settings.spice)
            if screen.autoport:
                screen.port = screen.tls_port = None
            screen.port = _reserve(address, held, settings.ports) if plain else screen.port
            screen.tls_port = _reserve(address, held, settings.ports) if encrypted else screen.tls_port
        elif screen.type == GraphicsType.VNC:
            if screen.is_automatic:
                screen.port = _reserve(address, held, settings.ports)
            if screen.websocket == -1:
                screen.websocket = _reserve(address, held, settings.websockets, "webSocket")


def _reserve(address: str, held: contextlib.ExitStack, ports: tuple[int, int], name: str = "display") -> int:
    first, last = ports
    for port in range(first, last + 1):
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
    reason = f"Unable to find an unused port in range '{name}' ({first}-{last})"
    raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.QEMU)


def complete(domain: Domain, qmp: Monitor, settings: Settings) -> None:
    """Write the ports that QEMU chose into the live document, and tell it the passwords.

    Raises:
        QmpError: QEMU refuses.
    """
    servers = {server["id"]: server.get("server") for server in qmp.execute("query-vnc-servers")}
    for index, screen in enumerate(domain.devices.graphics):
        if screen.type == GraphicsType.VNC and _has_port(screen):
            places = servers[f"{VNC_ID}{index}"] or ()
            screen.port = next((int(place["service"]) for place in places if not place["websocket"]), screen.port)
        tell_password(qmp, screen, index, settings)


def environment(domain: Domain, settings: Settings) -> dict[str, str]:
    """What QEMU's environment has to have: where SASL is configured; of several kinds of screens the last counts."""
    used = (_settings(screen, settings) for screen in domain.devices.graphics)
    folders = [usual.sasl_folder for usual in used if usual is not None and usual.sasl and usual.sasl_folder]
    return {"SASL_CONF_PATH": folders[-1]} if folders else {}


def tell_password(qmp: Monitor, screen: Graphics, index: int, settings: Settings) -> None:
    """Set a screen's password, and until when it holds (``qemuDomainChangeGraphicsPasswords``).

    Args:
        qmp: QEMU.
        screen: the document's; one without a password has that of all screens of its kind, where these have one.
        index: its place in the document.
        settings: what holds for all machines.

    Raises:
        QmpError: QEMU refuses.
    """
    usual = _settings(screen, settings)
    password = screen.passwd if screen.passwd is not None or usual is None else usual.password
    if password is None:
        return
    until = "never"
    if (end := valid_until(screen)) is not None:
        until = "now" if end <= time.time() else str(end)
    which = {"display": f"{VNC_ID}{index}"} if screen.type == GraphicsType.VNC else {}
    then = {} if screen.connected is None else {"connected": screen.connected}
    qmp.execute("set_password", protocol=str(screen.type), password=password, **which, **then)
    # A password without a character locks the screen.
    qmp.execute("expire_password", protocol=str(screen.type), time=until if password else "now", **which)


def _has_port(screen: Graphics) -> bool:
    return bool(screen.listens) and screen.listens[0].type in ("address", "network")
