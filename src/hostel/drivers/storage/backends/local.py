"""Volumes that are files of one directory: what ``dir`` pools have, and every type that ends up as a directory."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from hostel.block import creating, filename, graph, registry
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Creatable
from hostel.block.trust import Trust
from hostel.drivers.adapters import check_flags
from hostel.drivers.base import Progress, VolumeCreateFlag, VolumeResizeFlag, VolumeType
from hostel.drivers.fault import fault
from hostel.drivers.storage import content, encryption, lineage, provenance
from hostel.drivers.storage.backends.base import Listed, Source, refuse_snapshots
from hostel.drivers.storage.backends.transfer import HostVolumes, check_content
from hostel.drivers.storage.cow import set_cow
from hostel.drivers.storage.document import (
    BackingDefinition,
    Permissions,
    PoolDefinition,
    PoolSizes,
    VolumeDefinition,
    VolumeFacts,
)
from hostel.drivers.storage.holding import held, held_for_removal, translating
from hostel.drivers.storage.inspect import detect_format, inspect, open_untrusted, volume_type
from hostel.drivers.storage.placing import apply_permissions, is_temporary, new_file, sweep
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import INT64_MAX, SECTOR, KiB

# What XML 1.0 cannot write (section 2.2), and what moves a terminal's cursor.
_UNUSABLE: Final = re.compile("[\0-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_NOTHING: Final[Mapping[str, str]] = {}
_FICLONE: Final = 0x40049409  # linux/fs.h
_NO_PREALLOCATION: Final = "metadata preallocation conflicts with backing store"


class LocalVolumes(HostVolumes):
    """The volume half of a backend whose pools have a directory."""

    has_files = True
    at_once = 1  # files that are opened: threads only help where one waits

    def path(self, pool: PoolDefinition, name: str) -> str | None:
        """Where a volume of this name is or would be; None for what cannot be a volume's name."""
        if name in ("", ".", "..") or "/" in name or _UNUSABLE.search(name) or is_temporary(name):
            return None
        return os.path.join(pool.path, name)

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Look at the directory's permissions, and clear away what was left half made.

        The files are looked at whenever somebody asks.
        """
        with translating(f"cannot open directory '{pool.path}'", pool.name, pool.path):
            sweep(pool.path)
        with translating(f"cannot stat path '{pool.path}'", pool.name, pool.path):
            status = os.stat(pool.path)
        permissions = Permissions(
            stat.S_IMODE(status.st_mode) & 0o777, status.st_uid, status.st_gid, pool.permissions.label
        )
        return pool._replace(permissions=permissions)

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The file system's sizes."""
        with translating(f"cannot statvfs path '{pool.path}'", pool.name, pool.path):
            status = os.statvfs(pool.path)
        capacity = status.f_frsize * status.f_blocks
        available = status.f_frsize * status.f_bfree
        return pool, PoolSizes(capacity, capacity - available, available)

    def delete(self, pool: PoolDefinition) -> None:
        """Remove the directory, which must be empty."""
        with translating(f"failed to remove pool '{pool.path}'", pool.name, pool.path):
            os.rmdir(pool.path)

    def listing(self, pool: PoolDefinition) -> Iterator[Listed]:
        """Every file that is a volume; none is opened."""
        try:
            entries = os.scandir(pool.path)
        except OSError as error:
            with translating(f"cannot open directory '{pool.path}'", pool.name, pool.path):
                raise error
        with entries:
            for entry in entries:
                path = self.path(pool, entry.name)
                if path is not None and _is_volume(entry) and _is_readable(path):
                    yield Listed(entry.name, path, path)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """The facts of every file; several are opened at a time where a server takes its time for each."""
        names = [one.name for one in self.listing(pool)]
        if self.at_once == 1:
            return [facts for name in names if (facts := self.volume(pool, name)) is not None]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.at_once) as team:
            return [facts for facts in team.map(lambda name: self.volume(pool, name), names) if facts is not None]

    def volume(self, pool: PoolDefinition, name: str) -> VolumeFacts | None:
        """The facts of a volume; None when there is none of this name, or none that we may read."""
        path = self.path(pool, name)
        if path is None or not _is_readable(path):
            return None
        try:
            return inspect(name, path)
        except (OSError, ValueError):
            return None  # a loop of links, a name too long: no volume

    def lookup(self, pool: PoolDefinition, name: str) -> Listed | None:
        """Where the volume of a name is; its file is not opened."""
        path = self.path(pool, name)
        try:
            found = path is not None and _is_readable(path) and volume_type(os.stat(path)) is not None
        except (OSError, ValueError):
            return None
        return Listed(name, path, path) if found and path is not None else None

    def find(self, pool: PoolDefinition, word: str, *, by_key: bool) -> Listed | None:
        """The volume of a path, which is its key as well."""
        directory, name = os.path.split(word)
        return self.lookup(pool, name) if directory == pool.path else None

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Create an empty volume, whole or not at all."""
        path = self._new_path(pool, volume)
        volume = _makeable(volume, flags)
        encryption.check(volume)
        prealloc = bool(flags & VolumeCreateFlag.PREALLOC_METADATA)
        if volume.format == "raw" and volume.backing is not None:
            raise _no_support("backing storage not supported for raw volumes")
        if volume.format == "dir":
            check_flags(flags, VolumeCreateFlag.NONE, "createFileDir")
            _create_directory(path, volume)
            return
        with translating(f"cannot create volume '{volume.name}' at '{path}'", volume.name, path):
            capacity = _capacity(volume, path)
            with new_file(path, volume.permissions) as temporary:
                _refuse_copies(volume, temporary, path)
                if volume.encryption is not None:
                    self._fill_encrypted(temporary, volume, capacity, prealloc=prealloc)
                elif volume.format == "raw":
                    _fill_raw(temporary, capacity, capacity if volume.allocation is None else volume.allocation)
                else:
                    _fill_image(temporary, volume, capacity, prealloc=prealloc)

    def _fill_encrypted(self, temporary: str, volume: VolumeDefinition, capacity: int, *, prealloc: bool) -> None:
        """Make an encrypted image of a new volume's file."""
        assert volume.encryption is not None
        if volume.format == "raw":
            with encryption.options_of(volume.encryption, self.host.secret) as options:
                driver = registry.format_driver("luks")
                assert isinstance(driver, Creatable)
                with creating.create(temporary) as file:
                    driver.create(file, capacity, creating.creation_options(driver).convert(options))
                    file.flush()
            return
        with encryption.options_of(volume.encryption, self.host.secret, "encrypt.") as options:
            _fill_image(temporary, volume, capacity, prealloc=prealloc, more={"encrypt.format": "luks", **options})

    def create_from(
        self,
        pool: PoolDefinition,
        volume: VolumeDefinition,
        source: Source,
        flags: VolumeCreateFlag,
        progress: Progress | None,
    ) -> None:
        """Create a volume with another's content, whole or not at all."""
        path = self._new_path(pool, volume)
        volume = _makeable(volume, flags)
        facts = source.facts
        if volume.format == "dir" or facts.type is VolumeType.DIR:
            raise fault(ErrorCode.INTERNAL_ERROR, "cannot copy from volume to a directory volume", ErrorDomain.STORAGE)
        origin = content.format_of(facts)
        volume = encryption.inherited(_flattened(volume, facts, path, flags), facts)
        anew = volume.encryption is not None and bool(volume.encryption.secrets)
        opened = bool(facts.encryption) and (anew or volume.encryption is None)
        if volume.encryption is not None and (anew or not facts.encryption):
            encryption.check(volume)
        elif not opened:
            volume = volume._replace(encryption=None)  # its bytes are copied, and it opens as its source does
        if (anew or opened) and flags & VolumeCreateFlag.REFLINK:
            raise _unsupported("reflink copies are for volumes whose bytes stay the same")
        capacity = max(volume.capacity or 0, facts.capacity if opened else facts.length)
        with translating(f"cannot copy volume '{facts.name}' to '{path}'", facts.name, facts.path):
            if origin != "raw":
                provenance.refuse_unvouched(facts.path, f"volume '{facts.name}'")
                lineage.check(facts.name, facts.path, origin, source.directories)
            with (
                encryption.opening(facts, self.host.secret, is_wanted=opened) as how,
                new_file(path, volume.permissions) as temporary,
            ):
                _refuse_copies(volume, temporary, path)
                if flags & VolumeCreateFlag.REFLINK:
                    _reflink(facts, temporary, volume, origin)
                    return
                if anew:
                    prealloc = bool(flags & VolumeCreateFlag.PREALLOC_METADATA)
                    self._fill_encrypted(temporary, volume, _round_up(capacity, SECTOR), prealloc=prealloc)
                else:
                    _fill_clone(temporary, volume, capacity, facts, origin, flags)
                with _opened(facts.path, encryption.driver_of(facts, opened=opened), how) as reader:
                    if origin != "raw":
                        lineage.confirm(facts.name, reader, source.directories)
                    with self._written(temporary, volume) as writer:
                        content.copy(reader, writer, progress)
                if volume.format == "raw" and not anew:
                    os.truncate(temporary, capacity)

    @contextmanager
    def _written(self, path: str, volume: VolumeDefinition) -> Iterator[BlockNode]:
        """A new volume's image, opened to be filled."""
        if volume.encryption is None:
            with _opened(path, volume.format, _NOTHING, read_only=False) as node:
                yield node
            return
        driver, prefix = ("luks", "") if volume.format == "raw" else (volume.format, "encrypt.")
        with encryption.options_of(volume.encryption, self.host.secret, prefix) as options:
            name = f"{prefix}key-secret"
            with _opened(path, driver, {name: options[name]}, read_only=False) as node:
                yield node

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Remove a file, or an empty directory; one that is gone already is no error."""
        refuse_snapshots(pool, snapshots)
        if volume.type is VolumeType.DIR and not os.path.islink(volume.path):
            doing = f"cannot remove directory '{volume.path}'"
            with translating(doing, volume.name, volume.path, removing=True):
                os.rmdir(volume.path)
            return
        with (
            translating(f"cannot unlink file '{volume.path}'", volume.name, volume.path, removing=True),
            held_for_removal(volume.name, volume.path),
            suppress(FileNotFoundError),
        ):
            os.unlink(volume.path)

    def resize(
        self,
        pool: PoolDefinition,
        volume: VolumeFacts,
        capacity: int,
        flags: VolumeResizeFlag,
        directories: Collection[str],
    ) -> None:
        """Change a volume's capacity."""
        check_content(volume, "resized")
        allocate = bool(flags & VolumeResizeFlag.ALLOCATE)
        doing = f"cannot resize volume '{volume.name}' at '{volume.path}'"
        if volume.encryption and content.format_of(volume) == "raw":
            if allocate:
                what = "preallocate is only supported for an unencrypted raw volume"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.STORAGE)
            with translating(doing, volume.name, volume.path):
                self._resize_image(volume, capacity, directories)
            return
        if content.format_of(volume) == "raw":
            with translating(doing, volume.name, volume.path), held(volume.name, volume.path) as descriptor:
                _resize_raw(descriptor, capacity, allocate=allocate)
            return
        if volume.format not in registry.FORMATS:
            raise _unsupported(f"volume '{volume.name}': resizing {volume.format} volumes is not supported yet")
        if allocate:
            raise fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                "preallocate is only supported for raw type volume",
                ErrorDomain.STORAGE,
            )
        with translating(doing, volume.name, volume.path):
            provenance.refuse_unvouched(volume.path, f"volume '{volume.name}'")
            lineage.check(volume.name, volume.path, volume.format, directories)
            self._resize_image(volume, capacity, directories)

    def _resize_image(self, volume: VolumeFacts, capacity: int, directories: Collection[str]) -> None:
        driver = encryption.driver_of(volume, opened=True)
        with (
            encryption.opening(volume, self.host.secret) as options,
            _opened(volume.path, driver, options, read_only=False) as node,
        ):
            lineage.confirm(volume.name, node, directories)
            node.resize(_round_up(capacity, SECTOR))
            node.flush()

    def _new_path(self, pool: PoolDefinition, volume: VolumeDefinition) -> str:
        name = volume.name
        if "/" in name:
            raise _invalid(f"volume name '{name}' cannot contain '/'")
        path = self.path(pool, name)
        if path is None or len(os.fsencode(name)) > 255:
            raise _invalid(f"volume name '{name}' cannot be used: it has 1 to 255 bytes and no control characters")
        if os.path.lexists(path):
            raise _invalid(f"volume target path '{path}' already exists")
        return path


