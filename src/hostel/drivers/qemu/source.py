"""Disk sources before QEMU sees them: volumes become files, and what is missing or unreadable is named."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel.cause import explain, in_line
from hostel.drivers.base import StorageDriver, VolumeType
from hostel.drivers.fault import printable
from hostel.drivers.qemu.command.objects import images
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.storage.provenance import refuse_unvouched
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.source import (
    FORMATS,
    BackingStore,
    DiskSource,
    Host,
    ImageFormat,
    Slice,
    Slices,
    SourceType,
)
from hostel.model.domain.domain import Domain
from hostel.model.pool import read_pool
from hostel.model.storage import Pool, PoolType

_CHAIN_LIMIT: Final = 200
_QCOW2: Final = b"QFI\xfb"
_BACKING_FORMAT: Final = 0xE2792ACA
_HEAD: Final = 1 << 16
_FAR: Final = 2**63 - 1
_HEADER_V2: Final = 72
_HEADER_V3: Final = 104


class Dropped(NamedTuple):
    """A source that was left out, since it is not there and the document lets it be missing.

    Attributes:
        alias: the disk's alias.
        path: where the source would be.
        why: the reason.
        whole: whether the disk went with it.
    """

    alias: str
    path: str
    why: str
    whole: bool


def prepare(domain: Domain, storage: StorageDriver | None) -> list[Dropped]:
    """Resolve and check every disk of a document that is about to run, and has aliases; returns what was dropped.

    Raises:
        VirtError: a disk cannot be used; the message names its target and file.
    """
    dropped: list[Dropped] = []
    disks = domain.devices.disks
    domain.devices.disks = []
    for disk in reversed(disks):  # what is said of the first that cannot be used is libvirt's, too
        source = disk.source
        if source is None and disk.driver is not None:
            disk.driver.type = None  # what is not there has no format
        try:
            prepare_disk(disk, storage)
        except VirtError as error:
            is_optional = source is not None and source.startup_policy == "optional"
            if not is_optional or (error.code != ErrorCode.SYSTEM_ERROR and disk.type != SourceType.VOLUME):
                raise
            is_whole = disk.device == DiskDevice.DISK
            path = (source.file or source.dev or source.volume or "") if source is not None else ""
            dropped.append(Dropped(disk.alias or "", path, error.message, is_whole))
            if is_whole:
                continue
            disk.type, disk.source = SourceType.FILE, None
            if disk.driver is not None:
                disk.driver.type = None
        domain.devices.disks.insert(0, disk)
    return dropped


def prepare_disk(disk: Disk, storage: StorageDriver | None) -> None:
    """Resolve and check one disk.

    Raises:
        VirtError: it cannot be used; the message names its target and file.
    """
    if disk.rawio and os.geteuid() != 0:
        raise unsupported(f"disk '{disk.target.dev}': rawio='yes' takes CAP_SYS_RAWIO, which only root gives QEMU")
    if disk.source is not None:
        translate(disk, storage)
        _check_files(disk, disk.source)


def encrypt_by_default(disk: Disk, settings: Settings) -> None:
    """Have those images of a disk opened by TLS that are on NBD servers, where the host wants it (``nbd_tls``)."""
    if settings.nbd.default:
        for kind, found, _ in images(disk):
            if kind == SourceType.NETWORK and found.protocol == "nbd" and found.tls is None:
                found.tls = True


def translate(disk: Disk, storage: StorageDriver | None) -> None:
    """Make of the volumes of pools the files, devices, directories or iSCSI units that they are, down the chain.

    Their sources keep which volumes they are, for whoever reads the document (:mod:`hostel.model.domain.volumes`).

    Raises:
        VirtError: there is no such volume, its pool is not active, or QEMU cannot open what it is.
    """
    place: Disk | BackingStore | None = disk
    while place is not None:
        if place.type == SourceType.VOLUME and place.source is not None:
            _translate(disk, place, place.source, storage)
        place = place.backing_store


def _translate(disk: Disk, place: Disk | BackingStore, source: DiskSource, storage: StorageDriver | None) -> None:
    if storage is None:
        message = f"disk '{disk.target.dev}': type='volume' needs a storage driver, and this connection has none"
        raise unsupported(message)
    pool = storage.storage_pool_lookup_by_name(source.pool or "")
    if not storage.storage_pool_is_active(pool):
        what = f"storage pool '{pool.name}' containing volume '{source.volume}' is not active"
        raise unsupported(f"{what}; start it with pool-start {pool.name}")
    volume = storage.storage_vol_lookup_by_name(pool, source.volume or "")
    kind, path = storage.storage_vol_get_info(volume).type, storage.storage_vol_get_path(volume)
    found: Pool | None = None
    if source.mode is not None or kind in (VolumeType.BLOCK, VolumeType.NETWORK):  # as units of iSCSI are
        found = read_pool(storage.storage_pool_get_xml_desc(pool))
        if found.type == PoolType.ISCSI:
            source.mode = source.mode or "host"
        elif source.mode is not None:
            message = "XML error: disk source mode is only valid when storage pool is of iscsi type"
            raise VirtError(ErrorCode.XML_ERROR, message, domain=ErrorDomain.DOMAIN)
    if found is not None and (source.mode == "direct" or found.type == PoolType.ISCSI_DIRECT):
        _open_iscsi_directly(disk, place, source, found)
    elif kind in (VolumeType.NETWORK, VolumeType.NETDIR):
        detail = f"volume '{volume.name}' of pool '{pool.name}' is on a server, '{path}'"
        raise unsupported(f"disk '{disk.target.dev}': {detail}: such pools cannot be used for volume disks yet")
    elif kind is VolumeType.BLOCK:
        place.type, source.dev = SourceType.BLOCK, path
    elif kind is VolumeType.DIR:
        place.type, source.dir = SourceType.DIR, path
    else:
        place.type, source.file = SourceType.FILE, path


def _open_iscsi_directly(disk: Disk, place: Disk | BackingStore, source: DiskSource, pool: Pool) -> None:
    """Have QEMU log in to the pool's target, in place of the host."""
    found = pool.source
    if found is None or not found.hosts or not found.devices:
        raise unsupported(f"disk '{disk.target.dev}': pool '{pool.name}' does not say which target it is")
    unit = (source.volume or "").rpartition(":")[2]
    if not (unit.isascii() and unit.isdecimal()):
        message = f"disk '{disk.target.dev}': volume '{source.volume}' does not end in the number of a unit"
        raise unsupported(f"{message}, as unit:0:0:1 does")
    host = found.hosts[0]
    place.type, source.protocol, source.name = SourceType.NETWORK, "iscsi", f"{found.devices[0].path}/{unit}"
    source.hosts = [Host(name=host.name, port=str(host.port) if host.port else None)]
    source.auth = found.auth  # it is the pool that knows who may log in
    if isinstance(place, Disk):
        place.auth = None


