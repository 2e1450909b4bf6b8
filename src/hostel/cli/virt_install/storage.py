"""Where a disk's content is: files, volumes of pools, addresses; and volumes that the installation makes.

Nothing is made before :meth:`Storage.build`, and :meth:`Storage.undo` takes away what that made.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree

from hostel.block import filename, registry
from hostel.cause import sentence
from hostel.cli.virt_install.suboption import Refusal
from hostel.drivers.base import VolumeCreateFlag
from hostel.drivers.fault import printable
from hostel.drivers.storage import lineage, provenance
from hostel.drivers.storage.document import VOLUME_FORMATS
from hostel.drivers.storage.inspect import detect_format
from hostel.errors import BlockError, ErrorCode, HostelError, UsageError, VirtError
from hostel.img.foreign import Claim
from hostel.img.inspect import inspect
from hostel.model.pool_type import TRAITS
from hostel.model.storage import PoolType
from hostel.objects import Connection, StoragePool, StorageVolume
from hostel.units import INT64_MAX, GiB, MiB

DEFAULT_POOL: Final = "default"
DEFAULT_FORMAT: Final = "qcow2"
_URL: Final = re.compile(r"[a-zA-Z]+(\+[a-zA-Z]+)?://.*")
# Places that are the kernel's: no pool is made there.
_UNMANAGED: Final = ("/dev", "/sys", "/proc")
_EXTENSIONS: Final = {"raw": ".img"}
_FILES: Final = ("dir", "fs", "netfs", "vstorage")
_NETWORK: Final = ("rbd", "sheepdog", "gluster", "iscsi-direct")


class Place(NamedTuple):
    """A pool of files: one that exists, or one to make for a directory.

    Attributes:
        name: the pool's name.
        directory: where its volumes are.
        pool: the pool; None while it is to be made.
        type: what kind of pool it is.
    """

    name: str
    directory: str
    pool: StoragePool | None
    type: str = "dir"

    @property
    def holds_files(self) -> bool:
        """Whether its volumes are files, and so have formats."""
        return self.type in _FILES

    def check_formats(self, name: str, *formats: str | None) -> None:
        """Refuse a format that no volume here can have.

        Raises:
            Refusal: there is one.
        """
        known = TRAITS[PoolType(self.type)].volume
        for format in formats:
            if format is not None and known is not None and format not in known.known:
                reason = f"unsupported configuration: unknown volume format type {format}"
                raise Refusal(f"Couldn't create storage volume '{name}': '{reason}'")


class NewVolume(NamedTuple):
    """A volume to make; sizes in bytes."""

    place: Place
    name: str
    capacity: int
    allocation: int
    format: str | None
    backing: str | None = None
    backing_format: str | None = None

    @property
    def path(self) -> str:
        """Where it will be."""
        return os.path.join(self.place.directory, self.name)

    def xml(self) -> str:
        """The volume's document."""
        root = ElementTree.Element("volume")
        ElementTree.SubElement(root, "name").text = self.name
        ElementTree.SubElement(root, "capacity").text = str(self.capacity)
        ElementTree.SubElement(root, "allocation").text = str(self.allocation)
        target = ElementTree.SubElement(root, "target")
        if self.format is not None:
            ElementTree.SubElement(target, "format", type=self.format)
        if self.format == "qcow2":
            ElementTree.SubElement(ElementTree.SubElement(target, "features"), "lazy_refcounts")
        if self.backing is not None:
            store = ElementTree.SubElement(root, "backingStore")
            ElementTree.SubElement(store, "path").text = self.backing
            if self.backing_format:
                ElementTree.SubElement(store, "format", type=self.backing_format)
        return ElementTree.tostring(root, encoding="unicode")


class Medium(NamedTuple):
    """The content of a disk.

    Attributes:
        type: libvirt's kind of source: ``file``, ``block``, ``dir`` or ``network``.
        path: the path, or the URL.
        exists: whether it is there.
        format: the format of its bytes, where something told.
        new: the volume that will be made for it.
        source: where a volume of a pool over a network is, as values of the disk's element.
    """

    type: str
    path: str
    exists: bool
    format: str | None = None
    new: NewVolume | None = None
    source: tuple[tuple[str, str], ...] = ()


