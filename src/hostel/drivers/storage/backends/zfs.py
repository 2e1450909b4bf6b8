"""Pool type ``zfs``: the volumes of a pool of ZFS's, or of a data set in one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from hostel.drivers.base import Progress, VolumeCreateFlag, VolumeType, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.base import Backend, Overwrite, refuse_snapshots, unsupported_flags
from hostel.drivers.storage.backends.device import DeviceVolumes, refuse_encryption, refuse_flags
from hostel.drivers.storage.backends.probing import require_device, require_word
from hostel.drivers.storage.document import Permissions, PoolDefinition, PoolSizes, VolumeDefinition, VolumeFacts
from hostel.drivers.storage.holding import held, translating
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import KiB

_USAGE: Final = 2  # how "zfs get" ends that is told nothing


class ZfsBackend(DeviceVolumes):
    """A pool or a data set."""

    def check(self, pool: PoolDefinition) -> None:
        """Names that ZFS's tools take for what they are.

        Raises:
            VirtError: ``INVALID_ARG``.
        """
        super().check(pool)
        require_word(pool.source_name, "zfs pool")
        for device in pool.source.devices:
            require_device(device.path, "source device")

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether the pool's volumes have their directory, or the pool has none yet."""
        return os.path.isdir(pool.path) or not os.path.isdir(f"{self.host.dev}/zvol")

    def build(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Make the pool of its devices, or the data set."""
        unsupported_flags(pool, overwrite)
        if "/" in pool.source_name:
            tool.run(["zfs", "create", "-o", "mountpoint=none", pool.source_name])
            return
        if not pool.source.devices:
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, "missing source devices", ErrorDomain.STORAGE)
        tool.run(["zpool", "create", pool.source_name, *(device.path for device in pool.source.devices)])

    def delete(self, pool: PoolDefinition) -> None:
        """Destroy the pool, or the data set with what is in it."""
        if "/" in pool.source_name:
            tool.run(["zfs", "destroy", "-r", pool.source_name])
        else:
            tool.run(["zpool", "destroy", pool.source_name])

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Make sure that the pool can be asked."""
        self.describe(pool)
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The sizes of the pool; a data set shares them."""
        whole = pool.source_name.partition("/")[0]
        values: dict[str, int] = {}
        for line in tool.run(["zpool", "get", "-Hp", "health,size,free,allocated", whole]).out.splitlines():
            fields = line.split("\t")
            if len(fields) == 4 and fields[2].isdecimal():
                values[fields[1]] = int(fields[2])
        if not {"size", "free", "allocated"} <= set(values):
            raise _internal(f"zpool says nothing of the sizes of '{whole}'")
        return pool, PoolSizes(values["size"], values["allocated"], values["free"])

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """Every volume of the pool, those of its data sets too."""
        command = ["zfs", "list", "-Hp", "-t", "volume", "-r", "-o", "name,volsize,refreservation", pool.source_name]
        found = []
        for line in tool.run(command).out.splitlines():
            fields = line.split("\t")
            if len(fields) != 3:
                continue
            key, size, reserved = fields[0], _number(fields[1], "volsize"), _number(fields[2], "refreservation")
            name = key.rpartition("/")[2]
            path = f"{pool.path}/{name}"
            facts = VolumeFacts(name, path, VolumeType.BLOCK, "", size, reserved, 0, Permissions(), None)
            found.append(facts._replace(key=key, is_sparse=reserved < size))
        return found

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Make a volume, with as much set aside for it as its allocation says."""
        refuse_flags(flags)
        refuse_encryption(volume)
        require_word(volume.name, "volume name")
        if "/" in volume.name or "@" in volume.name:
            raise fault(
                ErrorCode.INVALID_ARG, f"volume name '{volume.name}' cannot contain '/' or '@'", ErrorDomain.STORAGE
            )
        capacity = volume.capacity or 0
        allocation = capacity if volume.allocation is None else volume.allocation
        command = ["zfs", "create"]
        if _has_volume_modes():
            command += ["-o", "volmode=dev"]
        if capacity != allocation:
            command.append("-s")
            command += ["-o", f"refreservation={-(-allocation // KiB)}K"] if allocation else []
        tool.run([*command, "-V", f"{-(-capacity // KiB)}K", f"{pool.source_name}/{volume.name}"])

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Destroy a volume that nobody uses; ZFS refuses one that has snapshots."""
        refuse_snapshots(pool, snapshots)
        if os.path.exists(volume.path):
            with (
                translating(f"cannot remove '{volume.path}'", volume.name, volume.path),
                held(volume.name, volume.path),
            ):
                pass
        tool.run(["zfs", "destroy", volume.unique])

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Refused: what is overwritten goes to another place, and the old stays."""
        Backend.wipe(self, pool, volume, algorithm, progress)


def _has_volume_modes() -> bool:
    """Whether this ZFS must be told that a volume is to be a device; its help names the property then."""
    return " volmode " in tool.run(["zfs", "get"], expected=(_USAGE,)).err


def _number(text: str, what: str) -> int:
    if text in ("none", "-"):
        return 0
    if not text.isascii() or not text.isdecimal():
        raise _internal(f"malformed {what} reported")
    return int(text)


def _internal(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
