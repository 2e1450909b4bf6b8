"""What the tables of an image lead to: entries that lie on the image's own metadata, or name one place twice.

A guest that writes to such a place writes the tables. ``check`` finds it too, and more; here it is found within bounds
of memory and time, whatever the image claims, and what the bounds leave out is told.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qed.layout import Feature, whole_clusters
from hostel.block.formats.qed.layout import Header as QedHeader
from hostel.codec.table import unpack_table
from hostel.img.inspect_places import MOST_READ, Owned, padded, report
from hostel.img.inspection import Level, Look
from hostel.units import SECTOR, MiB

_MOST_OWNED: Final = 1 << 17  # clusters of metadata that entries are held against
_MOST_SUSPECTS: Final = 1 << 20  # entries that are looked at one by one
_PIECE: Final = MiB // 4  # bytes of a table read at once


class _Walk:
    """Tables whose entries are held against metadata, read in the order given, up to :data:`MOST_READ`.

    Args:
        look: of the image.
        owned: the metadata, the smallest first, so that a large one leaves room for the others; taken up to
            :data:`_MOST_OWNED`.
        cluster_size: bytes.
    """

    def __init__(self, look: Look, owned: Iterable[Owned], cluster_size: int) -> None:
        self._look = look
        self._owned: list[Owned] = []
        self._left = MOST_READ
        self._cluster_size = cluster_size
        self._compressed: set[int] | None = None
        self.places: set[int] = set()  # of clusters of metadata; 0 is none, since an entry of 0 leads nowhere
        for each in owned:
            self._owned.append(each)
            room = range(each.start, each.end, cluster_size)[: _MOST_OWNED - len(self.places)]
            self.places.update(room)
            if room.stop < each.end:
                look.add(
                    Level.WARNING,
                    "large-table",
                    f"There are over {_MOST_OWNED} clusters of metadata, and entries were not held against all of them",
                )
                break
        self.places.discard(0)
        self._sorted = array("Q", sorted(self.places))

    def pieces(self, tables: list[int], length: int) -> Iterator[tuple[int, int, bytes]]:
        """The tables of so many bytes: host offset, where in the table a piece begins, and the piece; no empty ones."""
        for number, table in enumerate(tables):
            if self._left < length:
                self._look.add(
                    Level.NOTE, "large-table", f"Of {len(tables)} L2 tables only the first {number} were looked at"
                )
                return
            self._left -= length
            for start in range(0, length, _PIECE):
                data = padded(self._look, table + start, min(_PIECE, length - start))
                if data.count(0) != len(data):
                    yield table, start, data

    def with_compressed(self) -> set[int]:
        """The places, and those with the bit of compressed data where such data may begin that reaches metadata."""
        if self._compressed is None:
            size = self._cluster_size
            owned = (each for place in (0, *self.places) for each in (place, place - size, place - 2 * size))
            self._compressed = self.places | {layout.COMPRESSED | each for each in owned if each >= 0}
        return self._compressed

    def holds(self, start: int, length: int) -> bool:
        """Whether any cluster of metadata is in a range of the file."""
        first = bisect_left(self._sorted, start)
        return first < len(self._sorted) and self._sorted[first] < start + length

    def hit(self, table: int, entry: int, place: int) -> None:
        """Report an entry that lies on metadata."""
        what = next((each.what for each in self._owned if each.start <= place < each.end), "metadata")
        report(self._look, f"Entry {entry} of the L2 table at byte {table} points to the {what}, at byte {place}")


# ---- qcow2


def look_at_qcow2_entries(look: Look, geometry: Geometry, owned: Iterable[Owned], tables: Iterable[int]) -> None:
    """Report the first L2 entry that lies on metadata.

    Args:
        look: where to.
        geometry: the image's.
        owned: all metadata, the smallest first.
        tables: host offsets of the L2 tables.
    """
    walk = _Walk(look, owned, geometry.cluster_size)
    suspicions = _MOST_SUSPECTS
    words = min(_PIECE, geometry.cluster_size) // 8
    step = geometry.cluster_size // 8 // geometry.l2_entries  # words of an entry: two with subclusters
    columns = _Columns(words, step, geometry)
    for table, start, data in walk.pieces(list(tables), geometry.cluster_size):
        first = start // 8 // step
        number = int.from_bytes(data, "big")
        if number & columns.compressed:
            suspects = walk.with_compressed()
        else:
            suspects = walk.places
            run = columns.run(number & columns.places)
            if run is not None and not walk.holds(run, words // step * geometry.cluster_size):
                continue
        found = unpack_table((number & columns.places).to_bytes(words * 8, "big"))[::step]
        if suspects.isdisjoint(found):
            continue
        raw = unpack_table(data)[::step]
        for index in [each for each, place in enumerate(found) if place in suspects]:
            place = _place_on(walk.places, geometry, raw[index])
            if place is not None:
                walk.hit(table, first + index, place)
                return
            if not (suspicions := suspicions - 1):
                message = f"Over {_MOST_SUSPECTS} compressed clusters lie near metadata, and not all were looked at"
                look.add(Level.WARNING, "large-table", message)
                return


def _place_on(owned: set[int], geometry: Geometry, entry: int) -> int | None:
    """The cluster of metadata that an L2 entry leads to; None where it leads to none."""
    if not entry & layout.COMPRESSED:
        place = entry & layout.OFFSET_MASK
        return place if place in owned else None
    bits, size = 62 - (geometry.cluster_bits - 8), geometry.cluster_size
    place = entry & (1 << bits) - 1
    sectors = (entry >> bits & (1 << 62 - bits) - 1) + 1
    clusters = range(place - place % size, place - place % SECTOR + sectors * SECTOR, size)
    return next((each for each in clusters if each in owned or not each), None)


class _Columns:
    """A piece of an L2 table as one number, of which all entries are looked at in one operation.

    Args:
        words: words of 8 bytes in a piece.
        step: words of an entry, of which the first says where the cluster is.
        geometry: the image's.

    Attributes:
        places: the bits that say in which cluster of the file the data begins, and whether it is compressed.
        compressed: those that say that it is.
    """

    def __init__(self, words: int, step: int, geometry: Geometry) -> None:
        rest = bytes(8 * (step - 1))
        entries = words // step

        def each(word: int) -> int:
            return int.from_bytes((word.to_bytes(8, "big") + rest) * entries, "big")

        # Where compressed data begins takes fewer bits; no file is so large that others need more.
        bits = 62 - (geometry.cluster_bits - 8)
        mask = layout.OFFSET_MASK & (1 << bits) - geometry.cluster_size
        self.places = each(mask | layout.COMPRESSED)
        self.compressed = each(layout.COMPRESSED)
        self._first = 64 * words - 64  # where the bits of the first entry are
        self._ones = each(1)
        ramp = b"".join((index * geometry.cluster_size).to_bytes(8, "big") + rest for index in range(entries))
        self._ramp = int.from_bytes(ramp, "big")

    def run(self, places: int) -> int | None:
        """Where a piece leads whose clusters lie one behind the other; None where they do not."""
        first = places >> self._first
        return first if first and first * self._ones + self._ramp == places else None


# ---- qed


def look_at_qed_tables(look: Look, header: QedHeader) -> None:
    """Report the first L2 table of a qed image that lies on metadata, or an entry that does.

    Metadata are the header, the L1 table and other L2 tables. One beyond the file's end is reported too: as a warning
    where the image is marked, since a crash of QEMU leaves such, and a repair drops them.
    """
    length = min(header.l1_entries, header.table_entries) * 8
    l1 = unpack_table(padded(look, header.l1_table_offset, min(length, MiB)), "Q", "little")
    end = whole_clusters(look.file, header)  # not before: who writes the image may make it longer
    for index, table in enumerate(l1):
        if table % header.cluster_size or (table and table + header.table_bytes > end):
            message = f"L1 entry {index} makes no sense, or points beyond the end of the file: {table:#x}"
            if not header.features & Feature.NEED_CHECK:
                look.add(Level.UNSAFE, "truncated", message)
                return
            look.add(Level.WARNING, "truncated", f"{message}; the image was not closed properly, and a repair drops it")
            l1[index] = 0
    tables = [table for table in l1 if table]
    if length > MiB:
        look.add(Level.NOTE, "large-table", f"Of the L1 table's {length} bytes only {MiB} were looked at")
    owned = [
        Owned(0, header.header_bytes, "header"),
        Owned(header.l1_table_offset, header.l1_table_offset + header.table_bytes, "L1 table"),
    ]
    owned += [Owned(table, table + header.table_bytes, f"L2 table at byte {table}") for table in tables]
    for before, after in itertools.pairwise(sorted(owned)):
        if before.end > after.start:
            report(look, f"The {after.what} and the {before.what} lie on each other, at byte {after.start}")
            return
    walk = _Walk(look, sorted(owned, key=Owned.length), header.cluster_size)
    for table, start, data in walk.pieces(tables, header.table_bytes):
        entries = unpack_table(data, "Q", "little")
        if not walk.places.isdisjoint(entries):
            at = next(each for each, place in enumerate(entries) if place in walk.places)
            walk.hit(table, start // 8 + at, entries[at])
            return