def _is_readable(path: str) -> bool:
    # As libvirt has it, what cannot be opened is no volume: nothing could be done with it.
    return os.access(path, os.R_OK, effective_ids=True)


def _is_volume(entry: os.DirEntry[str]) -> bool:
    try:
        return volume_type(entry.stat()) is not None
    except OSError:
        return False  # a link that leads nowhere or in circles


def _makeable(volume: VolumeDefinition, flags: VolumeCreateFlag) -> VolumeDefinition:
    """The document of a volume that can be made: what is called a CD's image is made of bytes alone."""
    if volume.format == "iso":
        volume = volume._replace(format="raw")
    if volume.format == "raw" and flags & VolumeCreateFlag.PREALLOC_METADATA:
        raise _unsupported("metadata preallocation is not supported for raw volumes")
    if volume.format in ("raw", "dir"):
        return volume  # what only qcow2 has is left unread, as libvirt does
    if volume.format != "qcow2":
        for wanted, what in (
            (flags & VolumeCreateFlag.PREALLOC_METADATA, "metadata preallocation"),
            (volume.compat, "compatibility option"),
            (volume.features is not None, "format features"),
        ):
            if wanted:
                raise _unsupported(f"{what} only available with qcow2")
    if volume.format not in registry.FORMATS:
        raise _unsupported(f"volume '{volume.name}': creating {volume.format} volumes is not supported yet")
    if not isinstance(registry.format_driver(volume.format), Creatable):
        raise _unsupported(f"volume '{volume.name}': format '{volume.format}' can only be read")
    return volume


