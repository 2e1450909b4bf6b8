"""Networks: ``-netdev`` with ``-device``, ``-nic``, and ``-net``, as interfaces."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.devices.device import Boot, Rom
from hostel.model.domain.devices.interface import (
    Interface,
    InterfaceDriver,
    InterfaceIp,
    InterfaceSource,
    InterfaceTarget,
    InterfaceType,
    LocalAddress,
    Mac,
)
from hostel.model.native.qemu.commandline import Properties
from hostel.model.native.qemu.place import pci_place
from hostel.model.native.settings import refused, whole_number

_CARDS: Final = {
    "virtio-net-pci": "virtio", "virtio-net": "virtio", "virtio": "virtio",
    "virtio-net-pci-transitional": "virtio-transitional", "virtio-net-pci-non-transitional": "virtio-non-transitional",
    **{name: name for name in ("e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet", "vmxnet3", "usb-net")},
}  # fmt: skip
_SOCKETS: Final = {
    "connect": InterfaceType.CLIENT, "listen": InterfaceType.SERVER, "mcast": InterfaceType.MCAST,
    "udp": InterfaceType.UDP,
}  # fmt: skip
_TAP_SCRIPT: Final = "/etc/qemu-ifup"  # what QEMU runs where nobody says otherwise


class Networks:
    """The interfaces of a command line, in order."""

    def __init__(self, default_model: str) -> None:
        self.interfaces: list[Interface] = []
        self.is_said = False
        self._default = default_model
        self._ends: dict[str, Interface] = {}
        self._cards: dict[str, list[Interface]] = {}
        self._backs: dict[str, list[Interface]] = {}

    def add_netdev(self, option: Properties) -> None:
        """``-netdev``.

        Raises:
            ModelError: a document has no such back end.
        """
        self.is_said = True
        name = option.needed("id")
        if name in self._ends:
            raise refused(option.option, f"id '{name}' is taken")
        interface = Interface()
        _read_back(option, interface, option.needed("type"))
        option.end()
        self._ends[name] = interface

    def has(self, driver: str) -> bool:
        """Whether a ``-device`` is a card."""
        return driver in _CARDS

    def add_device(self, driver: str, option: Properties) -> None:
        """``-device`` of a card.

        Raises:
            ModelError: there is no back end for it, or a document has no such card.
        """
        self.is_said = True
        name = option.needed("netdev")
        interface = self._ends.pop(name, None)
        if interface is None:
            raise refused(option.option, f"there is no -netdev '{name}'")
        interface.model = _CARDS[driver]
        self._read_card(option, interface)
        if driver != "usb-net":
            interface.address = pci_place(option)
        option.ignore("id", "bus", "vectors", "mq", "netdev")
        driver_ = interface.driver or InterfaceDriver()
        driver_.rx_queue_size, driver_.tx_queue_size = option.number("rx_queue_size"), option.number("tx_queue_size")
        if any(
            value is not None for value in (driver_.name, driver_.queues, driver_.rx_queue_size, driver_.tx_queue_size)
        ):
            interface.driver = driver_
        interface.mtu = option.number("host_mtu")
        option.end()
        self.interfaces.append(interface)

    def add_nic(self, option: Properties) -> None:
        """``-nic``: both ends at once."""
        self.is_said = True
        kind = option.needed("type")
        if kind == "none":
            option.end()
            return
        interface = Interface(model=self._model(option))
        self._read_card(option, interface)
        _read_back(option, interface, kind)
        option.ignore("id")
        option.end()
        self.interfaces.append(interface)

    def add_net(self, option: Properties) -> None:
        """``-net``: a card or a back end on a hub; each card gets the back end of its hub."""
        self.is_said = True
        kind, hub = option.needed("type"), option.take("vlan") or "0"
        if kind == "none":
            option.end()
            return
        if kind == "nic":
            netdev = option.take("netdev")
            card = Interface(model=self._model(option))
            self._read_card(option, card)
            option.ignore("name", "addr", "vectors", "id")
            option.end()
            self._cards.setdefault(hub if netdev is None else f"netdev {netdev}", []).append(card)
            return
        interface = Interface()
        _read_back(option, interface, kind)
        option.ignore("name", "id")
        option.end()
        self._backs.setdefault(hub, []).append(interface)

    def _model(self, option: Properties) -> str:
        model = option.take("model") or self._default
        if model not in _CARDS:
            raise refused(option.option, f"model='{model}'; write one of {', '.join(sorted(set(_CARDS.values())))}")
        return _CARDS[model]

    def _read_card(self, option: Properties, interface: Interface) -> None:
        mac = option.take("mac", "macaddr")
        interface.mac = Mac(address=mac) if mac is not None else None
        order = option.number("bootindex")
        interface.boot = Boot(order=order + 1) if order is not None else None
        rom = option.take("romfile")
        if rom is not None:
            interface.rom = Rom(file=rom) if rom else Rom(enabled=False)

    def finish(self) -> None:
        """Put cards and back ends of ``-net`` together.

        Raises:
            ModelError: one of both is alone, or a hub has several.
        """
        for hub, cards in self._cards.items():
            backs = self._backs.pop(hub, [])
            if hub.startswith("netdev "):
                end = self._ends.pop(hub.removeprefix("netdev "), None)
                backs = [end] if end is not None else []
            if len(backs) != len(cards):
                reason = f"{len(cards)} cards and {len(backs)} back ends on one hub; give each card its own -nic"
                raise refused("-net", reason)
            for card, back in zip(cards, backs, strict=True):
                back.mac, back.model, back.boot, back.rom = card.mac, card.model, card.boot, card.rom
                self.interfaces.append(back)
        for name in [*self._backs, *self._ends]:
            raise refused("-net", f"no card is on '{name}'")

    def add_default(self) -> None:
        """The card that QEMU plugs in where nobody says anything of networks."""
        self.interfaces.append(Interface(type=InterfaceType.USER, model=_CARDS[self._default]))


def _read_back(option: Properties, interface: Interface, kind: str) -> None:
    """The host's end.

    Raises:
        ModelError: a document has none such.
    """
    match kind:
        case "user":
            interface.type = InterfaceType.USER
            net, prefix = option.take("net"), option.take("ipv6-prefix")
            if net is not None:
                address, _, bits = net.partition("/")
                interface.ips.append(InterfaceIp(family="ipv4", address=address, prefix=_bits(option, bits, 32)))
            if prefix is not None:
                length = option.number("ipv6-prefixlen", high=128)
                interface.ips.append(InterfaceIp(family="ipv6", address=prefix, prefix=length))
        case "tap":
            _read_tap(option, interface)
        case "bridge":
            interface.type = InterfaceType.BRIDGE
            interface.source = InterfaceSource(bridge=option.take("br") or "br0")
            option.ignore("helper")
        case "socket":
            _read_socket(option, interface)
        case _:
            raise refused(
                option.option, f"type '{kind}' cannot be said in a document; write user, tap, bridge or socket"
            )


def _bits(option: Properties, text: str, most: int) -> int | None:
    return whole_number(option.option, text, 0, most) if text else None


def _read_tap(option: Properties, interface: Interface) -> None:
    interface.type = InterfaceType.ETHERNET
    bridge = option.take("br")
    name, script, down = option.take("ifname"), option.take("script"), option.take("downscript")
    if bridge is not None or option.take("helper") is not None:
        interface.type, interface.source = InterfaceType.BRIDGE, InterfaceSource(bridge=bridge or "br0")
        script = down = "no"
    interface.target = InterfaceTarget(dev=name) if name is not None else None
    script = _TAP_SCRIPT if script is None else script
    interface.script = None if script in ("no", "") else script
    interface.downscript = None if down in (None, "no", "") else down
    vhost, queues = option.flag("vhost"), option.number("queues", low=1, high=256)
    if vhost is not None or queues is not None:
        name = None if vhost is None else "vhost" if vhost else "qemu"
        interface.driver = InterfaceDriver(name=name, queues=queues)


def _read_socket(option: Properties, interface: Interface) -> None:
    for name, kind in _SOCKETS.items():
        place = option.take(name)
        if place is None:
            continue
        host, _, port = place.rpartition(":")
        interface.type = kind
        source = interface.source = InterfaceSource(address=host or None, port=_bits(option, port, 65535))
        local = option.take("localaddr")
        if kind == InterfaceType.UDP and local is not None:
            here, _, number = local.rpartition(":")
            source.local = LocalAddress(address=here or None, port=_bits(option, number, 65535))
        return
    raise refused(option.option, "a socket needs listen, connect, mcast or udp")
