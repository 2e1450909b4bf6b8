"""Disks: block nodes as JSON, so that no character of a path means anything, and the devices on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hostel.drivers.qemu.command.context import alias_of, option
from hostel.drivers.qemu.command.place import place, virtio
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.disk import BlockIo, Disk, DiskBus, DiskDevice, DiskDriver, Geometry, IoTune
from hostel.model.domain.devices.source import BackingStore, DiskSource, SourceType
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


def format_node(index: int | None) -> str:
    """The name of the node of an image's format, by the image's number; programs know it from libvirt."""
    return f"libvirt-{index}-format"


def storage_node(index: int | None) -> str:
    """The name of the node of where an image's bytes are."""
    return f"libvirt-{index}-storage"


def number_images(disks: Iterable[Disk], last: int = 0) -> int:
    """Give each image of these disks that has none a number, from ``last`` on; returns the last one given.

    As libvirt does: from the last disk to the first, and in a disk from the top of its chain down.
    """
    for disk in reversed(list(disks)):
        if is_empty(disk):
            continue
        images: list[DiskSource | BackingStore] = [disk.source or DiskSource()]
        backing = disk.backing_store
        while backing is not None and backing.source is not None:
            images.append(backing)
            backing = backing.backing_store
        for image in images:
            if image.index is None:
                last += 1
                image.index = last
    return last


def arguments(domain: Domain, bootindex: dict[int, int]) -> list[str]:
    """Every disk of the document; images that have no number yet get one."""
    argv: list[str] = []
    number_images(domain.devices.disks)
    for disk in domain.devices.disks:
        argv += disk_arguments(domain, disk, bootindex.get(id(disk)))
    return argv


def disk_arguments(domain: Domain, disk: Disk, bootindex: int | None) -> list[str]:
    """One disk whose images have numbers."""
    argv = [word for spec in nodes(disk) for word in option("-blockdev", spec)]
    return argv + option("-device", device(domain, disk, top_node(disk), bootindex))


def top_node(disk: Disk) -> str | None:
    """The node that the disk's device is on; None while it is empty."""
    return None if is_empty(disk) or disk.source is None else format_node(disk.source.index)


def nodes(disk: Disk) -> list[dict[str, Any]]:
    """The block nodes of a disk, bottom first: for each image where its bytes are, then its format."""
    if is_empty(disk) or disk.source is None:
        return []
    specs = image_nodes(disk, disk.type, disk.source, disk.image_format, disk.source.index)
    top = specs[1]
    driver = disk.driver or DiskDriver()
    top |= {"read-only": disk.readonly, "detect-zeroes": driver.detect_zeroes}
    backing = disk.backing_store
    while backing is not None:
        if backing.type is None or backing.source is None or backing.image_format is None:
            if top["driver"] in _LAYERED:
                top["backing"] = None  # the chain ends here, whatever the image says
            break
        below = image_nodes(disk, backing.type, backing.source, backing.image_format.type, backing.index)
        below[1] |= {"read-only": True}
        top["backing"] = below[1]["node-name"]
        specs = [*below, *specs]
        top, backing = below[1], backing.backing_store
    return specs


def image_nodes(disk: Disk, kind: SourceType, source: DiskSource, fmt: str, index: int | None) -> list[dict[str, Any]]:
    """The two nodes of one image: where its bytes are, and its format on that; both open as the disk's driver says.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` or ``XML_ERROR`` for what QEMU, or this driver, cannot open.
    """
    if fmt not in _FORMATS:
        raise unsupported(f"disk '{disk.target.dev}': driver type '{fmt}' is no image format of QEMU")
    driver = disk.driver or DiskDriver()
    shared: dict[str, Any] = {"discard": driver.discard or "unmap"}
    if driver.cache is not None:
        shared["cache"] = {"direct": driver.cache in _DIRECT, "no-flush": driver.cache == "unsafe"}
    where = _protocol(disk, kind, source, driver.io)
    storage = {**where, "node-name": storage_node(index), "auto-read-only": True, **shared}
    return [storage, {"node-name": format_node(index), "driver": fmt, **shared, "file": storage_node(index)}]


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


# Our document's words for a limit, and QEMU's; the longer endings first.
_BURSTS: Final = (("_max_length", "_max_length"), ("_max", "_max"), ("", ""))
_LIMITS: Final = {
    "total_bytes_sec": "bps", "read_bytes_sec": "bps_rd", "write_bytes_sec": "bps_wr",
    "total_iops_sec": "iops", "read_iops_sec": "iops_rd", "write_iops_sec": "iops_wr",
}  # fmt: skip


def drive_id(disk: Disk) -> str:
    """What commands about a drive call it: its device, or the part of that which holds the medium."""
    alias = alias_of(disk)
    match disk.target.bus:
        case DiskBus.VIRTIO:
            return f"/machine/peripheral/{alias}/virtio-backend"
        case DiskBus.USB:
            return f"/machine/peripheral/{alias}/{alias}.0/legacy[0]"
        case _:
            return alias


def throttle(disk: Disk) -> dict[str, Any]:
    """The arguments of ``block_set_io_throttle`` for the limits that a disk has."""
    tune = disk.iotune or IoTune()
    words: dict[str, Any] = {"id": drive_id(disk)}
    for name, word in _LIMITS.items():
        for ending, suffix in _BURSTS:
            given = getattr(tune, name + ending)
            if suffix == "" or given:
                words[word + suffix] = given or 0
    if tune.size_iops_sec is not None:
        words["iops_size"] = tune.size_iops_sec
    if tune.group_name is not None:
        words["group"] = tune.group_name
    return words


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