def _fill_clone(
    path: str, volume: VolumeDefinition, capacity: int, source: VolumeFacts, origin: str, flags: VolumeCreateFlag
) -> None:
    """Make the empty volume that a clone's content is copied into, in whole sectors."""
    if volume.format != "raw":
        prealloc = bool(flags & VolumeCreateFlag.PREALLOC_METADATA)
        _fill_image(path, volume, _round_up(capacity, SECTOR), prealloc=prealloc)
        return
    wanted = capacity if volume.allocation is None else volume.allocation
    # A conversion is sparse, and so is a copy where less than everything was asked for.
    sparse = origin != "raw" or wanted < source.length
    _fill_raw(path, _round_up(capacity, SECTOR), 0 if sparse else wanted)


def _flattened(volume: VolumeDefinition, source: VolumeFacts, path: str, flags: VolumeCreateFlag) -> VolumeDefinition:
    """A clone's document without the backing store that it has from its source: a clone holds everything itself.

    It is refused where it cannot be, or is not there.
    """
    if volume.backing is None:
        return volume
    if volume.format == "raw":
        raise _unsupported("cannot set backing store for raw volume")
    if flags & VolumeCreateFlag.PREALLOC_METADATA:
        raise _unsupported(_NO_PREALLOCATION)
    if source.backing is not None and source.backing.path != volume.backing.path:
        raise fault(ErrorCode.INTERNAL_ERROR, "a different backing store cannot be specified.", ErrorDomain.STORAGE)
    _backing_path(volume.name, volume.backing, path)
    return volume._replace(backing=None)


