"""Disks: block nodes as JSON, so that no character of a path means anything, and the devices on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hostel.drivers.qemu.command import objects
from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.place import place, scsi_place, virtio, virtio_name, zpci
from hostel.drivers.qemu.command.protocol import encryption_secret, protocol, slice_node
from hostel.drivers.qemu.command.protocol import format_node as format_node
from hostel.drivers.qemu.command.protocol import storage_node as storage_node
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.transient import overlay_of
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.disk import BlockIo, Disk, DiskBus, DiskDevice, DiskDriver, Geometry, IoTune
from hostel.model.domain.devices.source import BackingStore, DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller
from hostel.model.domain.platform import Board, board_of, has_built_in_ide
from hostel.model.domain.rules.disk import is_empty

FILTER: Final = "libvirt-CoR-"  # how the nodes are called that copy what is read; the disk's target follows
_DIRECT: Final = ("none", "directsync")
_WRITE_THROUGH: Final = ("writethrough", "directsync")
# Image formats, and QEMU's drivers for them.
_FORMATS: Final = {
    **{name: name for name in ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "dmg", "bochs", "cloop")},
    "parallels": "parallels", "ploop": "parallels", "vhd": "vhdx", "luks": "luks", "fat": "raw", "iso": "raw",
}  # fmt: skip
_LAYERED: Final = ("qcow2", "qcow", "qed", "vmdk")
_ENCRYPTIONS: Final = {"qcow": "aes", "luks": "luks"}


def number_images(disks: Iterable[Disk], last: int = 0) -> int:
    """Give each image of these disks that has none a number, from ``last`` on; returns the last one given.

    As libvirt does: from the last disk to the first, in a disk from the top of its chain down, and with a number for
    the medium that an empty drive has not.
    """
    for disk in reversed(list(disks)):
        if is_empty(disk):
            last += 1
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


def arguments(domain: Domain, context: Context, bootindex: dict[int, int]) -> list[str]:
    """Every disk of the document; images that have no number yet get one."""
    argv = objects.shared(domain, context)
    number_images(domain.devices.disks)
    for disk in domain.devices.disks:
        # libvirt plugs in what shares its image when the guest's CPUs are about to run; ours are on overlays before.
        is_late = disk.transient is not None and disk.transient.share_backing
        if not is_late or overlay_of(disk, domain.name) is not None:
            argv += disk_arguments(domain, disk, bootindex.get(id(disk)), context)
    return argv


def disk_arguments(domain: Domain, disk: Disk, bootindex: int | None, context: Context) -> list[str]:
    """One disk whose images have numbers."""
    if disk.target.bus == DiskBus.SD:
        return ["-drive", _sd_card(disk)]
    argv: list[str] = []
    if disk.type == SourceType.VHOSTUSER:
        argv += ["-chardev", _vhost_user_socket(disk)]
    else:
        argv += objects.disk_objects(disk, context)
    for spec in nodes(disk):
        argv += option("-blockdev", spec)
    scsi = _passes_scsi(disk, context)
    return [*argv, *zpci(disk), *option("-device", device(domain, disk, top_node(disk), bootindex, scsi))]


def _passes_scsi(disk: Disk, context: Context) -> bool | None:
    """Whether a virtio disk passes SCSI commands on; None where the emulator is right without being told."""
    if not context.has("virtio-blk-pci.scsi"):
        return None
    if disk.device == DiskDevice.LUN:
        return True
    return None if context.has("virtio-blk-pci.scsi.default.disabled") else False


def _sd_card(disk: Disk) -> str:
    """An SD card, which only the board itself can plug in (``qemuBuildDriveStr``)."""
    source, driver = disk.source or DiskSource(), disk.driver or DiskDriver()
    if not is_empty(disk) and disk.type not in (SourceType.FILE, SourceType.BLOCK):
        raise unsupported(f"disk '{disk.target.dev}': an SD card of type='{disk.type}'; write type='file' or 'block'")
    path = source.file or source.dev
    words = [] if path is None else [f"file={escape(path)}", f"format={disk.image_format}"]
    words += ["if=sd", f"index={disk.target.position or 0}"]
    words += ["readonly=on"] if disk.readonly else []
    said = (
        ("cache", driver.cache), ("copy-on-read", {True: "on", False: "off"}.get(driver.copy_on_read or False)),
        ("discard", driver.discard), ("detect-zeroes", driver.detect_zeroes), ("aio", driver.io),
    )  # fmt: skip
    if path is not None:
        words += [f"{name}={value}" for name, value in said if value not in (None, "default", "off")]
    return ",".join(words)


def _vhost_user_socket(disk: Disk) -> str:
    """The socket of a daemon that is a disk's back end."""
    source = disk.source or DiskSource()
    again = source.reconnect.timeout or 0 if source.reconnect is not None and source.reconnect.enabled else 0
    reconnect = f",reconnect={again}" if source.reconnect is not None else ""
    return f"socket,id={_vhost_user_id(disk)},path={escape(source.path or '')}{reconnect}"


