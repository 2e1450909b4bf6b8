"""Pool type ``disk``: the partitions of a disk, made and removed by ``parted``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from hostel.drivers.base import Progress, VolumeCreateFlag, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.base import Overwrite, Source, refuse_snapshots, unsupported
from hostel.drivers.storage.backends.device import (
    DeviceVolumes,
    device_facts,
    fill,
    refuse_encryption,
    refuse_flags,
    wait_for,
)
from hostel.drivers.storage.backends.probing import clear_ends, require_device, require_empty, require_label
from hostel.drivers.storage.document import Extent, PoolDefinition, PoolSizes, VolumeDefinition, VolumeFacts
from hostel.drivers.storage.holding import held, translating
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.storage import FreeExtent
from hostel.units import SECTOR

# What parted takes for the type of a partition's content (virStoragePartedFs).
_CONTENT: Final = {
    "none": "ext2", "linux": "ext2", "fat16": "fat16", "fat32": "fat32", "linux-swap": "linux-swap",
    "linux-lvm": "ext2", "linux-raid": "ext2", "extended": "extended",
}  # fmt: skip
_EXTENDED_TYPES: Final = (0x05, 0x0F, 0x85)  # in the table of a DOS label
_PRIMARIES: Final = 4  # that fit into a DOS label
_ROW: Final = re.compile(r"(\d+):(\d+)B:(\d+)B:(\d+)B:(.*);")
_GEOMETRY: Final = re.compile(r"(\d+):(\d+):(\d+):[^:]*;")


class Part(NamedTuple):
    """A partition, or free room where ``number`` is 0; bytes, ``end`` is the first byte behind it."""

    number: int
    kind: str
    start: int
    end: int


class DiskBackend(DeviceVolumes):
    """A disk with a partition table."""

    def check(self, pool: PoolDefinition) -> None:
        """One device, by its whole path.

        Raises:
            VirtError: in libvirt's words.
        """
        super().check(pool)
        require_device(pool.device, "source device")

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether the disk is still there."""
        return os.path.exists(pool.device)

    def build(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Write a new partition table; what is on the disk is only overwritten when that is asked for."""
        _require(pool.device)
        if overwrite is not Overwrite.ALWAYS:
            require_empty(pool.device, _label(pool))
        clear_ends(pool.device)
        label = _label(pool)
        tool.run(["parted", pool.device, "mklabel", "--script", "msdos" if label == "dos" else label])

    def delete(self, pool: PoolDefinition) -> None:
        """Wipe the partition table."""
        _require(pool.device)
        clear_ends(pool.device)

    def start(self, pool: PoolDefinition) -> None:
        """Make sure that the disk is there and has its partition table."""
        tool.settle()
        _require(pool.device)
        require_label(pool.device, _label(pool))

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Read the table; the definition with the label that is meant by none."""
        tool.settle()
        _require(pool.device)
        self._parts(pool)
        source = pool.source.copy()
        source.format_type = _label(pool)
        return pool._replace(source=source)

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The disk with its free room, and what partitions take of it."""
        parts = self._parts(pool)
        source = pool.source.copy()
        free = [FreeExtent(start=part.start, end=part.end) for part in parts if not part.number]
        source.devices[0].free_extents = free
        taken = sum(facts.allocation for facts in self._facts(pool, parts) if facts.part != "extended")
        available = sum(extent.end - extent.start for extent in free)
        sizes = PoolSizes(max((part.end for part in parts), default=0), taken, available)
        return pool._replace(source=source), sizes

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """Every partition."""
        return self._facts(pool, self._parts(pool))

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Make a partition of the next free number; its name must be the one that it gets.

        Raises:
            VirtError: there is no room, or the name is another.
        """
        refuse_flags(flags)
        refuse_encryption(volume)
        before = self._parts(pool)
        format = self._format(pool, volume, before)
        start, end = _place(pool, before, _geometry(pool), volume.capacity or 0)
        # One word: parted takes "primary ext2" for two of its own.
        tool.run(["parted", pool.device, "mkpart", "--script", format, f"{start}B", f"{end}B"])
        tool.settle()
        known = {part.number for part in before}
        new = next((part for part in self._parts(pool) if part.number and part.number not in known), None)
        if new is None:
            raise fault(ErrorCode.INTERNAL_ERROR, f"parted made no partition on '{pool.device}'", ErrorDomain.STORAGE)
        try:
            self._confirm(pool, volume, new)
        except BaseException:
            tool.run(["parted", pool.device, "rm", "--script", str(new.number)])
            raise

    def create_from(
        self,
        pool: PoolDefinition,
        volume: VolumeDefinition,
        source: Source,
        flags: VolumeCreateFlag,
        progress: Progress | None,
    ) -> None:
        """Make a partition and fill it; it goes away again where that fails."""
        capacity = max(volume.capacity or 0, source.facts.length)
        self.create(pool, volume._replace(capacity=capacity, backing=None), flags)
        made = self.volume(pool, volume.name)
        assert made is not None  # it was confirmed
        try:
            fill(made.path, volume, source, progress)
        except BaseException:
            self.remove(pool, made, snapshots=False)
            raise

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Remove a partition that nobody uses."""
        refuse_snapshots(pool, snapshots)
        number = next((part.number for part in self._parts(pool) if _name(pool, part.number) == volume.name), 0)
        if not number:
            return
        if volume.part != "extended":
            with (
                translating(f"cannot remove '{volume.path}'", volume.name, volume.path),
                held(volume.name, volume.path),
            ):
                pass
        tool.run(["parted", pool.device, "rm", "--script", str(number)])
        tool.settle()

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Overwrite a partition; an extended one is where others are."""
        if volume.part == "extended":
            raise unsupported(f"cannot wipe extended partition '{volume.path}'")
        super().wipe(pool, volume, algorithm, progress)

    def _confirm(self, pool: PoolDefinition, volume: VolumeDefinition, new: Part) -> None:
        expected = _name(pool, new.number)
        if volume.name != expected:
            detail = f"invalid partition name '{volume.name}', expected '{expected}'"
            raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)
        path = _path(pool, new.number)
        if not wait_for(path):
            detail = f"partition '{path}' was made, and its device does not appear: is '{pool.device}' in use?"
            raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)

    def _facts(self, pool: PoolDefinition, parts: list[Part]) -> list[VolumeFacts]:
        found: list[VolumeFacts] = []
        for part in parts:
            if not part.number:
                continue
            facts = device_facts(_name(pool, part.number), _path(pool, part.number), format="none")
            if facts is None:
                continue  # the kernel does not know of it yet
            if part.kind == "extended":
                facts = facts._replace(capacity=part.end - part.start, allocation=0)
            found.append(facts._replace(part=part.kind, extents=(Extent(pool.device, part.start, part.end),)))
        within = sum(facts.allocation for facts in found if facts.part == "logical")
        return [facts._replace(allocation=within) if facts.part == "extended" else facts for facts in found]

    def _parts(self, pool: PoolDefinition) -> list[Part]:
        """The table, in the disk's order."""
        # By cylinders, as parted's library has it where nothing is said: what is behind the last is not free.
        out = tool.run(["parted", "-s", "-m", "-a", "cylinder", pool.device, "unit", "B", "print", "free"]).out
        extended = _extended_number(pool.device) if ":msdos:" in out else 0
        parts: list[Part] = []
        for line in out.splitlines()[2:]:
            match = _ROW.fullmatch(line)
            if match is None:
                continue
            is_free = match[5] == "free"
            number = 0 if is_free else int(match[1])
            start, end = int(match[2]), int(match[3]) + 1
            kind = "extended" if number and number == extended else "primary"
            if extended and number > _PRIMARIES:
                kind = "logical"
            # The first sector is the label's, whatever is said of it.
            parts.append(Part(number, kind, start if start or not is_free else SECTOR, end))
        around = next((part for part in parts if part.kind == "extended"), None)
        if around is None:
            return parts
        return [
            part._replace(kind="logical") if not part.number and around.start <= part.start < around.end else part
            for part in parts
        ]

    def _format(self, pool: PoolDefinition, volume: VolumeDefinition, parts: list[Part]) -> str:
        """What parted is told to make."""
        if _label(pool) != "dos":
            return "primary"
        content = _CONTENT[volume.format]
        extended = any(part.kind == "extended" for part in parts)
        if volume.format == "extended":
            if extended:
                raise _internal("extended partition already exists")
            return content
        kind = _kind_to_make(pool, parts)
        if kind == "logical" and not extended:
            raise _internal("no extended partition found and no primary partition available")
        return f"{kind} {content}"


