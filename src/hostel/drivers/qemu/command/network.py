"""Network interfaces: a back end on the host and a card in the guest (``qemuBuildInterfaceCommandLine``)."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from hostel.drivers.qemu.command import hostdev
from hostel.drivers.qemu.command.context import Context, Wire, alias_of, escape, option
from hostel.drivers.qemu.command.place import place, rom, virtio, virtio_name, zpci
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import CcwAddress, PciAddress
from hostel.model.domain.devices.interface import (
    GuestOffloads,
    HostOffloads,
    Interface,
    InterfaceDriver,
    InterfaceSource,
    InterfaceType,
    LocalAddress,
)
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import ARM, arch_of

_VIRTIO: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")
_TAPS: Final = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.DIRECT, InterfaceType.ETHERNET)
_SOCKETS: Final = {
    InterfaceType.CLIENT: "connect", InterfaceType.SERVER: "listen", InterfaceType.MCAST: "mcast",
    InterfaceType.UDP: "udp",
}  # fmt: skip
_TX_MODES: Final = {"iothread": "bh", "timer": "timer"}


def arguments(domain: Domain, context: Context, bootindex: dict[int, int]) -> list[str]:
    """Every interface of the document."""
    argv: list[str] = []
    for interface in domain.devices.interfaces:
        argv += card_arguments(domain, interface, context, bootindex.get(id(interface)))
    return argv


def card_arguments(domain: Domain, interface: Interface, context: Context, bootindex: int | None) -> list[str]:
    """One interface: what is at the host's end, then the card.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` for what QEMU, or this driver, cannot connect.
    """
    name, model = alias_of(interface), interface.model or "rtl8139"
    if hostdev.is_card(interface):
        return hostdev.card(domain, interface, bootindex)
    argv: list[str] = []
    if interface.type == InterfaceType.VHOSTUSER:
        argv += ["-chardev", _vhost_user_socket(interface)]
    if interface.type == InterfaceType.VDPA:
        argv += ["-add-fd", f"set=0,fd=0,opaque={name}-vdpa"]
    argv += option("-netdev", {**_backend(interface, context), "id": f"host{name}"})
    mac = interface.mac.address if interface.mac is not None else None
    if arch_of(domain) in ARM and model not in _VIRTIO and not isinstance(interface.address, PciAddress):
        return [*argv, "-net", f"nic,macaddr={mac},netdev=host{name},model={model},id={name}"]  # it is on the board
    card = _virtio_card(interface) if model in _VIRTIO else {"driver": model}
    card |= {"netdev": f"host{name}", "id": name, "mac": mac, "bootindex": bootindex}
    return [*argv, *zpci(interface), *option("-device", {**card, **rom(interface), **place(domain, interface)})]


def _virtio_card(interface: Interface) -> dict[str, Any]:
    """A virtio card, with all that it is told."""
    driver = interface.driver or InterfaceDriver()
    host, guest = driver.host or HostOffloads(), driver.guest or GuestOffloads()
    several = (driver.queues or 0) > 1
    has_vectors = several and not isinstance(interface.address, CcwAddress)
    is_standby = interface.teaming is not None and interface.teaming.type == "persistent"
    return {
        "driver": virtio_name("virtio-net", interface, interface.model),
        **virtio(driver),
        "tx": _TX_MODES.get(driver.txmode or ""),
        "ioeventfd": driver.ioeventfd,
        "event_idx": driver.event_idx,
        "csum": host.csum,
        "gso": host.gso,
        **{f"host_{name}": getattr(host, name) for name in ("tso4", "tso6", "ecn", "ufo")},
        "mrg_rxbuf": host.mrg_rxbuf,
        **{f"guest_{name}": getattr(guest, name) for name in ("csum", "tso4", "tso6", "ecn", "ufo")},
        "mq": True if several else None,
        "vectors": 2 * (driver.queues or 0) + 2 if has_vectors else None,
        "rx_queue_size": driver.rx_queue_size or None,
        "tx_queue_size": driver.tx_queue_size or None,
        "rss": driver.rss,
        "hash": driver.rss_hash_report,
        "host_mtu": interface.mtu or None,
        "failover": True if is_standby else None,
    }


def _backend(interface: Interface, context: Context) -> dict[str, Any]:
    source = interface.source or InterfaceSource()
    if interface.script is not None and interface.type != InterfaceType.ETHERNET:
        raise unsupported(f"scripts are not supported on interfaces of type {interface.type}")
    wire = context.wires.get(alias_of(interface))
    if wire is not None or (context.hands_over and interface.type in _TAPS):
        return _open_tap(interface, wire or _numbered(interface))
    match interface.type:
        case InterfaceType.USER:
            if interface.backend is not None and interface.backend.type == "passt":
                address = {"type": "unix", "path": str(context.monitor.with_name(f"{alias_of(interface)}.passt"))}
                return {"type": "stream", "addr": address, "server": False}
            return {"type": "user", **_addresses(interface)}
        case InterfaceType.INTERNAL:
            return {"type": "user"}
        case InterfaceType.BRIDGE:
            return {"type": "bridge", "br": source.bridge, "helper": context.settings.bridge_helper or None}
        case InterfaceType.NETWORK:
            bridge = context.bridge(source.network or "")
            helper = context.settings.bridge_helper or None
            return {"type": "user"} if bridge is None else {"type": "bridge", "br": bridge, "helper": helper}
        case InterfaceType.ETHERNET:
            target = interface.target.dev if interface.target is not None else None
            scripts = {"script": interface.script or "no", "downscript": interface.downscript or "no"}
            return {"type": "tap", **scripts, "ifname": target, "queues": _queues(interface)}
        case InterfaceType.VHOSTUSER:
            return {"type": "vhost-user", "chardev": f"char{alias_of(interface)}", "queues": _queues(interface)}
        case InterfaceType.VDPA:
            return {"type": "vhost-vdpa", "vhostdev": "/dev/fdset/0", "queues": _queues(interface)}
        case kind if kind in _SOCKETS:
            return {"type": "socket", **_socket(kind, source)}
        case kind:
            choices = "user, network, bridge or ethernet"
            raise unsupported(f"interface type='{kind}' under qemu:///session; write {choices}, or use qemu:///system")


def _queues(interface: Interface) -> int | None:
    """How many pairs of queues, where there are several."""
    queues = interface.driver.queues if interface.driver is not None else None
    return queues if queues is not None and queues > 1 else None


def _numbered(interface: Interface) -> Wire:
    """The files of a tap, and where a virtio card is on it those of the kernel's vhost too, by the first numbers."""
    driver = interface.driver or InterfaceDriver()
    count = driver.queues or 1
    has_vhost = interface.model in _VIRTIO and driver.name != "qemu"
    return Wire(range(3, 3 + count), range(3 + count, 3 + 2 * count) if has_vhost else ())