def _vhost_user_id(disk: Disk) -> str:
    return f"chr-vu-{alias_of(disk)}"


def _cache(disk: Disk) -> str | None:
    """The cache mode; of a disk that several guests write, none."""
    chosen = _chosen(disk.driver.cache) if disk.driver is not None else None
    return "none" if chosen is None and disk.shareable and not disk.readonly else chosen


def _copies(disk: Disk) -> bool:
    return disk.driver is not None and bool(disk.driver.copy_on_read)


def image_node(disk: Disk) -> str | None:
    """The node of the disk's own image; None while it is empty, and where QEMU has no nodes for it."""
    if is_empty(disk) or disk.source is None or disk.type == SourceType.VHOSTUSER:
        return None
    return format_node(disk.source.index)


def top_node(disk: Disk) -> str | None:
    """The node that the disk's device is on: of its image, or of what copies on top of that what is read."""
    image = image_node(disk)
    return f"{FILTER}{disk.target.dev}" if image is not None and _copies(disk) else image


def nodes(disk: Disk) -> list[dict[str, Any]]:
    """The block nodes of a disk, bottom first: for each image where its bytes are, then its format."""
    if is_empty(disk) or disk.source is None or disk.type == SourceType.VHOSTUSER:
        return []
    specs = image_nodes(disk, disk.type, disk.source, disk.image_format, disk.source.index)
    top = specs[-1]
    driver = disk.driver or DiskDriver()
    cache = driver.metadata_cache.max_size if driver.metadata_cache is not None else None
    top |= {"read-only": disk.readonly, "detect-zeroes": _detect_zeroes(driver)}
    top |= {"discard": _chosen(driver.discard), "cache-size": cache.to_bytes() if cache is not None else None}
    backing = disk.backing_store
    while backing is not None:
        if backing.type is None or backing.source is None or backing.image_format is None:
            if top["driver"] in _LAYERED:
                top["backing"] = None  # the chain ends here, whatever the image says
            break
        below = image_nodes(disk, backing.type, backing.source, backing.image_format.type, backing.index)
        caches = backing.image_format.metadata_cache
        cache = caches.max_size if caches is not None else None
        below[-1] |= {"read-only": True, "cache-size": cache.to_bytes() if cache is not None else None}
        top["backing"] = below[-1]["node-name"]
        specs = [*below, *specs]
        top, backing = below[-1], backing.backing_store
    if _copies(disk):
        filter_ = {"driver": "copy-on-read", "node-name": top_node(disk), "file": format_node(disk.source.index)}
        specs.append({**filter_, "discard": "unmap"})
    return specs


def _chosen(value: str | None) -> str | None:
    """A choice, unless it is to choose nothing."""
    return None if value == "default" else value


def _detect_zeroes(driver: DiskDriver) -> str | None:
    """What becomes of zeroes that are written; they are unmapped only where discards are."""
    chosen = _chosen(driver.detect_zeroes)
    return "on" if chosen == "unmap" and driver.discard != "unmap" else chosen


def image_nodes(disk: Disk, kind: SourceType, source: DiskSource, fmt: str, index: int | None) -> list[dict[str, Any]]:
    """The nodes of one image: first where its bytes are, last its format on that; opened as the disk's driver says.

    Between them is what makes a part of a storage the image, where the format cannot do that itself.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` or ``XML_ERROR`` for what QEMU, or this driver, cannot open.
    """
    if fmt not in _FORMATS:
        raise unsupported(f"disk '{disk.target.dev}': driver type '{fmt}' is no image format of QEMU")
    cache: dict[str, Any] = {}
    if (mode := _cache(disk)) is not None:
        cache = {"cache": {"direct": mode in _DIRECT, "no-flush": mode == "unsafe"}}
    opened: dict[str, Any] = {"auto-read-only": True, "discard": "unmap", **cache}
    if source.fdgroup is not None:
        # Of descriptors QEMU takes one that is open for just what it wants, and it would look before it writes.
        opened = {"discard": "unmap", "read-only": disk.readonly or disk.source is not source, **cache}
    where = {**protocol(disk, kind, source, index), "node-name": storage_node(index), **opened}
    image = {"node-name": format_node(index), "driver": _FORMATS[fmt], **cache, "file": storage_node(index)}
    image |= _encryption(disk, source, fmt, index)
    part = source.slice
    if part is None:
        return [where, image]
    window = {"offset": part.offset, "size": part.size}
    if image["driver"] == "raw":
        return [where, {**image, **window}]
    name = slice_node(index)
    middle = {"driver": "raw", "node-name": name, **window, "file": storage_node(index), **opened}
    return [where, middle, {**image, "file": name}]


