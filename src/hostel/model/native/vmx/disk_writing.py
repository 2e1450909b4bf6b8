"""Disks for a ``.vmx`` file (``virVMXFormatDisk``, ``virVMXFormatFloppy``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain
from hostel.model.native.vmx.disk_reading import SCSI_MODELS
from hostel.model.native.vmx.entries import EntryWriter
from hostel.model.native.vmx.filename import FileNames

_PREFIXES: Final = {DiskBus.SCSI: "sd", DiskBus.IDE: "hd", DiskBus.FDC: "fd"}
_COUNTS: Final = {DiskBus.SCSI: 60, DiskBus.IDE: 4, DiskBus.FDC: 2}
_MODEL_WORDS: Final = {model: word for word, model in SCSI_MODELS.items()}
_DETECTED: Final = "lsilogic"  # of a controller whose model is 'auto': what guests have drivers for


def write_disks(domain: Domain, names: FileNames, writer: EntryWriter) -> bool:
    """Write SCSI controllers and every disk.

    Returns:
        whether there is a SCSI controller.

    Raises:
        ModelError: a disk is none that VMware has.
    """
    disks = domain.devices.disks
    for disk in disks:
        _check_place(domain, disk)
    models = _controllers(domain)
    for number, model in sorted(models.items()):
        writer.add(f"scsi{number}.present", True)
        if model is not None:
            writer.add(f"scsi{number}.virtualDev", _MODEL_WORDS[model])
    for disk in disks:
        if disk.device == DiskDevice.FLOPPY:
            _write_floppy(domain, disk, names, writer)
        else:
            _write_disk(domain, disk, names, writer)
    there = {disk.target.position for disk in disks if disk.device == DiskDevice.FLOPPY}
    for number in range(2):
        if number not in there:
            writer.add(f"floppy{number}.present", False)  # it is there unless it is said not to be
    return bool(models)


def _place(disk: Disk, position: int) -> tuple[int, int, int]:
    """Controller, bus and unit that a disk's name means."""
    if disk.target.bus is DiskBus.SCSI:
        number, unit = divmod(position, 15)
        return number, 0, unit if unit < 7 else unit + 1
    if disk.target.bus is DiskBus.IDE:
        return 0, position // 2, position % 2
    return 0, 0, position


def _check_place(domain: Domain, disk: Disk) -> None:
    path, bus = domain.devices.path(disk), disk.target.bus
    if bus not in _PREFIXES:
        raise ModelError(f"{path}/target/@bus", f"Unsupported bus type '{bus}'", code=ErrorCode.CONFIG_UNSUPPORTED)
    position = disk.target.position
    if disk.target.prefix != _PREFIXES[bus] or position is None:
        raise ModelError(f"{path}/target/@dev", f"Expecting it to start with '{_PREFIXES[bus]}'")
    if position >= _COUNTS[bus]:
        raise ModelError(f"{path}/target/@dev", f"there is no place for '{disk.target.dev}' on bus '{bus}'")
    address = disk.address
    if not isinstance(address, DriveAddress):
        raise ModelError(f"{path}/address", "Unsupported disk address type", code=ErrorCode.CONFIG_UNSUPPORTED)
    if _place(disk, position) != (address.controller, address.bus, address.unit):
        place = f"{address.controller}:{address.bus}:{address.unit}"
        raise ModelError(f"{path}/address", f"Disk address {place} doesn't match target device '{disk.target.dev}'")


def _controllers(domain: Domain) -> dict[int, str | None]:
    """Models of the SCSI controllers that disks are on; a disk's driver may name one too, as it did before 2010."""
    found = {
        item.index: item
        for item in domain.devices.controllers
        if item.type == ControllerType.SCSI and item.index is not None
    }
    models: dict[int, str | None] = {}
    for disk in domain.devices.disks:
        if disk.target.bus is not DiskBus.SCSI or not isinstance(disk.address, DriveAddress):
            continue
        number = disk.address.controller
        controller = found.get(number)
        if controller is None:
            raise ModelError(domain.devices.path(disk), f"Missing SCSI controller for index {number}")
        models[number] = _model(domain, disk, controller)
    return models


