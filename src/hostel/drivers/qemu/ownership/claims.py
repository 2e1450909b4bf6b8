"""Which files of the host a machine's QEMU opens by name, and what is written on them then.

Each security driver has its own values (``virSecurityDACSetAllLabel``, ``virSecuritySELinuxSetAllLabel``).
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.qemu.command.host import Sysfs
from hostel.drivers.qemu.hostdevs import functions, of_host
from hostel.drivers.qemu.output.sinks import replaces_files
from hostel.drivers.qemu.ownership.label import device_label
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

    REMEMBERED = "remembered"  # it is again what it was before the first machine
    USUAL = "usual"  # what such a file is by default: a device's node
    NEVER = "never"  # other machines may be reading it, which nobody counts


class Claim(NamedTuple):
    """A file that a machine needs.

    Attributes:
        path: where it is.
        value: what is to be written on it.
        back: what becomes of it afterwards.
    """

    path: str
    value: str
    back: Return = Return.REMEMBERED


class Terms(NamedTuple):
    """How files are given to one machine, by one security driver.

    Attributes:
        model: the driver's name.
        own: what is written on what is the machine's alone.
        shared: on what several machines may write.
        read: on what is only read, by others too.
        of_label: what is written for a label of a document.
        gives: whether files are given at all.
    """

    model: str
    own: str
    shared: str
    read: str
    of_label: Callable[[str], str]
    gives: bool = True


def claims(status: Status, terms: Terms) -> dict[str, Claim]:
    """What a machine needs now, with the marks of what is under way, by the path.

    Raises:
        VirtError: ``INVALID_ARG``: a label names nobody.
    """
    found: dict[str, Claim] = {}
    for claim in _Claims(status, terms).all():
        known = found.get(claim.path)
        if known is None or known.back is Return.NEVER:
            found[claim.path] = claim
    return found


def paths(status: Status) -> Iterator[str]:
    """The files that a machine's QEMU opens by name, whosever they are."""
    return (claim.path for claim in _Claims(status, Terms("", "", "", "", str)).all())  # no label is for it


