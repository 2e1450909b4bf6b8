"""Storage pools and their volumes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Final
from xml.etree import ElementTree

from hostel.drivers.base import (
    Hole,
    PoolInfo,
    PoolRef,
    Progress,
    VolumeCreateFlag,
    VolumeInfo,
    VolumeRef,
    VolumeResizeFlag,
    WipeAlgorithm,
)
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.objects.document import Document, xml_of

if TYPE_CHECKING:
    from hostel.objects.connection import Connection

# What can be uploaded: a binary file, bytes, or an iterable of them and of holes.
Source = IO[bytes] | Iterable[bytes | memoryview | Hole] | bytes

_CHUNK: Final = 1024 * 1024  # bytes read at a time from a file that is uploaded


class StoragePool:
    """A handle of a storage pool."""

    def __init__(self, connection: Connection, ref: PoolRef) -> None:
        self.connection = connection
        self._ref = ref

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoragePool) and other.uuid == self.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<StoragePool {self.name} {self.uuid}>"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._ref.name

    @property
    def uuid(self) -> str:
        """The pool's UUID, in its canonical text form."""
        return self._ref.uuid

    def build(self, *, overwrite: bool | None = None) -> None:
        """Make what the pool stands on: for ``dir`` the directory, for ``disk`` the partition table.

        Args:
            overwrite: format the pool's device whatever is on it, or (False) only where nothing is.
        """
        self.connection.storage.storage_pool_build(self._ref, overwrite=overwrite)

    def start(self, *, build: bool = False, overwrite: bool | None = None) -> None:
        """Start it, so that its volumes can be seen; ``build`` makes what it stands on first."""
        self.connection.storage.storage_pool_create(self._ref, build=build, overwrite=overwrite)

    def refresh(self) -> None:
        """Look again at what is there."""
        self.connection.storage.storage_pool_refresh(self._ref)

    def stop(self) -> None:
        """Stop it; the volumes stay."""
        self.connection.storage.storage_pool_destroy(self._ref)

    destroy = stop  # libvirt's word

    def delete(self) -> None:
        """Remove what :meth:`build` made; the pool must be stopped and empty."""
        self.connection.storage.storage_pool_delete(self._ref)

    def undefine(self) -> None:
        """Drop the definition of a stopped pool; the volumes stay."""
        self.connection.storage.storage_pool_undefine(self._ref)

    @property
    def is_active(self) -> bool:
        """Whether it is started."""
        return self.connection.storage.storage_pool_is_active(self._ref)

    @property
    def is_persistent(self) -> bool:
        """Whether a definition exists."""
        return self.connection.storage.storage_pool_is_persistent(self._ref)

    @property
    def autostart(self) -> bool:
        """Whether it starts with the driver."""
        return self.connection.storage.storage_pool_get_autostart(self._ref)

    @autostart.setter
    def autostart(self, value: bool) -> None:
        self.connection.storage.storage_pool_set_autostart(self._ref, value)

    def info(self) -> PoolInfo:
        """State, and capacity, allocation and free space in bytes."""
        return self.connection.storage.storage_pool_get_info(self._ref)

    def xml(self, *, inactive: bool = False) -> str:
        """The pool's document; ``inactive``: its definition."""
        return self.connection.storage.storage_pool_get_xml_desc(self._ref, inactive=inactive)

    def volumes(self) -> list[StorageVolume]:
        """The volumes of a started pool, by name."""
        refs = self.connection.storage.storage_pool_list_all_volumes(self._ref)
        return [StorageVolume(self.connection, ref) for ref in refs]

    def volume(self, name: str) -> StorageVolume:
        """Find a volume by name.

        Raises:
            VirtError: ``NO_STORAGE_VOL``.
        """
        return StorageVolume(self.connection, self.connection.storage.storage_vol_lookup_by_name(self._ref, name))

    def create_volume(
        self,
        document: str | Document | None = None,
        *,
        name: str | None = None,
        capacity: int | None = None,
        format: str | None = None,
        allocation: int | None = None,
        backing: StorageVolume | str | None = None,
        backing_format: str | None = None,
    ) -> StorageVolume:
        """Create an empty volume, from a document or from what is said here.

        Args:
            document: the volume's document; excludes the others.
            name: the volume's name, a file name in the pool.
            capacity: bytes; may be left out with ``backing``.
            format: ``raw``, ``qcow2``; the pool's default (raw) when left out, and qcow2 with ``backing``.
            allocation: bytes to have on the host at once; 0 when left out.
            backing: the volume or the path that the new one is an overlay of.
            backing_format: the format of a ``backing`` that is named by path.

        Raises:
            VirtError: the document is wrong, the name is taken, the host refuses. Nothing is left behind.
        """
        if document is None:
            document = _volume_document(name, capacity, format, allocation, backing, backing_format)
        elif any(value is not None for value in (name, capacity, format, allocation, backing, backing_format)):
            raise TypeError("create_volume() takes a document or keywords, not both")
        storage = self.connection.storage
        return StorageVolume(self.connection, storage.storage_vol_create_xml(self._ref, xml_of(document)))

    def clone_volume(
        self,
        source: StorageVolume,
        document: str | Document | None = None,
        *,
        name: str | None = None,
        format: str | None = None,
        progress: Progress | None = None,
    ) -> StorageVolume:
        """Create a volume and fill it with another's content, converted where the formats differ.

        Args:
            source: the volume to copy; of this pool or another.
            document: the new volume's document; excludes ``name`` and ``format``.
            name: the new volume's name.
            format: the new volume's format; the source's when left out.
            progress: called with the bytes done and in all.
        """
        if document is None:
            target = format or _format_of(source)
            document = _volume_document(name, source.info().capacity, target, 0, None, None)
        elif name is not None or format is not None:
            raise TypeError("clone_volume() takes a document or keywords, not both")
        ref = self.connection.storage.storage_vol_create_xml_from(
            self._ref, xml_of(document), source.ref, VolumeCreateFlag.NONE, progress
        )
        return StorageVolume(self.connection, ref)


