"""Pool type ``logical``: the logical volumes of a volume group of LVM's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from hostel.drivers.base import Progress, VolumeCreateFlag, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.base import Overwrite, Source, refuse_snapshots, unsupported
from hostel.drivers.storage.backends.command import activate_command
from hostel.drivers.storage.backends.device import (
    DeviceVolumes,
    device_facts,
    fill,
    refuse_encryption,
    refuse_flags,
    wait_for,
)
from hostel.drivers.storage.backends.probing import clear_ends, require_device, require_empty, require_word
from hostel.drivers.storage.document import (
    BackingDefinition,
    Extent,
    PoolDefinition,
    PoolSizes,
    VolumeDefinition,
    VolumeFacts,
    model_of,
)
from hostel.drivers.storage.holding import held, translating
from hostel.drivers.storage.placing import DEFAULT_MODE, apply_permissions
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolDevice, PoolSource
from hostel.units import KiB

_MEMBER: Final = "LVM2_member"  # blkid's name for what the documents call lvm2
_PLAIN: Final = ("--noheadings", "--units", "b", "--unbuffered", "--nosuffix")
_FIELDS: Final = "lv_name,origin,uuid,devices,segtype,stripes,seg_size,vg_extent_size,size,lv_attr"
_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9+_.][A-Za-z0-9+_.-]*", re.ASCII)
_PLACE: Final = re.compile(r"([^\s,(]+)\((\d+)\)")  # a device, and the extent on it
_ON_SEVERAL: Final = ("striped", "mirror")  # and raid*: a segment names as many devices as it has stripes


class LogicalBackend(DeviceVolumes):
    """A volume group."""

    def check(self, pool: PoolDefinition) -> None:
        """Names that LVM's tools take for what they are.

        Raises:
            VirtError: ``INVALID_ARG``.
        """
        super().check(pool)
        if not _NAME.fullmatch(pool.source_name):
            detail = f"volume group '{pool.source_name}': a name has letters, digits and +_.- and does not begin with -"
            raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)
        for device in pool.source.devices:
            require_device(device.path, "source device")

    def build(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Make the group of the pool's devices; those that were prepared are given up where one cannot be."""
        prepared: list[str] = []
        try:
            for device in pool.source.devices:
                if overwrite is not Overwrite.ALWAYS:
                    require_empty(device.path, _MEMBER)
                clear_ends(device.path)
                prepared.append(device.path)
                tool.run(["pvcreate", device.path])
            tool.run(["vgcreate", pool.source_name, *prepared])
        except BaseException:
            for path in prepared:
                _give_up(path)
            raise

    def delete(self, pool: PoolDefinition) -> None:
        """Remove the group, and what makes the devices its members."""
        tool.run(["vgremove", "-f", pool.source_name])
        for device in pool.source.devices:
            _give_up(device.path)

    def start(self, pool: PoolDefinition) -> None:
        """Activate the group's volumes on this host, once it is known to be the one that is meant."""
        found = next((source for source in _groups() if source.name == pool.source_name), None)
        if found is None:
            raise _odd(f"cannot find logical volume group name '{pool.source_name}'")
        wanted = {device.path for device in pool.source.devices}
        if wanted and not wanted & {device.path for device in found.devices}:
            raise _odd(f"cannot find any matching source devices for logical volume group '{pool.source_name}'")
        tool.run(activate_command(model_of(pool), active=True))

    def stop(self, pool: PoolDefinition) -> None:
        """Deactivate them; LVM refuses while one is open."""
        tool.run(activate_command(model_of(pool), active=False))

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Make sure that the group is there."""
        tool.settle()
        self.describe(pool)
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The group's size, and what of it is free."""
        command = ["vgs", "--separator", ":", *_PLAIN, "--options", "vg_size,vg_free", pool.source_name]
        for line in tool.run(command).out.splitlines():
            size, _, free = line.strip().rstrip(":").partition(":")
            if size.isdecimal() and free.isdecimal():
                return pool, PoolSizes(int(size), int(size) - int(free), int(free))
        raise _internal(f"vgs says nothing of volume group '{pool.source_name}'")

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """Every active volume that is a device."""
        volumes: dict[str, VolumeFacts] = {}
        for row in self._rows(pool):
            name = row[0]
            known = volumes.get(name) or self._facts(pool, row)
            if known is not None:
                volumes[name] = known._replace(extents=(*known.extents, *_extents(row)))
        return volumes.values()

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Make a volume, or a snapshot of its backing store; it is taken away again where that fails."""
        refuse_flags(flags)
        refuse_encryption(volume)
        require_word(volume.name, "volume name")
        path = f"{pool.path}/{volume.name}"
        tool.run(_create_command(pool, volume))
        try:
            tool.settle()
            with translating(f"cannot open volume '{path}'", volume.name, path):
                if not wait_for(path):
                    raise _internal(f"volume '{path}' was made, and its device does not appear")
                apply_permissions(path, volume.permissions, DEFAULT_MODE)
        except BaseException:
            _remove(path)
            raise

    def create_from(
        self,
        pool: PoolDefinition,
        volume: VolumeDefinition,
        source: Source,
        flags: VolumeCreateFlag,
        progress: Progress | None,
    ) -> None:
        """Make a volume and fill it; it is taken away again where that fails."""
        capacity = max(volume.capacity or 0, source.facts.length)
        whole = volume._replace(capacity=capacity, allocation=capacity, backing=None)
        self.create(pool, whole, flags)
        path = f"{pool.path}/{volume.name}"
        try:
            fill(path, volume, source, progress)
        except BaseException:
            _remove(path)
            raise

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Remove a volume that nobody uses."""
        refuse_snapshots(pool, snapshots)
        with translating(f"cannot remove '{volume.path}'", volume.name, volume.path), held(volume.name, volume.path):
            pass
        tool.settle()
        _remove(volume.path)

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Overwrite a volume; a sparse one would fill up, and be lost."""
        if volume.is_sparse:
            raise unsupported(f"logical volume '{volume.path}' is sparse, volume wipe not supported")
        super().wipe(pool, volume, algorithm, progress)

    def find_sources(self, source: PoolSource | None) -> PoolSources:
        """The volume groups of this host."""
        return PoolSources(sources=_groups())

    def _rows(self, pool: PoolDefinition) -> Iterator[list[str]]:
        """What lvs has to say of each segment of each active volume that is a device."""
        command = ["lvs", "--separator", "#", *_PLAIN, "--options", _FIELDS, pool.source_name]
        for line in tool.run(command).out.splitlines():
            row = line.strip().split("#")
            if len(row) != len(_FIELDS.split(",")) or len(row[9]) < 5:
                raise _internal(f"lvs answers what cannot be understood: {line.strip()}")
            kind, state = row[9][0], row[9][4]
            if state == "a" and kind != "t":  # thin pools have no device of their own
                yield row

    def _facts(self, pool: PoolDefinition, row: list[str]) -> VolumeFacts | None:
        name, origin, key, size, attributes = row[0], row[1], row[2], row[8], row[9]
        facts = device_facts(name, f"{pool.path}/{name}")
        if facts is None:
            return None
        # A name in brackets is LVM's own, for a volume of which more was promised than there is.
        backing = BackingDefinition(f"{pool.path}/{origin}", None) if origin and origin[0] != "[" else None
        return facts._replace(
            key=key, allocation=_number(size, "allocation"), backing=backing, is_sparse=attributes[0] == "s"
        )


def _create_command(pool: PoolDefinition, volume: VolumeDefinition) -> list[str]:
    """What makes a volume; where not all of it is allocated, a snapshot of nothing."""
    capacity = volume.capacity or 0
    allocation = capacity if volume.allocation is None else volume.allocation
    command = ["lvcreate", "--name", volume.name, "-L"]
    if capacity != allocation:
        command += [f"{-(-(allocation or 1) // KiB)}K", "--type", "snapshot", "--virtualsize"]
    command.append(f"{-(-capacity // KiB)}K")
    command += [pool.source_name] if volume.backing is None else ["-s", _origin(volume.backing)]
    return [*command, "--yes"]


def _origin(backing: BackingDefinition) -> str:
    require_device(backing.path, "backing store")
    return backing.path


def _groups() -> list[PoolSource]:
    """Every volume group, with its devices."""
    tool.run(["vgscan"], expected=range(256))  # it makes LVM look; that it cannot is told by the next
    found: dict[str, PoolSource] = {}
    for line in tool.run(["pvs", "--noheadings", "-o", "pv_name,vg_name"]).out.splitlines():
        words = line.split()
        if len(words) == 2:
            group = found.setdefault(words[1], PoolSource(name=words[1], format_type="lvm2"))
            group.devices.append(PoolDevice(path=words[0]))
    return list(found.values())


def _extents(row: list[str]) -> list[Extent]:
    """Where a segment lies on its devices."""
    places = _PLACE.findall(row[3])
    several = row[4] in _ON_SEVERAL or row[4].startswith("raid")
    count = _number(row[5], "stripes") if several else 1
    length, size = _number(row[6], "length"), _number(row[7], "size")
    if len(places) < count:
        raise _internal("malformed volume extent devices value")
    return [Extent(device, int(extent) * size, int(extent) * size + length) for device, extent in places[:count]]


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise _internal(f"malformed volume extent {what} value")
    return int(text)


def _remove(path: str) -> None:
    """Remove a volume; one that is still active somewhere is deactivated first."""
    try:
        tool.run(["lvremove", "-f", path])
    except VirtError:
        tool.run(["lvchange", "-aln", path])
        tool.run(["lvremove", "-f", path])


def _give_up(device: str) -> None:
    """Take away what makes a device a member of a group; what is none is none afterwards too."""
    tool.run(["pvremove", device], expected=range(256))


def _odd(detail: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)


def _internal(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
