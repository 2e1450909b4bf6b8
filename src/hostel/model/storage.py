"""The documents of storage pools and volumes (``virStoragePoolDefFormatBuf``, ``virStorageVolDefFormat``)."""

from __future__ import annotations

import enum
from typing import Any, Final, Self

from hostel.codec.xml import (
    UUID,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    enumeration,
    flag,
    integer,
    octal,
    setting,
    text,
)
from hostel.model.authentication import Authentication
from hostel.model.domain.devices.source import Host, Initiator
from hostel.model.encryption import Encryption
from hostel.model.pci_address import PciFunction
from hostel.model.scaled import Scaled

_U64 = 2**64 - 1
RBD = ("rbd", "http://libvirt.org/schemas/storagepool/rbd/1.0")
FS = ("fs", "http://libvirt.org/schemas/storagepool/fs/1.0")


class PoolType(enum.StrEnum):
    """``virStoragePoolType``."""

    DIR = "dir"
    FS = "fs"
    NETFS = "netfs"
    LOGICAL = "logical"
    DISK = "disk"
    ISCSI = "iscsi"
    ISCSI_DIRECT = "iscsi-direct"
    SCSI = "scsi"
    MPATH = "mpath"
    RBD = "rbd"
    SHEEPDOG = "sheepdog"
    GLUSTER = "gluster"
    ZFS = "zfs"
    VSTORAGE = "vstorage"


class VolumeType(enum.StrEnum):
    """``virStorageVolType``."""

    FILE = "file"
    BLOCK = "block"
    DIR = "dir"
    NETWORK = "network"
    NETDIR = "netdir"
    PLOOP = "ploop"


# -1 stands for an owner or group that is left alone.
_IDENTITY: Final = integer(-1, 2**32 - 1)


class Permissions(Element, tag="permissions", drop_empty=True):
    """Mode, owner, group and label of a file or directory."""

    mode: int | None = text(octal(1, 0o7777), default=None)
    owner: int | None = text(_IDENTITY, default=None)
    group: int | None = text(_IDENTITY, default=None)
    label: str | None = text(default=None)


class Size(Scaled):
    """A size in bytes."""

    DEFAULT_UNIT = "bytes"


class Capacity(Size, tag="capacity"):
    """How much fits in."""


class Allocation(Size, tag="allocation"):
    """How much is taken."""


class Available(Size, tag="available"):
    """How much is left."""


class Physical(Size, tag="physical"):
    """Where the volume ends on the host."""


class PoolFeatures(Element, tag="features", drop_empty=True):
    """Whether files are made without copy on write."""

    cow: bool | None = setting(YES_NO, name="state", default=None)


class FreeExtent(Element, tag="freeExtent"):
    """Free room on a disk, in bytes."""

    start: int = attr(integer(maximum=_U64))
    end: int = attr(integer(maximum=_U64))


class PoolDevice(Element, tag="device"):
    """A device that the pool is made of."""

    path: str = attr()
    part_separator: bool | None = attr(YES_NO, default=None)
    free_extents: list[FreeExtent] = children(FreeExtent, factory=list)


class ParentAddress(Element, tag="parentaddr"):
    """An adapter by where it is."""

    unique_id: int | None = attr(integer(), default=None)
    address: PciFunction | None = child(PciFunction, default=None)


class Adapter(Element, tag="adapter"):
    """A SCSI or Fibre Channel adapter."""

    type: str | None = attr(choice("scsi_host", "fc_host"), default=None)
    name: str | None = attr(default=None)
    parent: str | None = attr(default=None)
    parent_wwnn: str | None = attr(default=None)
    parent_wwpn: str | None = attr(default=None)
    parent_fabric_wwn: str | None = attr(default=None)
    managed: bool | None = attr(YES_NO, default=None)
    wwnn: str | None = attr(default=None)
    wwpn: str | None = attr(default=None)
    parent_address: ParentAddress | None = child(ParentAddress, default=None)


class PoolSource(Element, tag="source", keep_open=True):
    """Where the pool's storage is; which elements count depends on the pool's ``type``."""

    hosts: list[Host] = children(Host, factory=list)
    devices: list[PoolDevice] = children(PoolDevice, factory=list)
    dir: str | None = setting(name="path", default=None)
    adapter: Adapter | None = child(Adapter, default=None)
    name: str | None = text(default=None)
    initiator: Initiator | None = child(Initiator, default=None)
    format_type: str | None = setting(tag="format", name="type", default=None)
    auth: Authentication | None = child(Authentication, default=None)
    protocol: str | None = setting(name="ver", default=None)
    vendor: str | None = setting(name="name", default=None)
    product: str | None = setting(name="name", default=None)


class PoolTarget(Element, tag="target", keep_open=True):
    """Where the pool is seen on the host."""

    path: str | None = text(default=None)
    permissions: Permissions | None = child(Permissions, default=None)


