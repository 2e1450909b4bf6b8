"""Which files of the host a machine's QEMU opens by name, and whose they are then (``virSecurityDACSetAllLabel``)."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.qemu.command.host import Sysfs
from hostel.drivers.qemu.hostdevs import functions, of_host
from hostel.drivers.qemu.output.sinks import replaces_files
from hostel.drivers.qemu.ownership.label import device_label, label_of
from hostel.drivers.qemu.ownership.user import ROOT, Identity, Owner, read_label
from hostel.drivers.qemu.status import Status
from hostel.errors import VirtError
from hostel.model.domain.devices.character import CharacterBackend, CharacterType
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.hostdev import MdevHostdev, ScsiHostdev, UsbHostdev
from hostel.model.domain.devices.source import BackingStore, DiskSource, SourceType
from hostel.model.domain.os import Os

_SYS: Final = Path("/sys")


class Return(enum.StrEnum):
    """What becomes of a file that a machine has had."""

    REMEMBERED = "remembered"  # it is given back to who had it before the first machine
    ROOT = "root"  # to root: a device's node
    NEVER = "never"  # other machines may be reading it, which nobody counts


class Claim(NamedTuple):
    """A file that a machine needs.

    Attributes:
        path: where it is.
        owner: whose it is to be.
        back: what becomes of it afterwards.
    """

    path: str
    owner: Owner
    back: Return = Return.REMEMBERED


def claims(status: Status, identity: Identity) -> dict[str, Claim]:
    """What a machine needs now, with the marks of what is under way, by the path.

    Raises:
        VirtError: ``INVALID_ARG``: a label names nobody.
    """
    found: dict[str, Claim] = {}
    for claim in _Claims(status, identity).all():
        known = found.get(claim.path)
        if known is None or known.back is Return.NEVER:
            found[claim.path] = claim
    return found


def paths(status: Status) -> Iterator[str]:
    """The files that a machine's QEMU opens by name, whosever they are."""
    return (claim.path for claim in _Claims(status, Identity(ROOT), is_all=True).all())


