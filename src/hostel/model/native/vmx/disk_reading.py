"""Disks of a ``.vmx`` file (``virVMXParseDisk``).

One entry may be a disk or a drive for media; its type and its file's name say which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.errors import ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice, DiskDriver, DiskTarget, Transient
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.native.diskname import disk_name
from hostel.model.native.settings import refused
from hostel.model.native.vmx.entries import Entries
from hostel.model.native.vmx.filename import FileNames

SCSI_MODELS: Final = {
    "buslogic": "buslogic", "lsilogic": "lsilogic", "lsisas1068": "lsisas1068", "pvscsi": "vmpvscsi",
}  # fmt: skip
_CONTROLLERS: Final = 4
_SCSI_SELF: Final = 7  # the unit that the controller itself has
_SCSI_UNITS: Final = 16
_SCSI_UNITS_NEW: Final = 64  # from virtualHW.version 13 on
_SATA_UNITS: Final = 30
_CDROM_TYPES: Final = ("atapi-cdrom", "cdrom-raw", "cdrom-image")
_HOST_CDROMS: Final = "/vmfs/devices/cdrom/"
_EMPTY: Final = "emptyBackingString"


class _Place(NamedTuple):
    """Where an entry says that a disk is.

    Attributes:
        prefix: what its entries begin with.
        bus: the bus.
        controller: the controller, or IDE's channel.
        unit: the unit.
    """

    prefix: str
    bus: DiskBus
    controller: int
    unit: int

    @property
    def name(self) -> str:
        """The disk's name in the document."""
        match self.bus:
            case DiskBus.SCSI:
                unit = self.unit if self.unit < _SCSI_SELF else self.unit - 1
                return disk_name("sd", self.controller * 15 + unit)
            case DiskBus.SATA:
                return disk_name("sd", self.controller * _SATA_UNITS + self.unit)
            case DiskBus.IDE:
                return disk_name("hd", self.controller * 2 + self.unit)
        return disk_name("fd", self.unit)

    @property
    def address(self) -> DriveAddress | None:
        """Its place, where its name does not say it."""
        return DriveAddress(controller=self.controller, unit=self.unit) if self.bus is DiskBus.SCSI else None


class _Words(NamedTuple):
    """What a disk's entries say."""

    kind: str
    file: str | None
    mode: str
    file_type: str
    writes_through: bool


def read_disks(entries: Entries, names: FileNames, version: int, domain: Domain) -> None:
    """Add every disk, and the controllers of SCSI and SATA disks.

    Raises:
        ModelError: an entry is none that a document can have.
    """
    devices = domain.devices
    models: dict[int, str] = {}
    present = [number for number in range(_CONTROLLERS) if _has_scsi(entries, number, models)]
    for place in _scsi_places(present, _SCSI_UNITS_NEW if version >= 13 else _SCSI_UNITS):
        devices.disks += _read_any(entries, names, place)
    last = max(
        (item.address.controller for item in devices.disks if isinstance(item.address, DriveAddress)), default=-1
    )
    for number in range(last + 1):
        devices.controllers.append(Controller(type=ControllerType.SCSI, index=number, model=models.get(number)))
    for number in range(_CONTROLLERS):
        if entries.boolean(f"sata{number}.present", default=False):
            for unit in range(_SATA_UNITS):
                place = _Place(f"sata{number}:{unit}", DiskBus.SATA, number, unit)
                devices.disks += _read_any(entries, names, place)
    for number in range(2):
        for unit in range(2):
            devices.disks += _read_any(entries, names, _Place(f"ide{number}:{unit}", DiskBus.IDE, number, unit))
    for unit in range(2):
        place = _Place(f"floppy{unit}", DiskBus.FDC, 0, unit)
        words = _read_words(entries, place)
        if words is not None:
            devices.disks.append(_floppy(names, place, words))


def _has_scsi(entries: Entries, number: int, models: dict[int, str]) -> bool:
    if not entries.boolean(f"scsi{number}.present", default=False):
        return False
    name = f"scsi{number}.virtualDev"
    model = entries.text(name)
    if model is not None:
        if model.lower() not in SCSI_MODELS:
            known = "' or '".join(SCSI_MODELS)
            raise refused(name, f"Expecting '{known}' but found '{model}'")
        models[number] = SCSI_MODELS[model.lower()]
    return True


def _scsi_places(controllers: list[int], units: int) -> Iterator[_Place]:
    for number in controllers:
        for unit in range(units):
            if unit != _SCSI_SELF:
                yield _Place(f"scsi{number}:{unit}", DiskBus.SCSI, number, unit)


