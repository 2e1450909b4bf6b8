"""The documents of storage pools and volumes, as far as file-based pools go (libvirt's ``storage_conf.c``)."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from hostel.drivers import document
from hostel.drivers.base import VolumeType
from hostel.drivers.document import Node, Writer
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain

# virStoragePoolType: every name libvirt knows.
POOL_TYPES: Final = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog", "gluster",
    "zfs", "vstorage",
)  # fmt: skip
# virStorageFileFormat, as pools of files write it; whether a volume of it can be made is another question.
VOLUME_FORMATS: Final = (
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
    "vmdk",
)  # fmt: skip
_VOLUME_TYPES: Final = ("file", "block", "dir", "network", "netdir", "ploop")
_FEATURES: Final = ("lazy_refcounts", "extended_l2")
_COMPAT: Final = re.compile(r"[0-9]+\.[0-9]+", re.ASCII)


class Permissions(NamedTuple):
    """Mode, owner and group; None where the document does not say."""

    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    label: str | None = None


class PoolDefinition(NamedTuple):
    """A pool's document. ``path`` is absolute and clean; sizes belong to the running pool."""

    type: str
    name: str
    uuid: str
    path: str
    permissions: Permissions = Permissions()


class PoolSizes(NamedTuple):
    """A pool's capacity, allocation and free space in bytes."""

    capacity: int = 0
    allocation: int = 0
    available: int = 0


class BackingDefinition(NamedTuple):
    """What an overlay stands on; ``format`` None where it is not said."""

    path: str
    format: str | None


class VolumeDefinition(NamedTuple):
    """A new volume's document; sizes in bytes.

    Attributes:
        capacity: None where left out.
        allocation: None where left out, which means all of it.
        compat: qcow2's version as ``0.10`` or ``1.1``.
        cluster_size: bytes; 0 where left out.
        features: qcow2's, by libvirt's names; None where the document does not speak of them.
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


class VolumeFacts(NamedTuple):
    """A volume as it is; sizes in bytes, times in nanoseconds since 1970, None where there is no file.

    Attributes:
        physical: where the file ends on the host.
        backing: as recorded in the volume; relative names are shown from the volume's directory.
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


NO_SIZES: Final = PoolSizes()


def parse_pool(xml: str) -> PoolDefinition:
    """Parse a pool's document; pools without a directory of their own have an empty ``path``.

    Raises:
        VirtError: in libvirt's words.
    """
    root = document.parse(xml, "pool", "storage_pool_definition")
    kind = root.get("type")
    if kind is None:
        raise _wrong("Missing required attribute 'type' in element 'pool'")
    if kind not in POOL_TYPES:
        raise _wrong(f"Invalid value for attribute 'type' in element 'pool': '{kind}'.")
    name = document.text(root, "name") or document.text(root, "source/name")
    if not name:
        raise _wrong("missing pool source name element")
    if "/" in name:
        raise _wrong(f"name {name} cannot contain '/'")
    uuid = document.uuid(root, ErrorDomain.STORAGE)
    path = document.text(root, "target/path")
    if not path and kind in ("dir", "fs", "netfs"):
        raise _wrong("missing storage pool target path")
    return PoolDefinition(
        kind, name, uuid, clean_path(path) if path else "", _permissions(root.find("target/permissions"))
    )


def clean_path(path: str) -> str:
    """Drop repeated and trailing slashes; nothing else, since ``..`` may lead elsewhere through a link."""
    while "//" in path:
        path = path.replace("//", "/")
    return path.rstrip("/") or "/" if path.startswith("/") else path


def format_pool(pool: PoolDefinition, sizes: PoolSizes = NO_SIZES) -> str:
    """Write a pool's document."""
    writer = Writer()
    writer.start("pool", type=pool.type)
    writer.leaf("name", pool.name)
    writer.leaf("uuid", pool.uuid)
    writer.leaf("capacity", sizes.capacity, unit="bytes")
    writer.leaf("allocation", sizes.allocation, unit="bytes")
    writer.leaf("available", sizes.available, unit="bytes")
    writer.start("source")
    writer.end()
    writer.start("target")
    writer.leaf("path", pool.path)
    _write_permissions(writer, pool.permissions)
    writer.end()
    writer.end()
    return writer.text()