def is_url(path: str) -> bool:
    """Whether this is an address rather than a path."""
    return _URL.fullmatch(path) is not None


class Storage:
    """The pools of a connection, and what this run adds to them.

    Attributes:
        connection: the open connection.
        is_remote: whether its files are another host's.
    """

    def __init__(self, connection: Connection, images: str) -> None:
        self.connection = connection
        self._images = images
        self.is_remote = bool(urlsplit(connection.uri).hostname)
        self._volumes: list[StorageVolume] = []
        self._pools: list[tuple[StoragePool, bool]] = []

    def locate(self, path: str) -> Medium:
        """Find what is at a path or an address.

        Raises:
            UsageError: it is there and cannot be read.
            VirtError: its pool cannot be started.
        """
        if is_url(path):
            return Medium("network", path, exists=True)
        path = os.path.abspath(path)
        volume = self.volume_at(path)
        if volume is not None:
            return self.medium_of(volume)
        if self.is_remote:  # the files of this machine are not that one's, and its devices are taken on trust
            is_device = any(path.startswith(f"{place}/") for place in _UNMANAGED)
            return Medium("block" if is_device else "file", path, exists=is_device)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return Medium("file", path, exists=False)
        except (OSError, ValueError) as error:
            why = sentence(error) if isinstance(error, OSError) else error
            raise UsageError(f"{path}: {why}") from None
        if stat.S_ISDIR(status.st_mode):
            return Medium("dir", path, exists=True)
        if stat.S_ISBLK(status.st_mode):
            return Medium("block", path, exists=True, format="raw")
        return Medium("file", path, exists=True, format=self._format_of(path))

    def _format_of(self, path: str) -> str | None:
        if not self.connection.uri.startswith("qemu"):
            return None
        try:
            return detect_format(path)
        except OSError as error:
            raise UsageError(f"{path}: {sentence(error)}") from None

    def volume_at(self, path: str) -> StorageVolume | None:
        """The volume of a pool that is at a path; None where none is.

        Raises:
            VirtError: its pool cannot be started.
        """
        try:
            return self.connection.volume(path)
        except VirtError as error:
            if error.code is not ErrorCode.NO_STORAGE_VOL:
                raise
        directory, name = os.path.split(path)
        pool = self.pool_at(directory)
        if pool is None:
            return None
        _ensure_running(pool, refresh=True)
        try:
            return pool.volume(name)
        except VirtError as error:
            if error.code is not ErrorCode.NO_STORAGE_VOL:
                raise
            return None

    def medium_of(self, volume: StorageVolume) -> Medium:
        """A volume as the content of a disk."""
        root = ElementTree.fromstring(volume.xml())
        format = root.find("target/format")
        type, path = root.get("type") or "file", root.findtext("target/path") or volume.path
        told = format.get("type") if format is not None else "raw" if type in ("block", "network") else None
        source = _network_source(volume.pool, volume.name, path) if type == "network" else ()
        return Medium(type, path, exists=True, format=told, source=source)

    def medium_to_be(self, new: NewVolume) -> Medium:
        """The content of a disk that a new volume will be."""
        kind = new.place.type
        if kind in _NETWORK:
            assert new.place.pool is not None
            source = _network_source(new.place.pool, new.name, new.path)
            return Medium("network", new.path, exists=False, format="raw", new=new, source=source)
        if kind in _FILES:
            return Medium("file", new.path, exists=False, format=new.format, new=new)
        return Medium("block", new.path, exists=False, format="raw", new=new)

    def pool_at(self, directory: str) -> StoragePool | None:
        """The pool whose volumes are in a directory; None where there is none."""
        for pool in self.connection.pools():
            target = _directory(pool)
            if target is not None and os.path.abspath(target) == directory:
                return pool
        return None

    def place_named(self, name: str) -> Place:
        """The pool of a name, running; ``default`` stands for the usual place, which may have to be made.

        Raises:
            VirtError: there is no such pool, or it cannot be started.
        """
        if name == DEFAULT_POOL:
            return self._default_place()
        return self._existing(self.connection.pool(name))

    def _default_place(self) -> Place:
        for pool in self.connection.pools():
            if pool.name == DEFAULT_POOL:
                return self._existing(pool)
        found = self.pool_at(self._images)
        return self._existing(found) if found is not None else Place(DEFAULT_POOL, self._images, None)

    def _existing(self, pool: StoragePool) -> Place:
        _ensure_running(pool, refresh=True)
        root = ElementTree.fromstring(pool.xml())
        return Place(pool.name, root.findtext("target/path") or "", pool, root.get("type") or "dir")

    def place_of(self, path: str) -> Place:
        """The pool that a file is in, or the one to make for its directory.

        Raises:
            UsageError: no pool can be made there.
        """
        directory = os.path.dirname(path)
        if directory == self._images:
            return self._default_place()
        pool = self.pool_at(directory)
        if pool is not None:
            return self._existing(pool)
        if any(directory == place or directory.startswith(f"{place}/") for place in _UNMANAGED):
            raise UsageError(
                f"Don't know how to create storage for path '{path}'. "
                "Use libvirt APIs to manage the parent directory as a pool first."
            )
        if self.connection.uri.startswith("qemu") and not os.path.isdir(directory):
            raise UsageError(f"'{path}' cannot be made: '{directory}' is no directory; make it first")
        base = os.path.basename(directory).replace(" ", "_") or "dirpool"
        return Place(self._free_pool_name(base), directory, None)

    def _free_pool_name(self, base: str) -> str:
        names = {pool.name for pool in self.connection.pools()} | {DEFAULT_POOL}
        name, number = base, 0
        while name in names:
            number += 1
            name = f"{base}-{number}"
        return name

    def free_name(self, place: Place, base: str, format: str | None, taken: set[str]) -> str:
        """A name for a new volume that neither the pool nor ``taken`` has."""
        extension = "" if format is None else _EXTENSIONS.get(format, f".{format}")
        name, number = base + extension, 0
        while name in taken or self._has(place, name):
            number += 1
            name = f"{base}-{number}{extension}"
        return name

    def _has(self, place: Place, name: str) -> bool:
        if place.pool is None:
            return os.path.lexists(os.path.join(place.directory, name))
        try:
            place.pool.volume(name)
        except VirtError as error:
            if error.code is not ErrorCode.NO_STORAGE_VOL:
                raise
            return False
        return True

    def plan(
        self,
        place: Place,
        name: str,
        size: float | None,
        *,
        sparse: bool,
        format: str | None,
        backing: str | None,
        backing_format: str | None,
    ) -> NewVolume:
        """Describe a volume to make; ``size`` in GiB.

        Raises:
            UsageError: the name, the size or the backing file is no good.
        """
        if size is None:
            raise UsageError(f"Size must be specified for non existent volume '{name}'")
        if not 0 < size <= INT64_MAX / GiB:
            raise UsageError(f"size={size:g}: a volume has more than 0 and less than {INT64_MAX // GiB} GiB")
        if " " in name:
            raise UsageError(f"Storage object name '{name}' can not contain ' ' character.")
        if self._has(place, name):
            raise UsageError(f"Name '{name}' already in use by another volume.")
        capacity = int(size * GiB)
        place.check_formats(name, format, backing_format)
        if backing is not None:
            below = self.locate(backing)
            if not below.exists:
                raise UsageError(f"backing_store={backing}: there is no such file")
            backing = below.path
            if backing_format is None and below.format is not None:
                # What libvirt has no name for is bytes to it.
                backing_format = below.format if below.format in VOLUME_FORMATS and below.format != "iso" else "raw"
        allocation = 0 if sparse else capacity
        new = NewVolume(place, name, capacity, allocation, format, backing, backing_format)
        available = self._available(place)
        if allocation > available:
            raise UsageError(
                "There is not enough free space on the storage pool to create the volume. "
                f"({allocation // MiB} M requested allocation > {available // MiB} M available)"
            )
        return new

    def excess(self, new: NewVolume) -> str | None:
        """Why a volume may not fit once it is full; None when it will."""
        available = self._available(new.place)
        if new.capacity <= available:
            return None
        return (
            "The requested volume capacity will exceed the available pool space when the volume is fully allocated. "
            f"({new.capacity // MiB} M requested capacity > {available // MiB} M available)"
        )

    def _available(self, place: Place) -> int:
        if place.pool is not None:
            return place.pool.info().available
        directory = place.directory
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    def plan_copy(self, path: str, capacity: int, allocation: int, format: str | None) -> NewVolume:
        """Describe the volume that another one is copied to; sizes in bytes.

        Raises:
            UsageError: there is no room for it, or no pool can be made there.
        """
        place, name = self.place_of(path), os.path.basename(path)
        available = self._available(place)
        if allocation > available:
            raise UsageError(
                "There is not enough free space on the storage pool to create the volume. "
                f"({allocation // MiB} M requested allocation > {available // MiB} M available)"
            )
        return NewVolume(place, name, capacity, allocation, format)

    def build(self, new: NewVolume, *, source: StorageVolume | None = None, reflink: bool = False) -> None:
        """Make a volume, and first its pool where that is missing; with the content of ``source``.

        Raises:
            UsageError: it cannot be made; what was made is left to :meth:`undo`.
        """
        try:
            pool = new.place.pool or self._make_pool(new.place)
            ref = self.connection.storage.storage_pool_lookup_by_name(pool.name)
            flags = VolumeCreateFlag.NONE
            if new.format == "qcow2" and new.backing is None and self.connection.uri.startswith("qemu"):
                flags = VolumeCreateFlag.PREALLOC_METADATA
            if source is not None:
                flags = VolumeCreateFlag.REFLINK if reflink else VolumeCreateFlag.NONE
                made = self.connection.storage.storage_vol_create_xml_from(ref, new.xml(), source.ref, flags)
            else:
                made = self.connection.storage.storage_vol_create_xml(ref, new.xml(), flags)
        except HostelError as error:
            raise UsageError(f"Couldn't create storage volume '{new.name}': '{error}'") from error
        self._volumes.append(StorageVolume(self.connection, made))

    def _make_pool(self, place: Place) -> StoragePool:
        for pool in self.connection.pools():
            if pool.name == place.name:
                return pool  # made for an earlier disk
        root = ElementTree.Element("pool", type="dir")
        ElementTree.SubElement(root, "name").text = place.name
        ElementTree.SubElement(ElementTree.SubElement(root, "target"), "path").text = place.directory
        pool = self.connection.define_pool(ElementTree.tostring(root, encoding="unicode"))
        is_new = not os.path.isdir(place.directory)
        self._pools.append((pool, is_new))
        if is_new:
            pool.build()
        pool.start()
        pool.autostart = True
        return pool

    def keep(self) -> None:
        """Let stay what :meth:`build` made so far: it is in use."""
        self._volumes.clear()
        self._pools.clear()

    def undo(self) -> list[str]:
        """Remove what :meth:`build` made; returns what could not be removed, and why."""
        left: list[str] = []
        while self._volumes:
            volume = self._volumes.pop()
            try:
                volume.delete()
            except HostelError as error:
                left.append(f"Failed to remove disk '{volume.name}': {error}")
        while self._pools:
            pool, is_new = self._pools.pop()
            try:
                if pool.is_active:
                    pool.stop()
                if is_new:
                    pool.delete()
                pool.undefine()
            except HostelError as error:
                left.append(f"Failed to remove storage pool '{pool.name}': {error}")
        return left


