"""The domain document as the driver reads it: a hardened parse, the rules without which nothing runs, the aliases.

This is the one place where XML comes in. Everything behind it takes elements that have passed :func:`parse`.
"""

from __future__ import annotations

import re
import secrets
import uuid as uuids
from typing import Final

from lxml import etree

from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError

Node = etree._Element

TYPES: Final = ("qemu", "kvm")
_MAX_NAME: Final = 200
_UNITS: Final = {
    "b": 1, "bytes": 1, "kb": 1000, "k": 1 << 10, "kib": 1 << 10, "mb": 1000**2, "m": 1 << 20, "mib": 1 << 20,
    "gb": 1000**3, "g": 1 << 30, "gib": 1 << 30, "tb": 1000**4, "t": 1 << 40, "tib": 1 << 40,
}  # fmt: skip
_ALIASES: Final = {
    "interface": "net", "graphics": None, "video": "video", "memballoon": "balloon", "rng": "rng", "input": "input",
    "serial": "serial", "parallel": "parallel", "console": "console", "channel": "channel", "sound": "sound",
}  # fmt: skip
_BUS_PREFIX: Final = {
    "virtio": "virtio-disk",
    "ide": "ide",
    "sata": "sata",
    "scsi": "scsi",
    "fdc": "fdc",
    "usb": "usb-disk",
}
_TARGET: Final = re.compile(r"(vd|hd|sd|fd|xvd|ubd)([a-z]{1,3})")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def unsupported(message: str) -> VirtError:
    """The error for a document that asks for what this driver does not have."""
    return VirtError(ErrorCode.CONFIG_UNSUPPORTED, f"unsupported configuration: {message}", domain=ErrorDomain.QEMU)


def parse(xml: str) -> Node:
    """Parse, check and complete a domain document (UUID, MAC addresses, disk buses).

    Raises:
        VirtError: ``XML_ERROR`` or ``CONFIG_UNSUPPORTED``, naming the element.
    """
    root = parse_xml(xml)
    try:
        _check(root)
    except ModelError as error:
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: {error}", domain=ErrorDomain.DOMAIN) from error
    return root


def parse_xml(xml: str) -> Node:
    """Parse text into elements without entities, network or unbounded trees."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_blank_text=True, remove_comments=True
    )
    try:
        root = etree.fromstring(xml.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: {error}", domain=ErrorDomain.XML) from error
    if root.getroottree().docinfo.doctype:
        raise VirtError(ErrorCode.XML_ERROR, "XML error: a document type is not allowed here", domain=ErrorDomain.XML)
    return root


def format(root: Node) -> str:
    """The document as text."""
    etree.indent(root, "  ")
    return etree.tostring(root, encoding="unicode") + "\n"


def text(root: Node, path: str, default: str = "") -> str:
    """The stripped text at ``path``, or its attribute when it ends in ``/@name``."""
    element, _, attribute = path.partition("/@")
    if path.startswith("@"):
        return root.get(path[1:], default)
    found = root.find(element)
    if found is None:
        return default
    return found.get(attribute, default) if attribute else (found.text or default).strip()


def number(root: Node, path: str, default: int) -> int:
    """The whole number at ``path``."""
    value = text(root, path)
    if not value:
        return default
    try:
        return int(value, 0)
    except ValueError:
        raise ModelError(path, f"'{value}' is not a whole number") from None


def memory(root: Node, path: str = "memory") -> int:
    """Memory in KiB, rounded up."""
    unit = text(root, f"{path}/@unit", "KiB").lower()
    if unit not in _UNITS:
        raise ModelError(f"{path}/@unit", f"unknown unit '{unit}'; write KiB, MiB or GiB")
    return -(-number(root, path, 0) * _UNITS[unit] // 1024)


def name_of(root: Node) -> str:
    """The domain's name."""
    return text(root, "name")


def devices(root: Node, tag: str) -> list[Node]:
    """The devices of one kind, in document order."""
    return root.findall(f"devices/{tag}")


def alias(device: Node) -> str:
    """The alias that :func:`assign_aliases` gave."""
    return text(device, "alias/@name")


def check_name(name: str) -> None:
    """Refuse a name that is no file name or no line."""
    if not name.strip():
        raise ModelError("name", "the name is missing or empty")
    if "/" in name:
        raise ModelError("name", f"name '{name}' cannot contain '/'")
    if name in (".", "..") or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ModelError("name", f"name {name!r} cannot be used: it is a path or has control characters")
    if len(name.encode()) > _MAX_NAME:
        raise ModelError("name", f"the name is longer than {_MAX_NAME} bytes")


