"""Persistent dirty bitmaps ("Bitmaps extension", "Bitmaps" in the qcow2 specification).

While an image is written its bitmaps live in memory and are marked IN_USE on disk; closing the image stores them. The
directory and the header extension are changed only while the autoclear bit is off: cut off at any write, there are
either the old bitmaps, or none that anybody would trust.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hostel.block import notice
from hostel.block.bitmap import DirtyBitmap
from hostel.block.formats.qcow2 import bitmap_directory, layout
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.bitmap_directory import (
    MAX_BITMAP,
    MAX_BITMAPS,
    MAX_DIRECTORY,
    MAX_NAME,
    Entry,
    Extension,
)
from hostel.block.formats.qcow2.layout import Autoclear, ExtensionType
from hostel.block.powers import BitmapInfo
from hostel.block.trust import Trust
from hostel.codec.table import pack_table
from hostel.errors import BlockError, CorruptImage
from hostel.units import SECTOR

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.image import Qcow2Image

_MIN_GRANULARITY_BITS: Final = 9
_MAX_GRANULARITY_BITS: Final = 31
_STALE: Final = "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent"
_STALE_IN_VERSION_2: Final = (
    "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent bitmap "
    "support; so now they must all be considered inconsistent"
)
_DIRTY_BITMAPS: Final = 1  # the only type there is


class Bitmap:
    """One bitmap of an image.

    Attributes:
        name: bytes as stored.
        enabled: it records writes.
        inconsistent: it was IN_USE when the image was opened, and has no bits worth anything.
        entry: where it is stored; None while it is new.
        dirty: its bits; None until they are loaded.
    """

    def __init__(self, name: bytes, granularity: int, *, enabled: bool, inconsistent: bool = False) -> None:
        self.name = name
        self.granularity = granularity
        self.enabled = enabled
        self.inconsistent = inconsistent
        self.entry: Entry | None = None
        self.dirty: DirtyBitmap | None = None

    def info(self) -> BitmapInfo:
        """What the public API tells of it."""
        name = self.name.decode(errors="surrogateescape")
        flags = ("in-use",) * self.inconsistent + ("auto",) * self.enabled
        return BitmapInfo(name, self.granularity, flags)


class Bitmaps:
    """All bitmaps of one image."""

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image
        self._loaded: list[Bitmap] | None = None
        self._recording: list[DirtyBitmap] = []
        self._ignores = False  # writes
        self._begun = False

    def present(self) -> bool:
        """Whether the image has bitmaps that may be trusted."""
        header = self._image.header
        has = header.autoclear_features & Autoclear.BITMAPS and header.version >= 3
        return bool(has) and self._image.preamble.extension(ExtensionType.BITMAPS) is not None

    def _stale(self) -> bool:
        """Whether the image has bitmaps that somebody who knows of none has written past."""
        return self._image.preamble.extension(ExtensionType.BITMAPS) is not None and not self.present()

    def inspect(self) -> None:
        """Look at the directory as the image is opened; bitmaps that are of no use any more are told of.

        Raises:
            CorruptImage: the directory makes no sense.
        """
        mode = self._image.mode
        if mode.no_io and mode.trust is Trust.UNTRUSTED:
            return  # nobody has asked for more than what the image is
        self.warn_of_stale()
        self.all()

    def warn_of_stale(self) -> None:
        """Tell of bitmaps that are of no use any more."""
        if self._stale():
            notice.tell(f"warning: {_STALE if self._image.header.version >= 3 else _STALE_IN_VERSION_2}")
            notice.tell("Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.")

    def drop_stale(self) -> None:
        """Take bitmaps that are of no use any more out of the header, if there are such."""
        if self._stale():
            self._switch(0, 0, 0)

    def give_up_broken(self) -> str | None:
        """Drop all bitmaps where they cannot be read, so that the rest of the image can be used again.

        Returns:
            what was wrong; None where nothing was, and nothing was changed.
        """
        image = self._image
        extension = image.preamble.extension(ExtensionType.BITMAPS)
        if extension is None or not self.present():
            return None
        try:
            for entry, name in self._entries():
                bitmap_directory.read_table(image.file, image.geometry, image.size, entry, name)
        except CorruptImage as error:
            self._switch(0, 0, 0)
            return error.message
        return None

    def all(self) -> list[Bitmap]:
        """The bitmaps, in the order of the directory.

        Raises:
            CorruptImage: the directory makes no sense.
        """
        if self._loaded is None:
            self._loaded = self._read_directory() if self.present() else []
        return self._loaded

    def forget(self) -> None:
        """Read the directory again when next asked."""
        self._loaded, self._recording, self._begun = None, [], False

    def find(self, name: str) -> Bitmap:
        """The bitmap of a name.

        Raises:
            BlockError: there is none (ENOENT).
        """
        wanted = name.encode(errors="surrogateescape")
        for bitmap in self.all():
            if bitmap.name == wanted:
                return bitmap
        raise BlockError(f"Dirty bitmap '{name}' not found", errno=errno.ENOENT)

    def load(self, bitmap: Bitmap) -> DirtyBitmap:
        """The bits of a bitmap.

        Raises:
            BlockError: it is inconsistent.
            CorruptImage: its table makes no sense.
        """
        _require_consistent(bitmap)
        if bitmap.dirty is None:
            bitmap.dirty = self._read_bits(bitmap)
        return bitmap.dirty

    # ---- recording

    @property
    def in_use(self) -> bool:
        """Whether they are marked on disk as not to be believed, until they are stored."""
        return self._begun

    def begin(self) -> None:
        """Before the first write: load what records writes, and mark all bitmaps IN_USE on disk; stale ones go."""
        self.drop_stale()
        if self._begun or not self.present():
            return
        for bitmap in self.all():
            if not bitmap.inconsistent:
                self.load(bitmap)
        self._mark_in_use()
        self._begun = True
        self._select()

    def _select(self) -> None:
        self._recording = [
            bitmap.dirty for bitmap in self.all() if bitmap.enabled and bitmap.dirty and not bitmap.inconsistent
        ]

    def mark(self, offset: int, length: int) -> None:
        """A guest range was written."""
        if self._ignores:
            return
        for bitmap in self._recording:
            bitmap.mark(offset, min(length, bitmap.size - offset))

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """See :meth:`hostel.block.powers.BitmapStore.unrecorded`."""
        self._ignores = True
        try:
            yield
        finally:
            self._ignores = False

    def resize(self, size: int) -> None:
        """The image has another size now."""
        for bitmap in self.all():
            if bitmap.dirty is not None:
                bitmap.dirty.resize(size)

    def require_resizable(self, size: int) -> None:
        """Refuse a new size that a bitmap could not follow.

        Raises:
            BlockError: one is inconsistent, would have no bytes to tell of, or be larger than a bitmap may be, which
                nobody could read.
        """
        if not size and self.all():
            raise BlockError("Cannot resize qcow2 with persistent bitmaps to 0 bytes", errno=95)
        for bitmap in self.all():
            _require_consistent(bitmap)
            if size > MAX_BITMAP * 8 * bitmap.granularity:
                name = bitmap.name.decode(errors="replace")
                raise BlockError(
                    f"Too much space will be occupied by the bitmap '{name}' of a disk of {size} bytes",
                    errno=errno.EFBIG,
                    hint="Remove it, and add one with a larger granularity.",
                )

    # ---- changing

    def add(self, name: str, granularity: int, *, enabled: bool) -> None:
        """Make an empty bitmap.

        Raises:
            BlockError: it exists, or is out of the format's limits.
        """
        encoded = name.encode(errors="surrogateescape")
        image = self._image
        self._check_new(name, encoded, granularity)
        image.begin_write()
        bitmap = Bitmap(encoded, granularity, enabled=enabled)
        bitmap.dirty = DirtyBitmap(image.size, granularity)
        self.all().append(bitmap)
        self._begun = True
        self._select()

    def _check_new(self, name: str, encoded: bytes, granularity: int) -> None:
        if granularity & (granularity - 1) or granularity < 1 << _MIN_GRANULARITY_BITS:
            raise BlockError("Granularity must be power of 2 and at least 512", errno=errno.EINVAL)
        if any(bitmap.name == encoded for bitmap in self.all()):
            raise BlockError(f"Bitmap already exists: {name}", errno=errno.EEXIST)
        image = self._image
        try:
            if image.header.version < 3:
                raise BlockError("Cannot store dirty bitmaps in qcow2 v2 files", errno=errno.EINVAL)
            if not image.size:
                raise BlockError("The image has no bytes that could be written", errno=errno.EINVAL)
            _check_limits(image.size, [bitmap.name for bitmap in self.all()], encoded, granularity)
        except BlockError as error:
            error.message = f"Can't make bitmap '{name}' persistent in '{image.file.filename}': {error.message}"
            raise

    def remove(self, name: str) -> None:
        """Drop a bitmap."""
        bitmap = self.find(name)
        self._image.begin_write()
        bitmap = self.find(name)
        self.all().remove(bitmap)
        self._begun = True
        self._select()

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Let a bitmap record writes or not.

        Raises:
            BlockError: there is none of this name, or it is inconsistent.
        """
        self.load(self.find(name))
        self._image.begin_write()
        self.find(name).enabled = enabled
        self._select()

    def clear(self, name: str) -> None:
        """Set all bits of a bitmap to 0."""
        self.load(self.find(name))
        self._image.begin_write()
        self.load(self.find(name)).clear()

    def merge(self, name: str, source: DirtyBitmap) -> None:
        """Mark in a bitmap what is dirty in another.

        Raises:
            BlockError: there is none of this name, it is inconsistent, or the images differ in size.
        """
        self.load(self.find(name)).require_size_of(source)
        self._image.begin_write()
        self.load(self.find(name)).merge(source)

    def replace(self, name: str, source: DirtyBitmap) -> None:
        """Let a bitmap be dirty where another is, and nowhere else.

        Raises:
            BlockError: there is none of this name, it is inconsistent, or the image cannot be written.
        """
        self.load(self.find(name))
        self._image.begin_write()
        self.load(self.find(name)).bits = bytearray(source.bits)

    # ---- reading

    def _extension(self) -> Extension:
        return bitmap_directory.parse_extension(self._image.preamble.extension(ExtensionType.BITMAPS) or b"")

    def _entries(self) -> list[tuple[Entry, bytes]]:
        image = self._image
        return bitmap_directory.read_entries(image.file, self._extension(), image.geometry, image.size)

    def _read_directory(self) -> list[Bitmap]:
        found = []
        for entry, name in self._entries():
            in_use, auto = bool(entry.flags & bitmap_directory.IN_USE), bool(entry.flags & bitmap_directory.AUTO)
            bitmap = Bitmap(name, 1 << entry.granularity_bits, enabled=auto, inconsistent=in_use)
            bitmap.entry = entry
            found.append(bitmap)
        return found

    def _read_bits(self, bitmap: Bitmap) -> DirtyBitmap:
        image, entry = self._image, bitmap.entry
        assert entry is not None
        dirty = DirtyBitmap(image.size, bitmap.granularity)
        needed = len(dirty.bits)
        size = image.geometry.cluster_size
        table = bitmap_directory.read_table(image.file, image.geometry, image.size, entry, bitmap.name)
        for index, item in enumerate(table):
            offset = item & layout.OFFSET_MASK
            part = min(size, needed - index * size)
            if offset:
                dirty.bits[index * size : index * size + part] = image.file.read(offset, part)
            elif item & 1:
                dirty.bits[index * size : index * size + part] = b"\xff" * part
        return DirtyBitmap(image.size, bitmap.granularity, dirty.bits)

    # ---- storing

    def _mark_in_use(self) -> None:
        """Rewrite the directory where it is, every entry IN_USE."""
        extension = self._extension()
        entries = [(bitmap, bitmap.entry) for bitmap in self.all() if bitmap.entry is not None]
        data = b"".join(
            _entry_bytes(entry.replace(flags=entry.flags | bitmap_directory.IN_USE), bitmap.name)
            for bitmap, entry in entries
        )
        if len(data) != extension.directory_size:
            raise CorruptImage("Broken bitmap directory")
        # Of an entry only a flag changes, and no sector border lies in it: cut off, some are marked and some are not.
        self._image.file.pwrite(extension.directory_offset, data)
        self._image.file.flush()

    def store(self) -> None:
        """Write all bitmaps anew, make the header point to them, and give the old ones up."""
        if not self._begun:
            return
        image = self._image
        if image.mode.read_only:
            # QEMU lets bitmaps be added here, which are stored if the image is opened for writing meanwhile.
            notice.tell(f"Lost persistent bitmaps during inactivation of node '{image.called()}': No write access")
            self._begun = False
            return
        old = self._occupied()
        placed: list[tuple[int, int]] = []
        try:
            entries = [self._write_bitmap(bitmap, placed) for bitmap in self.all()]
            data = b"".join(_entry_bytes(entry, bitmap.name) for entry, bitmap in zip(entries, self.all(), strict=True))
            offset = self._write(data, placed) if data else 0
            image.flush_metadata()
            self._switch(len(entries), len(data), offset)
        except BaseException:
            if image.broken is None:
                # Nothing on disk points to them.
                for place, length in placed:
                    image.refcounts.free(place, length)
            raise
        for entry, bitmap in zip(entries, self.all(), strict=True):
            bitmap.entry = entry
        for place, length in old:
            image.space.release(place, length)
        image.flush_metadata()
        self._begun = False

    def _write(self, data: bytes, placed: list[tuple[int, int]]) -> int:
        """Write into new clusters, which are added to those that were ``placed``; returns the host offset."""
        image = self._image
        offset = image.space.allocate(len(data))
        placed.append((offset, len(data)))
        # Up to a sector: nobody reads further, and the file need not be longer.
        image.file.pwrite(offset, data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0"))
        return offset

    def _switch(self, count: int, size: int, offset: int) -> None:
        extension = Extension(count=count, reserved=bytes(4), directory_size=size, directory_offset=offset).pack()
        image = self._image
        changed = headers.replace_extension(image.preamble, ExtensionType.BITMAPS, extension if count else None)
        features = image.header.autoclear_features & ~int(Autoclear.BITMAPS) | (int(Autoclear.BITMAPS) if count else 0)
        image.write_preamble(changed._replace(header=changed.header.replace(autoclear_features=features)))

    def _occupied(self) -> list[tuple[int, int]]:
        """What the stored bitmaps occupy: host offsets and lengths, bytes."""
        image = self._image
        if not self.present():
            return []
        extension = self._extension()
        found = [(extension.directory_offset, extension.directory_size)]
        for entry, name in self._entries():
            if entry.table_size:
                found.append((entry.table_offset, entry.table_size * 8))
            table = bitmap_directory.read_table(image.file, image.geometry, image.size, entry, name)
            clusters = (item & layout.OFFSET_MASK for item in table)
            found.extend((cluster, image.geometry.cluster_size) for cluster in clusters if cluster)
        return found

    def _write_bitmap(self, bitmap: Bitmap, placed: list[tuple[int, int]]) -> Entry:
        """Write a bitmap's bits and table; returns its directory entry."""
        image = self._image
        size = image.geometry.cluster_size
        table = array("Q")
        bits = b"" if bitmap.dirty is None else bitmap.dirty.bits
        length = len(bits) if bitmap.dirty is not None else -(-image.size // (8 * bitmap.granularity))
        for start in range(0, length, size):
            part = bytes(bits[start : start + size])
            if not part.strip(b"\0"):
                table.append(0)
            elif len(part) == size and not part.strip(b"\xff"):
                table.append(1)
            else:
                table.append(self._write(part, placed))
        offset = self._write(pack_table(table), placed) if table else 0
        flags = bitmap.enabled * bitmap_directory.AUTO | bitmap.inconsistent * bitmap_directory.IN_USE
        return Entry(
            table_offset=offset,
            table_size=len(table),
            flags=flags,
            type=_DIRTY_BITMAPS,
            granularity_bits=bitmap.granularity.bit_length() - 1,
            name_length=len(bitmap.name),
            extra_data_size=0,
        )


def _entry_bytes(entry: Entry, name: bytes) -> bytes:
    data: bytes = entry.pack() + name
    return data + bytes(-len(data) % 8)


def _require_consistent(bitmap: Bitmap) -> None:
    if bitmap.inconsistent:
        name = bitmap.name.decode(errors="replace")
        raise BlockError(
            f"Bitmap '{name}' is inconsistent and cannot be used",
            errno=errno.EINVAL,
            hint="Try block-dirty-bitmap-remove to delete this bitmap from disk",
        )


def _check_limits(size: int, present: list[bytes], name: bytes, granularity: int) -> None:
    bits = granularity.bit_length() - 1
    if bits > _MAX_GRANULARITY_BITS:
        raise BlockError(f"Granularity exceeds maximum ({1 << _MAX_GRANULARITY_BITS} bytes)", errno=errno.EINVAL)
    if size > MAX_BITMAP * 8 << bits:
        raise BlockError("Too much space will be occupied by the bitmap. Use larger granularity", errno=errno.EINVAL)
    if not name:
        raise BlockError("Bitmap name cannot be empty", errno=errno.EINVAL)
    if len(name) > MAX_NAME:
        raise BlockError(f"Name length exceeds maximum ({MAX_NAME} characters)", errno=errno.EINVAL)
    if len(present) >= MAX_BITMAPS:
        raise BlockError("Maximum number of persistent bitmaps is already reached", errno=errno.EINVAL)
    if sum(bitmap_directory.entry_length(len(each)) for each in (*present, name)) > MAX_DIRECTORY:
        raise BlockError("Not enough space in the bitmap directory", errno=errno.EINVAL)


def default_granularity(cluster_size: int) -> int:
    """QEMU's default: the cluster size, from 4 KiB to 64 KiB."""
    return min(max(cluster_size, 4096), 65536)