class RefreshVolume(Element, tag="volume"):
    """How a refresh finds a volume's allocation."""

    allocation: str = attr(choice("default", "capacity"))


class Refresh(Element, tag="refresh"):
    """How a refresh is done."""

    volume: RefreshVolume | None = child(RefreshVolume, default=None)


class RbdOption(Element, tag="option", namespace=RBD):
    """A setting for Ceph."""

    name: str = attr()
    value: str = attr()


class RbdOptions(Element, tag="config_opts", namespace=RBD):
    """Settings for Ceph."""

    options: list[RbdOption] = children(RbdOption, factory=list)


class MountOption(Element, tag="option", namespace=FS):
    """An option for mount."""

    name: str = attr()


class MountOptions(Element, tag="mount_opts", namespace=FS):
    """Options for mount."""

    options: list[MountOption] = children(MountOption, factory=list)


class Pool(Element, tag="pool"):
    """A storage pool; its sizes are those of the running pool."""

    type: PoolType = attr(enumeration(PoolType))
    name: str | None = text(default=None)
    uuid: str | None = text(UUID, default=None)
    capacity: Capacity | None = child(Capacity, default=None)
    allocation: Allocation | None = child(Allocation, default=None)
    available: Available | None = child(Available, default=None)
    features: PoolFeatures | None = child(PoolFeatures, default=None)
    source: PoolSource | None = child(PoolSource, default=None)
    target: PoolTarget | None = child(PoolTarget, default=None)
    refresh: Refresh | None = child(Refresh, default=None)
    rbd_options: RbdOptions | None = child(RbdOptions, default=None)
    mount_options: MountOptions | None = child(MountOptions, default=None)


class Extent(Element, tag="extent"):
    """Where on a device the volume is, in bytes."""

    start: int = attr(integer(maximum=_U64))
    end: int = attr(integer(maximum=_U64))


class VolumeDevice(Element, tag="device"):
    """A device that the volume is on."""

    path: str = attr()
    extents: list[Extent] = children(Extent, factory=list)


class VolumeSource(Element, tag="source", drop_empty=True):
    """The devices that a volume is on."""

    devices: list[VolumeDevice] = children(VolumeDevice, factory=list)


class ClusterSize(Scaled, tag="clusterSize"):
    """The size of qcow2's clusters."""

    DEFAULT_UNIT = "B"


class VolumeFeatures(Element, tag="features"):
    """What a qcow2 volume has."""

    lazy_refcounts: bool = flag(default=False)
    extended_l2: bool = flag(default=False)


class Timestamps(Element, tag="timestamps"):
    """Times of the volume's file: seconds since 1970, with a fraction of nine digits."""

    atime: str | None = text(default=None)
    mtime: str | None = text(default=None)
    ctime: str | None = text(default=None)
    btime: str | None = text(default=None)


class VolumeTarget(Element, tag="target", keep_open=True):
    """Path, format and options of the volume."""

    path: str | None = text(default=None)
    format_type: str | None = setting(tag="format", name="type", default=None)
    permissions: Permissions | None = child(Permissions, default=None)
    timestamps: Timestamps | None = child(Timestamps, default=None)
    encryption: Encryption | None = child(Encryption, default=None)
    compat: str | None = text(default=None)
    cluster_size: ClusterSize | None = child(ClusterSize, default=None)
    nocow: bool = flag(default=False)
    features: VolumeFeatures | None = child(VolumeFeatures, default=None)


class VolumeBacking(Element, tag="backingStore", keep_open=True):
    """What an overlay stands on."""

    path: str | None = text(default=None)
    format_type: str | None = setting(tag="format", name="type", default=None)
    permissions: Permissions | None = child(Permissions, default=None)
    timestamps: Timestamps | None = child(Timestamps, default=None)


class Volume(Element, tag="volume"):
    """A storage volume."""

    type: VolumeType | None = attr(enumeration(VolumeType), default=None)
    name: str | None = text(default=None)
    key: str | None = text(default=None)
    source: VolumeSource | None = child(VolumeSource, default=None)
    capacity: Capacity | None = child(Capacity, default=None)
    allocation: Allocation | None = child(Allocation, default=None)
    physical: Physical | None = child(Physical, default=None)
    target: VolumeTarget | None = child(VolumeTarget, default=None)
    backing_store: VolumeBacking | None = child(VolumeBacking, default=None)

    @classmethod
    def from_node(cls, node: Any) -> Self:
        """Read the element that a parser made; a size with nothing in it is none, as in libvirt."""
        for below in list(node):
            if below.tag in (Capacity.TAG, Allocation.TAG) and not below.text and not len(below):
                node.remove(below)
        return super().from_node(node)