def _check_files(disk: Disk, source: DiskSource) -> None:
    """Check every image that the document names, and write down the chain behind the last of them."""
    target, fmt = disk.target.dev, disk.image_format
    path = _path(disk.type, source)
    if path == "":
        disk.source = None
        return
    if source.fdgroup is not None:
        # Nobody looks into what is given open: where the document ends the chain, it ends.
        disk.backing_store = disk.backing_store or BackingStore()
        path = None
    if path is not None:
        _check_image(path, target, write=not disk.readonly and disk.transient is None)
        if fmt != "raw":
            refuse_unvouched(path, f"disk '{target}': '{path}'")
    last: Disk | BackingStore = disk
    backing = disk.backing_store
    while backing is not None:
        if backing.type is None or backing.source is None:
            return  # the document says that the chain ends
        path = _path(backing.type, backing.source) if backing.source.fdgroup is None else None
        if path:
            _check_image(path, target, write=False)
        fmt = backing.image_format.type if backing.image_format is not None else "raw"
        source = backing.source
        last, backing = backing, backing.backing_store
    if path is not None:
        last.backing_store = chain_behind(Path(path), fmt, target, source.slice)


def _path(kind: SourceType, source: DiskSource) -> str | None:
    """The host's path of an image; None when it is none of the host's."""
    if kind == SourceType.FILE:
        return source.file or ""
    return source.dev or "" if kind == SourceType.BLOCK else None


