"""The documents of storage pools and volumes as the driver works with them: read from the model, and written by it.

What is here besides :mod:`hostel.model.storage` is what file-based pools make of a document (``storage_conf.c``).
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from hostel.block import filename
from hostel.drivers.base import VolumeType
from hostel.drivers.document import Words, reading
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, ModelError
from hostel.model import storage as model
from hostel.model.encryption import Encryption
from hostel.model.pool import read_pool
from hostel.model.pool_type import TRAITS, Formats
from hostel.model.scaled import Scaled
from hostel.model.volume import check_encryption, settle
from hostel.units import scale_libvirt

# virStoragePoolType: every name libvirt knows.
POOL_TYPES: Final = tuple(kind.value for kind in model.PoolType)
# virStorageFileFormat, as pools of files write it; whether a volume of it can be made is another question.
VOLUME_FORMATS: Final = (
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
    "vmdk",
)  # fmt: skip
_COMPAT: Final = re.compile(r"[0-9]+\.[0-9]+", re.ASCII)
_SIZE: Final = (ErrorCode.XML_ERROR, "malformed capacity element")
_WORDS: Final[Words] = {
    "uuid": (ErrorCode.XML_ERROR, "malformed uuid element"),
    "mode": (ErrorCode.XML_ERROR, "malformed octal mode"),
    "owner": (ErrorCode.XML_ERROR, "malformed owner element"),
    "group": (ErrorCode.XML_ERROR, "malformed group element"),
    "capacity": _SIZE,
    "allocation": _SIZE,
}


_NO_SOURCE: Final = model.PoolSource()


class Permissions(NamedTuple):
    """Mode, owner and group; None where the document does not say."""

    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    label: str | None = None


class PoolDefinition(NamedTuple):
    """A pool's completed document; sizes belong to the running pool. What is the model's is not changed in place.

    Attributes:
        path: where its volumes are seen on the host, clean; empty for pools that are not seen there.
        source: where its storage is.
    """

    type: str
    name: str
    uuid: str
    path: str
    permissions: Permissions = Permissions()
    source: model.PoolSource = _NO_SOURCE
    features: model.PoolFeatures | None = None
    refresh: model.Refresh | None = None
    mount_options: model.MountOptions | None = None
    rbd_options: model.RbdOptions | None = None

    @property
    def device(self) -> str:
        """The first device that the pool is made of; empty where it names none."""
        return self.source.devices[0].path if self.source.devices else ""

    @property
    def source_name(self) -> str:
        """What the storage is called where it is: a volume group, a pool of Ceph's."""
        return self.source.name or self.name


class PoolSizes(NamedTuple):
    """A pool's capacity, allocation and free space in bytes."""

    capacity: int = 0
    allocation: int = 0
    available: int = 0


class BackingDefinition(NamedTuple):
    """What an overlay stands on; ``format`` None where it is not said."""

    path: str
    format: str | None


class Extent(NamedTuple):
    """A part of a device, in bytes; ``end`` is the first byte behind it."""

    device: str
    start: int
    end: int


class VolumeDefinition(NamedTuple):
    """A new volume's document; sizes in bytes.

    Attributes:
        capacity: None where left out.
        allocation: None where left out, which means all of it.
        compat: qcow2's version as ``0.10`` or ``1.1``.
        cluster_size: bytes; 0 where left out.
        features: qcow2's, by libvirt's names; None where the document does not speak of them.
        nocow: it is not to be copied on write, where the file system can do without.
        encryption: how it is to be encrypted; not changed in place.
    """

    name: str
    capacity: int | None
    allocation: int | None
    format: str
    permissions: Permissions
    backing: BackingDefinition | None = None
    compat: str | None = None
    cluster_size: int = 0
    features: tuple[str, ...] | None = None
    nocow: bool = False
    encryption: Encryption | None = None


class VolumeFacts(NamedTuple):
    """A volume as it is; sizes in bytes, times in nanoseconds since 1970, None where there is no file.

    Attributes:
        format: empty where volumes of such pools have none.
        physical: where the file ends on the host.
        backing: as recorded in the volume; relative names are shown from the volume's directory.
        key: empty where it is the path.
        extents: where the volume is on its devices.
        is_sparse: more was promised than the host has set aside.
        encryption: the format of its encryption; empty where it has none.
        part: which kind of partition it is: ``primary``, ``logical`` or ``extended``.
    """

    name: str
    path: str
    type: VolumeType
    format: str
    capacity: int
    allocation: int
    physical: int
    permissions: Permissions
    times: tuple[int, int, int] | None
    backing: BackingDefinition | None = None
    compat: str | None = None
    cluster_size: int = 0
    features: tuple[str, ...] | None = None
    key: str = ""
    extents: tuple[Extent, ...] = ()
    is_sparse: bool = False
    part: str = ""
    encryption: str = ""

    @property
    def unique(self) -> str:
        """What the volume is known by over all pools: its key, or else its path."""
        return self.key or self.path

    @property
    def length(self) -> int:
        """Bytes of what a copy of it holds: what a machine would read, or with a header of LUKS all that there is."""
        return max(self.capacity, self.physical) if self.encryption and self.format == "raw" else self.capacity


