"""Disks: block nodes as JSON, so that no character of a path means anything, and the devices on them."""

from __future__ import annotations

import json
from typing import Any, Final

from hostel.drivers.qemu.document import Node, alias, devices, drive_address, number, text, unsupported
from hostel.errors import ErrorCode, VirtError

_DIRECT: Final = {"none": True, "directsync": True}
_FORMATS: Final = frozenset(
    ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "dmg", "bochs", "cloop", "parallels", "luks")
)
_REMOTE: Final = {"http": "http", "https": "https", "ftp": "ftp", "ftps": "ftps", "tftp": "tftp"}


def arguments(root: Node, bootindex: dict[Node, int], *, q35: bool) -> list[str]:
    """Every disk of the document, with the controllers that they need."""
    argv = _controllers(root, bootindex, q35=q35)
    for index, disk in enumerate(devices(root, "disk"), 1):
        node = None
        if disk.find("source") is not None and len(disk.find("source").attrib):  # type: ignore[union-attr]
            node = f"hostel-{index}-format"
            for spec in nodes(disk, index):
                argv += ["-blockdev", json.dumps(spec)]
        argv += ["-device", json.dumps(device(disk, node, bootindex.get(disk), q35=q35))]
    return argv


def nodes(disk: Node, index: int) -> list[dict[str, Any]]:
    """The protocol node and the format node of a disk that has a medium."""
    target = text(disk, "target/@dev")
    fmt = text(disk, "driver/@type", "raw")
    if fmt not in _FORMATS:
        raise unsupported(f"disk '{target}': driver type '{fmt}' is no image format of QEMU")
    read_only = disk.find("readonly") is not None
    options: dict[str, Any] = {"auto-read-only": True, "discard": text(disk, "driver/@discard", "unmap")}
    cache = text(disk, "driver/@cache", "default")
    if cache != "default":
        options["cache"] = {"direct": cache in _DIRECT, "no-flush": cache == "unsafe"}
    storage = {**_protocol(disk, target), "node-name": f"hostel-{index}-storage", **options}
    image: dict[str, Any] = {"node-name": f"hostel-{index}-format", "read-only": read_only, "driver": fmt}
    if zeroes := text(disk, "driver/@detect_zeroes"):
        image["detect-zeroes"] = zeroes
    image["discard"] = text(disk, "driver/@discard", "unmap")
    if "cache" in options:
        image["cache"] = options["cache"]
    return [storage, {**image, "file": f"hostel-{index}-storage"}]


def _protocol(disk: Node, target: str) -> dict[str, Any]:
    kind = disk.get("type")
    io = text(disk, "driver/@io")
    aio = {"aio": io} if io else {}
    if kind == "file":
        return {"driver": "file", "filename": text(disk, "source/@file"), **aio}
    if kind == "block":
        driver = "host_cdrom" if disk.get("device") == "cdrom" else "host_device"
        return {"driver": driver, "filename": text(disk, "source/@dev"), **aio}
    if kind == "network":
        return _network(disk, target)
    raise unsupported(f"disk '{target}': type='{kind}'")


def _network(disk: Node, target: str) -> dict[str, Any]:
    protocol = text(disk, "source/@protocol")
    name = text(disk, "source/@name")
    host, port = text(disk, "source/host/@name"), text(disk, "source/host/@port")
    if not host:
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: disk '{target}': <source> has no <host name=…>")
    if protocol == "nbd":
        server = {"type": "inet", "host": host, "port": port or "10809"}
        return {"driver": "nbd", "server": server, **({"export": name} if name else {})}
    if protocol in _REMOTE:
        return {"driver": protocol, "url": f"{protocol}://{host}{port and ':' + port}/{name.lstrip('/')}"}
    raise unsupported(f"disk '{target}': protocol='{protocol}'")


def device(disk: Node, node: str | None, bootindex: int | None, *, q35: bool) -> dict[str, Any]:
    """The ``-device`` of a disk; ``node`` is None for an empty drive."""
    bus = text(disk, "target/@bus")
    kind = disk.get("device")
    target = text(disk, "target/@dev")
    spec: dict[str, Any] = _bus(disk, bus, kind or "disk", target, q35=q35)
    if node is not None:
        spec["drive"] = node
    elif kind == "disk":
        raise VirtError(
            ErrorCode.XML_ERROR, f"XML error: disk '{target}' has no source; only a cdrom or floppy may be empty"
        )
    spec["id"] = alias(disk)
    if bootindex is not None and bus != "fdc":
        spec["bootindex"] = bootindex
    if serial := text(disk, "serial"):
        spec["serial"] = serial
    cache = text(disk, "driver/@cache", "default")
    if cache != "default" and node is not None and bus != "fdc":
        spec["write-cache"] = "off" if cache in ("writethrough", "directsync") else "on"
    return spec