def _encryption(disk: Disk, source: DiskSource, fmt: str, index: int | None) -> dict[str, Any]:
    """What opens an encrypted image; one that Ceph decrypts is opened where its bytes are."""
    encryption = source.encryption or (disk.encryption if disk.source is source else None)
    if encryption is None or encryption.engine == "librbd":
        return {}
    key, kind = encryption_secret(index), _ENCRYPTIONS.get(encryption.format_name)
    if fmt == "raw" and kind == "luks":
        return {"driver": "luks", "key-secret": key}
    if fmt in ("qcow", "qcow2") and kind is not None:
        return {"encrypt": {"format": kind, "key-secret": key}}
    raise unsupported(f"disk '{disk.target.dev}': encryption format '{encryption.format_name}' of a '{fmt}' image")


def device(
    domain: Domain, disk: Disk, node: str | None, bootindex: int | None, scsi: bool | None = None
) -> dict[str, Any]:
    """The ``-device`` of a disk; ``node`` is None for an empty drive."""
    driver, bus = disk.driver or DiskDriver(), disk.target.bus
    blockio = disk.blockio or BlockIo()
    write_cache = None
    mode = _cache(disk)
    if mode is not None and disk.device != DiskDevice.LUN:
        write_cache = "off" if mode in _WRITE_THROUGH else "on"
    write_error = "enospc" if driver.error_policy == "enospace" else _chosen(driver.error_policy)
    read_error = _chosen(driver.rerror_policy) or (write_error if write_error != "enospc" else None)
    return {
        **_bus(domain, disk, driver, scsi),
        "drive": node,
        "chardev": _vhost_user_id(disk) if disk.type == SourceType.VHOSTUSER else None,
        "id": alias_of(disk),
        "bootindex": None if bus == DiskBus.FDC else bootindex,
        "serial": disk.serial,
        "wwn": int(disk.wwn, 16) if disk.wwn else None,
        "vendor": disk.vendor,
        "product": disk.product,
        "rotation_rate": disk.target.rotation_rate or None,
        "logical_block_size": blockio.logical_block_size or None,
        "physical_block_size": blockio.physical_block_size or None,
        "discard_granularity": blockio.discard_granularity,
        "share-rw": True if disk.shareable else None,
        **_geometry(disk.geometry),
        "werror": write_error,
        "rerror": read_error,
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


def _bus(domain: Domain, disk: Disk, driver: DiskDriver, scsi: bool | None) -> dict[str, Any]:
    suffix = "cd" if disk.device == DiskDevice.CDROM else "hd"
    match disk.target.bus:
        case DiskBus.VIRTIO:
            base = "vhost-user-blk" if disk.type == SourceType.VHOSTUSER else "virtio-blk"
            iothread = None if driver.iothread is None else f"iothread{driver.iothread}"
            queues = {"num-queues": driver.queues or None, "queue-size": driver.queue_size or None}
            events = {"ioeventfd": driver.ioeventfd, "event_idx": driver.event_idx, "iothread": iothread}
            name, passed = virtio_name(base, disk, disk.model), None if base == "vhost-user-blk" else scsi
            return {"driver": name, **events, **virtio(driver), **queues, "scsi": passed, **place(domain, disk)}
        case DiskBus.USB:
            removable = bool(disk.target.removable)
            return {"driver": "usb-storage", **place(domain, disk), "removable": removable}
        case bus if isinstance(disk.address, DriveAddress):
            return _drive(domain, disk, bus, disk.address, suffix)
        case bus:
            raise unsupported(f"disk '{disk.target.dev}': bus='{bus}' without a drive address")


def _drive(domain: Domain, disk: Disk, bus: DiskBus | None, address: DriveAddress, suffix: str) -> dict[str, Any]:
    kinds = {DiskBus.IDE: ControllerType.IDE, DiskBus.SATA: ControllerType.SATA}
    if bus == DiskBus.FDC:
        return {"driver": "floppy", "unit": address.unit}
    if bus == DiskBus.SCSI:
        where = scsi_place(domain, disk, address)
        if disk.device == DiskDevice.LUN:
            return {"driver": "scsi-block", **where}
        return {"driver": f"scsi-{suffix}", **where, "device_id": disk.serial or f"drive-{alias_of(disk)}"}
    kind = kinds.get(bus) if bus is not None else None
    controller = find_controller(domain, kind, address.controller) if kind is not None else None
    if controller is None:
        raise unsupported(f"disk '{disk.target.dev}': there is no {bus} controller {address.controller}")
    name = alias_of(controller)
    if bus == DiskBus.IDE:
        if address.controller:
            raise unsupported(
                f"disk '{disk.target.dev}': Only a single IDE controller is supported for this machine type"
            )
        own = "ide" if has_built_in_ide(domain) else name
        return {"driver": f"ide-{suffix}", "bus": f"{own}.{address.bus}", "unit": address.unit}
    is_built_in = board_of(domain) == Board.Q35 and not address.controller
    return {"driver": f"ide-{suffix}", "bus": f"{'ide' if is_built_in else name}.{address.unit}"}
