"""Rules for disks (``virDomainDiskDefValidate``, ``qemuValidateDomainDeviceDefDisk``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.address import DriveAddress, UsbAddress
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice, DiskDriver, IoTune
from hostel.model.domain.devices.source import FORMATS, DiskSource, SourceType
from hostel.model.domain.rules.rule import Rule, without_virtio_options
from hostel.model.domain.rules.vhost_user_disk import VHOST_USER_DISK_RULES

_REMOVABLE: Final = (DiskDevice.CDROM, DiskDevice.FLOPPY)
# The host's own storage, and what may turn out to be so.
_HAS_POLICY: Final = (SourceType.FILE, SourceType.BLOCK, SourceType.DIR, SourceType.VOLUME)
_DRIVES: Final = (DiskBus.IDE, DiskBus.SCSI, DiskBus.SATA, DiskBus.FDC)
_WWN: Final = re.compile("(0x)?[0-9a-fA-F]{16}")
_SOURCES: Final = {
    SourceType.FILE: "file",
    SourceType.BLOCK: "dev",
    SourceType.DIR: "dir",
    SourceType.NETWORK: "protocol",
    SourceType.VOLUME: "pool",
    SourceType.NVME: "namespace",
    SourceType.VHOSTUSER: "path",
}


def is_empty(disk: Disk) -> bool:
    """Whether no medium is in (``virStorageSourceIsEmpty``)."""
    if disk.source is None:
        return True
    if disk.type == SourceType.NETWORK and disk.source.protocol is not None:
        return False
    return getattr(disk.source, _SOURCES[disk.type]) in (None, "")


def _driver(disk: Disk) -> DiskDriver:
    return disk.driver or DiskDriver()


def _is_virtio(disk: Disk) -> bool:
    return disk.target.bus == DiskBus.VIRTIO


def _source(disk: Disk) -> DiskSource:
    return disk.source or DiskSource()


def _place(disk: Disk) -> DriveAddress:
    return disk.address if isinstance(disk.address, DriveAddress) else DriveAddress()


def _tune(disk: Disk) -> IoTune:
    return disk.iotune or IoTune()


_LIMITS: Final = tuple(
    name for field in IoTune.FIELDS if (name := field.name) != "group_name" and not name.endswith("_length")
)
_MOST: Final = 10**15  # QEMU's own bound for a limit


def _is_limited(disk: Disk) -> bool:
    return any(getattr(_tune(disk), name) for name in _LIMITS)


def differing_limits(disks: Sequence[Disk]) -> tuple[Disk, Disk] | None:
    """Two disks of one group that are not limited alike."""
    for disk in disks:
        for other in disks:
            group = _tune(disk).group_name
            if group is not None and group == _tune(other).group_name and disk.iotune != other.iotune:
                return disk, other
    return None


def _mixes(total: str, parts: str) -> Rule[Disk]:
    """A total and a part of it cannot both be limited."""

    def is_broken(disk: Disk) -> object:
        tune = _tune(disk)
        named = (getattr(tune, f"{direction}_{parts}") for direction in ("read", "write"))
        return getattr(tune, f"total_{total}") and any(named)

    words = f"total and read/write {parts} cannot be set at the same time"
    return Rule(is_broken, lambda _: words, ErrorCode.XML_ERROR)


def _is_lun_source_wrong(disk: Disk) -> bool:
    return disk.type not in (SourceType.BLOCK, SourceType.VOLUME, SourceType.NETWORK)


def _shares_backing(disk: Disk) -> bool:
    return disk.transient is not None and disk.transient.share_backing is True


DISK_RULES: Final[tuple[Rule[Disk], ...]] = (
    *VHOST_USER_DISK_RULES,
    Rule(
        lambda disk: disk.sgio == "unfiltered",
        lambda _: "unfiltered sgio is no longer supported",
    ),
    Rule(
        lambda disk: (
            disk.device == DiskDevice.LUN and disk.type == SourceType.NETWORK and _source(disk).protocol != "iscsi"
        ),
        lambda disk: f"disk device='lun' is not supported for protocol='{_source(disk).protocol}'",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.LUN and _is_lun_source_wrong(disk),
        lambda _: "disk device='lun' is only valid for block type disk source",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.LUN and disk.image_format != "raw",
        lambda _: "disk device 'lun' must use 'raw' format",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.LUN and _source(disk).slice is not None,
        lambda _: "disk device 'lun' doesn't support storage slice",
    ),
    Rule(
        lambda disk: (
            disk.device == DiskDevice.LUN
            and any(
                item is not None and item.format_name != "default"
                for item in (_source(disk).encryption, disk.encryption)
            )
        ),
        lambda _: "disk device 'lun' doesn't support encryption",
    ),
    Rule(
        lambda disk: disk.device != DiskDevice.LUN and _source(disk).reservations is not None,
        lambda _: "<reservations/> allowed only for lun devices",
    ),
    Rule(
        lambda disk: disk.device != DiskDevice.LUN and disk.rawio is not None,
        lambda _: "rawio can be used only with device='lun'",
    ),
    Rule(
        lambda disk: disk.device != DiskDevice.LUN and disk.sgio is not None,
        lambda _: "sgio can be used only with device='lun'",
    ),
    _mixes("bytes_sec", "bytes_sec"),
    _mixes("iops_sec", "iops_sec"),
    _mixes("bytes_sec_max", "bytes_sec_max"),
    _mixes("iops_sec_max", "iops_sec_max"),
    Rule(
        lambda disk: (
            disk.target.bus in _DRIVES and disk.address is not None and not isinstance(disk.address, DriveAddress)
        ),
        lambda disk: (
            f"Invalid address type '{disk.address.WHEN['type'] if disk.address else ''}' for the disk "
            f"'{disk.target.dev}' with the bus type '{disk.target.bus}'"
        ),
        below="/address/@type",
    ),
    Rule(
        lambda disk: (
            disk.target.bus == DiskBus.USB and disk.address is not None and not isinstance(disk.address, UsbAddress)
        ),
        lambda _: "unexpected address type for usb disk",
        ErrorCode.INTERNAL_ERROR,
        "/address/@type",
    ),
    Rule(
        lambda disk: disk.target.bus != DiskBus.VIRTIO and disk.model is not None,
        lambda disk: f"disk model '{disk.model}' not supported for bus '{disk.target.bus}'",
        below="/@model",
    ),
    Rule(
        lambda disk: disk.target.bus != DiskBus.VIRTIO and _driver(disk).queues,
        lambda _: "queues attribute in disk driver element is only supported by virtio-blk",
        below="/driver/@queues",
    ),
    Rule(
        lambda disk: disk.target.bus != DiskBus.VIRTIO and _driver(disk).event_idx is not None,
        lambda _: "disk event_idx mode supported only for virtio bus",
        below="/driver/@event_idx",
    ),
    Rule(
        lambda disk: disk.target.bus != DiskBus.VIRTIO and _driver(disk).ioeventfd is not None,
        lambda _: "disk ioeventfd mode supported only for virtio bus",
        below="/driver/@ioeventfd",
    ),
    *without_virtio_options(_driver, _is_virtio),
    Rule(
        lambda disk: disk.vendor is not None and len(disk.vendor) > 8,
        lambda _: "disk vendor is more than 8 characters",
        below="/vendor",
    ),
    Rule(
        lambda disk: disk.product is not None and len(disk.product) > 16,
        lambda _: "disk product is more than 16 characters",
        below="/product",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.FLOPPY and disk.target.bus != DiskBus.FDC,
        lambda disk: f"Invalid bus type '{disk.target.bus}' for floppy disk",
        ErrorCode.INTERNAL_ERROR,
        "/target/@bus",
    ),
    Rule(
        lambda disk: disk.device != DiskDevice.FLOPPY and disk.target.bus == DiskBus.FDC,
        lambda disk: f"Invalid bus type '{disk.target.bus}' for disk",
        ErrorCode.INTERNAL_ERROR,
        "/target/@bus",
    ),
    Rule(
        lambda disk: disk.target.removable is not None and disk.target.bus != DiskBus.USB,
        lambda _: "removable is only valid for usb disks",
        ErrorCode.XML_ERROR,
        "/target/@removable",
    ),
    Rule(
        lambda disk: disk.target.tray is not None and disk.device not in _REMOVABLE,
        lambda _: "tray is only valid for cdrom and floppy",
        below="/target/@tray",
    ),
    Rule(
        lambda disk: _source(disk).startup_policy not in (None, "default") and disk.type not in _HAS_POLICY,
        lambda disk: (
            f"disk startupPolicy '{_source(disk).startup_policy}' is not allowed for disk of '{disk.type}' type"
        ),
        ErrorCode.XML_ERROR,
        "/source/@startupPolicy",
    ),
    Rule(
        lambda disk: _source(disk).startup_policy == "requisite" and disk.device not in _REMOVABLE,
        lambda _: "disk startupPolicy 'requisite' is allowed only for cdrom or floppy",
        ErrorCode.XML_ERROR,
        "/source/@startupPolicy",
    ),
    Rule(
        lambda disk: disk.wwn is not None and not _WWN.fullmatch(disk.wwn),
        lambda disk: f"Malformed wwn: {disk.wwn}",
        ErrorCode.INTERNAL_ERROR,
        "/wwn",
    ),
    Rule(
        lambda disk: disk.device in (DiskDevice.DISK, DiskDevice.LUN) and disk.target.prefix in (None, "fd"),
        lambda disk: f"Invalid harddisk device name: {disk.target.dev}",
        ErrorCode.INTERNAL_ERROR,
        "/target/@dev",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.FLOPPY and disk.target.prefix != "fd",
        lambda disk: f"Invalid floppy device name: {disk.target.dev}",
        ErrorCode.INTERNAL_ERROR,
        "/target/@dev",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.DISK and is_empty(disk),
        lambda disk: f"missing source information for device {disk.target.dev}",
        ErrorCode.NO_SOURCE,
        "/source",
    ),
    Rule(
        lambda disk: _driver(disk).type not in (None, *FORMATS),
        lambda disk: f"unknown driver format value '{_driver(disk).type}'",
        below="/driver/@type",
    ),
)

QEMU_DISK_RULES: Final[tuple[Rule[Disk], ...]] = (
    Rule(
        lambda disk: disk.target.bus in (DiskBus.XEN, DiskBus.UML, DiskBus.NONE),
        lambda disk: f"disk bus '{disk.target.bus}' is not QEMU's; write virtio, scsi, sata, ide, usb or fdc",
        below="/target/@bus",
    ),
    Rule(
        lambda disk: _driver(disk).name not in (None, "qemu"),
        lambda disk: f"unsupported driver name '{_driver(disk).name}' for disk '{disk.target.dev}'",
        below="/driver/@name",
    ),
    Rule(
        lambda disk: disk.geometry is not None and disk.target.bus in (DiskBus.USB, DiskBus.SD),
        lambda disk: f"CHS geometry can not be set for '{disk.target.bus}' bus",
        below="/geometry",
    ),
    Rule(
        lambda disk: (
            disk.geometry is not None
            and disk.geometry.trans not in (None, "default")
            and disk.target.bus != DiskBus.IDE
        ),
        lambda disk: f"CHS translation mode can only be set for 'ide' bus not '{disk.target.bus}'",
        below="/geometry/@trans",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.CDROM and disk.target.bus in (DiskBus.VIRTIO, DiskBus.SD),
        lambda disk: f"disk type of '{disk.target.dev}' does not support ejectable media",
        below="/target/@bus",
    ),
    Rule(
        lambda disk: _driver(disk).copy_on_read and disk.readonly,
        lambda disk: f"copy_on_read is not compatible with read-only disk '{disk.target.dev}'",
        below="/driver/@copy_on_read",
    ),
    Rule(
        lambda disk: _driver(disk).copy_on_read and disk.device in _REMOVABLE,
        lambda disk: f"copy_on_read is not supported with removable disk '{disk.target.dev}'",
        below="/driver/@copy_on_read",
    ),
    Rule(
        lambda disk: disk.wwn is not None and disk.target.bus not in (DiskBus.IDE, DiskBus.SCSI),
        lambda _: "Only ide and scsi disk support wwn",
        below="/wwn",
    ),
    Rule(
        lambda disk: (disk.vendor or disk.product) and disk.target.bus != DiskBus.SCSI,
        lambda _: "Only scsi disk supports vendor and product",
        below="/vendor",
    ),
    Rule(
        lambda disk: disk.device == DiskDevice.LUN and disk.target.bus not in (DiskBus.VIRTIO, DiskBus.SCSI),
        lambda disk: f"disk device='lun' is not supported for bus='{disk.target.bus}'",
        below="/@device",
    ),
    Rule(
        lambda disk: disk.wwn is not None and disk.device == DiskDevice.LUN,
        lambda _: "Setting wwn is not supported for lun device",
        below="/wwn",
    ),
    Rule(
        lambda disk: (disk.vendor or disk.product) and disk.device == DiskDevice.LUN,
        lambda _: "Setting vendor or product is not supported for lun device",
        below="/vendor",
    ),
    Rule(
        lambda disk: disk.target.rotation_rate and disk.target.bus not in (DiskBus.SCSI, DiskBus.IDE, DiskBus.SATA),
        lambda _: "rotation rate is only valid for SCSI/IDE/SATA bus",
        ErrorCode.INTERNAL_ERROR,
        "/target/@rotation_rate",
    ),
    Rule(
        lambda disk: disk.target.rotation_rate and disk.device != DiskDevice.DISK,
        lambda _: "rotation rate is only valid for disk device",
        ErrorCode.INTERNAL_ERROR,
        "/target/@rotation_rate",
    ),
    Rule(
        lambda disk: disk.serial is not None and disk.device == DiskDevice.LUN and disk.target.bus == DiskBus.SCSI,
        lambda _: "scsi-block 'lun' devices do not support the serial property",
        below="/serial",
    ),
    Rule(
        lambda disk: _tune(disk).group_name is not None and not _is_limited(disk),
        lambda _: "group_name can be configured only together with settings",
        below="/iotune/group_name",
    ),
    Rule(
        lambda disk: any((getattr(_tune(disk), name) or 0) > _MOST for name in _LIMITS),
        lambda _: f"block I/O throttle limit must be no more than {_MOST} using QEMU",
        ErrorCode.ARGUMENT_UNSUPPORTED,
        "/iotune",
    ),
    Rule(
        lambda disk: _driver(disk).copy_on_read and disk.device == DiskDevice.LUN,
        lambda disk: f"copy_on_read is not compatible with 'lun' disk '{disk.target.dev}'",
        below="/driver/@copy_on_read",
    ),
    Rule(
        lambda disk: disk.readonly and disk.device == DiskDevice.DISK and disk.target.bus == DiskBus.IDE,
        lambda _: "readonly ide disks are not supported",
        below="/readonly",
    ),
    Rule(
        lambda disk: disk.readonly and disk.device == DiskDevice.DISK and disk.target.bus == DiskBus.SATA,
        lambda _: "readonly sata disks are not supported",
        below="/readonly",
    ),
    Rule(
        lambda disk: _driver(disk).io == "native" and _driver(disk).cache not in ("none", "directsync"),
        lambda _: "io='native' needs either no disk cache or directsync cache mode",
        below="/driver/@io",
    ),
    Rule(
        lambda disk: _driver(disk).iothread is not None and disk.target.bus != DiskBus.VIRTIO,
        lambda disk: f"IOThreads not available for bus {disk.target.bus} target {disk.target.dev}",
        below="/driver/@iothread",
    ),
    Rule(
        lambda disk: disk.target.bus == DiskBus.IDE and _place(disk).controller,
        lambda _: "Only 1 IDE controller is supported",
        ErrorCode.INTERNAL_ERROR,
        "/address/@controller",
    ),
    Rule(
        lambda disk: disk.target.bus == DiskBus.FDC and _place(disk).controller,
        lambda _: "Only 1 fdc controller is supported",
        ErrorCode.INTERNAL_ERROR,
        "/address/@controller",
    ),
    Rule(
        lambda disk: disk.target.bus == DiskBus.FDC and _place(disk).bus,
        lambda _: "Only 1 fdc bus is supported",
        ErrorCode.INTERNAL_ERROR,
        "/address/@bus",
    ),
    Rule(
        lambda disk: disk.target.bus == DiskBus.SATA and _place(disk).bus,
        lambda _: "bus must be 0 for sata controller",
        below="/address/@bus",
    ),
    Rule(
        lambda disk: disk.target.bus == DiskBus.FDC and _place(disk).target,
        lambda _: "target must be 0 for controller fdc",
        below="/address/@target",
    ),
    Rule(
        lambda disk: disk.target.bus in (DiskBus.IDE, DiskBus.SATA) and _place(disk).target,
        lambda disk: f"target must be 0 for {disk.target.bus} controller",
        below="/address/@target",
    ),
    Rule(
        # QEMU keeps the metadata of such images in memory: two writers would destroy them.
        lambda disk: disk.shareable and not disk.readonly and _driver(disk).type not in (None, "raw"),
        lambda disk: f"shared access for disk '{disk.target.dev}' requires use of supported storage format",
        below="/shareable",
    ),
    Rule(
        lambda disk: disk.transient is not None and is_empty(disk),
        lambda disk: f"transient disk '{disk.target.dev}' must not be empty",
        below="/transient",
    ),
    Rule(
        lambda disk: disk.transient is not None and disk.readonly,
        lambda disk: f"transient disk '{disk.target.dev}' must not be read-only",
        below="/transient",
    ),
    Rule(
        lambda disk: disk.transient is not None and disk.type != SourceType.FILE,
        lambda disk: f"transient disk supported only with 'file' type ({disk.target.dev})",
        below="/transient",
    ),
    Rule(
        lambda disk: disk.transient is not None and disk.device != DiskDevice.DISK,
        lambda disk: f"transient disk supported only with 'disk' device ({disk.target.dev})",
        below="/transient",
    ),
    Rule(
        lambda disk: _shares_backing(disk) and disk.target.bus not in (DiskBus.USB, DiskBus.VIRTIO, DiskBus.SCSI),
        lambda disk: f"disk bus '{disk.target.bus}' doesn't support transiend disk backing image sharing",
        below="/transient/@shareBacking",
    ),
)