def _ensure_running(pool: StoragePool, *, refresh: bool) -> None:
    if not pool.is_active:
        pool.start()
    if refresh:
        pool.refresh()


def _network_source(pool: StoragePool, name: str, path: str) -> tuple[tuple[str, str], ...]:
    """Where a volume is that the guest reads over a network, and who it says that it is."""
    root = ElementTree.fromstring(pool.xml())
    is_direct = root.get("type") == "iscsi-direct"
    found: list[tuple[str, str]] = []
    secret = root.find("source/auth/secret")
    if (auth := root.find("source/auth")) is not None and secret is not None:
        found.append(("auth/@username", auth.get("username", "")))
        found.append(("auth/secret/@type", auth.get("type", "")))
        found += [(f"auth/secret/@{key}", value) for key in ("uuid", "usage") if (value := secret.get(key))]
    found.append(("source/@protocol", "iscsi" if is_direct else root.get("type", "")))
    for index, host in enumerate(root.iterfind("source/host")):
        found += [(f"source/host[{index}]/@{key}", value) for key in ("name", "port") if (value := host.get(key))]
    if is_direct:
        target = path.partition("-iscsi-")[2]
    else:
        base = (root.findtext("source/name") or "") + (
            (source.get("path") or "") if (source := root.find("source/dir")) is not None else ""
        )
        target = f"{base.rstrip('/')}/{name}" if base else name
    return (*found, ("source/@name", target)) if target else tuple(found)