def _open_tap(interface: Interface, wire: Wire) -> dict[str, Any]:
    """A tap that is handed over open."""
    several = "s" if len(wire.taps) > 1 else ""
    tap: dict[str, Any] = {"type": "tap", f"fd{several}": ":".join(map(str, wire.taps))}
    if wire.vhosts:
        tap |= {"vhost": True, f"vhostfd{several}": ":".join(map(str, wire.vhosts))}
    return {**tap, "sndbuf": interface.tune.sndbuf if interface.tune is not None else None}


def _addresses(interface: Interface) -> dict[str, Any]:
    """The network that the guest of a user-mode one sees."""
    found: dict[str, Any] = {}
    for ip in interface.ips:
        if ipaddress.ip_address(ip.address).version == 6:
            found |= {"ipv6-prefix": ip.address, "ipv6-prefixlen": ip.prefix or None}
        else:
            found["net"] = f"{ip.address}/{ip.prefix}" if ip.prefix else ip.address
    return found


def _socket(kind: InterfaceType, source: InterfaceSource) -> dict[str, Any]:
    """A tunnel to another QEMU."""
    found = {_SOCKETS[kind]: f"{source.address or ''}:{source.port or 0}"}
    if kind == InterfaceType.UDP:
        local = source.local or LocalAddress()
        found["localaddr"] = f"{local.address or ''}:{local.port or 0}"
    return found


def _vhost_user_socket(interface: Interface) -> str:
    """The socket of a switch that is the interface's back end."""
    source = interface.source or InterfaceSource()
    if source.mode == "server":
        return f"socket,id=char{alias_of(interface)},path={escape(source.path or '')},server=on"
    reconnect = source.reconnect
    again = reconnect.timeout or 0 if reconnect is not None and reconnect.enabled else 0
    ending = f",reconnect={again}" if reconnect is not None else ""
    return f"socket,id=char{alias_of(interface)},path={escape(source.path or '')}{ending}"