def _model(domain: Domain, disk: Disk, controller: Controller) -> str | None:
    path = domain.devices.path(controller)
    named = disk.driver.name.lower() if disk.driver is not None and disk.driver.name else None
    if named is not None:
        if controller.model is None:
            controller.model = named
        elif controller.model != named:
            reason = f"Inconsistent SCSI controller model ('{named}' is not '{controller.model}')"
            raise ModelError(path, reason)
    if controller.model == "auto":
        controller.model = _DETECTED
    if controller.model is not None and controller.model not in _MODEL_WORDS:
        known = "' or '".join(_MODEL_WORDS)
        raise ModelError(f"{path}/@model", f"Expecting '{known}' but found '{controller.model}'")
    return controller.model


def _kind(domain: Domain, disk: Disk) -> str:
    is_file, source = disk.type == SourceType.FILE, disk.source
    if disk.device == DiskDevice.DISK and is_file:
        return "scsi-hardDisk" if disk.target.bus is DiskBus.SCSI else "ata-hardDisk"
    if disk.device == DiskDevice.CDROM:
        return "cdrom-image" if is_file else "atapi-cdrom"
    if disk.device == DiskDevice.LUN:
        is_host = source is not None and (source.dev or "").startswith("/vmfs/devices/cdrom/")
        return "scsi-passthru" if is_host and disk.target.bus is DiskBus.SCSI else "cdrom-raw"
    reason = f"{disk.target.bus} disk '{disk.target.dev}' has an unsupported type '{disk.type}'"
    raise ModelError(domain.devices.path(disk), reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _check_type(domain: Domain, disk: Disk) -> None:
    if disk.type not in (SourceType.FILE, SourceType.BLOCK):
        reason = f"'{disk.target.dev}' has unsupported type '{disk.type}', expecting 'file' or 'block'"
        raise ModelError(f"{domain.devices.path(disk)}/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _write_disk(domain: Domain, disk: Disk, names: FileNames, writer: EntryWriter) -> None:
    _check_type(domain, disk)
    number, bus, unit = _place(disk, disk.target.position or 0)
    if disk.target.bus is DiskBus.FDC:
        reason = f"Unsupported bus type 'fdc' for {disk.device}"
        raise ModelError(domain.devices.path(disk), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    prefix = f"{disk.target.bus}{number if disk.target.bus is DiskBus.SCSI else bus}:{unit}"
    kind = _kind(domain, disk)
    writer.add(f"{prefix}.present", True)
    writer.add(f"{prefix}.deviceType", kind)
    if disk.type == SourceType.FILE:
        writer.add(f"{prefix}.fileName", _file_name(domain, disk, names))
    elif disk.source is not None and disk.source.dev is not None:
        writer.add(f"{prefix}.fileName", disk.source.dev)
    else:
        writer.add(f"{prefix}.autodetect", True)
        writer.add(f"{prefix}.fileName", "auto detect")
    cache = disk.driver.cache if disk.driver is not None else None
    if disk.target.bus is DiskBus.SCSI:
        if cache == "writethrough":
            writer.add(f"{prefix}.writeThrough", True)
        elif cache not in (None, "default"):
            reason = f"scsi harddisk '{disk.target.dev}' has unsupported cache mode '{cache}'"
            path = f"{domain.devices.path(disk)}/driver/@cache"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if disk.transient is not None:
        writer.add(f"{prefix}.mode", "independent-nonpersistent")


def _file_name(domain: Domain, disk: Disk, names: FileNames) -> str:
    ending = ".vmdk" if disk.device == DiskDevice.DISK else ".iso"
    file = disk.source.file if disk.source is not None else None
    path = f"{domain.devices.path(disk)}/source/@file"
    if file is not None:
        if not file.lower().endswith(ending):
            reason = f"Image file for '{disk.target.dev}' has unsupported suffix, expecting '{ending}'"
            raise ModelError(path, reason)
        return names.write(file)
    if disk.device == DiskDevice.CDROM:
        return "emptyBackingString"
    raise ModelError(path, f"'{disk.target.dev}' has no image file")


def _write_floppy(domain: Domain, disk: Disk, names: FileNames, writer: EntryWriter) -> None:
    _check_type(domain, disk)
    if disk.target.bus is not DiskBus.FDC:
        reason = f"Unsupported bus type '{disk.target.bus}' for floppy"
        raise ModelError(domain.devices.path(disk), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    prefix = f"floppy{disk.target.position}"
    source = disk.source
    writer.add(f"{prefix}.present", True)
    writer.add(f"{prefix}.fileType", "file" if disk.type == SourceType.FILE else "device")
    if source is not None and source.file is not None:
        writer.add(f"{prefix}.fileName", names.write(source.file))
    elif source is not None and source.dev is not None:
        writer.add(f"{prefix}.fileName", source.dev)
