"""Disks: block nodes as JSON, so that no character of a path means anything, and the devices on them."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import alias_of, option
from hostel.drivers.qemu.command.place import place, virtio
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.disk import BlockIo, Disk, DiskBus, DiskDevice, DiskDriver, Geometry
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller
from hostel.model.domain.rules.disk import is_empty

_DIRECT: Final = ("none", "directsync")
_WRITE_THROUGH: Final = ("writethrough", "directsync")
_FORMATS: Final = frozenset(
    ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "dmg", "bochs", "cloop", "parallels", "luks")
)
_LAYERED: Final = ("qcow2", "qcow", "qed", "vmdk")
_CURL: Final = ("http", "https", "ftp", "ftps", "tftp")
_VIRTIO: Final = {
    None: "virtio-blk-pci",
    "virtio": "virtio-blk-pci",
    "virtio-transitional": "virtio-blk-pci-transitional",
    "virtio-non-transitional": "virtio-blk-pci-non-transitional",
}


def arguments(domain: Domain, bootindex: dict[int, int]) -> list[str]:
    """Every disk of the document."""
    argv: list[str] = []
    for index, disk in enumerate(domain.devices.disks, 1):
        node = None
        if not is_empty(disk):
            node = f"hostel-{index}-format"
            for spec in nodes(disk, index):
                argv += option("-blockdev", spec)
        argv += option("-device", device(domain, disk, node, bootindex.get(id(disk))))
    return argv


def nodes(disk: Disk, index: int) -> list[dict[str, Any]]:
    """The block nodes of a disk with a medium, bottom first: for each image where its bytes are, then its format."""
    driver = disk.driver or DiskDriver()
    shared: dict[str, Any] = {"discard": driver.discard or "unmap"}
    if driver.cache is not None:
        shared["cache"] = {"direct": driver.cache in _DIRECT, "no-flush": driver.cache == "unsafe"}
    name = f"hostel-{index}"
    specs = _image(disk, name, disk.type, disk.source or DiskSource(), disk.image_format, shared)
    top = specs[1]
    top |= {"read-only": disk.readonly, "detect-zeroes": driver.detect_zeroes}
    backing, depth = disk.backing_store, 0
    while backing is not None:
        if backing.type is None or backing.source is None or backing.image_format is None:
            if top["driver"] in _LAYERED:
                top["backing"] = None  # the chain ends here, whatever the image says
            break
        depth += 1
        below = _image(disk, f"{name}-{depth}", backing.type, backing.source, backing.image_format.type, shared)
        below[1] |= {"read-only": True}
        top["backing"] = below[1]["node-name"]
        specs = [*below, *specs]
        top, backing = below[1], backing.backing_store
    return specs


def _image(
    disk: Disk, name: str, kind: SourceType, source: DiskSource, fmt: str, shared: dict[str, Any]
) -> list[dict[str, Any]]:
    if fmt not in _FORMATS:
        raise unsupported(f"disk '{disk.target.dev}': driver type '{fmt}' is no image format of QEMU")
    io = disk.driver.io if disk.driver is not None else None
    where = _protocol(disk, kind, source, io)
    storage = {**where, "node-name": f"{name}-storage", "auto-read-only": True, **shared}
    return [storage, {"node-name": f"{name}-format", "driver": fmt, **shared, "file": f"{name}-storage"}]


def _protocol(disk: Disk, kind: SourceType, source: DiskSource, io: str | None) -> dict[str, Any]:
    if kind == SourceType.FILE:
        return {"driver": "file", "filename": source.file, "aio": io}
    if kind == SourceType.BLOCK:
        driver = "host_cdrom" if disk.device == DiskDevice.CDROM else "host_device"
        return {"driver": driver, "filename": source.dev, "aio": io}
    if kind == SourceType.NETWORK:
        return _network(disk, source)
    raise unsupported(f"disk '{disk.target.dev}': type='{kind}'")


def _network(disk: Disk, source: DiskSource) -> dict[str, Any]:
    target, protocol, name = disk.target.dev, source.protocol, source.name or ""
    host = source.hosts[0] if source.hosts else None
    if protocol == "nbd" and host is not None and host.transport == "unix" and host.socket:
        return {"driver": "nbd", "server": {"type": "unix", "path": host.socket}, "export": name or None}
    if host is None or not host.name:
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: disk '{target}': <source> has no <host name=…>")
    if host.transport not in (None, "tcp"):
        raise unsupported(f"disk '{target}': transport='{host.transport}'")
    if protocol == "nbd":
        server = {"type": "inet", "host": host.name, "port": host.port or "10809"}
        return {"driver": "nbd", "server": server, "export": name or None}
    if protocol in _CURL:
        port = f":{host.port}" if host.port else ""
        query = f"?{source.query}" if source.query else ""
        url = f"{protocol}://{host.name}{port}/{name.lstrip('/')}{query}"
        return {"driver": protocol, "url": url, "readahead": source.readahead, "timeout": source.timeout}
    raise unsupported(f"disk '{target}': protocol='{protocol}'; write nbd, http, https, ftp, ftps or tftp")


def device(domain: Domain, disk: Disk, node: str | None, bootindex: int | None) -> dict[str, Any]:
    """The ``-device`` of a disk; ``node`` is None for an empty drive."""
    driver, bus = disk.driver or DiskDriver(), disk.target.bus
    blockio, geometry = disk.blockio or BlockIo(), disk.geometry
    is_floppy = bus == DiskBus.FDC
    write_cache = None
    if driver.cache is not None and node is not None and not is_floppy:
        write_cache = "off" if driver.cache in _WRITE_THROUGH else "on"
    return {
        **_bus(domain, disk, driver),
        "drive": node,
        "id": alias_of(disk),
        "bootindex": None if is_floppy else bootindex,
        "serial": disk.serial,
        "wwn": int(disk.wwn, 16) if disk.wwn else None,
        "vendor": disk.vendor,
        "product": disk.product,
        "rotation_rate": disk.target.rotation_rate,
        "logical_block_size": blockio.logical_block_size,
        "physical_block_size": blockio.physical_block_size,
        "share-rw": True if disk.shareable else None,
        **_geometry(geometry),
        "werror": driver.error_policy,
        "rerror": driver.rerror_policy or (driver.error_policy if driver.error_policy != "enospace" else None),
        "write-cache": write_cache,
    }


def _geometry(geometry: Geometry | None) -> dict[str, Any]:
    if geometry is None:
        return {}
    translation = None if geometry.trans == "default" else geometry.trans
    return {"cyls": geometry.cyls, "heads": geometry.heads, "secs": geometry.secs, "bios-chs-trans": translation}


def _bus(domain: Domain, disk: Disk, driver: DiskDriver) -> dict[str, Any]:
    suffix = "cd" if disk.device == DiskDevice.CDROM else "hd"
    match disk.target.bus:
        case DiskBus.VIRTIO:
            iothread = None if driver.iothread is None else f"iothread{driver.iothread}"
            queues = {"num-queues": driver.queues, "queue-size": driver.queue_size, "iothread": iothread}
            events = {"ioeventfd": driver.ioeventfd, "event_idx": driver.event_idx}
            return {"driver": _VIRTIO[disk.model], **events, **virtio(driver), **queues, **place(domain, disk)}
        case DiskBus.USB:
            removable = bool(disk.target.removable)
            return {"driver": "usb-storage", **place(domain, disk), "removable": removable}
        case bus if isinstance(disk.address, DriveAddress):
            return _drive(domain, disk, bus, disk.address, suffix)
        case bus:
            raise unsupported(f"disk '{disk.target.dev}': bus='{bus}' without a drive address")


def _drive(domain: Domain, disk: Disk, bus: DiskBus | None, address: DriveAddress, suffix: str) -> dict[str, Any]:
    kinds = {DiskBus.SCSI: ControllerType.SCSI, DiskBus.IDE: ControllerType.IDE, DiskBus.SATA: ControllerType.SATA}
    if bus == DiskBus.FDC:
        return {"driver": "floppy", "unit": address.unit}
    kind = kinds.get(bus) if bus is not None else None
    controller = find_controller(domain, kind, address.controller) if kind is not None else None
    if controller is None:
        raise unsupported(f"disk '{disk.target.dev}': there is no {bus} controller {address.controller}")
    name = alias_of(controller)
    if bus == DiskBus.IDE:
        if address.controller or address.bus > 1 or address.unit > 1:
            raise unsupported(
                f"disk '{disk.target.dev}': Only a single IDE controller is supported for this machine type"
            )
        return {"driver": f"ide-{suffix}", "bus": f"{name}.{address.bus}", "unit": address.unit}
    if bus == DiskBus.SATA:
        return {"driver": f"ide-{suffix}", "bus": f"{name}.{address.unit}"}
    label = {"device_id": f"drive-{alias_of(disk)}"}
    if controller.model == "lsilogic":
        if address.target or address.bus:
            raise unsupported(f"disk '{disk.target.dev}': target and bus must be 0 for controller model 'lsilogic'")
        return {"driver": f"scsi-{suffix}", "bus": f"{name}.0", "scsi-id": address.unit, **label}
    where = {"channel": address.bus, "scsi-id": address.target, "lun": address.unit}
    return {"driver": f"scsi-{suffix}", "bus": f"{name}.0", **where, **label}