def parse_volume(xml: str, *, capacity_optional: bool = False) -> VolumeDefinition:
    """Parse a new volume's document; ``capacity_optional`` for a clone, which has its source's.

    Raises:
        VirtError: in libvirt's words.
    """
    root = document.parse(xml, "volume", "storage_volume_definition")
    name = document.text(root, "name")
    if not name:
        raise _wrong("missing volume name element")
    kind = root.get("type")
    if kind is not None and kind not in _VOLUME_TYPES:
        raise _unsupported(f"unknown volume type '{kind}'")
    backing_path = document.text(root, "backingStore/path")
    backing = None
    if backing_path:
        backing = BackingDefinition(backing_path, _format(root, "backingStore/format/@type"))
    capacity = document.size(root, "capacity", ErrorDomain.STORAGE)
    if capacity is None and not capacity_optional and backing is None:
        raise _wrong("missing capacity element")
    allocation = document.size(root, "allocation", ErrorDomain.STORAGE)
    if root.find("target/encryption") is not None:
        raise _unsupported(f"volume '{name}': encrypted volumes are not supported yet; leave out target/encryption")
    compat = document.text(root, "target/compat")
    if compat is not None and not _COMPAT.fullmatch(compat):
        raise _wrong("forbidden characters in 'compat' attribute")
    if root.find("target/nocow") is not None:
        raise _unsupported(f"volume '{name}': target/nocow is not supported yet; leave it out")
    features = None
    if root.find("target/features") is not None:
        features = tuple(str(node.tag) for node in root.iterfind("target/features/*"))
    for feature in features or ():
        if feature not in _FEATURES:
            raise _unsupported(f"unsupported feature {feature}")
    return VolumeDefinition(
        name,
        capacity,
        allocation,
        _format(root, "target/format/@type") or "raw",
        _permissions(root.find("target/permissions")),
        backing,
        compat or (None if features is None else "1.1"),
        document.size(root, "target/clusterSize", ErrorDomain.STORAGE) or 0,
        features,
    )


def format_volume(volume: VolumeFacts, backing: VolumeFacts | None = None) -> str:
    """Write a volume's document; ``backing`` are the facts of its backing file, where they are known."""
    writer = Writer()
    writer.start("volume", type=volume.type.name.lower())
    writer.leaf("name", volume.name)
    writer.leaf("key", volume.path)
    writer.leaf("capacity", volume.capacity, unit="bytes")
    writer.leaf("allocation", volume.allocation, unit="bytes")
    if volume.physical:
        writer.leaf("physical", volume.physical, unit="bytes")
    writer.start("target")
    writer.leaf("path", volume.path)
    writer.leaf("format", type=volume.format)
    _write_permissions(writer, volume.permissions)
    if volume.times is not None:
        _write_times(writer, volume.times)
    if volume.compat:
        writer.leaf("compat", volume.compat)
    if volume.cluster_size:
        writer.leaf("clusterSize", volume.cluster_size, unit="B")
    if volume.features is not None:
        _write_features(writer, volume.features)
    writer.end()
    if volume.backing is not None:
        writer.start("backingStore")
        writer.leaf("path", volume.backing.path)
        # One that is not recorded is told from the bytes, where they may be looked at.
        writer.leaf("format", type=volume.backing.format or (backing.format if backing is not None else "raw"))
        if backing is not None:
            _write_permissions(writer, backing.permissions)
            if backing.times is not None:
                _write_times(writer, backing.times)
        writer.end()
    writer.end()
    return writer.text()


def shown_backing(recorded: str, volume_path: str) -> str:
    """A recorded backing name as the document shows it: relative names from the volume's directory, by text alone."""
    if ":" in recorded or os.path.isabs(recorded):
        return recorded
    return os.path.normpath(os.path.join(os.path.dirname(volume_path), recorded))


def _write_times(writer: Writer, times: tuple[int, int, int]) -> None:
    writer.start("timestamps")
    for name, time in zip(("atime", "mtime", "ctime"), times, strict=True):
        seconds, nanoseconds = divmod(time, 1_000_000_000)
        writer.leaf(name, f"{seconds}.{nanoseconds:09}" if nanoseconds else seconds)
    writer.leaf("btime", 0)  # when it was made, which libvirt does not ask Linux for
    writer.end()


def _write_features(writer: Writer, features: tuple[str, ...]) -> None:
    if not features:
        writer.leaf("features")
        return
    writer.start("features")
    for feature in features:
        writer.leaf(feature)
    writer.end()


def _write_permissions(writer: Writer, permissions: Permissions) -> None:
    if permissions == Permissions():
        return
    writer.start("permissions")
    if permissions.mode is not None:
        writer.leaf("mode", f"0{permissions.mode:o}")
    if permissions.owner is not None:
        writer.leaf("owner", permissions.owner)
    if permissions.group is not None:
        writer.leaf("group", permissions.group)
    if permissions.label is not None:
        writer.leaf("label", permissions.label)
    writer.end()


def _permissions(node: Node | None) -> Permissions:
    if node is None:
        return Permissions()
    mode = document.text(node, "mode")
    bits = None
    if mode:
        try:
            bits = int(mode.strip(), 8)
        except ValueError:
            bits = -1
        if bits & ~0o777:
            raise _wrong("malformed octal mode")
    return Permissions(bits, _identity(node, "owner"), _identity(node, "group"), document.text(node, "label"))


def _identity(node: Node, name: str) -> int | None:
    written = document.text(node, name)
    if written is None:
        return None
    try:
        value = int(written)
    except ValueError:
        value = -2
    if not -1 <= value < 2**32 - 1:
        raise _wrong(f"malformed {name} element")
    return None if value == -1 else value


def _format(root: Node, path: str) -> str | None:
    name = document.text(root, path)
    if name is not None and name not in VOLUME_FORMATS:
        raise _unsupported(f"unknown volume format type {name}")
    return name


def _wrong(detail: str) -> Exception:
    return fault(ErrorCode.XML_ERROR, detail, ErrorDomain.STORAGE)


def _unsupported(detail: str) -> Exception:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