def _check(root: Node) -> None:
    if root.tag != "domain":
        raise ModelError("", f"unexpected root element <{root.tag!s}>, expecting <domain>")
    if (kind := root.get("type")) not in TYPES:
        raise unsupported(f"domain type '{kind}' is not run by QEMU; write type='qemu' or type='kvm'")
    check_name(name_of(root))
    if (os_type := text(root, "os/type", "hvm")) != "hvm":
        raise unsupported(f"os type '{os_type}'; write hvm")
    if memory(root) <= 0:
        raise ModelError("memory", "missing, or not more than zero")
    if number(root, "vcpu", 1) < 1:
        raise ModelError("vcpu", "must be at least 1")
    _complete_uuid(root)
    if root.find("devices") is None:
        etree.SubElement(root, "devices")
    for index, disk in enumerate(devices(root, "disk"), 1):
        _check_disk(disk, f"devices/disk[{index}]")
    for index, interface in enumerate(devices(root, "interface"), 1):
        _check_interface(interface, f"devices/interface[{index}]")


def _complete_uuid(root: Node) -> None:
    found = root.find("uuid")
    if found is None:
        found = etree.Element("uuid")
        found.text = str(uuids.uuid4())
        root.insert(1, found)
    try:
        found.text = str(uuids.UUID((found.text or "").strip()))
    except ValueError:
        raise ModelError("uuid", f"malformed uuid '{found.text}'") from None


def _check_disk(disk: Node, path: str) -> None:
    disk.set("type", disk.get("type", "file"))
    disk.set("device", disk.get("device", "disk"))
    target = disk.find("target")
    if target is None or not target.get("dev"):
        raise ModelError(f"{path}/target/@dev", "missing; write <target dev='vda' bus='virtio'/>")
    match = _TARGET.fullmatch(target.get("dev", ""))
    if match is None:
        raise ModelError(f"{path}/target/@dev", f"'{target.get('dev')}' is no disk name such as vda, hda, sda or fda")
    guess = {"vd": "virtio", "hd": "ide", "sd": "scsi", "fd": "fdc"}.get(match[1], "virtio")
    if target.get("bus") is None:
        target.set("bus", guess)
    if disk.get("device") not in ("disk", "cdrom", "floppy"):
        raise unsupported(f"{path}: device='{disk.get('device')}'; write disk, cdrom or floppy")
    if target.get("bus") not in _BUS_PREFIX:
        raise unsupported(f"{path}/target/@bus: '{target.get('bus')}'; write one of {', '.join(_BUS_PREFIX)}")
    if disk.get("device") == "cdrom" and disk.find("readonly") is None:
        etree.SubElement(disk, "readonly")


def _check_interface(interface: Node, path: str) -> None:
    mac = interface.find("mac")
    if mac is None:
        mac = etree.SubElement(interface, "mac")
        interface.insert(0, mac)
        mac.set("address", "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)))
    if not _MAC.fullmatch(mac.get("address", "")):
        raise ModelError(f"{path}/mac/@address", f"'{mac.get('address')}' is not a MAC address")


def disk_index(disk: Node) -> int:
    """Which disk of its bus this is, by its target's letters: ``hdc`` is 2."""
    match = _TARGET.fullmatch(text(disk, "target/@dev"))
    letters = match[2] if match else "a"
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def drive_address(disk: Node, units: int) -> tuple[int, int, int]:
    """Controller, bus and unit of a disk: as written, or by its target's letters with ``units`` a bus."""
    address = disk.find("address[@type='drive']")
    if address is not None:
        return number(address, "@controller", 0), number(address, "@bus", 0), number(address, "@unit", 0)
    index = disk_index(disk)
    if text(disk, "target/@bus") == "ide":
        return index // 4, index // 2 % 2, index % 2
    return index // units, 0, index % units


def assign_aliases(root: Node) -> None:
    """Give every device of a live document its alias, libvirt's way."""
    for disk in devices(root, "disk"):
        bus = text(disk, "target/@bus")
        if bus in ("virtio", "usb"):
            name = f"{_BUS_PREFIX[bus]}{disk_index(disk)}"
        else:
            name = f"{_BUS_PREFIX[bus]}{'-'.join(map(str, drive_address(disk, 6 if bus == 'sata' else 7)))}"
        _set_alias(disk, name)
    for tag, prefix in _ALIASES.items():
        if prefix:
            for index, device in enumerate(devices(root, tag)):
                _set_alias(device, f"{prefix}{index}")


def _set_alias(device: Node, name: str) -> None:
    found = device.find("alias")
    if found is None:
        found = etree.SubElement(device, "alias")
    found.set("name", name)
