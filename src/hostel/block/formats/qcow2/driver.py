"""The format driver ``qcow2``: an image as nodes see it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from hostel.block import notice
from hostel.block.bitmap import DirtyBitmap
from hostel.block.driver import FormatDriver, FormatInfo, OpenMode, Reference, Supports
from hostel.block.extent import Extent, Status
from hostel.block.formats.qcow2 import filling, layout
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.creation import AMEND_OPTIONS, CREATE_OPTIONS
from hostel.block.formats.qcow2.encryption import Encryption, open_encryption
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.layout import Compatible, Compression, ExtensionType, Incompatible
from hostel.block.formats.qcow2.mapping import runs
from hostel.block.formats.qcow2.preallocated import is_preallocated, with_holes
from hostel.block.formats.qcow2.runtime import RUNTIME_OPTIONS, check_runtime_options, joined_options
from hostel.block.formats.qcow2.write import new_guest
from hostel.block.formats.run import Kind
from hostel.block.node import BlockNode
from hostel.block.options import Options, Value
from hostel.block.powers import (
    BitmapInfo,
    CheckResult,
    Measured,
    ModeChange,
    Preallocation,
    Repair,
    Report,
    SnapshotInfo,
)
from hostel.errors import BlockError, InvalidImage

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hostel.block.formats.qcow2.columns import Columns

_STATUS: Final = {
    Kind.UNALLOCATED: Status.UNALLOCATED,
    Kind.ZERO: Status.ZERO | Status.ALLOCATED,
    Kind.DATA: Status.DATA | Status.ALLOCATED,
    Kind.COMPRESSED: Status.DATA | Status.ALLOCATED | Status.COMPRESSED,
}


class Qcow2Driver(FormatDriver):
    """QEMU copy-on-write images, versions 2 and 3."""

    name = "qcow2"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.BACKING
    options: Final = RUNTIME_OPTIONS  # type: ignore[misc]
    create_options: Final[Options] = CREATE_OPTIONS
    amend_options: Final[Options] = AMEND_OPTIONS

    def __init__(self, file: BlockNode, image: Qcow2Image, encryption: Encryption | None = None) -> None:
        super().__init__()
        self.children["file"] = file
        self._image = image
        self._guest = new_guest(image)
        self._guest.encryption = encryption
        if encryption is not None:
            self.supports |= Supports.COMPUTES
        self._preallocated: bool | None = None  # looked at when it is first wanted
        self._busy_bitmaps: dict[str, bool] = {}

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image; one that is marked dirty is repaired first where it is opened for writing.

        Raises:
            InvalidImage: the header or a table is malformed.
            CorruptImage: the image is marked corrupt and was to be written.
            UnsupportedFeature: a feature is unknown or not implemented.
        """
        image = Qcow2Image(file, mode)
        if mode.check:
            from hostel.block.formats.qcow2.readable import require_readable

            require_readable(image)
        check_runtime_options(mode.options, image.header, image.geometry)
        encryption = open_encryption(image, mode)
        dirty = image.header.incompatible_features & Incompatible.DIRTY
        if dirty and not mode.read_only and not mode.check:
            _repair_dirty(image)
        return cls(file, image, encryption)

    @classmethod
    def joined_options(cls, before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The options of an image that is opened again."""
        return joined_options(before, changes)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By magic and version."""
        known = head[:4] == layout.MAGIC and int.from_bytes(head[4:8], "big") >= 2
        return 100 if known else 0

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created; see :func:`hostel.block.formats.qcow2.create.check_creation`."""
        from hostel.block.formats.qcow2.create import check_creation

        check_creation(size, options)

    @classmethod
    def measure(cls, size: int, options: Mapping[str, Value], data: Iterable[tuple[int, int]] | None) -> Measured:
        """Measure an image; see :func:`hostel.block.formats.qcow2.measure.measure`."""
        from hostel.block.formats.qcow2.measure import measure

        return measure(size, options, data)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an empty image; see :func:`hostel.block.formats.qcow2.create.create_image`."""
        from hostel.block.formats.qcow2.create import create_image

        create_image(file, size, options)

    @property
    def length(self) -> int:
        """The virtual size in bytes, in whole sectors as QEMU has it."""
        return self._image.size & ~511

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from this layer and, where it says nothing, from the backing node."""
        self._below()
        self._guest.read(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write in place or into new clusters."""
        self._below()
        self._guest.write(offset, data)

    def reserve(self, offset: int, length: int) -> int | None:
        """Take a place for unallocated clusters; see :class:`hostel.block.filling.Filling`."""
        self._below()
        return filling.reserve(self._guest, offset, length)

    def fill(self, place: int, data: memoryview) -> None:
        """Write guest data to a place that was taken."""
        self._image.file.debug_event("write_aio")
        self._image.data.pwrite(place, data)

    def adopt(self, offset: int, length: int, place: int) -> bool:
        """Refer to what was written."""
        return filling.adopt(self._guest, offset, length, place)

    def abandon(self, place: int, length: int) -> None:
        """Give a place back."""
        self._image.space.abandon_data(place, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero by changing table entries where that is possible."""
        self._below()
        self._guest.write_zeroes(offset, length, unmap=unmap)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether table entries say it all: from version 3 on there is a word for a cluster of zeroes."""
        self._below()
        return self._image.header.version >= 3 and self._guest.zeroes_by_entries(offset, length)

    def discard(self, offset: int, length: int) -> None:
        """Give whole clusters back."""
        self._below()
        self._guest.discard(offset, length)

    def flush(self) -> None:
        """Write what is held back, in order, and sync."""
        self._image.flush_data()
        self._image.write_metadata()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """This layer's clusters; holes of the host's file in them are zeroes where metadata was preallocated."""
        found = self._extents(offset, length)
        if self._guest.encryption is not None:  # what the host's file has there is not what the guest reads
            return (extent._replace(host_offset=None) for extent in found)
        return with_holes(self._image, found) if self._is_preallocated() else found

    def _is_preallocated(self) -> bool:
        if self._preallocated is None:
            self._below()  # the holes are those of an external data file, where there is one
            self._preallocated = is_preallocated(self._image)
        return self._preallocated

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for run in runs(self._image, offset, length, every_place=True):
            placed = run.kind is Kind.DATA or (run.kind is not Kind.COMPRESSED and run.host)
            host = run.host if placed else None
            yield Extent(run.offset, run.length, _STATUS[run.kind], host)

    def columns(self) -> Iterator[Columns] | None:
        """All runs by columns; see :func:`hostel.block.formats.qcow2.columns.columns`."""
        from hostel.block.formats.qcow2.columns import columns

        return None if self._is_preallocated() else columns(self._image)

    def references(self) -> Sequence[Reference]:
        """The backing file, where one is recorded, and the external data file, whose name may be empty."""
        preamble = self._image.preamble
        found: list[Reference] = []
        if preamble.backing_file is not None:
            found.append(Reference("backing", preamble.backing_file, preamble.backing_format))
        if self._image.external:
            name = preamble.extension(ExtensionType.DATA_FILE)
            found.append(Reference("data-file", (name or b"").decode(errors="surrogateescape"), "file"))
        return found

    def info(self) -> FormatInfo:
        """Cluster size and QEMU's format-specific part."""
        header = self._image.header
        return FormatInfo(
            cluster_size=self._image.geometry.cluster_size,
            dirty=bool(header.incompatible_features & Incompatible.DIRTY),
            encrypted=bool(header.crypt_method),
            vm_state_offset=self._image.geometry.l1_entries(header.size) * self._image.geometry.l2_reach,
            specific=_specific(self._image, self._guest.encryption),
        )

    def close(self) -> None:
        """Write what is held back."""
        self._image.close()

    # ---- optional powers

    @property
    def called(self) -> Callable[[], str]:
        """The name of the node that this is the driver of; see :class:`hostel.block.powers.Named`."""
        return self._image.called

    @called.setter
    def called(self, called: Callable[[], str]) -> None:
        self._image.called = called

    def reopened(self, change: ModeChange) -> Qcow2Driver:
        """Write out what is held back and open the image anew; see :class:`hostel.block.powers.Reopenable`."""
        mode = change(self._image.mode)
        if mode.read_only:
            self._require_bitmaps_settled()
        in_use = self._image.bitmaps.in_use
        self._image.close()
        driver = Qcow2Driver.open(self.children["file"], mode)
        driver.children.update(self.children)
        driver.called = self.called
        driver._busy_bitmaps = self._busy_bitmaps
        if in_use and driver._busy_bitmaps and not driver._image.mode.read_only:
            driver._image.begin_write()  # a job may have marked them: killed, it leaves none that is believed
        return driver

    def _require_bitmaps_settled(self) -> None:
        """Refuse to be only read while a job has still to write a bitmap in its end."""
        for name, is_to_change in self._busy_bitmaps.items():
            if is_to_change:
                raise BlockError(
                    f"Bitmap '{name}' is currently in use by another operation and cannot be made readonly",
                    errno=errno.EBUSY,
                    hint="Wait for the end of the job that will write the bitmap, or cancel the job.",
                )

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Change the virtual size; see :func:`hostel.block.formats.qcow2.resize.resize`."""
        from hostel.block.formats.qcow2.resize import resize

        self._below()
        resize(self._guest, size, preallocation)

    def amend(self, options: Mapping[str, Value], *, force: bool, report: Callable[[int, int], None]) -> None:
        """Change what the image was created with; see :func:`hostel.block.formats.qcow2.amend.amend_image`."""
        from hostel.block.formats.qcow2.amend import amend_image

        self._below()
        amend_image(self._guest, options, force=force, report=report)

    def make_empty(self) -> None:
        """Drop all data of this layer."""
        from hostel.block.formats.qcow2.resize import make_empty

        self._below()
        make_empty(self._guest)

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check the image, and repair what ``repair`` allows.

        Raises:
            BlockError: the check could not be carried through.
        """
        from hostel.block.formats.qcow2.check import check_image

        if not self._image.mode.read_only and not self._image.mode.check:
            self._image.flush_metadata()
        if repair:
            self._image.bitmaps.drop_stale()  # the next check does not warn of them again
        given_up = self._image.bitmaps.give_up_broken() if repair & Repair.ERRORS else None
        if given_up is not None:
            report(f"Giving all bitmaps up: {given_up}")
        result = check_image(self._image, repair, report)
        result.corruptions_fixed += given_up is not None
        if repair:
            self._image.reload()
        return result

    def snapshots(self) -> list[SnapshotInfo]:
        """All snapshots, in the order of the table."""
        if not self._image.header.nb_snapshots:
            return []
        from hostel.block.formats.qcow2.snapshot import snapshots

        return snapshots(self._image)

    def snapshot_create(self, name: str, *, date: tuple[int, int], icount: int | None = 0) -> SnapshotInfo:
        """Keep the present state."""
        from hostel.block.formats.qcow2.snapshot import create_snapshot

        return create_snapshot(self._image, name, date, icount)

    def snapshot_apply(self, id_or_name: str) -> None:
        """Go back to a snapshot's state."""
        from hostel.block.formats.qcow2.snapshot import apply_snapshot

        apply_snapshot(self._image, id_or_name)

    def snapshot_delete(self, id_or_name: str) -> None:
        """Drop a snapshot."""
        from hostel.block.formats.qcow2.snapshot import delete_snapshot

        delete_snapshot(self._image, id_or_name)

    def snapshot_load(self, id: str | None, name: str | None) -> None:
        """Show a snapshot's content instead of the present one."""
        from hostel.block.formats.qcow2.snapshot import load_snapshot

        load_snapshot(self._image, id, name)

    def load_vm_state(self, offset: int, buf: memoryview) -> None:
        """Read machine state; see :mod:`hostel.block.formats.qcow2.vm_state`."""
        from hostel.block.formats.qcow2.vm_state import load_vm_state

        self._below()
        load_vm_state(self._guest, offset, buf)

    def save_vm_state(self, offset: int, data: memoryview) -> None:
        """Write machine state."""
        from hostel.block.formats.qcow2.vm_state import save_vm_state

        self._below()
        save_vm_state(self._guest, offset, data)

    @property
    def busy_bitmaps(self) -> dict[str, bool]:
        """See :class:`hostel.block.powers.BitmapStore`."""
        return self._busy_bitmaps

    @property
    def keeps_bitmaps(self) -> bool:
        """From version 3 on."""
        return self._image.header.version >= 3

    def bitmaps(self) -> list[BitmapInfo]:
        """All persistent bitmaps, in the order of the directory.

        Raises:
            CorruptImage: the directory makes no sense.
        """
        return [bitmap.info() for bitmap in self._image.bitmaps.all()]

    def bitmap(self, name: str) -> DirtyBitmap:
        """The bits of a bitmap.

        Raises:
            BlockError: there is none of this name (ENOENT), or it is inconsistent.
        """
        return self._image.bitmaps.load(self._image.bitmaps.find(name))

    def bitmap_add(self, name: str, granularity: int | None = None, *, enabled: bool = True) -> None:
        """Make an empty bitmap; its granularity in bytes is QEMU's default where none is given."""
        from hostel.block.formats.qcow2.bitmap import default_granularity

        self._image.bitmaps.add(name, granularity or default_granularity(self.cluster_size), enabled=enabled)

    def bitmap_remove(self, name: str) -> None:
        """Drop a bitmap, an inconsistent one as well."""
        self._image.bitmaps.remove(name)

    def bitmap_clear(self, name: str) -> None:
        """Set all bits of a bitmap to 0."""
        self._image.bitmaps.clear(name)

    def bitmap_enable(self, name: str, enabled: bool) -> None:
        """Let a bitmap record writes or not."""
        self._image.bitmaps.set_enabled(name, enabled)

    def bitmap_merge(self, name: str, source: DirtyBitmap) -> None:
        """Mark in a bitmap what is dirty in another one, of this image or of another."""
        self._image.bitmaps.merge(name, source)

    def bitmap_replace(self, name: str, source: DirtyBitmap) -> None:
        """Let a bitmap be dirty where another one is, and nowhere else."""
        self._image.bitmaps.replace(name, source)

    def unrecorded(self) -> AbstractContextManager[None]:
        """Record no writes meanwhile."""
        return self._image.bitmaps.unrecorded()

    def change_backing(self, filename: str | None, format: str | None) -> None:
        """Record another backing file, or none.

        Raises:
            NoSpace: the name does not fit into the first cluster.
        """
        if filename is None and format is not None:
            raise BlockError("A backing format needs a backing file", errno=22)
        if filename and self._image.raw_external:
            # Who reads the data file alone would not see it.
            raise BlockError("An image with a raw data file has no backing file", errno=22)
        if filename is not None and len(filename.encode(errors="surrogateescape")) > layout.MAX_BACKING_NAME:
            raise InvalidImage("Backing file name too long")
        if format is not None and len(format.encode(errors="surrogateescape")) >= 16:
            raise InvalidImage("Backing format name too long")
        image = self._image
        image.begin_write()
        image.flush_metadata()
        data = format.encode(errors="surrogateescape") if format else None
        preamble = headers.with_extension(image.preamble, ExtensionType.BACKING_FORMAT, data)
        image.write_preamble(preamble._replace(backing_file=filename))

    @property
    def cluster_size(self) -> int:
        """Bytes of the unit of compression."""
        return self._image.geometry.cluster_size

    def compressor(self) -> Callable[[bytes | bytearray | memoryview], bytes | None]:
        """A function for one thread that compresses one whole cluster."""
        from hostel.block.formats.qcow2.compressed import packer

        return packer(self._image.header.compression_type, self.cluster_size)

    def deferred_read(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Look up compressed clusters, or encrypted ones, that are read without the lock.

        Raises:
            BlockError: the range is not all compressed, or all encrypted.
        """
        self._below()
        batch = [(run.offset - offset, run) for run in runs(self._image, offset, length)]
        if batch[0][1].kind is Kind.DATA and self._guest.encryption is not None:
            encryption, data = self._guest.encryption, self._image.data
            return lambda buf: encryption.read_runs(data, offset, [run for _, run in batch], buf)
        if any(run.kind is not Kind.COMPRESSED for _, run in batch):
            raise BlockError("Only compressed clusters can be looked up before they are read", errno=22)
        return lambda buf: self._guest.decompress(batch, buf)

    def pwrite_compressed(self, offset: int, payload: bytes) -> None:
        """Store a cluster's compressed payload.

        Raises:
            BlockError: ``offset`` is inside a cluster, or the payload is no shorter than one.
        """
        if offset % self.cluster_size or not 0 < len(payload) < self.cluster_size:
            raise BlockError("A compressed write is one whole cluster", errno=22)
        self._guest.write_compressed(offset, payload)

    def _below(self) -> None:
        # The graph opens the other nodes after this one.
        self._guest.backing = self.children.get("backing")
        if self._image.external:
            data = self.children.get("data-file")
            if data is None:
                raise InvalidImage("'data-file' is required for this image")
            self._image.data = data


def _repair_dirty(image: Qcow2Image) -> None:
    from hostel.block.formats.qcow2.repair import repair_image

    image.mode = image.mode._replace(check=True)
    result = repair_image(image, Repair.ALL, notice.tell)
    image.mode = image.mode._replace(check=False)
    if result.corruptions or result.check_errors:
        raise BlockError("Could not repair dirty image", errno=5, hint="Look at it with qemu-img check.")
    image.reload()


def _specific(image: Qcow2Image, encryption: Encryption | None) -> dict[str, Any]:
    header = image.header
    kind = Compression(header.compression_type).name.lower()
    encrypt = {} if encryption is None else {"encrypt": encryption.describe()}
    if header.version < 3:
        return {"compat": "0.10", "compression-type": kind, "refcount-bits": image.geometry.refcount_bits, **encrypt}
    name = image.preamble.extension(ExtensionType.DATA_FILE)
    external: dict[str, Any] = {"data-file": name.decode(errors="replace")} if name else {}
    if image.external:
        external["data-file-raw"] = image.raw_external
    if bitmaps := image.bitmaps.all():
        external["bitmaps"] = [each.info()._asdict() | {"flags": list(each.info().flags)} for each in bitmaps]
    return {
        "compat": "1.1",
        "compression-type": kind,
        "lazy-refcounts": bool(header.compatible_features & Compatible.LAZY_REFCOUNTS),
        "refcount-bits": image.geometry.refcount_bits,
        "corrupt": bool(header.incompatible_features & Incompatible.CORRUPT),
        "extended-l2": bool(header.incompatible_features & Incompatible.EXTENDED_L2),
        **external,
        **encrypt,
    }
