"""Growing and shrinking, and preallocation."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable
from contextlib import suppress

from hostel.block.driver import Supports
from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.write import Guest, has_place
from hostel.block.powers import Preallocating, Preallocation
from hostel.block.protocols.file_space import RESIZE_FAILURES
from hostel.codec.table import pack_table
from hostel.errors import BlockError, CorruptImage, NoSpace, UnsupportedFeature
from hostel.units import INT64_MAX


def resize(guest: Guest, size: int, preallocation: Preallocation) -> None:
    """Change the virtual size to ``size`` bytes; new space reads as zeroes.

    Raises:
        BlockError: the size is none (EINVAL), or beyond what the cluster size can map (EFBIG).
        UnsupportedFeature: a version 2 image has snapshots.
        OSError: the host's own errors; the old size or the new one is live.
    """
    image = guest.image
    if size % 512:
        raise BlockError("The new size must be a multiple of 512", errno=errno.EINVAL)
    if image.header.nb_snapshots and image.header.version < 3:
        raise UnsupportedFeature("Can't resize a v2 image which has snapshots")
    image.bitmaps.require_resizable(size)
    if size == image.size:
        return
    if size < image.size:
        if preallocation is not Preallocation.OFF:
            raise BlockError("Preallocation can't be used for shrinking an image", errno=errno.EINVAL)
        _shrink(guest, size)
    else:
        if image.raw_external and preallocation is Preallocation.OFF:
            # Whoever reads the metadata, and whoever reads the data file alone, is to see the same, whatever is in it.
            preallocation = Preallocation.METADATA
        _grow(guest, size, preallocation)


def _grow(guest: Guest, size: int, preallocation: Preallocation) -> None:
    image = guest.image
    old = image.size
    data_length = image.data.length
    entries = image.geometry.l1_entries(size)
    if entries > layout.MAX_L1_SIZE // 8 or size > INT64_MAX:
        raise NoSpace(
            "Failed to grow the L1 table: File too large",
            errno=errno.EFBIG,
            hint="The cluster size limits the image's size.",
        )
    if preallocation in (Preallocation.FALLOC, Preallocation.FULL):
        _require_room(image, size - old, preallocation)
    image.begin_write()
    # An interrupted shrink leaves data beyond the end, which must not come back.
    # Machine state that stays where it is is no such data; what the disk grows over is not to show in it.
    _drop_beyond(guest, old, keeps_vm_state=entries == image.geometry.l1_entries(old))
    if image.external:
        image.flush_metadata()  # what was given up is gone before its place is mapped again
    _zero_tail(guest, old, size, allocate=preallocation is not Preallocation.OFF)
    grow_l1(image, entries)
    # Before the size changes, so that what a longer backing file has there never shows.
    _hide_backing(guest, old, size)
    _grow_data_file(image, size)
    image.flush_metadata()
    image.write_header_fields(image.header.replace(size=size), "size", "crypt_method")
    image.bitmaps.resize(size)
    if preallocation is not Preallocation.OFF:
        _preallocate_or_shrink(guest, old, preallocation, data_length)


def _require_room(image: Qcow2Image, length: int, mode: Preallocation) -> None:
    """See that the host has room for ``length`` more bytes and their metadata, before anything is changed.

    Raises:
        BlockError: it has not.
    """
    data, geometry = image.data, image.geometry
    if not isinstance(data.driver, Preallocating) or Supports.GROWS not in data.driver.supports:
        return
    per_cluster = geometry.entry_size + (1 << image.header.refcount_order) // 8
    needed = geometry.align(length) + geometry.align(geometry.clusters(length) * per_cluster)
    before = data.length
    try:
        data.preallocate(before, needed)
    except OSError as error:
        raise _not_preallocated(image, error, mode) from None
    finally:
        data.resize(before)


def _not_preallocated(image: Qcow2Image, error: OSError, mode: Preallocation) -> BlockError:
    where = "" if image.external else "Failed to resize underlying file: "
    hint = getattr(error, "hint", None)
    return BlockError(f"{where}{RESIZE_FAILURES[mode]}: {error.strerror}", errno=error.errno, hint=hint)


def _preallocate_or_shrink(guest: Guest, old: int, mode: Preallocation, data_length: int) -> None:
    """Preallocate what was added to an image of ``old`` bytes; where there is no room it has its old size again.

    What was reserved until then must not stay: it is the last space of the host's file system. ``data_length`` is what
    an external data file had.
    """
    image = guest.image
    start = image.geometry.align(old)
    try:
        preallocate(guest, start, image.size - start, mode)
    except OSError as error:
        with suppress(OSError):  # sound in either size, and what went wrong first is told
            _shrink(guest, old, kept=data_length)
        raise _not_preallocated(image, error, mode) from None


def _grow_data_file(image: Qcow2Image, size: int) -> None:
    """An external data file is at least as long as the image; a raw one exactly."""
    if image.external and image.data.length < size:
        image.data.resize(size)


def _zero_tail(guest: Guest, size: int, end: int, *, allocate: bool = False) -> None:
    """Zero what the last cluster has beyond ``size`` bytes: whoever grows the image next, not always we, shows it.

    With ``allocate`` it has a place on the host afterwards. ``end`` is how large the image becomes.
    """
    image = guest.image
    length = -size % image.geometry.cluster_size
    if image.external and not allocate and guest.encryption is None:
        length = min(length, image.data.length - size)  # what is not there will be zeroes
    elif image.raw_external:
        length = min(length, end - size)
    if length <= 0 or not image.l1:
        return
    table = image.l2_table(size // image.geometry.l2_reach)
    entry = 0 if table is None else table.entries[(size % image.geometry.l2_reach) >> image.geometry.cluster_bits]
    placed = has_place(entry, image) or bool(entry & layout.COMPRESSED)
    if not entry and not allocate:
        return

    def zero() -> None:
        if image.raw_external:
            # What the file has is what the disk gets, whatever the metadata said.
            kept = max(0, min(length, image.data.length - size))
            guest.write(size, memoryview(bytes(image.data.read(size, kept)).ljust(length, b"\0")))
        elif (allocate and not placed) or not guest.reads_as_zeroes(size, length):
            guest.write(size, memoryview(bytes(length)))

    with_size(guest, size + length, zero)


def _hide_backing(guest: Guest, old: int, size: int) -> None:
    if guest.backing is None or guest.backing.length <= old:
        return
    end = min(size, guest.image.geometry.align(guest.backing.length))
    with_size(guest, size, lambda: guest.write_zeroes(old, end - old, unmap=False))


def with_size(guest: Guest, size: int, call: Callable[[], None]) -> None:
    """Call with another size in memory, where the disk still has the old one."""
    image = guest.image
    preamble = image.preamble
    image.preamble = preamble._replace(header=preamble.header.replace(size=size))
    try:
        call()
    finally:
        image.preamble = image.preamble._replace(header=image.header.replace(size=preamble.header.size))


def grow_l1(image: Qcow2Image, entries: int) -> None:
    """Move the L1 table to where it has room for ``entries``."""
    if entries <= len(image.l1):
        return
    image.flush_metadata()
    old, old_length = image.header.l1_table_offset, len(image.l1) * 8
    image.file.debug_event("l1_grow_alloc_table")
    offset = image.space.allocate(entries * 8)
    l1 = array("Q", image.l1)
    l1.extend([0] * (entries - len(l1)))
    try:
        image.file.debug_event("l1_grow_write_table")
        image.file.pwrite(offset, pack_table(l1))
        image.flush_metadata()
        image.file.debug_event("l1_grow_activate_table")
        # The header as it is now: allocating may have moved the refcount table.
        header = image.header.replace(l1_size=entries, l1_table_offset=offset)
        image.write_header_fields(header, "l1_size", "refcount_table_offset")
    except BaseException:
        if image.broken is None:  # else the header may be the new one
            image.refcounts.free(offset, entries * 8)
        raise
    image.l1 = l1
    image.map.place("active L1 table", offset, entries * 8)
    if old_length:
        image.space.release(old, old_length)


def _shrink(guest: Guest, size: int, *, kept: int = 0) -> None:
    """The size first, with one write; then what lies beyond it goes, or goes when the image grows again.

    An external data file keeps ``kept`` bytes at least.
    """
    image = guest.image
    image.begin_write()
    image.flush_metadata()
    _require_droppable(guest, size)
    image.flush_metadata()
    image.write_header_fields(image.header.replace(size=size), "size", "crypt_method")
    image.bitmaps.resize(size)
    if image.external and image.data.length > max(size, kept):
        # First of all: a raw one that is longer than the disk shows what it has there when it grows.
        with suppress(UnsupportedFeature):  # what has the size it has keeps it
            image.data.resize(max(size, kept))
    _drop_beyond(guest, size)
    _zero_tail(guest, size, size)
    image.flush_metadata()
    if image.refcounts.drop_empty_blocks():
        image.flush_metadata()
        image.place_metadata()
    _truncate_file(image)


def _require_droppable(guest: Guest, size: int) -> None:
    """Load all that dropping what lies beyond ``size`` needs, so that nothing has changed where that is broken.

    Raises:
        CorruptImage: a table makes no sense, or a refcount is wrong.
    """
    image, geometry = guest.image, guest.image.geometry
    index = geometry.l1_entries(size)
    start = geometry.align(size)
    if start < index * geometry.l2_reach and image.l2_table(index - 1) is not None:
        # Its entries will be changed: what it shares with a snapshot is copied now.
        table = image.l2_for_write(index - 1)
        _require_counted(image, table.entries[start % geometry.l2_reach >> geometry.cluster_bits :])
    while (index := image.next_l2(index)) < len(image.l1):
        table_beyond = image.l2_table(index)
        if table_beyond is not None:
            _require_counted(image, table_beyond.entries)
            _require_refcounts(image, table_beyond.offset >> geometry.cluster_bits, 1)
        index += 1


def _require_counted(image: Qcow2Image, entries: array[int]) -> None:
    """See that all that L2 entries refer to is counted as in use."""
    geometry = image.geometry
    first = count = 0
    for entry in entries:
        if entry & layout.COMPRESSED:
            offset, length = geometry.compressed_range(entry & ~layout.COMPRESSED)
        else:
            offset, length = entry & layout.OFFSET_MASK, geometry.cluster_size
            if not offset or image.external:
                continue
            if geometry.in_cluster(offset):
                raise CorruptImage(f"Cluster allocation offset {offset:#x} unaligned")
        cluster = offset >> geometry.cluster_bits
        if cluster != first + count:
            _require_refcounts(image, first, count)
            first, count = cluster, 0
        count += ((offset + length - 1) >> geometry.cluster_bits) - cluster + 1
    _require_refcounts(image, first, count)


def _require_refcounts(image: Qcow2Image, first: int, count: int) -> None:
    values, _ = image.refcounts.counts(first, count)
    if 0 in values:
        offset = (first + values.index(0)) << image.geometry.cluster_bits
        raise CorruptImage(f"The refcount of the cluster at {offset:#x} is wrong")


def make_empty(guest: Guest) -> None:
    """Drop all data of the active layer, so that the backing file shows through; snapshots keep theirs.

    Cut off, it leaves some clusters or leaks.
    """
    image = guest.image
    image.begin_write()
    image.file.debug_event("empty_image_prepare")
    _drop_beyond(guest, 0)
    image.flush_metadata()
    _truncate_file(image)
    if image.external and image.data.length:
        # Nothing refers to it any more; space that the host does not take back is no failure.
        with suppress(OSError):
            image.data.discard(0, image.data.length)


def _drop_beyond(guest: Guest, size: int, *, keeps_vm_state: bool = False) -> None:
    """Give up whatever is mapped beyond ``size`` bytes, up to machine state or with it."""
    image, geometry = guest.image, guest.image.geometry
    index = geometry.l1_entries(size)
    start, end = geometry.align(size), index * geometry.l2_reach
    if start < end:
        guest.drop(start, end - start)
    while not keeps_vm_state and (index := image.next_l2(index)) < len(image.l1):
        table = image.l2_table(index)
        if table is not None:
            guest.release(table.entries)
            image.drop_l2(index)
            image.space.settle(reuse=False)
        index += 1
    image.space.settle()


def _truncate_file(image: Qcow2Image) -> None:
    """Cut the file off after the last cluster in use, where that can be told."""
    try:
        end = image.refcounts.end() << image.geometry.cluster_bits
    except CorruptImage:
        return
    if 0 < end < image.file.length:
        with suppress(UnsupportedFeature):  # likewise
            image.file.resize(end)


def preallocate(guest: Guest, offset: int, length: int, mode: Preallocation) -> None:
    """Map a range that is not mapped yet, cluster-aligned at ``offset``, and reserve its space as ``mode`` says.

    Raises:
        OSError: the host's own errors; what was mapped so far stays.
    """
    image = guest.image
    new: list[tuple[int, int]] = []
    for host, size in guest.map_new(offset, length, fill=mode is Preallocation.FULL):
        if new and sum(new[-1]) == host:
            new[-1] = (new[-1][0], new[-1][1] + size)
        else:
            new.append((host, size))
    image.flush_metadata()
    if mode is Preallocation.FALLOC:
        for host, size in new:
            # An external data file need not end with a cluster.
            image.data.preallocate(host, min(size, image.data.length - host) if image.external else size)
