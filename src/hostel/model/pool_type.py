"""What tells the types of storage pools apart: which parts of a source each has, and which formats.

The facts of ``poolTypeInfo`` in libvirt's ``storage_conf.c``, by the type's name.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from hostel.model.storage import PoolType

# virStorageFileFormat; "none" is a name in lists and no format that can be asked for.
FILE_FORMATS: Final = (
    "none", "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2",
    "qed", "vmdk",
)  # fmt: skip
_FILE_SYSTEMS: Final = (
    "auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs",
)  # fmt: skip
_NETWORK_FILE_SYSTEMS: Final = ("auto", "nfs", "glusterfs", "cifs")
_LABELS: Final = ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
_PARTITIONS: Final = ("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended")


class Part(enum.Flag):
    """A part of a pool's source."""

    NONE = 0
    HOST = enum.auto()
    DEVICE = enum.auto()
    DIR = enum.auto()
    ADAPTER = enum.auto()
    NAME = enum.auto()
    INITIATOR = enum.auto()


class Formats(NamedTuple):
    """The formats of a pool's source, or of its volumes.

    Attributes:
        default: what is meant where none is said.
        listed: those that the pool's capabilities name.
        known: those that a document may name.
    """

    default: str
    listed: tuple[str, ...]
    known: tuple[str, ...]


class PoolTraits(NamedTuple):
    """What is particular to a type of pool.

    Attributes:
        parts: what its source has.
        source: the formats of its source; none where it has no format.
        volume: the formats of its volumes; none where these are devices.
        is_remote: whether it is not seen at a path of the host.
    """

    parts: Part = Part.NONE
    source: Formats | None = None
    volume: Formats | None = None
    is_remote: bool = False


def _formats(default: str, names: tuple[str, ...]) -> Formats:
    return Formats(default, names, names)


_FILES: Final = Formats("raw", FILE_FORMATS, FILE_FORMATS[1:])

TRAITS: Final[dict[PoolType, PoolTraits]] = {
    PoolType.DIR: PoolTraits(volume=_FILES),
    PoolType.FS: PoolTraits(Part.DEVICE, _formats("auto", _FILE_SYSTEMS), _FILES),
    PoolType.NETFS: PoolTraits(Part.HOST | Part.DIR, _formats("auto", _NETWORK_FILE_SYSTEMS), _FILES),
    PoolType.LOGICAL: PoolTraits(Part.NAME | Part.DEVICE, _formats("lvm2", ("unknown", "lvm2"))),
    PoolType.DISK: PoolTraits(Part.DEVICE, _formats("unknown", _LABELS), _formats("none", _PARTITIONS)),
    PoolType.ISCSI: PoolTraits(Part.HOST | Part.DEVICE | Part.INITIATOR),
    PoolType.ISCSI_DIRECT: PoolTraits(Part.HOST | Part.DEVICE | Part.INITIATOR, is_remote=True),
    PoolType.SCSI: PoolTraits(Part.ADAPTER),
    PoolType.MPATH: PoolTraits(),
    # A volume of Ceph's can be of any format, but libvirt's capabilities list none.
    PoolType.RBD: PoolTraits(Part.HOST | Part.NAME, None, Formats("raw", (), FILE_FORMATS[1:]), is_remote=True),
    PoolType.SHEEPDOG: PoolTraits(Part.HOST | Part.NAME, is_remote=True),
    PoolType.GLUSTER: PoolTraits(Part.HOST | Part.NAME | Part.DIR, None, _FILES, is_remote=True),
    PoolType.ZFS: PoolTraits(Part.NAME | Part.DEVICE),
    PoolType.VSTORAGE: PoolTraits(Part.NAME, None, _FILES),
}