def _kind_to_make(pool: PoolDefinition, parts: list[Part]) -> str:
    primaries = sum(1 for part in parts if part.number and part.kind in ("primary", "extended"))
    return "logical" if _label(pool) == "dos" and primaries >= _PRIMARIES else "primary"


def _place(pool: PoolDefinition, parts: list[Part], cylinder: int, wanted: int) -> tuple[int, int]:
    """The first and the last byte of a new partition: in the smallest room that is enough, by whole cylinders for DOS.

    Raises:
        VirtError: ``INTERNAL_ERROR``; no room is large enough.
    """
    kind = _kind_to_make(pool, parts)
    by_cylinder = _label(pool) == "dos"
    extra = cylinder - wanted % cylinder
    best: tuple[int, int, int] | None = None
    for room in parts:
        if room.number or room.kind != kind:
            continue
        size, needed = room.end - room.start, wanted
        if by_cylinder:
            needed += extra + (cylinder if room.start % cylinder > extra else 0)
            size -= SECTOR if kind == "logical" else 0
        if size > needed and (best is None or size < best[0]):
            best = (size, needed, room.start)
    if best is None:
        most = max((room.end - room.start for room in parts if not room.number and room.kind == kind), default=0)
        raise _internal(f"no large enough free extent: {wanted} bytes are wanted, and {most} are free in one piece")
    _, needed, start = best
    start += SECTOR if kind == "logical" else 0
    return start, start + needed - (start % cylinder if by_cylinder else 0) - 1


