"""Domain management: devices that are attached, detached and changed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any, Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.affect import ALL, CONFIG, CURRENT, LIVE, THREE, affected, affected_domain, check
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing, read_document
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.device import DeviceDriver, DeviceModify
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.offered import offered
from hostel.errors import UsageError

FILE = data("file", "file with the XML document of the device")
_SOURCES: Final = ("file", "block", "network")
_RATES: Final = ("average", "peak", "burst", "floor")
_ADDRESSES: Final = ("pci", "usb", "scsi", "ide", "sata", "ccw")


def _devices(session: Session, api: str) -> DeviceDriver:
    return offered(session.hypervisor, DeviceDriver, api)


def _attach(session: Session, domain: DomainRef, xml: str, args: Args) -> None:
    affect = affected_domain(domain, args)
    if not affect and not args.has("current"):
        affect = Affect.LIVE  # what the call without flags has always meant
    _devices(session, "virDomainAttachDeviceFlags").domain_attach_device_flags(domain, xml, affect)


def _detach(session: Session, domain: DomainRef, xml: str, affect: Affect, args: Args) -> None:
    if not affect and not args.has("current"):
        affect = Affect.LIVE
    _devices(session, "virDomainDetachDeviceFlags").domain_detach_device_flags(domain, xml, affect)


def _attach_device(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    xml = read_document(args["file"])
    with failing(f"Failed to attach device from {args['file']}"):
        _attach(session, domain, xml, args)
    session.output.note("Device attached successfully")


def _detach_device(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    xml = read_document(args["file"])
    with failing(f"Failed to detach device from {args['file']}"):
        _detach(session, domain, xml, affected_domain(domain, args), args)
    session.output.note("Device detached successfully")


def _update_device(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    xml = read_document(args["file"])
    force = DeviceModify.FORCE if args.has("force") else DeviceModify.NONE
    with failing(f"Failed to update device from {args['file']}"):
        devices = _devices(session, "virDomainUpdateDeviceFlags")
        devices.domain_update_device_flags(domain, xml, affected_domain(domain, args), force)
    session.output.note("Device updated successfully")


def _detach_alias(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    with failing(f"Failed to detach device with alias {args['alias']}"):
        devices = _devices(session, "virDomainDetachDeviceAlias")
        devices.domain_detach_device_alias(domain, args["alias"], affected(args))
    session.output.note("Device detach request sent successfully")


def _attach_disk(session: Session, args: Args) -> None:
    check(args)
    for option, needed in (
        ("source-host-name", "source-protocol"),
        ("source-host-transport", "source-protocol"),
        ("source-host-socket", "source-protocol"),
        ("source-host-socket", "source-host-transport"),
    ):
        if args.has(option) and not args.has(needed):
            raise UsageError(f"Option --{needed} is required by option --{option}")
    args.exclude("source-host-name", "source-host-socket")
    xml = _disk_xml(args)
    if args.has("print-xml"):
        session.output.line(xml)
        return
    domain = session.domain(args)
    with failing("Failed to attach disk"):
        _attach(session, domain, xml, args)
    session.output.note("Disk attached successfully")


def _disk_xml(args: Args) -> str:
    kind = args.get("sourcetype")
    if kind is not None and kind not in _SOURCES:
        raise CommandError(f"Unknown source type: '{kind}'")
    kind = kind or _guess(args)
    if (kind == "network") != (args.get("source-protocol") is not None):
        raise CommandError("--source-protocol option requires --sourcetype network")
    mode = args.get("mode")
    if mode not in (None, "readonly", "shareable"):
        raise CommandError(f"No support for {mode} in command 'attach-disk'")
    inner = []
    names = {"driver": "name", "subdriver": "type", "iothread": "iothread", "cache": "cache", "io": "io"}
    driver = {name: args.get(option) for option, name in names.items()}
    if any(text is not None for text in driver.values()):
        inner.append(document.empty("driver", **driver))
    inner += _disk_source(kind, args)
    inner.append(document.empty("target", dev=args["target"], bus=args.get("targetbus")))
    if mode is not None:
        inner.append(document.empty(mode))
    if (serial := args.get("serial")) is not None:
        inner.append(document.element("serial", serial))
    if (alias := args.get("alias")) is not None:
        inner.append(document.empty("alias", name=alias))
    if (wwn := args.get("wwn")) is not None:
        inner.append(document.element("wwn", wwn))
    if (address := args.get("address")) is not None:
        inner.append(_address(address, args))
    rawio = "yes" if args.has("rawio") else None
    return document.nested("disk", *inner, type=kind, device=args.get("type"), rawio=rawio)


def _guess(args: Args) -> str:
    if args.get("source-protocol") is not None:
        return "network"
    try:
        is_device = stat.S_ISBLK(os.stat(args.get("source") or "").st_mode)
    except OSError:
        is_device = False
    return "block" if is_device and args.get("driver") not in ("file", "tap") else "file"


def _disk_source(kind: str, args: Args) -> list[str]:
    source = args.get("source")
    if kind != "network":
        return [document.empty("source", **{"file" if kind == "file" else "dev": source})] if source else []
    name, _, port = (args.get("source-host-name") or "").partition(":")
    host = {
        "transport": args.get("source-host-transport"),
        "socket": args.get("source-host-socket"),
        "name": name or None,
        "port": port or None,
    }
    protocol = args.get("source-protocol")
    if not any(host.values()):
        return [document.empty("source", protocol=protocol, name=source)]
    return [document.nested("source", document.empty("host", **host), protocol=protocol, name=source)]


def _address(text: str, args: Args) -> str:
    """``pci:0000.00.1f.0``, ``scsi:0.0.0``, ``ide:0.0.0``, ``usb:0.1``."""
    kind, _, rest = text.partition(":")
    parts = rest.replace(":", ".").split(".")
    if kind not in _ADDRESSES or not all(parts):
        raise CommandError("Invalid address.")
    try:
        if kind == "pci" and len(parts) == 4:
            numbers = [int(part, 16) for part in parts]
            given = dict(zip(("domain", "bus", "slot", "function"), (f"{it:#04x}" for it in numbers), strict=True))
            given["multifunction"] = "on" if args.has("multifunction") else ""
            return document.empty("address", type="pci", **{name: item or None for name, item in given.items()})
        if kind == "usb" and len(parts) == 2:
            return document.empty("address", type="usb", bus=str(int(parts[0])), port=str(int(parts[1])))
        if kind in ("scsi", "ide", "sata") and len(parts) == 3:
            controller, bus, unit = (str(int(part)) for part in parts)
            return document.empty("address", type="drive", controller=controller, bus=bus, unit=unit)
    except ValueError:
        pass
    raise CommandError("Invalid address.")


def _detach_disk(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    inactive = affected(args) == Affect.CONFIG
    disk = _find_disk(session, domain, args["target"], inactive=inactive, changeable=False)
    xml = _text(disk)
    if args.has("print-xml"):
        session.output.text(xml)
        return
    with failing("Failed to detach disk"):
        _detach(session, domain, xml, affected_domain(domain, args), args)
    session.output.note("Disk detached successfully")


def _tree(xml: str) -> Any:
    from lxml import etree

    return etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False))


def _text(node: Any) -> str:
    from lxml import etree

    return etree.tostring(node, encoding="unicode", with_tail=False)


def _find_disk(session: Session, domain: DomainRef, path: str, *, inactive: bool, changeable: bool) -> Any:
    """The disk whose source or target is named, without what it stands on."""
    flags = DomainXmlFlag.INACTIVE if inactive else DomainXmlFlag.NONE
    for disk in _tree(session.hypervisor.domain_get_xml_desc(domain, flags)).iterfind("devices/disk"):
        if changeable and disk.get("device", "cdrom") not in ("cdrom", "floppy"):
            continue
        source, target = disk.find("source"), disk.find("target")
        places = [source.get(name) for name in ("file", "dev", "dir", "name")] if source is not None else []
        if path in places or (target is not None and target.get("dev") == path):
            backing = disk.find("backingStore")
            if backing is not None:
                disk.remove(backing)
            return disk
    raise CommandError(f"No disk found whose source path or target is {path}")


def _change_media(session: Session, args: Args) -> None:
    for one, other in (("eject", "insert"), ("eject", "update"), ("insert", "update"), ("eject", "block")):
        args.exclude(one, other)
    check(args)
    source = args.get("source")
    action = next((word for word in ("eject", "insert") if args.has(word)), "update")
    if args.has("update") and source is None:
        action = "eject"
    domain = session.domain(args)
    inactive = bool(affected(args) & Affect.CONFIG)
    disk = _find_disk(session, domain, args["path"], inactive=inactive, changeable=True)
    _set_medium(disk, None if action == "eject" else source, action, args)
    xml = _text(disk)
    if args.has("print-xml"):
        session.output.text(xml)
        return
    force = DeviceModify.FORCE if args.has("force") else DeviceModify.NONE
    with failing(f"Failed to complete action {action} on media"):
        devices = _devices(session, "virDomainUpdateDeviceFlags")
        devices.domain_update_device_flags(domain, xml, affected(args), force)
    session.output.text(f"Successfully {action}{'d' if action == 'update' else 'ed'} media.")


def _set_medium(disk: Any, source: str | None, action: str, args: Args) -> None:
    path = args["path"]
    if disk.get("device") not in ("cdrom", "floppy"):
        raise CommandError(f"The disk device '{path}' is not removable")
    old = disk.find("source")
    if action == "eject" and old is None:
        raise CommandError(f"The disk device '{path}' doesn't have media")
    if action != "eject" and source is None:
        raise CommandError("New disk media source was not specified")
    policy = None
    if old is not None:
        if action == "insert" and any(old.get(name) for name in ("file", "dev", "dir", "pool", "name")):
            raise CommandError(f"The disk device '{path}' already has media")
        policy = old.get("startupPolicy")
        disk.remove(old)
    disk.set("type", "block" if args.has("block") and source is not None else "file")
    if source is not None:
        new = disk.makeelement("source", {"dev" if args.has("block") else "file": source})
        if policy is not None:
            new.set("startupPolicy", policy)
        target = disk.find("target")
        new.tail = disk.text  # so that it is written on a line of its own
        target.addprevious(new)


def _attach_interface(session: Session, args: Args) -> None:
    check(args)
    xml = _interface_xml(args)
    if args.has("print-xml"):
        session.output.line(xml)
        return
    domain = session.domain(args)
    with failing("Failed to attach interface"):
        _attach(session, domain, xml, args)
    session.output.note("Interface attached successfully")


def _interface_xml(args: Args) -> str:
    kind, source = args["type"], args["source"]
    sources = {
        "network": lambda: document.empty("source", network=source),
        "bridge": lambda: document.empty("source", bridge=source),
        "direct": lambda: document.empty("source", dev=source),
        "hostdev": lambda: document.nested("source", _host_address(source)),
        "vhostuser": lambda: document.empty("source", type="unix", path=source, mode=_source_mode(args)),
    }
    if kind not in sources:
        raise CommandError(f"No support for {kind} in command 'attach-interface'")
    inbound, outbound = _rate("inbound", args), _rate("outbound", args)
    inner = [sources[kind]()]
    for option, tag, name in (
        ("target", "target", "dev"), ("mac", "mac", "address"), ("script", "script", "path"),
        ("model", "model", "type"), ("alias", "alias", "name"),
    ):  # fmt: skip
        if (text := args.get(option)) is not None:
            inner.append(document.empty(tag, **{name: text}))
    if inbound or outbound:
        rates = [document.empty(tag, **rate) for tag, rate in (("inbound", inbound), ("outbound", outbound)) if rate]
        inner.append(document.nested("bandwidth", *rates))
    return document.nested("interface", *inner, type=kind, managed="yes" if args.has("managed") else None)


def _source_mode(args: Args) -> str:
    mode = args.get("source-mode")
    if mode is None:
        raise CommandError("source-mode is mandatory")
    if mode not in ("server", "client"):
        raise CommandError(f"Invalid source mode: {mode}")
    return mode


def _host_address(source: str) -> str:
    parts = source.replace(":", ".").split(".")
    try:
        numbers = [int(part, 16) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise CommandError(f"cannot parse pci address '{source}' for network interface")
    domain, bus, slot, function = (f"{number:#04x}" for number in numbers)
    return document.empty("address", type="pci", domain=domain, bus=bus, slot=slot, function=function)


def _rate(option: str, args: Args) -> dict[str, str]:
    """``average,peak,burst,floor``, each of which may be left out."""
    text = args.get(option)
    if text is None:
        return {}
    rate: dict[str, str] = {}
    parts = text.split(",")
    for name, part in zip(_RATES, parts, strict=False):
        if part and not part.isdecimal():
            raise CommandError(f"malformed {name} value '{part}' in rate '{text}'")
        if part and int(part):
            rate[name] = part
    if len(parts) > len(_RATES):
        raise CommandError(f"Rate string '{text}' has too many fields")
    if option == "inbound" and not rate.get("average") and not rate.get("floor"):
        raise CommandError("either inbound average or floor is mandatory")
    if option == "outbound" and not rate.get("average"):
        raise CommandError("outbound average is mandatory")
    if option == "outbound" and rate.get("floor"):
        raise CommandError("outbound floor is unsupported yet")
    return rate


def _detach_interface(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    config = args.has("config") or args.has("persistent")
    live = args.has("live") or (args.has("persistent") and domain.id != -1)
    wanted = [Affect.CONFIG] if config else []
    if live or not config:
        wanted.append(Affect.LIVE if live else Affect.CURRENT)
    for affect in wanted:
        flags = DomainXmlFlag.INACTIVE if affect == Affect.CONFIG else DomainXmlFlag.NONE
        xml = _text(_find_interface(_tree(session.hypervisor.domain_get_xml_desc(domain, flags)), args))
        if args.has("print-xml"):
            session.output.text(xml)
            continue
        with failing("Failed to detach interface"):
            _detach(session, domain, xml, affect, args)
    if not args.has("print-xml"):
        session.output.note("Interface detached successfully")


def _find_interface(tree: Any, args: Args) -> Any:
    kind, mac = args["type"], args.get("mac")
    found = [item for item in tree.iterfind("devices/interface") if item.get("type") == kind]
    with _detaching_interface():
        if not found:
            raise CommandError(f"No interface found whose type is {kind}")
        if mac is None:
            if len(found) > 1:
                raise CommandError(
                    f"Domain has {len(found)} interfaces. Please specify which one to detach using --mac"
                )
            return found[0]
        same = [item for item in found if (item.find("mac").get("address") or "").lower() == mac.lower()]
        if len(same) > 1:
            raise CommandError(
                f"Domain has multiple interfaces matching MAC address {mac}. You must use detach-device and "
                "specify the device pci address to remove it."
            )
        if not same:
            raise CommandError(f"No interface with MAC address {mac} was found")
        return same[0]


@contextlib.contextmanager
def _detaching_interface() -> Iterator[None]:
    """Say after what was wrong what was tried, as virsh does of interfaces."""
    try:
        yield
    except CommandError as error:
        raise CommandError(f"{error.tried}\nFailed to detach interface") from None


def _set_link(session: Session, args: Args) -> None:
    state = args["state"]
    domain = session.domain(args)
    if state not in ("up", "down"):
        raise CommandError(f"invalid link state '{state}'")
    affect = Affect.CONFIG if args.has("config") or domain.id == -1 else Affect.LIVE
    flags = DomainXmlFlag.INACTIVE if affect == Affect.CONFIG else DomainXmlFlag.NONE
    tree = _tree(session.hypervisor.domain_get_xml_desc(domain, flags))
    interface = find_interface(tree, args["interface"])
    link = interface.find("link")
    if link is None:
        link = interface.makeelement("link", {})
        interface.append(link)
    link.set("state", state)
    if args.has("print-xml"):
        session.output.text(_text(interface))
        return
    with failing("Failed to update interface link state"):
        devices = _devices(session, "virDomainUpdateDeviceFlags")
        devices.domain_update_device_flags(domain, _text(interface), affect, DeviceModify.NONE)
    session.output.note("Device updated successfully")


def find_interface(tree: Any, name: str, *, missing: str | None = None) -> Any:
    """The interface of a MAC address, or of a name on the host; ``missing`` is what to say where there is none.

    Raises:
        CommandError: there is none, or more than one.
    """
    found = []
    for interface in tree.iterfind("devices/interface"):
        mac, target = interface.find("mac"), interface.find("target")
        is_mac = mac is not None and (mac.get("address") or "").lower() == name.lower()
        if is_mac or (target is not None and target.get("dev") == name):
            found.append(interface)
    if not found:
        raise CommandError(missing or f"interface '{name}' not found")
    if len(found) > 1:
        raise CommandError(f"multiple matching interfaces found for '{name}'")
    return found[0]


_DISK: Final = tuple(
    value(name, text)
    for name, text in (
        ("targetbus", "the bus that it is on"), ("driver", "the back end"), ("subdriver", "the format of the image"),
        ("iothread", "the I/O thread that serves it"), ("cache", "how it is cached"), ("io", "how I/O is done"),
        ("type", "disk, lun, cdrom or floppy"), ("mode", "readonly or shareable"),
        ("sourcetype", "file, block or network"), ("serial", "its serial number"), ("wwn", "its world wide name"),
        ("alias", "its alias, which begins with ua-"),
    )
)  # fmt: skip
_NETWORK: Final = tuple(
    value(name, text)
    for name, text in (
        ("source-protocol", "the protocol of a network disk"), ("source-host-name", "its server, as HOST:PORT"),
        ("source-host-transport", "how the server is reached"), ("source-host-socket", "the server's socket"),
    )
)  # fmt: skip

COMMANDS = (
    Command("attach-device", "attach a device from a file", (DOMAIN, FILE, *ALL), _attach_device),
    Command(
        "attach-disk",
        "attach a disk",
        (
            DOMAIN,
            data("source", "where the disk's data is"),
            data("target", "the disk's name in the domain, such as vdb"),
            *_DISK,
            flag("rawio", "it may be given raw commands"),
            value("address", "its place, such as pci:0000.00.1f.0 or scsi:0.0.1"),
            flag("multifunction", "more devices share its slot"),
            flag("print-xml", "print the document, and attach nothing"),
            *_NETWORK,
            *ALL,
        ),
        _attach_disk,
    ),
    Command(
        "attach-interface",
        "attach a network interface",
        (
            DOMAIN,
            data("type", "network, bridge, direct, hostdev or vhostuser"),
            data("source", "what on the host it is connected to"),
            *(
                value(name, text)
                for name, text in (
                    ("target", "its name on the host"),
                    ("mac", "its MAC address"),
                    ("script", "what connects it"),
                    ("model", "the card that the guest sees"),
                    ("alias", "its alias, which begins with ua-"),
                    ("inbound", "limits: average,peak,burst,floor"),
                    ("outbound", "limits: average,peak,burst"),
                )
            ),
            *ALL,
            flag("print-xml", "print the document, and attach nothing"),
            flag("managed", "a host's device is taken from the host, and given back"),
            value("source-mode", "server or client"),
        ),
        _attach_interface,
    ),
    Command(
        "change-media",
        "put a medium into a drive, or take it out",
        (
            DOMAIN,
            data("path", "the drive's name, or what is in it"),
            value("source", "the new medium"),
            flag("eject", "take it out"),
            flag("insert", "put it in, where none is"),
            flag("update", "put it in, whatever is there"),
            CURRENT,
            LIVE,
            CONFIG,
            flag("force", "take the old one even if the guest holds it"),
            flag("print-xml", "print the document, and change nothing"),
            flag("block", "the source is a device"),
        ),
        _change_media,
    ),
    Command("detach-device", "detach the device that a file describes", (DOMAIN, FILE, *ALL), _detach_device),
    Command(
        "detach-device-alias",
        "ask the guest to let go of a device",
        (DOMAIN, data("alias", "the device's alias"), *THREE),
        _detach_alias,
    ),
    Command(
        "detach-disk",
        "detach a disk",
        (DOMAIN, data("target", "the disk's name"), *ALL, flag("print-xml", "print the document, and detach nothing")),
        _detach_disk,
    ),
    Command(
        "detach-interface",
        "detach a network interface",
        (
            DOMAIN,
            data("type", "its type"),
            value("mac", "its MAC address"),
            *ALL,
            flag("print-xml", "print the document, and detach nothing"),
        ),
        _detach_interface,
    ),
    Command(
        "domif-setlink",
        "plug a cable into an interface, or pull it out",
        (
            DOMAIN,
            data("interface", "its MAC address, or its name on the host"),
            data("state", "up or down"),
            CONFIG,
            flag("print-xml", "print the document, and change nothing"),
        ),
        _set_link,
    ),
    Command(
        "update-device",
        "change the device that a file describes",
        (DOMAIN, FILE, *ALL, flag("force", "take a medium even if the guest holds it")),
        _update_device,
    ),
)