NO_SIZES: Final = PoolSizes()


def parse_pool(xml: str) -> PoolDefinition:
    """Parse a pool's document and complete it; pools that are not seen on the host have an empty ``path``.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.STORAGE, _WORDS):
        pool = read_pool(xml)
    target = pool.target or model.PoolTarget()
    return PoolDefinition(
        pool.type.value,
        pool.name or "",
        pool.uuid or "",
        target.path or "",
        _permissions(target.permissions),
        pool.source or _NO_SOURCE,
        pool.features,
        pool.refresh,
        pool.mount_options,
        pool.rbd_options,
    )


def parse_source(xml: str) -> model.PoolSource:
    """Parse what sources are looked for by (``virStoragePoolDefParseSourceString``).

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.STORAGE, _WORDS):
        source = model.PoolSource.parse(xml, "storage_source_specification")
        for number, host in enumerate(source.hosts, 1):
            if host.name is None:
                raise ModelError(f"/source/host[{number}]/@name", "missing storage pool host name")
    return source


def model_of(pool: PoolDefinition, sizes: PoolSizes = NO_SIZES) -> model.Pool:
    """The document of a pool."""
    target = None
    if not TRAITS[model.PoolType(pool.type)].is_remote:
        target = model.PoolTarget(path=pool.path, permissions=_written(pool.permissions))
    return model.Pool(
        type=model.PoolType(pool.type),
        name=pool.name,
        uuid=pool.uuid,
        capacity=model.Capacity(value=sizes.capacity, unit="bytes"),
        allocation=model.Allocation(value=sizes.allocation, unit="bytes"),
        available=model.Available(value=sizes.available, unit="bytes"),
        features=pool.features,
        source=pool.source,
        target=target,
        refresh=pool.refresh,
        mount_options=pool.mount_options,
        rbd_options=pool.rbd_options,
    )


def format_pool(pool: PoolDefinition, sizes: PoolSizes = NO_SIZES) -> str:
    """Write a pool's document."""
    return model_of(pool, sizes).format()


def complete_volume(xml: str, type: str) -> model.Volume:
    """The document of a new volume of a pool of ``type``, completed.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.STORAGE, _WORDS):
        volume = model.Volume.parse(xml, "storage_volume_definition")
    with reading(ErrorDomain.STORAGE):
        settle(volume, model.PoolType(type))
    return volume


def parse_volume(xml: str, *, type: str = "dir", capacity_optional: bool = False) -> VolumeDefinition:
    """Parse the document of a new volume of a pool of ``type``.

    Args:
        xml: the document.
        type: the pool's, which says what formats there are.
        capacity_optional: for a clone, which has its source's.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.STORAGE, _WORDS):
        volume = model.Volume.parse(xml, "storage_volume_definition")
    if not volume.name:
        raise _wrong("missing volume name element")
    target = volume.target or model.VolumeTarget()
    formats = TRAITS[model.PoolType(type)].volume
    backing = None
    if volume.backing_store is not None and volume.backing_store.path:
        backing = BackingDefinition(volume.backing_store.path, _format(volume.backing_store.format_type, formats))
    if volume.capacity is None and not capacity_optional and backing is None:
        raise _wrong("missing capacity element")
    if target.encryption is not None:
        with reading(ErrorDomain.STORAGE):
            check_encryption(target.encryption, "/volume/target/encryption")
    if target.compat is not None and not _COMPAT.fullmatch(target.compat):
        raise _wrong("forbidden characters in 'compat' attribute")
    features = None if target.features is None else _features(target.features)
    return VolumeDefinition(
        volume.name,
        _bytes(volume.capacity),
        _bytes(volume.allocation),
        _format(target.format_type, formats) or ("" if formats is None else formats.default),
        _permissions(target.permissions),
        backing,
        target.compat or (None if features is None else "1.1"),
        _bytes(target.cluster_size) or 0,
        features,
        target.nocow,
        target.encryption,
    )


