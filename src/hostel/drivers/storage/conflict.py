"""Which pools would be in each other's way: they are the same storage (``virStoragePoolObjSourceFindDuplicate``)."""

from __future__ import annotations

from typing import Final

from hostel.drivers.storage.document import PoolDefinition

_ON_DEVICES: Final = ("iscsi", "fs", "logical", "disk", "zfs")


def conflicts(known: PoolDefinition, new: PoolDefinition) -> bool:
    """Whether two pools of different names are the same storage."""
    if known.type in _ON_DEVICES:
        return new.type in _ON_DEVICES and _share_device(known, new)
    if known.type != new.type:
        return False
    match known.type:
        case "dir":
            return known.path == new.path
        case "gluster":
            same = (known.source.name, known.source.dir) == (new.source.name, new.source.dir)
            return same and _same_host(known, new)
        case "netfs":
            return known.source.dir == new.source.dir and _same_host(known, new)
        case "scsi":
            return known.source.adapter == new.source.adapter
        case "vstorage":
            return known.source.name == new.source.name
    return known.type == "mpath"  # all multipath devices of a host are one pool


def _share_device(known: PoolDefinition, new: PoolDefinition) -> bool:
    if (known.type == "iscsi") != (new.type == "iscsi"):
        return False
    if not {device.path for device in known.source.devices} & {device.path for device in new.source.devices}:
        return False
    return known.type != "iscsi" or known.source.initiator == new.source.initiator


def _same_host(known: PoolDefinition, new: PoolDefinition) -> bool:
    theirs, ours = known.source.hosts[:1], new.source.hosts[:1]
    if not theirs or not ours:
        return False
    return theirs[0].name == ours[0].name and (not ours[0].port or theirs[0].port == ours[0].port)