def _refuse_copies(volume: VolumeDefinition, temporary: str, path: str) -> None:
    """Have a new file not copied on write where that is asked for; for an image it is a hint, as qemu-img has it."""
    if volume.nocow:
        try:
            set_cow(temporary, state=False, shown=path)
        except VirtError:
            if volume.format == "raw":
                raise


def _create_directory(path: str, volume: VolumeDefinition) -> None:
    if volume.backing is not None:
        raise _no_support("backing storage not supported for directories volumes")
    with translating(f"cannot create path '{path}'", volume.name, path):
        os.mkdir(path, 0o700)
        apply_permissions(path, volume.permissions, None)


def _capacity(volume: VolumeDefinition, path: str) -> int:
    """The new volume's size; an overlay's is its backing's where it is not said."""
    if volume.backing is None:
        capacity = volume.capacity or 0
    else:
        length = _backing_length(volume, volume.backing, path)
        capacity = length if volume.capacity is None else volume.capacity
    if volume.format == "raw":
        return capacity
    if capacity > INT64_MAX - SECTOR:
        raise fault(
            ErrorCode.INVALID_ARG, f"volume '{volume.name}': {capacity} bytes are too many", ErrorDomain.STORAGE
        )
    return _round_up(capacity, KiB)  # libvirt counts in KiB here


