"""Network interfaces: a back end on the host and a card in the guest (``qemuBuildInterfaceCommandLine``)."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import Context, alias_of, option
from hostel.drivers.qemu.command.place import place, virtio
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.interface import Interface, InterfaceSource, InterfaceType
from hostel.model.domain.domain import Domain

_CARDS: Final = {
    "virtio": "virtio-net-pci",
    "virtio-transitional": "virtio-net-pci-transitional",
    "virtio-non-transitional": "virtio-net-pci-non-transitional",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "rtl8139": "rtl8139",
    "ne2k_pci": "ne2k_pci",
    "pcnet": "pcnet",
    "vmxnet3": "vmxnet3",
    "usb-net": "usb-net",
}


def arguments(domain: Domain, context: Context, bootindex: dict[int, int]) -> list[str]:
    """Every interface of the document."""
    argv: list[str] = []
    for interface in domain.devices.interfaces:
        argv += card_arguments(domain, interface, context, bootindex.get(id(interface)))
    return argv


def card_arguments(domain: Domain, interface: Interface, context: Context, bootindex: int | None) -> list[str]:
    """One interface: what is at the host's end, then the card."""
    name, model = alias_of(interface), interface.model or "rtl8139"
    if model not in _CARDS:
        raise unsupported(f"interface '{name}': model type '{model}'; write one of {', '.join(_CARDS)}")
    mac = interface.mac.address if interface.mac is not None else None
    card: dict[str, Any] = {"driver": _CARDS[model], "netdev": f"host{name}", "id": name, "mac": mac}
    card |= {
        **virtio(interface.driver),
        "bootindex": bootindex,
        "host_mtu": interface.mtu if model.startswith("virtio") else None,
        **_rom(interface),
        **place(domain, interface),
    }
    backend = option("-netdev", {**_backend(interface, context), "id": f"host{name}"})
    return backend + option("-device", card)


def _rom(interface: Interface) -> dict[str, Any]:
    rom = interface.rom
    if rom is None:
        return {}
    if rom.enabled is False:
        return {"romfile": ""}
    return {"rombar": None if rom.bar is None else int(rom.bar), "romfile": rom.file}


def _backend(interface: Interface, context: Context) -> dict[str, Any]:
    source = interface.source or InterfaceSource()
    match interface.type:
        case InterfaceType.USER:
            return {"type": "user"}
        case InterfaceType.BRIDGE:
            return {"type": "bridge", "br": source.bridge}
        case InterfaceType.NETWORK:
            bridge = context.bridge(source.network or "")
            return {"type": "user"} if bridge is None else {"type": "bridge", "br": bridge}
        case InterfaceType.ETHERNET:
            target = interface.target.dev if interface.target is not None else None
            scripts = {"script": interface.script or "no", "downscript": interface.downscript or "no"}
            return {"type": "tap", **scripts, "ifname": target}
        case kind:
            choices = "user, network, bridge or ethernet"
            raise unsupported(f"interface type='{kind}' under qemu:///session; write {choices}")
