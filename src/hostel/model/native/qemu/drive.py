"""Drives: ``-drive``, ``-hda`` and its like, and devices on nodes, as disks."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Boot
from hostel.model.domain.devices.disk import (
    BlockIo,
    Disk,
    DiskBus,
    DiskDevice,
    DiskDriver,
    DiskTarget,
    IoTune,
    Transient,
)
from hostel.model.domain.devices.source import DiskSource
from hostel.model.native.diskname import disk_name
from hostel.model.native.qemu.commandline import Properties
from hostel.model.native.qemu.place import pci_place
from hostel.model.native.qemu.source import Image, Nodes, guess_format, image_format, read_file_name
from hostel.model.native.settings import refused

# What each letter of a drive's option stands for: interface, index, device.
SHORT: Final = {
    "hda": ("ide", 0, "disk"), "hdb": ("ide", 1, "disk"), "hdc": ("ide", 2, "disk"), "hdd": ("ide", 3, "disk"),
    "cdrom": ("ide", 2, "cdrom"), "fda": ("floppy", 0, "disk"), "fdb": ("floppy", 1, "disk"), "sd": ("sd", 0, "disk"),
}  # fmt: skip
_BUSES: Final = {
    "ide": DiskBus.IDE, "scsi": DiskBus.SCSI, "virtio": DiskBus.VIRTIO, "floppy": DiskBus.FDC, "sd": DiskBus.SD,
}  # fmt: skip
_UNITS: Final = {"ide": 2, "scsi": 7, "floppy": 2}
_PREFIXES: Final = {
    DiskBus.IDE: "hd", DiskBus.SCSI: "sd", DiskBus.SATA: "sd", DiskBus.USB: "sd", DiskBus.VIRTIO: "vd",
    DiskBus.FDC: "fd", DiskBus.SD: "sd",
}  # fmt: skip
_CACHES: Final = {"off": "none"}
_POLICIES: Final = {"enospc": "enospace"}
# QEMU's words for a limit, old and new, and the document's.
_LIMITS: Final = {
    "bps-total": ("bps", "total_bytes_sec"), "bps-read": ("bps_rd", "read_bytes_sec"),
    "bps-write": ("bps_wr", "write_bytes_sec"), "iops-total": ("iops", "total_iops_sec"),
    "iops-read": ("iops_rd", "read_iops_sec"), "iops-write": ("iops_wr", "write_iops_sec"),
}  # fmt: skip
_DEVICES: Final = {
    "virtio-blk-pci": (DiskBus.VIRTIO, DiskDevice.DISK), "virtio-blk": (DiskBus.VIRTIO, DiskDevice.DISK),
    "virtio-blk-pci-transitional": (DiskBus.VIRTIO, DiskDevice.DISK),
    "virtio-blk-pci-non-transitional": (DiskBus.VIRTIO, DiskDevice.DISK),
    "ide-hd": (DiskBus.IDE, DiskDevice.DISK), "ide-cd": (DiskBus.IDE, DiskDevice.CDROM),
    "scsi-hd": (DiskBus.SCSI, DiskDevice.DISK), "scsi-cd": (DiskBus.SCSI, DiskDevice.CDROM),
    "scsi-block": (DiskBus.SCSI, DiskDevice.LUN), "usb-storage": (DiskBus.USB, DiskDevice.DISK),
    "floppy": (DiskBus.FDC, DiskDevice.FLOPPY),
}  # fmt: skip
_SCSI: Final = {
    "virtio-scsi-pci": "virtio-scsi", "virtio-scsi": "virtio-scsi", "lsi": "lsilogic", "lsi53c895a": "lsilogic",
    "megasas": "lsisas1078", "mptsas1068": "lsisas1068", "pvscsi": "vmpvscsi",
}  # fmt: skip


class Place(NamedTuple):
    """Where a drive is: the interface, and a bus and a unit of it."""

    interface: str
    bus: int
    unit: int


class Drives:
    """The disks of a command line, in order, and the firmware in flash.

    Args:
        has_ahci: whether the machine's IDE drives hang on AHCI, one to a bus.
        interface: what drives hang on that name nothing.
    """

    def __init__(self, *, has_ahci: bool, interface: str) -> None:
        self.disks: list[Disk] = []
        self.controllers: list[Controller] = []
        self.flash: list[tuple[DiskSource, str, bool]] = []
        self.nodes = Nodes()
        self._has_ahci = has_ahci
        self._default = interface
        self._taken: set[Place] = set()
        self._waiting: dict[str, Disk] = {}
        self._scsi: dict[str, int] = {}
        self._orders: set[int] = set()

    def add_short(self, name: str, file: str) -> None:
        """``-hda FILE`` and its like."""
        interface, index, media = SHORT[name]
        found = {"file": file, "if": interface, "index": str(index), "media": media}
        self.add(Properties.of(name, found))

    def add(self, option: Properties) -> None:
        """``-drive``.

        Raises:
            ModelError: a document has no such drive.
        """
        interface = option.take("if") or self._default
        media = option.take("media") or "disk"
        if media not in ("disk", "cdrom"):
            raise refused(option.option, f"media='{media}'; write disk or cdrom")
        name = option.take("id")
        disk = Disk(target=DiskTarget(dev=""), device=DiskDevice.CDROM if media == "cdrom" else DiskDevice.DISK)
        self._read_image(option, disk)
        index, bus, unit = option.number("index"), option.number("bus", high=255), option.number("unit", high=255)
        if interface == "pflash":
            self._add_flash(option, disk, unit if unit is not None else index)
            return
        disk.serial = option.take("serial")
        option.end()
        if interface == "none":
            if name is None or name in self._waiting:
                raise refused(option.option, f"if=none needs an id of its own, not '{name}'")
            self._waiting[name] = disk
            return
        if interface not in _BUSES:
            raise refused(option.option, f"if='{interface}'; write ide, scsi, sd, floppy, pflash, virtio or none")
        self._put(option.option, disk, interface, index, bus, unit)

    def _read_image(self, option: Properties, disk: Disk) -> None:
        file = option.take("file")
        driver = disk.driver = DiskDriver(name="qemu")
        format = option.take("format", "driver")
        if file:
            disk.type, disk.source = read_file_name(option.option, file)
            driver.type = image_format(option.option, format) if format is not None else guess_format(file)
        cache = option.take("cache")
        driver.cache = _CACHES.get(cache or "", cache)
        driver.io, driver.discard = option.take("aio"), option.take("discard")
        driver.discard = {"on": "unmap", "off": "ignore"}.get(driver.discard or "", driver.discard)
        driver.detect_zeroes = option.take("detect-zeroes")
        driver.copy_on_read = option.flag("copy-on-read") or None
        error = option.take("werror")
        driver.error_policy, driver.rerror_policy = _POLICIES.get(error or "", error), option.take("rerror")
        disk.readonly = bool(option.flag("readonly", "read-only")) or disk.device == DiskDevice.CDROM
        disk.transient = Transient() if option.flag("snapshot") else None
        disk.iotune = _read_limits(option)

    def _add_flash(self, option: Properties, disk: Disk, unit: int | None) -> None:
        option.end()
        place = unit if unit is not None else len(self.flash)
        if disk.source is None or place != len(self.flash) or place > 1:
            raise refused(option.option, "if=pflash: a document has the firmware first, then its variables")
        format = disk.driver.type if disk.driver is not None and disk.driver.type else "raw"
        self.flash.append((disk.source, format, disk.readonly))

    def _put(
        self, option: str, disk: Disk, interface: str, index: int | None, bus: int | None, unit: int | None
    ) -> None:
        """Give a drive its place, as QEMU does (``drive_new``)."""
        units = 1 if interface == "ide" and self._has_ahci else _UNITS.get(interface, 0)
        if index is not None:
            if bus is not None or unit is not None:
                raise refused(option, "index cannot be used with bus and unit")
            bus, unit = (index // units, index % units) if units else (0, index)
        elif unit is None:
            bus, unit = bus or 0, 0
            while Place(interface, bus, unit) in self._taken:
                unit += 1
                if units and unit >= units:
                    bus, unit = bus + 1, 0
        place = Place(interface, bus or 0, unit)
        if place in self._taken:
            raise refused(option, f"drive with bus={place.bus}, unit={place.unit} exists")
        self._taken.add(place)
        kind = _BUSES[interface]
        if kind == DiskBus.FDC:
            disk.device = DiskDevice.FLOPPY
        if kind == DiskBus.IDE and self._has_ahci:
            kind = DiskBus.SATA
        self._name(disk, kind, place.bus * units + place.unit if units else place.unit)
        if kind in (DiskBus.IDE, DiskBus.FDC):
            disk.address = DriveAddress(controller=0, bus=place.bus if kind == DiskBus.IDE else 0, unit=place.unit)
        elif kind == DiskBus.SATA:
            disk.address = DriveAddress(controller=0, unit=place.bus)
        elif kind == DiskBus.SCSI:
            disk.address = DriveAddress(controller=place.bus, unit=place.unit)
        self.disks.append(disk)

    def _name(self, disk: Disk, kind: DiskBus, position: int) -> None:
        """The name of a disk's target: that of its place, or the next one that is free."""
        names = {item.target.dev for item in self.disks}
        prefix = _PREFIXES[kind]
        while disk_name(prefix, position) in names:
            position += 1
        disk.target = DiskTarget(dev=disk_name(prefix, position), bus=kind, removable=disk.target.removable)

    def has(self, driver: str) -> bool:
        """Whether a ``-device`` is one of storage."""
        return driver in _DEVICES or driver in _SCSI

    def add_device(self, driver: str, option: Properties) -> None:
        """``-device`` of a disk, or of a controller of disks.

        Raises:
            ModelError: a document has no such device.
        """
        option.ignore("device_id", "channel", "port")
        if driver in _SCSI:
            self._scsi[option.take("id") or f"scsi{len(self._scsi)}"] = len(self._scsi)
            controller = Controller(type=ControllerType.SCSI, index=len(self._scsi) - 1, model=_SCSI[driver])
            controller.address = pci_place(option)
            option.end()
            self.controllers.append(controller)
            return
        kind, device = _DEVICES[driver]
        name = option.take("drive")
        disk = self._medium(option, name, device)
        disk.device = device
        disk.readonly = disk.readonly or device == DiskDevice.CDROM
        if driver.endswith("-transitional"):
            disk.model = driver.replace("virtio-blk-pci", "virtio")
        self._read_device(option, disk)
        if kind == DiskBus.VIRTIO:
            disk.address = pci_place(option)
        bus, unit = option.take("bus"), option.number("unit", "scsi-id", high=255) or 0
        lun = option.number("lun", high=16383)
        option.end()
        sizes = {DiskBus.IDE: 1 if self._has_ahci else 2}.get(kind, 1)
        number = int(bus.rpartition(".")[2]) if bus and bus.rpartition(".")[2].isdecimal() else None
        if kind == DiskBus.IDE and number is None:
            self._put(option.option, disk, "ide", None, None, None)
            return
        if kind == DiskBus.IDE:
            self._put(option.option, disk, "ide", (number or 0) * sizes + unit, None, None)
            return
        self._name(disk, kind, 0)
        if kind == DiskBus.SCSI:
            index = self._scsi.get((bus or "").rpartition(".")[0], 0)
            where = DriveAddress(controller=index, target=unit, unit=lun or 0)
            model = self.controllers[index].model if index < len(self.controllers) else None
            disk.address = DriveAddress(controller=index, unit=unit) if model == "lsilogic" else where
        elif kind == DiskBus.FDC:
            disk.address = DriveAddress(unit=unit)
        self.disks.append(disk)

    def _medium(self, option: Properties, name: str | None, device: DiskDevice) -> Disk:
        if name is None:
            if device not in (DiskDevice.CDROM, DiskDevice.FLOPPY):
                raise refused(option.option, "'drive' is missing")
            return Disk(target=DiskTarget(dev=""))
        if name in self._waiting:
            return self._waiting.pop(name)
        if name not in self.nodes:
            raise refused(option.option, f"there is no -drive or -blockdev '{name}'")
        return _disk_of(self.nodes.image(name))

    def _read_device(self, option: Properties, disk: Disk) -> None:
        disk.serial, disk.wwn = option.take("serial") or disk.serial, option.take("wwn")
        disk.vendor, disk.product = option.take("vendor"), option.take("product")
        disk.shareable = bool(option.flag("share-rw"))
        option.ignore("id")
        _use_cache(disk, option.flag("write-cache"))
        order = option.number("bootindex")
        if order is not None:
            disk.boot = Boot(order=order + 1)
        sizes = option.number("logical_block_size"), option.number("physical_block_size")
        disk.blockio = BlockIo(logical_block_size=sizes[0], physical_block_size=sizes[1]) if any(sizes) else None
        removable = option.flag("removable")
        disk.target.removable = removable
        driver = disk.driver = disk.driver or DiskDriver(name="qemu")
        driver.queues, driver.queue_size = option.number("num-queues"), option.number("queue-size")
        error = option.take("werror")
        driver.error_policy = _POLICIES.get(error or "", error) or driver.error_policy
        driver.rerror_policy = option.take("rerror") or driver.rerror_policy

    def finish(self) -> None:
        """Check that every drive has a device.

        Raises:
            ModelError: one has none.
        """
        for name in self._waiting:
            raise refused("-drive", f"no -device is on the drive '{name}'")