def _geometry(pool: PoolDefinition) -> int:
    """Bytes of a cylinder, as parted has them."""
    out = tool.run(["parted", "-s", "-m", pool.device, "unit", "chs", "print"]).out
    match = next((found for line in out.splitlines() if (found := _GEOMETRY.fullmatch(line))), None)
    if match is None or not int(match[2]) or not int(match[3]):
        raise _internal("Failed to create disk pool geometry")
    return int(match[2]) * int(match[3]) * SECTOR


def _extended_number(device: str) -> int:
    """The number of the extended partition of a disk with a DOS label; 0 where there is none."""
    with translating(f"cannot read '{device}'", device, device):
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            table = os.pread(descriptor, 16 * _PRIMARIES, 446)
        finally:
            os.close(descriptor)
    return next((n + 1 for n in range(_PRIMARIES) if table[16 * n + 4 : 16 * n + 5] in map(_byte, _EXTENDED_TYPES)), 0)


def _byte(value: int) -> bytes:
    return bytes([value])


def _node(pool: PoolDefinition, number: int) -> str:
    """The file of a partition's device, as the kernel names it."""
    device = os.path.realpath(pool.device) if not pool.device.startswith("/dev/mapper/") else pool.device
    separator = "p" if device[-1:].isdigit() or pool.source.devices[0].part_separator else ""
    return f"{device}{separator}{number}"


def _name(pool: PoolDefinition, number: int) -> str:
    return os.path.basename(_node(pool, number))


def _path(pool: PoolDefinition, number: int) -> str:
    """Where a partition is seen: by the link to it in the pool's folder of stable names, where there is one."""
    from hostel.drivers.storage.backends.stable import stable_path

    return stable_path(pool.path, _node(pool, number))


def _label(pool: PoolDefinition) -> str:
    """The partition table that a pool has; a DOS label where it does not say."""
    format = pool.source.format_type or "unknown"
    return "dos" if format == "unknown" else format


def _require(device: str) -> None:
    if not os.path.exists(device):
        raise fault(ErrorCode.INVALID_ARG, f"device path '{device}' doesn't exist", ErrorDomain.STORAGE)


def _internal(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