def format_volume(volume: VolumeFacts, backing: VolumeFacts | None = None) -> str:
    """Write a volume's document; ``backing`` are the facts of its backing file, where they are known."""
    features = volume.features
    return model.Volume(
        type=model.VolumeType(volume.type.name.lower()),
        name=volume.name,
        key=volume.unique,
        source=_written_extents(volume.extents),
        capacity=model.Capacity(value=volume.capacity, unit="bytes"),
        allocation=model.Allocation(value=volume.allocation, unit="bytes"),
        physical=model.Physical(value=volume.physical, unit="bytes") if volume.physical else None,
        target=model.VolumeTarget(
            path=volume.path,
            format_type=volume.format or None,
            permissions=_written(volume.permissions),
            timestamps=_timestamps(volume.times),
            encryption=Encryption(format_name=volume.encryption) if volume.encryption else None,
            compat=volume.compat,
            cluster_size=model.ClusterSize(value=volume.cluster_size, unit="B") if volume.cluster_size else None,
            features=None if features is None else model.VolumeFeatures(**dict.fromkeys(features, True)),
        ),
        backing_store=None if volume.backing is None else _written_backing(volume.backing, backing),
    ).format()


def _written_extents(extents: tuple[Extent, ...]) -> model.VolumeSource | None:
    """Each device once, with all that the volume has of it in a row."""
    devices: list[model.VolumeDevice] = []
    for extent in extents:
        if not devices or devices[-1].path != extent.device:
            devices.append(model.VolumeDevice(path=extent.device))
        devices[-1].extents.append(model.Extent(start=extent.start, end=extent.end))
    return model.VolumeSource(devices=devices) if devices else None


def _written_backing(recorded: BackingDefinition, facts: VolumeFacts | None) -> model.VolumeBacking:
    # A format that is not recorded is told from the bytes, where they may be looked at.
    if facts is None:
        return model.VolumeBacking(path=recorded.path, format_type=recorded.format or "raw")
    return model.VolumeBacking(
        path=recorded.path,
        format_type=recorded.format or facts.format or None,
        permissions=_written(facts.permissions),
        timestamps=_timestamps(facts.times),
    )


def shown_backing(recorded: str, volume_path: str) -> str:
    """A recorded backing name as the document shows it: relative names from the volume's directory, by text alone."""
    if filename.protocol(recorded) is not None or os.path.isabs(recorded):
        return recorded
    return os.path.normpath(os.path.join(os.path.dirname(volume_path), recorded))


def _timestamps(times: tuple[int, int, int] | None) -> model.Timestamps | None:
    if times is None:
        return None
    atime, mtime, ctime = map(_written_time, times)
    # When it was made is what libvirt does not ask Linux for.
    return model.Timestamps(atime=atime, mtime=mtime, ctime=ctime, btime="0")


def _written_time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds}.{rest:09}" if rest else str(seconds)


def _written(permissions: Permissions) -> model.Permissions | None:
    if permissions == Permissions():
        return None
    return model.Permissions(
        mode=permissions.mode, owner=permissions.owner, group=permissions.group, label=permissions.label
    )


def _permissions(read: model.Permissions | None) -> Permissions:
    if read is None:
        return Permissions()
    if read.mode is not None and read.mode & ~0o777:
        raise fault(*_WORDS["mode"], ErrorDomain.STORAGE)
    return Permissions(read.mode, _identity(read.owner, "owner"), _identity(read.group, "group"), read.label)


def _identity(number: int | None, name: str) -> int | None:
    """An owner or a group; -1 leaves it alone, and so does 2**32 - 1, which is the same to the host."""
    if number == 2**32 - 1:
        raise fault(*_WORDS[name], ErrorDomain.STORAGE)
    return None if number == -1 else number


def _features(read: model.VolumeFeatures) -> tuple[str, ...]:
    if read.unknown:
        raise _unsupported(f"unsupported feature {read.unknown[0].name}")
    return tuple(name for name in ("lazy_refcounts", "extended_l2") if getattr(read, name))


def _bytes(size: Scaled | None) -> int | None:
    if size is None:
        return None
    try:
        return scale_libvirt(size.value, size.unit or size.DEFAULT_UNIT)
    except OverflowError as error:
        raise fault(ErrorCode.OVERFLOW, str(error), ErrorDomain.STORAGE) from None
    except ValueError as error:
        raise fault(ErrorCode.INVALID_ARG, str(error), ErrorDomain.STORAGE) from None


def _format(name: str | None, formats: Formats | None) -> str | None:
    if formats is None:
        return None  # left unread, as libvirt does
    if name is not None and name not in formats.known:
        raise _unsupported(f"unknown volume format type {name}")
    return name


def _wrong(detail: str) -> Exception:
    return fault(ErrorCode.XML_ERROR, detail, ErrorDomain.STORAGE)


def _unsupported(detail: str) -> Exception:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