def _use_cache(disk: Disk, writes_back: bool | None) -> None:
    """The cache mode that an image's nodes and its device make together."""
    driver = disk.driver
    if driver is None or writes_back is not False:
        return
    driver.cache = {"none": "directsync", None: "writethrough", "writeback": "writethrough"}.get(
        driver.cache, driver.cache
    )


def _disk_of(image: Image) -> Disk:
    opened = image.opened
    direct, unsafe = opened.get("cache.direct") in (True, "on"), opened.get("cache.no-flush") in (True, "on")
    is_said = any(name.startswith("cache.") for name in opened)
    cache = "unsafe" if unsafe else "none" if direct else "writeback" if is_said else None
    driver = DiskDriver(
        name="qemu",
        type=image.format,
        cache=cache,
        io=opened.get("aio"),
        discard=opened.get("discard"),
        detect_zeroes=opened.get("detect-zeroes"),
    )
    readonly = bool(opened.get("read-only"))
    return Disk(target=DiskTarget(dev=""), type=image.kind, source=image.source, driver=driver, readonly=readonly)


def _read_limits(option: Properties) -> IoTune | None:
    found: dict[str, int] = {}
    for name, (old, ours) in _LIMITS.items():
        for theirs, older, ending in (
            (name, old, ""), (f"{name}-max", f"{old}_max", "_max"),
            (f"{name}-max-length", f"{old}_max_length", "_max_length"),
        ):  # fmt: skip
            limit = option.number(f"throttling.{theirs}", older)
            if limit is not None:
                found[ours + ending] = limit
    size, group = option.number("throttling.iops-size", "iops_size"), option.take("throttling.group", "group")
    if not found and size is None and group is None:
        return None
    tune = IoTune(size_iops_sec=size, group_name=group)
    for field, limit in found.items():
        setattr(tune, field, limit)
    return tune


def flash_path(source: DiskSource, option: str = "-drive") -> str:
    """The file that firmware is in.

    Raises:
        ModelError: it is none.
    """
    path = source.file or source.dev
    if path is None:
        raise refused(option, "if=pflash: the firmware has to be a file")
    return path