def _directory(pool: StoragePool) -> str | None:
    return ElementTree.fromstring(pool.xml()).findtext("target/path")


def doubt_about(connection: Connection, medium: Medium) -> str | None:
    """Why an image that exists is not to be taken as it is; None where nothing speaks against it.

    A file from outside may name any other as its backing file, and show it to the guest. Taken are those that name
    images beside them, or in pools that are active.
    """
    is_image = medium.exists and medium.type == "file" and medium.format in registry.FORMATS and medium.format != "raw"
    if not is_image or not connection.uri.startswith("qemu"):
        return None
    directories = {os.path.dirname(os.path.realpath(medium.path))}
    for pool in connection.pools():
        if pool.is_active and (target := _directory(pool)) is not None:
            directories.add(os.path.realpath(target))
    try:
        provenance.refuse_unvouched(medium.path, "it")
        parts = [claim for claim in inspect(medium.path).names if claim.role != "backing"]
        if parts:  # which only an image without a backing file has
            return _doubt_about_parts(medium.path, parts, directories)
        lineage.check(medium.path, medium.path, medium.format or "raw", directories)
    except VirtError as error:
        return error.message
    except (BlockError, OSError):
        return None  # whoever starts it says what is wrong
    return None


def _doubt_about_parts(path: str, parts: Collection[Claim], directories: Collection[str]) -> str | None:
    for part in parts:
        name = part.filename
        file = os.path.realpath(filename.resolve(name, os.path.realpath(path)))
        if filename.protocol(name) is not None or os.path.dirname(file) not in directories:
            return f"'{path}' names '{printable(name)}' for its data, which is neither beside it nor in an active pool"
    return None