class _Claims:
    def __init__(self, status: Status, terms: Terms) -> None:
        self._status = status
        self._domain = status.domain
        self._terms = terms
        self._written = written_below(status)

    def all(self) -> Iterator[Claim]:
        """All of them."""
        if not self._terms.gives:
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
                yield from self._image(item.type or SourceType.FILE, item.store, item.store, self._terms.own)

    def _disk(self, disk: Disk) -> Iterator[Claim]:
        """A disk: its own image is its alone, unless it says otherwise; what it stands on may be others' too."""
        terms, back = self._terms, Return.REMEMBERED
        value = terms.own
        if disk.shareable or disk.readonly or disk.device == DiskDevice.CDROM:
            value, back = terms.shared if disk.shareable else terms.read, Return.NEVER
        if disk.source is not None:
            yield from self._image(disk.type, disk.source, disk.source, value, back)
            yield from self._below(disk.backing_store, disk.source)
        mirror = disk.mirror
        if mirror is not None and mirror.source is not None and mirror.job == "copy":
            yield from self._image(mirror.type or SourceType.FILE, mirror.source, mirror.source, value, back)
            yield from self._below(mirror.backing_store, mirror.source)

    def _below(self, below: BackingStore | None, top: DiskSource) -> Iterator[Claim]:
        while below is not None and below.source is not None and below.type is not None:
            numbers = {below.index, below.source.index} - {None}
            value = self._terms.own if numbers & self._written else self._terms.read
            yield from self._image(below.type, below.source, top, value, Return.NEVER)
            below = below.backing_store

    def _image(
        self, kind: SourceType, source: DiskSource, top: DiskSource, value: str, back: Return = Return.REMEMBERED
    ) -> Iterator[Claim]:
        """One image; where it has no label of its own, that of the disk's own image counts."""
        if source.fdgroup is not None:
            return
        own, above = (device_label(labels, self._terms.model) for labels in (source.seclabels, top.seclabels))
        said = next((it for it in (own, above) if it is not None and (it.label or it.relabel is False)), None)
        if said is not None and said.relabel is False:
            return
        if said is not None and said.label is not None:
            value = self._terms.of_label(said.label)
        path = source.file if kind == SourceType.FILE else source.dev if kind == SourceType.BLOCK else None
        if path:
            yield Claim(path, value, back)

    def _devices(self) -> Iterator[Claim]:
        devices = self._domain.devices
        for item in devices.inputs:
            path = (item.source.evdev or item.source.dev) if item.source is not None else None
            if item.type in ("passthrough", "evdev") and path:
                yield Claim(path, self._terms.own)
        for function in functions(of_host(self._domain)):
            if group := _group(_SYS / "bus/pci/devices" / function.name):
                yield Claim(group, self._terms.own, Return.USUAL)
        for device in devices.hostdevs:
            if isinstance(device, UsbHostdev) and device.source.address is not None and not device.source.missing:
                bus, number = device.source.address.bus, device.source.address.device
                yield Claim(f"/dev/bus/usb/{bus:03}/{number:03}", self._terms.own)
            elif isinstance(device, ScsiHostdev) and (path := _scsi_node(device)):
                terms = self._terms
                value = terms.shared if device.shareable else terms.read if device.readonly else terms.own
                back = Return.NEVER if device.readonly or device.shareable else Return.REMEMBERED
                yield Claim(path, value, back)
            elif isinstance(device, MdevHostdev) and (
                group := _group(_SYS / "bus/mdev/devices" / device.source.address.uuid)
            ):
                yield Claim(group, self._terms.own)
        for module in devices.memories:
            if module.model in ("nvdimm", "virtio-pmem") and module.source is not None and module.source.path:
                yield Claim(module.source.path, self._terms.own)
        for tpm in devices.tpms:
            if tpm.backend.type == "passthrough":
                yield Claim(tpm.backend.device or "/dev/tpm0", self._terms.own, Return.USUAL)

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
            yield Claim(end.log.file, self._terms.own)
        if source is None or source.path is None or (is_given and end.type == CharacterType.FILE):
            return
        label = device_label(source.seclabels, self._terms.model)
        if label is not None and label.relabel is False:
            return
        terms = self._terms
        value = terms.of_label(label.label) if label is not None and label.label is not None else terms.own
        match end.type:
            case CharacterType.DEV | CharacterType.FILE:
                yield Claim(source.path, value)
            case CharacterType.PIPE:
                pair = [f"{source.path}.in", f"{source.path}.out"]
                for path in pair if all(map(os.path.exists, pair)) else [source.path]:
                    yield Claim(path, value)
            case CharacterType.UNIX if source.mode == "connect":
                yield Claim(source.path, value)
            case _:
                pass

    def _boot(self, os_: Os | None) -> Iterator[Claim]:
        for table in self._domain.sysinfos:
            for entry in table.entries:
                if entry.file:
                    yield Claim(entry.file, self._terms.read)
        if os_ is None:
            return
        if (nvram := os_.nvram) is not None:
            if nvram.source is not None:
                yield from self._image(nvram.type or SourceType.FILE, nvram.source, nvram.source, self._terms.own)
            elif nvram.path is not None:
                yield Claim(nvram.path, self._terms.own)
        tables = [table.path for table in os_.acpi.tables] if os_.acpi is not None else []
        for path in (os_.kernel, os_.initrd, os_.dtb, *tables):
            if path:
                yield Claim(path, self._terms.read)


def written_below(status: Status) -> set[int]:
    """The numbers of the images below their disks' own that QEMU writes: what a commit goes to, and what is over it."""
    found: set[int] = set()
    for job in status.jobs:
        if job.kind not in ("commit", "active-commit") or job.ended:
            continue
        found.add(job.base)
        disk = next((item for item in status.domain.devices.disks if item.target.dev == job.disk), None)
        over, below = None, disk.backing_store if disk is not None else None
        while below is not None:
            number = below.index or (below.source.index if below.source is not None else None)
            if number == job.top and over is not None:
                found.add(over)  # it is told that it has another image below
            over, below = number, below.backing_store
    return found


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
