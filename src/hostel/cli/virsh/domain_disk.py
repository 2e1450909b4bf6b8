"""Domain management: disks that are attached and detached, and media that are changed."""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.affect import ALL, CONFIG, CURRENT, LIVE, affected, affected_domain, check
from hostel.cli.virsh.device import attach_described, detach, devices
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.device import DeviceModify
from hostel.drivers.base.domain import Affect
from hostel.errors import UsageError

_SOURCES: Final = ("file", "block", "network")
_ADDRESSES: Final = ("pci", "usb", "scsi", "ide", "sata", "ccw")
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
    attach_described(session, args, "disk", _disk_xml(args))


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
    xml = document.written(disk)
    if args.has("print-xml"):
        session.output.text(xml)
        return
    with failing("Failed to detach disk"):
        detach(session, domain, xml, affected_domain(domain, args), args)
    session.output.note("Disk detached successfully")


def _find_disk(session: Session, domain: DomainRef, path: str, *, inactive: bool, changeable: bool) -> Any:
    """The disk whose source or target is named, without what it stands on."""
    flags = DomainXmlFlag.INACTIVE if inactive else DomainXmlFlag.NONE
    for disk in document.parse(session.hypervisor.domain_get_xml_desc(domain, flags)).iterfind("devices/disk"):
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
    xml = document.written(disk)
    if args.has("print-xml"):
        session.output.text(xml)
        return
    force = DeviceModify.FORCE if args.has("force") else DeviceModify.NONE
    with failing(f"Failed to complete action {action} on media"):
        found = devices(session, "virDomainUpdateDeviceFlags")
        found.domain_update_device_flags(domain, xml, affected(args), force)
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


COMMANDS = (
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
    Command(
        "detach-disk",
        "detach a disk",
        (DOMAIN, data("target", "the disk's name"), *ALL, flag("print-xml", "print the document, and detach nothing")),
        _detach_disk,
    ),
)