class StorageVolume:
    """A handle of a volume.

    Attributes:
        ref: what the storage driver calls it.
    """

    def __init__(self, connection: Connection, ref: VolumeRef) -> None:
        self.connection = connection
        self.ref = ref

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorageVolume) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<StorageVolume {self.name} in {self.ref.pool}>"

    @property
    def name(self) -> str:
        """The volume's name in its pool."""
        return self.ref.name

    @property
    def key(self) -> str:
        """What names it among all volumes; for files the path."""
        return self.ref.key

    @property
    def path(self) -> str:
        """Where a hypervisor finds it."""
        return self.connection.storage.storage_vol_get_path(self.ref)

    @property
    def pool(self) -> StoragePool:
        """The pool it is in."""
        return StoragePool(self.connection, self.connection.storage.storage_pool_lookup_by_volume(self.ref))

    def info(self, *, physical: bool = False) -> VolumeInfo:
        """Type, and capacity and allocation in bytes; with ``physical`` where the file ends as the allocation."""
        return self.connection.storage.storage_vol_get_info(self.ref, physical=physical)

    def xml(self) -> str:
        """The volume's document."""
        return self.connection.storage.storage_vol_get_xml_desc(self.ref)

    def delete(self) -> None:
        """Remove it and its content."""
        self.connection.storage.storage_vol_delete(self.ref)

    def wipe(self, algorithm: WipeAlgorithm = WipeAlgorithm.ZERO, progress: Progress | None = None) -> None:
        """Overwrite its content, so that it cannot be read back; what is left is a raw volume."""
        self.connection.storage.storage_vol_wipe_pattern(self.ref, algorithm, progress)

    def resize(self, capacity: int, *, delta: bool = False, shrink: bool = False, allocate: bool = False) -> None:
        """Change its capacity.

        Args:
            capacity: bytes; the change with ``delta``.
            delta: grow by ``capacity``, or with ``shrink`` shrink by it.
            shrink: allow to shrink, which loses what is beyond.
            allocate: have the new space on the host at once.
        """
        flags = VolumeResizeFlag.NONE
        for wanted, flag in (
            (delta, VolumeResizeFlag.DELTA),
            (shrink, VolumeResizeFlag.SHRINK),
            (allocate, VolumeResizeFlag.ALLOCATE),
        ):
            if wanted:
                flags |= flag
        self.connection.storage.storage_vol_resize(self.ref, capacity, flags)

    def upload(self, source: Source, offset: int = 0, length: int = 0, *, trusted: bool = False) -> None:
        """Overwrite the file's bytes from ``offset``: with a binary file's, an iterable's, or with these.

        At most ``length`` bytes unless that is 0. A :class:`Hole` in an iterable reads as zeroes afterwards. An image
        that names other files (a backing file, a data file) is stored as it is, but no machine and no clone follows
        these names, unless it is ``trusted``.
        """
        self.connection.storage.storage_vol_upload(self.ref, _pieces(source), offset, length, trusted=trusted)

    def download(self, offset: int = 0, length: int = 0) -> Iterator[memoryview]:
        """The file's bytes as they are, piece by piece; ``length`` 0 is to the end.

        A piece is good until the next one is asked for.
        """
        pieces = self.connection.storage.storage_vol_download(self.ref, offset, length)
        return (piece for piece in pieces if not isinstance(piece, Hole))

    def download_sparse(self, offset: int = 0, length: int = 0) -> Iterator[memoryview | Hole]:
        """As :meth:`download`, but what the file never held is told as holes."""
        return self.connection.storage.storage_vol_download(self.ref, offset, length, sparse=True)


def _pieces(source: Source) -> Iterable[bytes | memoryview | Hole]:
    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(source)
    read = getattr(source, "read", None)
    if read is not None:
        return iter(lambda: read(_CHUNK), b"")
    return source


def _format_of(volume: StorageVolume) -> str:
    element = ElementTree.fromstring(volume.xml()).find("target/format")
    return element.get("type", "raw") if element is not None else "raw"


def _volume_document(
    name: str | None,
    capacity: int | None,
    format: str | None,
    allocation: int | None,
    backing: StorageVolume | str | None,
    backing_format: str | None,
) -> str:
    if not name:
        raise fault(ErrorCode.INVALID_ARG, "a new volume needs a name: name='disk.qcow2'", ErrorDomain.STORAGE)
    if capacity is None and backing is None:
        raise fault(
            ErrorCode.INVALID_ARG,
            f"volume '{name}' needs a capacity in bytes: capacity=10 * 1024**3",
            ErrorDomain.STORAGE,
        )
    root = ElementTree.Element("volume")
    ElementTree.SubElement(root, "name").text = name
    if capacity is not None:
        ElementTree.SubElement(root, "capacity", unit="bytes").text = str(capacity)
    ElementTree.SubElement(root, "allocation", unit="bytes").text = str(allocation or 0)
    target = ElementTree.SubElement(root, "target")
    if format or backing is not None:
        ElementTree.SubElement(target, "format", type=format or "qcow2")
    if backing is not None:
        store = ElementTree.SubElement(root, "backingStore")
        path = backing if isinstance(backing, str) else backing.path
        ElementTree.SubElement(store, "path").text = path
        below = backing_format or (None if isinstance(backing, str) else _format_of(backing))
        if below:
            ElementTree.SubElement(store, "format", type=below)
    return ElementTree.tostring(root, encoding="unicode")
