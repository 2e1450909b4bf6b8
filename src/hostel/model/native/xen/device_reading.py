"""Network cards, screens, ports and the host's devices of Xen's configuration."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from hostel.codec.xmlfield import Unknown
from hostel.errors import ErrorCode
from hostel.model.domain.devices.character import Channel, ChannelTarget, CharacterSource, CharacterType
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.hostdev import (
    PciHostAddress,
    PciHostdev,
    PciHostSource,
    UsbHostAddress,
    UsbHostdev,
    UsbHostSource,
)
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import (
    Interface,
    InterfaceIp,
    InterfaceSource,
    InterfaceTarget,
    InterfaceType,
    Mac,
)
from hostel.model.domain.devices.sound import Sound
from hostel.model.domain.domain import Domain
from hostel.model.native.settings import refused, whole_number
from hostel.model.native.xen.character import read_parallel, read_serial
from hostel.model.native.xen.commandline import format_commandline
from hostel.model.native.xen.document import is_hvm
from hostel.model.native.xen.entries import Entries, pairs
from hostel.model.port import Bandwidth, Outbound, VirtualPort, Vlan, VlanTag

_MAC: Final = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}")
_RATE: Final = re.compile(r"([0-9]{1,15})([GMK]?)([Bb])/s")
_PCI: Final = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])(?:,(.*))?")
_BRIDGE_SCRIPTS: Final = ("vif-bridge", "vif-vnic")
_POINTERS: Final = ("tablet", "mouse", "keyboard")
_SOUNDS: Final = ("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "ich7")
_MOST_SERIALS: Final = 16


def read_devices(entries: Entries, domain: Domain, *, card_type: str) -> None:
    """Add what xl and xm say the same way.

    Args:
        entries: the file.
        domain: the document.
        card_type: which ``type=`` of a card is Xen's own.

    Raises:
        ModelError: a device is none that a document can have.
    """
    devices = domain.devices
    devices.interfaces = [_interface(text, card_type) for text in entries.texts("vif")]
    devices.hostdevs += [_pci(text) for text in entries.texts("pci")]
    _read_screen(entries, domain)
    if not is_hvm(domain):
        return
    devices.sounds = _sounds(entries)
    parallel = entries.text("parallel")
    if parallel not in (None, "none"):
        devices.parallels = [read_parallel(parallel or "")]
    serial = entries.value("serial")
    ports = entries.texts("serial") if isinstance(serial, list) else [entries.text("serial") or "none"]
    if len(ports) > _MOST_SERIALS:
        raise refused("serial", f"more than {_MOST_SERIALS} ports")
    devices.serials = [read_serial(text, port) for port, text in enumerate(ports) if text != "none"]
    pointers = entries.texts("usbdevice") if isinstance(entries.value("usbdevice"), list) else []
    single = entries.value("usbdevice")
    pointers += [single] if isinstance(single, str) else []
    devices.inputs = [Input(type=name, bus="usb") for name in pointers if name in _POINTERS]


def read_xl_devices(entries: Entries, domain: Domain) -> None:
    """Add what only xl says.

    Raises:
        ModelError: a device is none that a document can have.
    """
    devices = domain.devices
    limits = Controller(type=ControllerType.XENBUS, index=0)
    limits.max_event_channels = entries.number("max_event_channels", 0, 2**31 - 1) or None
    limits.max_grant_frames = entries.number("max_grant_frames", 0, 2**31 - 1) or None
    devices.controllers.append(limits)
    if is_hvm(domain) and entries.boolean("spice", default=False):
        devices.graphics = [_spice(entries)]
    devices.hostdevs += [_usb(text) for text in entries.texts("usbdev")]
    for text in entries.texts("usbctrl"):
        devices.controllers.append(_usb_controller(text))
    devices.channels += [_channel(text) for text in entries.texts("channel")]
    arguments = entries.texts("device_model_args")
    if arguments:
        domain.unknown.append(Unknown(*format_commandline(arguments)))


def _interface(text: str, card_type: str) -> Interface:
    words = pairs("vif", text)
    bridge, script, model = words.get("bridge"), words.get("script"), words.get("model")
    interface = Interface(type=InterfaceType.ETHERNET, script=script or None)
    address = words.get("mac", "").lower()
    if address:
        if not _MAC.fullmatch(address):
            raise refused("vif", f"malformed mac address '{address}'")
        interface.mac = Mac(address=":".join(part.zfill(2) for part in address.split(":")))
    if bridge is not None or script in _BRIDGE_SCRIPTS:
        interface.type = InterfaceType.BRIDGE
        _read_bridge(interface, bridge)
    interface.ips = [_address(part) for part in words.get("ip", "").split(" ") if part]
    if model is not None:
        interface.model = model
    elif words.get("type") == card_type:
        interface.model = "netfront"
    if words.get("vifname"):
        interface.target = InterfaceTarget(dev=words["vifname"])
    if "rate" in words:
        interface.bandwidth = Bandwidth(outbound=Outbound(average=_rate(words["rate"])))
    return interface


def _read_bridge(interface: Interface, bridge: str | None) -> None:
    """Read a bridge and, of Open vSwitch, its VLANs: ``NAME.TAG`` or ``NAME:TAG:TAG``."""
    if bridge is None:
        return
    name, dot, tag = bridge.partition(".")
    tags = [tag] if dot else []
    is_trunk = False
    if not dot and ":" in bridge:
        name, *tags = bridge.split(":")
        is_trunk = True
    interface.source = InterfaceSource(bridge=name)
    if tags:
        numbers = [VlanTag(id=whole_number("vif", part, 0, 4095)) for part in tags]
        interface.vlan = Vlan(trunk=True if is_trunk else None, tags=numbers)
        interface.virtualport = VirtualPort(type="openvswitch")


def _address(text: str) -> InterfaceIp:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        raise refused("vif", f"Invalid address '{text}'", code=ErrorCode.INVALID_ARG) from None
    return InterfaceIp(address=str(parsed), family=f"ipv{parsed.version}")


def _rate(text: str) -> int:
    """A rate in kilobytes a second; what follows ``@`` is how often it is looked at."""
    found = _RATE.fullmatch(text.partition("@")[0])
    if found is None:
        raise refused("vif", f"Invalid rate '{text}' specified")
    rate = int(found[1]) * {"G": 1024 * 1024, "M": 1024}.get(found[2], 1)
    return rate // 8 if found[3] == "b" else rate


def _pci(text: str) -> PciHostdev:
    found = _PCI.fullmatch(text)
    if found is None:
        raise refused("pci", f"Malformed PCI address {text}")
    domain, bus, slot, function = (int(part, 16) if part else 0 for part in found.groups()[:4])
    if slot > 0x1F:
        raise refused("pci", f"Malformed PCI address {text}")
    options = pairs("pci", found[5]) if found[5] else {}
    filtering = None
    if "permissive" in options:
        filtering = not whole_number("pci", options["permissive"])
    address = PciHostAddress(domain=domain, bus=bus, slot=slot, function=function)
    return PciHostdev(type="pci", managed=False, source=PciHostSource(write_filtering=filtering, address=address))


def _read_screen(entries: Entries, domain: Domain) -> None:
    if is_hvm(domain):
        if entries.boolean("vnc", default=False):
            is_automatic = entries.boolean("vncunused", default=True)
            port = -1 if is_automatic else entries.number("vncdisplay", 0, 59635) + 5900
            words = {name: entries.text(name) for name in ("vnclisten", "vncpasswd", "keymap")}
            domain.devices.graphics = [_vnc(words, port, is_automatic=is_automatic)]
        elif entries.boolean("sdl", default=False):
            screen = Graphics(type=GraphicsType.SDL)
            screen.display, screen.xauth = entries.text("display"), entries.text("xauthority")
            domain.devices.graphics = [screen]
        return
    for text in entries.texts("vfb")[:1]:
        options: dict[str, str | None] = dict(pairs("vfb", text))
        if options.get("type") == "sdl":
            screen = Graphics(type=GraphicsType.SDL)
            screen.display, screen.xauth = options.get("display"), options.get("xauthority")
            domain.devices.graphics = [screen]
        else:
            number = options.get("vncdisplay")
            is_automatic = options.get("vncunused") == "1"
            port = -1 if number is None else whole_number("vfb", number, 0, 59635) + 5900
            domain.devices.graphics = [_vnc(options, port, is_automatic=is_automatic or number is None)]


def _vnc(words: dict[str, str | None], port: int, *, is_automatic: bool) -> Graphics:
    return Graphics(
        type=GraphicsType.VNC,
        port=port,
        autoport=is_automatic,
        keymap=words.get("keymap"),
        passwd=words.get("vncpasswd"),
        listens=[Listen(type="address", address=words.get("vnclisten"))],
    )


def _spice(entries: Entries) -> Graphics:
    port, tls_port = (entries.number(name, 0, 65535) for name in ("spiceport", "spicetls_port"))
    is_open = entries.boolean("spicedisable_ticketing", default=False)
    return Graphics(
        type=GraphicsType.SPICE,
        port=port or None,
        tls_port=tls_port or None,
        autoport=not port and not tls_port,
        passwd=None if is_open else entries.needed_text("spicepasswd"),
        listens=[Listen(type="address", address=entries.text("spicehost"))],
        mouse="client" if entries.boolean("spiceagent_mouse", default=False) else "server",
        clipboard=entries.boolean("spice_clipboard_sharing", default=False),
    )


def _sounds(entries: Entries) -> list[Sound]:
    text = entries.text("soundhw")
    if text is None:
        return []
    names = ["sb16", "es1370"] if text == "all" else text.split(",")
    for name in names:
        if name not in _SOUNDS:
            raise refused("soundhw", f"unknown sound model '{name}'")
    return [Sound(model=name) for name in names]


def _hexadecimal(name: str, text: str) -> int:
    if not re.fullmatch("[0-9a-fA-F]{1,4}", text):
        raise refused(name, f"'{text}' is no hexadecimal number")
    return int(text, 16)


def _usb(text: str) -> UsbHostdev:
    words = pairs("usbdev", text)
    if "hostbus" not in words or "hostaddr" not in words:
        raise refused("usbdev", f"'{text}' does not say hostbus and hostaddr", code=ErrorCode.CONF_SYNTAX)
    address = UsbHostAddress(
        bus=_hexadecimal("usbdev", words["hostbus"]), device=_hexadecimal("usbdev", words["hostaddr"])
    )
    return UsbHostdev(type="usb", managed=False, source=UsbHostSource(address=address))


def _usb_controller(text: str) -> Controller:
    words = pairs("usbctrl", text)
    kind = words.get("type", "qusb")
    if not kind.startswith("qusb"):
        reason = f"a document has no USB controller of type '{kind}'"
        raise refused("usbctrl", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    version, ports = (
        _hexadecimal("usbctrl", words.get(key, default)) for key, default in (("version", "2"), ("ports", "8"))
    )
    return Controller(type=ControllerType.USB, model="qusb1" if version == 1 else "qusb2", ports=ports)


def _channel(text: str) -> Channel:
    words = pairs("channel", text)
    kind = words.get("connection", "")
    channel = Channel(type=CharacterType.PTY, target=ChannelTarget(type="xen", name=words.get("name")))
    if kind.startswith("socket"):
        channel.type = CharacterType.UNIX
        channel.sources = [CharacterSource(mode="bind", path=words.get("path"))]
    elif not kind.startswith("pty"):
        reason = f"a document has no channel with connection '{kind}'"
        raise refused("channel", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return channel