def users_of(connection: Connection, path: str, *, shareable: bool, read_only: bool) -> list[str]:
    """The machines that use a file, as a disk, below a disk, or to boot from.

    Use that is shared on both sides, or for reading on both sides, does not count.
    """
    above = _overlays(connection, path)
    users: list[str] = []
    for domain in connection.domains():
        root = ElementTree.fromstring(domain.xml())
        booted = [root.findtext(f"os/{name}") for name in ("kernel", "initrd", "dtb")]
        if not read_only and path in booted:
            users.append(domain.name)
            continue
        for disk in root.iterfind("devices/disk"):
            source = disk.find("source")
            used = None if source is None else _path_of(connection, source)
            both_share = shareable and disk.find("shareable") is not None
            both_read = read_only and disk.find("readonly") is not None
            if used in above or (used == path and not both_share and not both_read):
                users.append(domain.name)
                break
    return users


def _path_of(connection: Connection, source: ElementTree.Element) -> str | None:
    """Where the content of a disk is, as a path; None where that cannot be told."""
    pool = source.get("pool")
    if pool is None:
        return source.get("file") or source.get("dev") or source.get("dir")
    try:
        return connection.pool(pool).volume(source.get("volume") or "").path
    except VirtError:
        return None  # the pool is not there, or not active


def _overlays(connection: Connection, path: str) -> set[str]:
    """The volumes that have ``path`` somewhere below them."""
    upward: dict[str, list[str]] = {}
    for pool in connection.pools(active=True):
        for volume in pool.volumes():
            root = ElementTree.fromstring(volume.xml())
            if below := root.findtext("backingStore/path"):
                upward.setdefault(below, []).append(root.findtext("target/path") or "")
    found: set[str] = set()
    queue = [path]
    while queue:
        for overlay in upward.get(queue.pop(), []):
            if overlay not in found:
                found.add(overlay)
                queue.append(overlay)
    return found
