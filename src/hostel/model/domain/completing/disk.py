"""What a disk gets that its document does not say: bus, driver, port, place (``virDomainDiskDefPostParse``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice, DiskDriver
from hostel.model.domain.devices.hostdev import ScsiHostdev
from hostel.model.domain.devices.source import BackingStore, DiskSource, ImageFormat, Mirror, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Platform

_PREFIXES: Final = {
    "hd": DiskBus.IDE, "sd": DiskBus.SCSI, "vd": DiskBus.VIRTIO, "xvd": DiskBus.XEN, "ubd": DiskBus.UML,
}  # fmt: skip
_PORTS: Final = {
    "http": "80", "https": "443", "ftp": "21", "ftps": "990", "tftp": "69", "sheepdog": "7000", "nbd": "10809",
    "ssh": "22", "iscsi": "3260", "gluster": "24007", "vxhs": "9999",
}  # fmt: skip
# Where a source of each type is; what else is written is another type's (virDomainStorageSourceParse).
_PLACES: Final = {
    SourceType.FILE: ("file", "fdgroup"),
    SourceType.BLOCK: ("dev",),
    SourceType.DIR: ("dir",),
    SourceType.NETWORK: ("protocol", "name", "query", "tls", "tls_hostname", "hosts", "identity"),
    SourceType.VOLUME: ("pool", "volume", "mode"),
    SourceType.NVME: ("type", "managed", "namespace", "address"),
    SourceType.VHOSTUSER: ("type", "path", "reconnect"),
}
_ANYWHERE: Final = tuple(name for names in _PLACES.values() for name in names)
_PARTITION: Final = re.compile("(fd|hd|vd|sd|xvd|ubd)[a-z]+[0-9]+")


def sorted_disks(disks: list[Disk]) -> list[Disk]:
    """Disks of a bus by name, among those whose bus is written the same way (``virDomainDiskInsert``)."""
    groups: dict[DiskBus | None, list[Disk]] = {}
    for disk in disks:
        groups.setdefault(disk.target.bus, []).append(disk)
    return [disk for group in groups.values() for disk in sorted(group, key=lambda item: item.target.position or 0)]


def guess_bus(disk: Disk) -> DiskBus:
    """The bus that a disk's name means."""
    if disk.device == DiskDevice.FLOPPY:
        return DiskBus.FDC
    return _PREFIXES.get(disk.target.prefix or "", DiskBus.IDE)


def drop_other_places(disk: Disk) -> None:
    """Leave out of a disk's sources what says where one of another type would be."""
    place: Disk | BackingStore | None = disk
    while place is not None:
        if place.source is not None and place.type is not None:
            for name in _ANYWHERE:
                if name not in _PLACES[place.type]:
                    setattr(place.source, name, [] if name == "hosts" else None)
        place = place.backing_store


def complete_disk(domain: Domain, disk: Disk, platform: Platform) -> None:
    """Give a disk its bus, its driver and its place.

    Raises:
        ModelError: no place follows from its name.
    """
    disk.target.dev = disk.target.dev.removeprefix("ioemu:")
    if disk.device == DiskDevice.CDROM:
        disk.readonly = True
    if disk.target.bus is None:
        disk.target.bus = guess_bus(disk)
    if disk.target.tray == "closed":
        disk.target.tray = None
    if disk.readonly and disk.snapshot == "no":
        disk.snapshot = None
    if disk.type == SourceType.VHOSTUSER and disk.snapshot is None:
        disk.snapshot = "no"
    source = disk.source
    if source is not None:
        complete_network_source(source)
        complete_labels(source)
        if source.startup_policy == "default":
            source.startup_policy = None
        if disk.type == SourceType.NVME and source.managed is None:
            source.managed = True
    if disk.mirror is not None:
        _complete_mirror(disk.mirror, platform)
    backing = disk.backing_store
    while backing is not None:
        if backing.source is not None:
            complete_network_source(backing.source)
        backing = backing.backing_store
    if platform.is_qemu:
        _complete_disk_driver(disk)
    if disk.address is None:
        _place_disk(domain, disk, platform)