def _bus(disk: Node, bus: str, kind: str, target: str, *, q35: bool) -> dict[str, Any]:
    suffix = "cd" if kind == "cdrom" else "hd"
    if bus == "virtio":
        if kind != "disk":
            raise unsupported(f"disk '{target}': a {kind} cannot be on the virtio bus; write bus='sata' or bus='scsi'")
        return {"driver": "virtio-blk-pci", **pci(disk, q35=q35)}
    if bus == "ide":
        controller, channel, unit = drive_address(disk, 2)
        if q35:
            raise unsupported(f"disk '{target}': IDE controllers are unsupported for this QEMU binary or machine type")
        if controller or channel > 1 or unit > 1:
            raise unsupported(f"disk '{target}': Only a single IDE controller is supported for this machine type")
        return {"driver": f"ide-{suffix}", "bus": f"ide.{channel}", "unit": unit}
    if bus == "sata":
        controller, _, unit = drive_address(disk, 6)
        name = f"ide.{unit}" if q35 and controller == 0 else f"sata{controller}.{unit}"
        return {"driver": f"ide-{suffix}", "bus": name}
    if bus == "scsi":
        controller, channel, unit = drive_address(disk, 7)
        place = {"channel": channel, "scsi-id": unit, "lun": 0}
        if _scsi_model(disk.getroottree().getroot(), controller) == "lsi53c895a":
            place = {"scsi-id": unit}
        return {"driver": f"scsi-{suffix}", "bus": f"scsi{controller}.0", **place, "device_id": f"drive-{alias(disk)}"}
    if bus == "fdc":
        return {"driver": "floppy", "unit": drive_address(disk, 2)[2], "bus": "fdc0.0"}
    return {"driver": "usb-storage", "removable": text(disk, "target/@removable", "off") == "on"}


def pci(element: Node, *, q35: bool) -> dict[str, Any]:
    """Where a PCI device goes, when the document says; else QEMU chooses."""
    address = element.find("address[@type='pci']")
    if address is None:
        return {}
    bus, slot = number(address, "@bus", 0), number(address, "@slot", 0)
    function = number(address, "@function", 0)
    root = "pcie.0" if q35 else "pci.0"
    place = f"0x{slot:x}" + (f".0x{function:x}" if function else "")
    return {"bus": root if bus == 0 else f"pci.{bus}", "addr": place}


def _scsi_model(root: Node, index: int) -> str:
    for controller in devices(root, "controller"):
        if controller.get("type") == "scsi" and number(controller, "@index", 0) == index:
            model = controller.get("model", "lsilogic")
            return {"virtio-scsi": "virtio-scsi-pci", "lsilogic": "lsi53c895a", "auto": "lsi53c895a"}.get(model, model)
    return "lsi53c895a"


def _floppy_boot(root: Node, bootindex: dict[Node, int]) -> dict[str, int]:
    """The places of the floppy drives, which QEMU takes on their controller."""
    return {
        f"bootindex{'AB'[drive_address(disk, 2)[2] % 2]}": bootindex[disk]
        for disk in devices(root, "disk")
        if text(disk, "target/@bus") == "fdc" and disk in bootindex
    }


def _controllers(root: Node, bootindex: dict[Node, int], *, q35: bool) -> list[str]:
    argv: list[str] = []
    wanted: dict[tuple[str, int], None] = {}
    for controller in devices(root, "controller"):
        wanted[controller.get("type", ""), number(controller, "@index", 0)] = None
    for disk in devices(root, "disk"):
        bus = text(disk, "target/@bus")
        if bus in ("scsi", "sata"):
            wanted[bus, drive_address(disk, 6 if bus == "sata" else 7)[0]] = None
        if bus == "fdc":
            wanted["fdc", 0] = None
    for kind, index in sorted(wanted):
        if kind == "scsi":
            argv += ["-device", json.dumps({"driver": _scsi_model(root, index), "id": f"scsi{index}"})]
        elif kind == "sata" and not (q35 and index == 0):
            argv += ["-device", json.dumps({"driver": "ahci", "id": f"sata{index}"})]
        elif kind == "fdc" and index == 0:
            argv += ["-device", json.dumps({"driver": "isa-fdc", "id": "fdc0", **_floppy_boot(root, bootindex)})]
        elif kind == "virtio-serial":
            argv += ["-device", json.dumps({"driver": "virtio-serial-pci", "id": f"virtio-serial{index}"})]
    usb_disk = any(text(disk, "target/@bus") == "usb" for disk in devices(root, "disk"))
    usb_input = any(device.get("bus") == "usb" for device in devices(root, "input"))
    if usb_disk or usb_input or ("usb", 0) in wanted:
        argv += ["-device", json.dumps({"driver": "qemu-xhci", "id": "usb"})]
    return argv