def _read_words(entries: Entries, place: _Place) -> _Words | None:
    """What is said of a place; None where there is nothing, or something of the client's."""
    prefix = place.prefix
    entries.boolean(f"{prefix}.startConnected", default=True)
    if not entries.boolean(f"{prefix}.present", default=False):
        return None
    if entries.boolean(f"{prefix}.clientDevice", default=False):
        return None
    return _Words(
        (entries.text(f"{prefix}.deviceType") or "").lower(),
        entries.text(f"{prefix}.fileName"),
        (entries.text(f"{prefix}.mode") or "").lower(),
        (entries.text(f"{prefix}.fileType") or "").lower(),
        entries.boolean(f"{prefix}.writeThrough", default=False),
    )


def _read_any(entries: Entries, names: FileNames, place: _Place) -> list[Disk]:
    words = _read_words(entries, place)
    if words is None:
        return []
    return [_cdrom(names, place, words) if _is_medium(words) else _hard_disk(names, place, words)]


def _is_medium(words: _Words) -> bool:
    file = words.file
    is_disk_file = file is not None and file.lower().endswith(".vmdk")
    return not is_disk_file and (
        file is None
        or file.lower().endswith(".iso")
        or file == _EMPTY
        or words.kind in _CDROM_TYPES
        or (words.kind == "scsi-passthru" and file.startswith(_HOST_CDROMS))
    )


def _unhandled(place: _Place, words: _Words) -> ModelError:
    reason = f"Invalid or not yet handled value '{words.file}' for device type '{words.kind or 'unknown'}'"
    return refused(f"{place.prefix}.fileName", reason)


def _hard_disk(names: FileNames, place: _Place, words: _Words) -> Disk:
    if words.file is None or not words.file.lower().endswith(".vmdk"):
        raise _unhandled(place, words)
    own = {DiskBus.SCSI: "scsi-hardDisk", DiskBus.IDE: "ata-hardDisk"}.get(place.bus)
    if own is not None and words.kind not in ("", own.lower(), "disk"):
        reason = f"Expecting '{own}' or 'disk' but found '{words.kind}'"
        raise refused(f"{place.prefix}.deviceType", reason)
    source = names.read(words.file, may_be_missing=False)
    return Disk(
        type=SourceType.FILE,
        driver=DiskDriver(cache="writethrough") if words.writes_through else None,
        source=DiskSource(file=source),
        target=DiskTarget(dev=place.name, bus=place.bus),
        transient=Transient() if words.mode == "independent-nonpersistent" else None,
        address=place.address,
    )


def _cdrom(names: FileNames, place: _Place, words: _Words) -> Disk:
    disk = Disk(
        type=SourceType.FILE,
        device=DiskDevice.CDROM,
        target=DiskTarget(dev=place.name, bus=place.bus),
        readonly=True,
        address=place.address,
    )
    file = words.file
    if file is not None and (file.lower().endswith(".iso") or file == _EMPTY) and words.kind not in _CDROM_TYPES[:2]:
        if words.kind not in ("", "cdrom-image"):
            reason = f"Expecting 'cdrom-image' but found '{words.kind}'"
            raise refused(f"{place.prefix}.deviceType", reason)
        source = names.read(file, may_be_missing=True) if file != _EMPTY else None
        disk.source = DiskSource(file=source) if source is not None else None
    elif file is not None and file.lower().endswith(".iso"):
        raise refused(f"{place.prefix}.deviceType", f"Expecting 'cdrom-image' but found '{words.kind}'")
    elif words.kind in ("atapi-cdrom", "cdrom-raw") or (words.kind == "scsi-passthru" and place.bus is DiskBus.SCSI):
        disk.type = SourceType.BLOCK
        if words.kind != "atapi-cdrom":
            disk.device = DiskDevice.LUN  # the guest speaks to the drive itself
        if file is not None and file.lower() == "auto detect":
            disk.source = DiskSource(startup_policy="optional")
        elif file is not None:
            disk.source = DiskSource(dev=file)
    else:
        raise _unhandled(place, words)
    return disk


def _floppy(names: FileNames, place: _Place, words: _Words) -> Disk:
    disk = Disk(device=DiskDevice.FLOPPY, target=DiskTarget(dev=place.name, bus=place.bus))
    if words.file_type == "device":
        disk.type = SourceType.BLOCK
        disk.source = DiskSource(dev=words.file) if words.file is not None else None
    elif words.file_type == "file":
        source = names.read(words.file, may_be_missing=False) if words.file is not None else None
        disk.source = DiskSource(file=source) if source is not None else None
    else:
        raise _unhandled(place, words)
    return disk