def _check_image(path: str, target: str, *, write: bool) -> None:
    if not path.startswith("/"):
        raise unsupported(f"disk '{target}': the path '{path}' must be absolute")
    _check_access(Path(path), target, write=write)


def _check_access(path: Path, target: str, *, write: bool) -> None:
    try:
        path.stat()
        if not os.access(path, os.R_OK | (os.W_OK if write else 0)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except ValueError as error:  # an image may name a file with a zero byte in it
        raise _failure(path, target, str(error)) from error
    except OSError as error:
        hint = explain(error.errno, str(path), write=write)
        why = f"{error.strerror}; {in_line(hint)}" if hint else str(error.strerror)
        raise _failure(path, target, why) from error


def _failure(path: Path, target: str, why: str) -> VirtError:
    message = f"Cannot access storage file '{path}' of disk '{target}': {printable(why)}"
    return VirtError(ErrorCode.SYSTEM_ERROR, message, domain=ErrorDomain.QEMU)


def chain_behind(path: Path, fmt: str, target: str, part: Slice | None = None) -> BackingStore | None:
    """The images behind one, as its metadata names them; without a type where it ends.

    Args:
        path: the image's file or device.
        fmt: its format.
        target: the disk's name, for messages.
        part: which part of the file is the image; None where all of it is.

    None where only QEMU can tell: behind other formats than qcow2, and behind what is no file of the host.

    Raises:
        VirtError: an image cannot be used; or its format is not recorded, which QEMU would guess from what a guest
            may have written.
    """
    first = last = BackingStore()
    seen: set[tuple[int, int, int]] = set()
    for _ in range(_CHAIN_LIMIT):
        if fmt == "raw":
            return first
        if fmt != "qcow2":
            return None if first is last else _open_end(first, last)
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise _failure(path, target, "It is no file or block device")
        place = (status.st_dev, status.st_ino, part.offset if part is not None else 0)
        if place in seen:
            raise unsupported(f"disk '{target}': the backing chain of '{path}' loops")
        seen.add(place)
        found = _backing(path, part)
        if found is None:
            return first
        name, recorded = found
        if recorded is None:
            fix = f"qemu-img rebase -u -b '{name}' -F FORMAT '{path}'"
            raise unsupported(f"disk '{target}': '{path}' does not record the format of its backing file; run {fix}")
        name, part = _part_of_file(name) or (name, None)
        if name.startswith("json:") or "://" in name or recorded not in FORMATS:
            return None if first is last else _open_end(first, last)
        path, fmt = path.parent / name.removeprefix("file:"), recorded
        _check_access(path, target, write=False)
        last.type, last.source = SourceType.FILE, DiskSource(file=str(path))
        if path.is_block_device():
            last.type, last.source = SourceType.BLOCK, DiskSource(dev=str(path))
        last.source.slices = Slices(slices=[part]) if part is not None else None
        last.image_format, last.backing_store = ImageFormat(type=fmt), BackingStore()
        last = last.backing_store
    raise unsupported(f"disk '{target}': the backing chain is longer than {_CHAIN_LIMIT} images")


def leave_out_told(disk: Disk) -> None:
    """Leave out of a document what a disk's images tell themselves of what they stand on: it may be changed until then.

    What only the document says stays: another chain than the images name, and what opens with a secret.
    """
    places: list[Disk | BackingStore] = [disk]
    while (below := places[-1].backing_store) is not None:
        places.append(below)
    for place in places:
        rest = place.backing_store
        if rest is not None and place.source is not None and not _opens_with_secret(rest) and _tells(disk, place, rest):
            place.backing_store = None
            return


def _opens_with_secret(below: BackingStore | None) -> bool:
    while below is not None:
        if below.source is not None and (below.source.encryption or below.source.auth):
            return True
        below = below.backing_store
    return False


def _tells(disk: Disk, place: Disk | BackingStore, rest: BackingStore) -> bool:
    """Whether the image of a place names the rest of the chain as it is."""
    source = place.source
    path = _path(place.type or SourceType.FILE, source) if source is not None and source.fdgroup is None else None
    if not path or source is None:
        return False
    fmt = place.image_format
    name = fmt if isinstance(fmt, str) else fmt.type if fmt is not None else "raw"
    try:
        found = chain_behind(Path(path), name, disk.target.dev, source.slice)
    except (VirtError, OSError, ValueError):
        return False
    return found is not None and _plain(found) == _plain(rest)


def _plain(below: BackingStore) -> str:
    """A chain without the numbers of a run."""
    copy = below.copy()
    place: BackingStore | None = copy
    while place is not None:
        place.index = None
        if place.source is not None:
            place.source.index = None
            place.source.file = os.path.realpath(place.source.file) if place.source.file else None
        place = place.backing_store
    return copy.format()


def _open_end(first: BackingStore, end: BackingStore) -> BackingStore:
    """Leave to QEMU what is behind the last image that is known."""
    place = first
    while place.backing_store is not end and place.backing_store is not None:
        place = place.backing_store
    place.backing_store = None
    return first


def _part_of_file(name: str) -> tuple[str, Slice] | None:
    """The file and the part of it that QEMU's ``json:`` names, as overlays on such an image do; None for all else."""
    try:
        outer = json.loads(name.removeprefix("json:")) if name.startswith("json:") else None
        window = outer["file"] if outer is not None and set(outer) == {"file"} else None
        if window is None or window["driver"] != "raw" or set(window) != {"driver", "offset", "size", "file"}:
            return None
        inner = window["file"]
        if set(inner) != {"driver", "filename"} or inner["driver"] not in ("file", "host_device"):
            return None
        offset, size, path = window["offset"], window["size"], inner["filename"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if type(offset) is not int or type(size) is not int or not (0 <= offset < 2**63 and 0 <= size < 2**63):
        return None
    return (path, Slice(type="storage", offset=offset, size=size)) if isinstance(path, str) else None


def _backing(path: Path, part: Slice | None) -> tuple[str, str | None] | None:
    with path.open("rb") as stream:
        if part is not None:
            stream.seek(min(part.offset, _FAR))
        head = stream.read(_HEAD if part is None else min(part.size, _HEAD))
    if len(head) < _HEADER_V2 or head[:4] != _QCOW2:
        return None
    version, offset, size = struct.unpack_from(">IQI", head, 4)
    if version >= 3 and len(head) < _HEADER_V3:
        return None
    if not offset:
        return None
    name = head[offset : offset + size].decode(errors="surrogateescape")
    position = struct.unpack_from(">I", head, 100)[0] if version >= 3 else _HEADER_V2
    while position + 8 <= min(len(head), offset):
        kind, length = struct.unpack_from(">II", head, position)
        if kind == 0:
            break
        if kind == _BACKING_FORMAT:
            return name, head[position + 8 : position + 8 + length].decode(errors="replace")
        position += 8 + (length + 7) // 8 * 8
    return name, None


def images_of(domain: Domain) -> Iterator[DiskSource | BackingStore]:
    """Every image of every disk."""
    for disk in domain.devices.disks:
        if disk.source is not None:
            yield disk.source
        backing = disk.backing_store
        while backing is not None:
            yield backing
            backing = backing.backing_store


def sources_of(domain: Domain) -> Iterator[DiskSource]:
    """What every image of every disk is opened by."""
    for image in images_of(domain):
        if isinstance(image, DiskSource):
            yield image
        elif image.source is not None:
            yield image.source
