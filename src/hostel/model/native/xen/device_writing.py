"""Network cards, screens, ports and the host's devices for Xen's configuration."""

from __future__ import annotations

from hostel.codec.assignments import Value
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import Channel, CharacterType
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.hostdev import PciHostdev, UsbHostdev
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.domain import Domain
from hostel.model.native.xen.commandline import TAG, parse_commandline
from hostel.model.native.xen.document import is_hvm
from hostel.model.native.xen.entries import EntryWriter, no_comma

_VNC_BASE = 5900


def write_cards(domain: Domain, writer: EntryWriter, *, card_type: str) -> None:
    """Write network cards.

    Args:
        domain: the document.
        writer: the file.
        card_type: which ``type=`` of a card is Xen's own.

    Raises:
        ModelError: one is none that Xen has.
    """
    cards: list[Value] = [_card(domain, item, card_type) for item in domain.devices.interfaces]
    writer.add("vif", cards)


def _card(domain: Domain, interface: Interface, card_type: str) -> str:
    path = domain.devices.path(interface)
    words = [f"mac={interface.mac.address}"] if interface.mac is not None else []
    addresses = " ".join(item.address for item in interface.ips)
    match interface.type:
        case InterfaceType.BRIDGE:
            bridge = interface.source.bridge if interface.source is not None else None
            if bridge is not None:
                words.append(f"bridge={bridge}{_vlans(interface)}")
            words += [f"ip={addresses}"] if addresses else []
            is_switch = interface.virtualport is not None and interface.virtualport.type == "openvswitch"
            words.append(f"script={interface.script or ('vif-openvswitch' if is_switch else 'vif-bridge')}")
        case InterfaceType.ETHERNET:
            words += [f"script={interface.script}"] if interface.script else []
            words += [f"ip={addresses}"] if addresses else []
        case InterfaceType.NETWORK:
            reason = "the bridge of a network is only known to its host; write type='bridge'"
            raise ModelError(f"{path}/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        case _:
            reason = f"Unsupported net type '{interface.type}'"
            raise ModelError(f"{path}/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if interface.model is not None:
        is_own = interface.model == "netfront" and is_hvm(domain)
        words.append(f"type={card_type}" if is_own else f"model={interface.model}")
    if interface.target is not None and interface.target.dev:
        words.append(f"vifname={interface.target.dev}")
    limit = interface.bandwidth.outbound if interface.bandwidth is not None else None
    if limit is not None and limit.average:
        words.append(f"rate={limit.average}KB/s")
    return ",".join(no_comma(path, word) for word in words)


def _vlans(interface: Interface) -> str:
    is_switch = interface.virtualport is not None and interface.virtualport.type == "openvswitch"
    vlan = interface.vlan
    if not is_switch or vlan is None or not vlan.tags:
        return ""
    return "".join(f":{tag.id}" for tag in vlan.tags) if vlan.trunk else f".{vlan.tags[0].id}"


def write_host_devices(domain: Domain, writer: EntryWriter) -> None:
    """Write PCI devices of the host."""
    found: list[Value] = []
    for hostdev in domain.devices.hostdevs:
        if isinstance(hostdev, PciHostdev):
            place, filtering = hostdev.source.address, hostdev.source.write_filtering
            ending = "" if filtering is None else f",permissive={int(not filtering)}"
            found.append(f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function:x}{ending}")
    writer.add("pci", found)


def write_screen(domain: Domain, writer: EntryWriter) -> None:
    """Write the one screen, unless it is Spice's, which xm does not have."""
    screens = domain.devices.graphics
    if len(screens) != 1 or screens[0].type == GraphicsType.SPICE:
        return
    screen = screens[0]
    is_sdl = screen.type == GraphicsType.SDL
    if not is_hvm(domain):
        words = ["type=sdl" if is_sdl else "type=vnc", *_framebuffer(screen)]
        writer.add("vfb", [",".join(no_comma(domain.devices.path(screen), word) for word in words)])
        return
    writer.add("sdl", is_sdl)
    writer.add("vnc", not is_sdl)
    if is_sdl:
        writer.add("display", screen.display)
        writer.add("xauthority", screen.xauth)
        return
    writer.add("vncunused", bool(screen.autoport))
    if not screen.autoport:
        writer.add("vncdisplay", (screen.port or _VNC_BASE) - _VNC_BASE)
    writer.add("vnclisten", screen.listens[0].address if screen.listens else None)
    writer.add("vncpasswd", screen.passwd)
    writer.add("keymap", screen.keymap)


def _framebuffer(screen: Graphics) -> list[str]:
    if screen.type == GraphicsType.SDL:
        named = (("display", screen.display), ("xauthority", screen.xauth))
        return [f"{name}={value}" for name, value in named if value is not None]
    words = [f"vncunused={int(bool(screen.autoport))}"]
    if not screen.autoport:
        words.append(f"vncdisplay={(screen.port or _VNC_BASE) - _VNC_BASE}")
    address = screen.listens[0].address if screen.listens else None
    more = (("vnclisten", address), ("vncpasswd", screen.passwd), ("keymap", screen.keymap))
    return words + [f"{name}={value}" for name, value in more if value is not None]


def write_pointers(domain: Domain, writer: EntryWriter, *, most: int | None = None) -> None:
    """Write USB mice, tablets and keyboards, at most so many."""
    if not is_hvm(domain):
        return
    names: list[Value] = [
        item.type
        for item in domain.devices.inputs
        if item.bus == "usb" and item.type in ("mouse", "tablet", "keyboard")
    ]
    names = names[:most]
    if names:
        writer.add("usb", True)
        writer.add("usbdevice", str(names[0]) if len(names) == 1 else names)


def write_xl_devices(domain: Domain, writer: EntryWriter) -> None:
    """Write what only xl has.

    Raises:
        ModelError: a device is none that xl has.
    """
    devices = domain.devices
    for screen in devices.graphics[:1]:
        if is_hvm(domain) and screen.type == GraphicsType.SPICE:
            _write_spice(screen, writer)
    write_pointers(domain, writer)
    usb: list[Value] = []
    for hostdev in devices.hostdevs:
        if isinstance(hostdev, UsbHostdev):
            address = hostdev.source.address
            if address is None:
                reason = "xl names a USB device by bus and number only"
                raise ModelError(devices.path(hostdev), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
            usb.append(f"hostbus={address.bus:x},hostaddr={address.device:x}")
    writer.add("usbdev", usb)
    controllers: list[Value] = [
        _usb_controller(domain, item) for item in devices.controllers if item.type == ControllerType.USB
    ]
    writer.add("usbctrl", controllers)
    channels: list[Value] = [
        _channel(domain, item) for item in devices.channels if item.target is not None and item.target.type == "xen"
    ]
    writer.add("channel", channels)
    arguments: list[Value] = []
    for item in domain.unknown:
        if item.name == TAG:
            arguments += parse_commandline(item.value)
    writer.add("device_model_args", arguments)


def _write_spice(screen: Graphics, writer: EntryWriter) -> None:
    writer.add("sdl", False)
    writer.add("vnc", False)
    writer.add("spice", True)
    writer.add("spicehost", screen.listens[0].address if screen.listens else None)
    writer.add("spiceport", screen.port or 0)
    writer.add("spicetls_port", screen.tls_port or 0)
    writer.add("spicedisable_ticketing", screen.passwd is None)
    writer.add("spicepasswd", screen.passwd)
    if screen.mouse is not None:
        writer.add("spiceagent_mouse", screen.mouse == "client")
    if screen.mouse == "client":
        writer.add("spicevdagent", True)  # the agent moves the mouse, and has the clipboard
    if screen.clipboard:
        writer.add("spice_clipboard_sharing", True)
        writer.add("spicevdagent", True)


def _usb_controller(domain: Domain, controller: Controller) -> str:
    versions = {"qusb1": "type=qusb,version=1,", "qusb2": "type=qusb,version=2,", None: ""}
    if controller.model not in versions:
        path = f"{domain.devices.path(controller)}/@model"
        raise ModelError(path, f"xl has no USB controller '{controller.model}'", code=ErrorCode.CONFIG_UNSUPPORTED)
    ports = f"ports={controller.ports:x}" if controller.ports is not None else ""
    return (versions[controller.model] + ports).rstrip(",")


def _channel(domain: Domain, channel: Channel) -> str:
    path = domain.devices.path(channel)
    name = (channel.target.name if channel.target is not None else None) or ""
    if channel.type == CharacterType.PTY:
        words = ["connection=pty", f"name={name}"]
    elif channel.type == CharacterType.UNIX:
        file = channel.source.path if channel.source is not None else None
        words = ["connection=socket", *([f"path={file}"] if file else []), f"name={name}"]
    else:
        reason = f"xl has no channel of type '{channel.type}'"
        raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return ",".join(no_comma(path, word) for word in words)
