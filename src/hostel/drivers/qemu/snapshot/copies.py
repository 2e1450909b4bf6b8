"""Going on in files that are made for it: whole or not at all, and the definition starts from them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.block.chain import Image, go_over
from hostel.drivers.qemu.snapshot import inside
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent, as_kind, uses
from hostel.drivers.qemu.snapshot.overlay import remove
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot

if TYPE_CHECKING:
    from hostel.drivers.qemu.snapshot.calls import SnapshotCalls

_FICLONE: Final = 0x40049409  # linux/fs.h
_PIECE: Final = 1 << 26


def define(calls: SnapshotCalls, snapshot: Snapshot, document: Domain) -> None:
    """The domain's definition is what it was then."""
    if calls.definition_of(document.name) is None:
        return
    kept = snapshot.inactive_domain
    if kept is not None:
        calls.define(as_kind(Domain, kept))
    else:
        calls.define(document)


@contextlib.contextmanager
def onto(
    calls: SnapshotCalls,
    catalog: Catalog,
    snapshot: Snapshot,
    document: Domain,
    wanted: Mapping[str, Image],
    abandoned: tuple[str, ...],
) -> Iterator[None]:
    """While the caller makes files, they are known for what they are; then document and definition are on them.

    Args:
        calls: the driver's.
        catalog: of the domain, whose lock the caller holds.
        snapshot: what is gone back to.
        document: the snapshot's, of the domain that is to start.
        wanted: by disk's target, the images that are made.
        abandoned: what may be left to nobody.
    """
    files = [image.file or "" for image in wanted.values()]
    catalog.set_own(catalog.own().union(files))
    catalog.begin(Intent("revert", snapshot.name or "", (*files, *abandoned)))
    try:
        yield
        _put(document, wanted)
        kept = snapshot.inactive_domain.copy() if snapshot.inactive_domain is not None else None
        if kept is not None:
            _put(kept, wanted)
        define(calls, Snapshot(name=snapshot.name, inactive_domain=kept), document)
    except BaseException:
        definition = calls.definition_of(document.name)
        remove(path for path in files if not uses(definition, path))
        catalog.over(snapshot.name or "")
        raise


def _put(document: Domain, wanted: Mapping[str, Image]) -> None:
    for disk in document.devices.disks:
        found = wanted.get(disk.target.dev)
        if found is not None:
            go_over(disk, found)


def free(top: Image, suffix: str) -> str:
    """A name for a file beside the image, that no file has."""
    path = Path(top.path)
    stem = path.name[: path.name.rindex(".")] if "." in path.name[1:] else path.name
    found, number = path.with_name(f"{stem}.{suffix}"), 0
    while found.exists():
        number += 1
        found = path.with_name(f"{stem}.{suffix}-{number}")
    return str(found)


def onto_copies(
    calls: SnapshotCalls,
    catalog: Catalog,
    snapshot: Snapshot,
    document: Domain,
    disks: list[tuple[Disk, Image, list[str]]],
    abandoned: tuple[str, ...],
) -> list[str]:
    """Put the document on copies of the images that keep the snapshot inside; gives their paths.

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED`` where an image is no file, ``SYSTEM_ERROR`` where the host has no room.
    """
    name = snapshot.name or ""
    for disk, top, who in disks:
        if top.file is None:
            what = f"disk '{disk.target.dev}': snapshots ({', '.join(who)}) stand on '{top.path}', which going back to "
            what += f"'{name}' would change, and only files are copied; delete them first"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    stamp = int(time.time())
    wanted = {
        disk.target.dev: Image(0, SourceType.FILE, DiskSource(file=free(top, f"{name}-{stamp}")), top.format, None)
        for disk, top, _ in disks
    }
    has_memory = snapshot.memory is not None and snapshot.memory.snapshot == "internal"
    with onto(calls, catalog, snapshot, document, wanted, abandoned):
        for disk, top, _ in disks:
            path = wanted[disk.target.dev].path
            _copy(top.path, path)
            inside.keep_only(inside.Kept("", path, top.format), name, applied=not has_memory)
        if not has_memory:
            inside.apply_stored(calls.kept(document, [disk for disk, _, _ in disks])[len(disks) :], name)  # variables
    return _paths(wanted)


def _paths(wanted: Mapping[str, Image]) -> list[str]:
    return [image.path for image in wanted.values()]


def _copy(origin: str, path: str) -> None:
    """Copy a file with its holes, sharing its blocks where the file system can."""
    try:
        with open(origin, "rb") as reader, open(path, "xb") as writer:
            status = os.fstat(reader.fileno())
            os.fchmod(writer.fileno(), status.st_mode & 0o777)
            with contextlib.suppress(PermissionError):
                os.fchown(writer.fileno(), status.st_uid, status.st_gid)
            try:
                fcntl.ioctl(writer, _FICLONE, reader.fileno())
            except OSError:
                os.ftruncate(writer.fileno(), status.st_size)
                _copy_data(reader.fileno(), writer.fileno(), status.st_size)
            os.fsync(writer.fileno())
    except OSError as error:
        raise system_fault(error, f"cannot copy '{origin}' to '{path}'", ErrorDomain.QEMU) from error


def _copy_data(reader: int, writer: int, length: int) -> None:
    position = 0
    while position < length:
        try:
            position = os.lseek(reader, position, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        end = os.lseek(reader, position, os.SEEK_HOLE)
        while position < end:
            data = os.pread(reader, min(_PIECE, end - position), position)
            if not data:
                return
            position += os.pwrite(writer, data, position)