def _backing_path(name: str, backing: BackingDefinition, path: str) -> str:
    """Where the file below the volume of a name is, which is to be at a path."""
    if filename.protocol(backing.path) is not None:
        raise _unsupported(f"volume '{name}': backing store '{backing.path}' is no path of a file")
    below = filename.resolve(backing.path, path)
    if not os.path.exists(below):
        raise fault(
            ErrorCode.SYSTEM_ERROR,
            f"inaccessible backing store volume {backing.path}: No such file or directory",
            ErrorDomain.STORAGE,
        )
    return below


def _backing_length(volume: VolumeDefinition, backing: BackingDefinition, path: str) -> int:
    below = _backing_path(volume.name, backing, path)
    with open_untrusted(below, _backing_format(volume, backing, below)) as node:
        return node.length


def _backing_format(volume: VolumeDefinition, backing: BackingDefinition, below: str) -> str:
    if backing.format is not None:
        return backing.format
    found = detect_format(below)
    if found not in ("raw", "iso"):
        # libvirt records raw here, and the machine then sees the header as its disk.
        raise fault(
            ErrorCode.INVALID_ARG,
            f"volume '{volume.name}': backing store '{backing.path}' looks like {found}; "
            f"say so: <format type='{found}'/> in backingStore",
            ErrorDomain.STORAGE,
        )
    return "raw"


def _fill_raw(path: str, capacity: int, allocation: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, capacity)
        if allocation := min(allocation, capacity):
            os.posix_fallocate(descriptor, 0, allocation)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _resize_raw(descriptor: int, capacity: int, *, allocate: bool) -> None:
    if allocate and capacity:
        before = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, 0, capacity)  # all of it, as libvirt does, and not only what is new
        except OSError:
            os.ftruncate(descriptor, before)  # a file system may have made the file longer before it was full
            raise
    os.ftruncate(descriptor, capacity)
    os.fsync(descriptor)


def _fill_image(
    path: str, volume: VolumeDefinition, capacity: int, *, prealloc: bool, more: Mapping[str, str] = _NOTHING
) -> None:
    driver = registry.format_driver(volume.format)
    assert isinstance(driver, Creatable)
    if prealloc and volume.backing is not None:
        raise _unsupported(_NO_PREALLOCATION)
    given = dict(more)
    if volume.format == "qcow2":
        # The oldest version unless another is asked for: what libvirt makes.
        given["compat"] = volume.compat or "0.10"
    for feature in volume.features or ():
        if given.get("compat") == "0.10":
            shown = feature if feature == "lazy_refcounts" else f"'{feature}'"
            raise _unsupported(f"{shown} not supported with compat level 0.10")
        given[feature] = "on"
    if volume.cluster_size:
        given["cluster_size"] = str(volume.cluster_size)
    if prealloc:
        whole = volume.allocation is None or volume.allocation >= capacity
        given["preallocation"] = "falloc" if whole else "metadata"
    if volume.backing is not None:
        given["backing_file"] = volume.backing.path
        given["backing_fmt"] = volume.backing.format or "raw"
    options: dict[str, Value] = creating.creation_options(driver).convert(given)
    with creating.create(path) as file:
        driver.create(file, capacity, options)
        file.flush()


def _opened(path: str, driver: str, options: Mapping[str, str], *, read_only: bool = True) -> BlockNode:
    converted = registry.format_driver(driver).options.convert(dict(options)) if options else None
    return graph.open(path, driver, read_only=read_only, trust=Trust.TRUSTED, options=converted)


def _reflink(facts: VolumeFacts, temporary: str, volume: VolumeDefinition, origin: str) -> None:
    if volume.format != "raw" or origin != "raw":
        raise _unsupported("reflink copies are for raw volumes only")
    reader = os.open(facts.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(writer, _FICLONE, reader)
            os.ftruncate(writer, max(volume.capacity or 0, facts.length))
            os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _round_up(capacity: int, unit: int) -> int:
    return -(-capacity // unit) * unit


def _invalid(detail: str) -> VirtError:
    return fault(ErrorCode.OPERATION_INVALID, detail, ErrorDomain.STORAGE)


def _unsupported(detail: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)


def _no_support(detail: str) -> VirtError:
    return fault(ErrorCode.NO_SUPPORT, detail, ErrorDomain.STORAGE)