def _complete_mirror(mirror: Mirror, platform: Platform) -> None:
    """Say where a copy goes in both ways: as there is one now, and as there was when it could only be a file."""
    if mirror.type is None:
        mirror.type, mirror.source = SourceType.FILE, DiskSource(file=mirror.file)
        mirror.image_format = ImageFormat(type=mirror.format_name) if mirror.format_name is not None else None
    mirror.job = mirror.job or "copy"
    if mirror.image_format is None and platform.is_qemu:
        mirror.image_format = ImageFormat(type="raw")
    is_old = mirror.type == SourceType.FILE and mirror.job == "copy"
    mirror.file = mirror.source.file if is_old and mirror.source is not None else None
    mirror.format_name = mirror.image_format.type if is_old and mirror.image_format is not None else None


def _complete_disk_driver(disk: Disk) -> None:
    driver = disk.driver = disk.driver or DiskDriver()
    driver.name = driver.name or "qemu"
    if driver.type == "aio":
        driver.type = "raw"
    if driver.type is None and disk.type != SourceType.VOLUME:
        driver.type = "raw"
    for name in ("cache", "io", "discard", "detect_zeroes", "error_policy", "rerror_policy"):
        if getattr(driver, name) == "default":
            setattr(driver, name, None)
    places: list[Disk | DiskSource | None] = [disk, disk.source]
    backing = disk.backing_store
    while backing is not None:
        places.append(backing.source)
        backing = backing.backing_store
    for place in places:
        if place is not None and place.encryption is not None and place.encryption.engine is None:
            place.encryption.engine = "qemu"


def complete_network_source(source: DiskSource) -> None:
    """Write the port that a protocol means, and which unit of an iSCSI target."""
    if source.protocol == "iscsi" and source.name is not None and "/" not in source.name:
        source.name += "/0"
    complete_hosts(source)


def complete_hosts(source: DiskSource) -> None:
    """Write the port that a protocol means."""
    for host in source.hosts:
        if host.transport == "tcp":
            host.transport = None
        if host.transport is None and host.port is None:
            host.port = _PORTS.get(source.protocol or "")


def complete_labels(source: DiskSource) -> None:
    """Say that what has a label gets it."""
    for label in source.seclabels:
        label.relabel = True if label.label is not None and label.relabel is None else label.relabel


def _check_hosts(domain: Domain, disk: Disk, address: DriveAddress) -> None:
    for hostdev in domain.devices.hostdevs:
        other = hostdev.address
        if isinstance(hostdev, ScsiHostdev) and isinstance(other, DriveAddress) and other.place == address.place:
            reason = (
                f"using disk target name '{disk.target.dev}' conflicts with SCSI host device address "
                f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' "
                f"unit='{address.unit}'"
            )
            raise ModelError(f"{domain.devices.path(disk)}/target/@dev", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _place_disk(domain: Domain, disk: Disk, platform: Platform) -> None:
    """Where on its bus a disk is, by its name (``virDomainDiskDefAssignAddress``)."""
    position = disk.target.position
    path = f"{domain.devices.path(disk)}/target/@dev"
    if platform.is_qemu and _PARTITION.fullmatch(disk.target.dev):
        reason = f"invalid disk target '{disk.target.dev}', partitions can't appear in disk targets"
        raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if position is None:
        raise ModelError(path, f"Unknown disk name '{disk.target.dev}' and no address specified")
    match disk.target.bus:
        case DiskBus.SCSI if platform.wide_scsi:
            unit = position % 15
            disk.address = DriveAddress(controller=position // 15, unit=unit if unit < 7 else unit + 1)
        case DiskBus.SCSI:
            # Seven a controller, whatever its model: so libvirt keeps names and places together.
            disk.address = DriveAddress(controller=position // 7, unit=position % 7)
            _check_hosts(domain, disk, disk.address)
        case DiskBus.IDE:
            disk.address = DriveAddress(controller=position // 4, bus=position % 4 // 2, unit=position % 2)
        case DiskBus.SATA:
            disk.address = DriveAddress(controller=position // 6, unit=position % 6)
        case DiskBus.FDC:
            disk.address = DriveAddress(controller=position // 2, unit=position % 2)
        case _:
            pass


def share_limits(disks: Sequence[Disk]) -> None:
    """Give a disk that only names a group of limits what another disk of the group says."""
    tunes = [disk.iotune for disk in reversed(disks) if disk.iotune is not None and _limits(disk)]
    said = {tune.group_name: tune for tune in tunes}
    for disk in disks:
        group = disk.iotune.group_name if disk.iotune is not None else None
        if group is not None and not _limits(disk) and group in said:
            disk.iotune = said[group].copy()


def _limits(disk: Disk) -> bool:
    tune = disk.iotune
    return tune is not None and any(getattr(tune, field.name) for field in tune.FIELDS if field.name != "group_name")