class _Claims:
    def __init__(self, status: Status, identity: Identity, *, is_all: bool = False) -> None:
        self._status = status
        self._domain = status.domain
        self._is_all = is_all
        label = label_of(self._domain)
        self._gives = is_all or (identity.gives and (label is None or bool(label.relabel)))
        named = label.label if label is not None else None
        self._owner = identity.owner if named is None else read_label(named)

    def all(self) -> Iterator[Claim]:
        """All of them."""
        if not self._gives:
            return
        yield from self._disks()
        yield from self._devices()
        yield from self._characters()
        yield from self._boot(self._domain.os)

    def _disks(self) -> Iterator[Claim]:
        marked = [plug.disk for plug in self._status.plugs if plug.disk is not None]
        for disk in [*self._domain.devices.disks, *marked]:
            yield from self._disk(disk)
        for item in self._status.backup.disks.disks if self._status.backup is not None else ():
            if item.store is not None and item.index is not None:
                yield from self._image(item.type or SourceType.FILE, item.store, item.store, Return.REMEMBERED)

    def _disk(self, disk: Disk) -> Iterator[Claim]:
        """A disk: its own image is its alone, unless it says otherwise; what it stands on may be others' too."""
        is_shared = disk.readonly or disk.shareable or disk.device == DiskDevice.CDROM
        back = Return.NEVER if is_shared else Return.REMEMBERED
        if disk.source is not None:
            yield from self._image(disk.type, disk.source, disk.source, back)
            yield from self._below(disk.backing_store, disk.source)
        mirror = disk.mirror
        if mirror is not None and mirror.source is not None and mirror.job == "copy":
            yield from self._image(mirror.type or SourceType.FILE, mirror.source, mirror.source, back)
            yield from self._below(mirror.backing_store, mirror.source)

    def _below(self, below: BackingStore | None, top: DiskSource) -> Iterator[Claim]:
        while below is not None and below.source is not None and below.type is not None:
            yield from self._image(below.type, below.source, top, Return.NEVER)
            below = below.backing_store

    def _image(self, kind: SourceType, source: DiskSource, top: DiskSource, back: Return) -> Iterator[Claim]:
        """One image; where it has no label of its own, that of the disk's own image counts."""
        if source.fdgroup is not None:
            return
        own, above = device_label(source.seclabels), device_label(top.seclabels)
        said = next((it for it in (own, above) if it is not None and (it.label or it.relabel is False)), None)
        if said is not None and said.relabel is False and not self._is_all:
            return
        owner = read_label(said.label) if said is not None and said.label is not None else self._owner
        path = source.file if kind == SourceType.FILE else source.dev if kind == SourceType.BLOCK else None
        if path:
            yield Claim(path, owner, back)

    def _devices(self) -> Iterator[Claim]:
        devices = self._domain.devices
        for item in devices.inputs:
            path = (item.source.evdev or item.source.dev) if item.source is not None else None
            if item.type in ("passthrough", "evdev") and path:
                yield Claim(path, self._owner)
        for function in functions(of_host(self._domain)):
            if group := _group(_SYS / "bus/pci/devices" / function.name):
                yield Claim(group, self._owner, Return.ROOT)
        for device in devices.hostdevs:
            if isinstance(device, UsbHostdev) and device.source.address is not None and not device.source.missing:
                bus, number = device.source.address.bus, device.source.address.device
                yield Claim(f"/dev/bus/usb/{bus:03}/{number:03}", self._owner)
            elif isinstance(device, ScsiHostdev) and (path := _scsi_node(device)):
                back = Return.NEVER if device.readonly or device.shareable else Return.REMEMBERED
                yield Claim(path, self._owner, back)
            elif isinstance(device, MdevHostdev) and (
                group := _group(_SYS / "bus/mdev/devices" / device.source.address.uuid)
            ):
                yield Claim(group, self._owner)
        for module in devices.memories:
            if module.model in ("nvdimm", "virtio-pmem") and module.source is not None and module.source.path:
                yield Claim(module.source.path, self._owner)
        for tpm in devices.tpms:
            if tpm.backend.type == "passthrough":
                yield Claim(tpm.backend.device or "/dev/tpm0", self._owner, Return.ROOT)

    def _characters(self) -> Iterator[Claim]:
        devices = self._domain.devices
        ends = [*devices.serials, *devices.parallels, *devices.channels]
        # What is a serial port to QEMU and a console to the document is there twice, and is claimed once.
        for end in [*ends, *devices.consoles]:
            yield from self._character(end)

    def _character(self, end: CharacterBackend) -> Iterator[Claim]:
        source = end.source
        is_given = replaces_files(self._status.stdio)  # and QEMU opens none by name
        if end.log is not None and not is_given:
            yield Claim(end.log.file, self._owner)
        if source is None or source.path is None or (is_given and end.type == CharacterType.FILE):
            return
        label = device_label(source.seclabels)
        if label is not None and label.relabel is False and not self._is_all:
            return
        owner = read_label(label.label) if label is not None and label.label is not None else self._owner
        match end.type:
            case CharacterType.DEV | CharacterType.FILE:
                yield Claim(source.path, owner)
            case CharacterType.PIPE:
                pair = [f"{source.path}.in", f"{source.path}.out"]
                for path in pair if all(map(os.path.exists, pair)) else [source.path]:
                    yield Claim(path, owner)
            case CharacterType.UNIX if source.mode == "connect":
                yield Claim(source.path, owner)
            case _:
                pass

    def _boot(self, os_: Os | None) -> Iterator[Claim]:
        for table in self._domain.sysinfos:
            for entry in table.entries:
                if entry.file:
                    yield Claim(entry.file, self._owner)
        if os_ is None:
            return
        if (nvram := os_.nvram) is not None:
            if nvram.source is not None:
                yield from self._image(nvram.type or SourceType.FILE, nvram.source, nvram.source, Return.REMEMBERED)
            elif nvram.path is not None:
                yield Claim(nvram.path, self._owner)
        tables = [table.path for table in os_.acpi.tables] if os_.acpi is not None else []
        for path in (os_.kernel, os_.initrd, os_.dtb, *tables):
            if path:
                yield Claim(path, self._owner)


def _group(device: Path) -> str | None:
    """The node of a device's IOMMU group; None where it has none."""
    try:
        return f"/dev/vfio/{os.path.basename(os.readlink(device / 'iommu_group'))}"
    except OSError:
        return None


def _scsi_node(device: ScsiHostdev) -> str | None:
    """The node of a SCSI device of this host; None where it is on a server, or not there."""
    unit = device.source.address
    if device.source.protocol == "iscsi" or device.source.adapter is None or unit is None:
        return None
    try:
        return Sysfs().scsi_generic(device.source.adapter, unit.bus, unit.target, unit.unit)
    except VirtError:
        return None  # QEMU says so
