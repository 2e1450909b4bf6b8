"""What a qcow2 image says of itself: read leniently from the header first, then from the tables of one that opens."""

from __future__ import annotations

from array import array
from typing import Final

from hostel.block.formats.qcow2 import bitmap_directory, layout, snapshot_table
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.header import Preamble, read_preamble
from hostel.block.formats.qcow2.header_limits import validate_table
from hostel.block.formats.qcow2.layout import Autoclear, Compatible, ExtensionType, Header, Incompatible
from hostel.codec.table import unpack_table
from hostel.errors import InvalidImage
from hostel.img.foreign import Claim, text
from hostel.img.inspect_entries import look_at_qcow2_entries
from hostel.img.inspect_overlap import Places
from hostel.img.inspection import Level, Look
from hostel.units import INT64_MAX, KiB, MiB

_HEAD: Final = 64 * KiB  # bytes: a cluster where there is no larger one
_MAX_NAME: Final = 4096
_MAX_EXTENSIONS: Final = 256
_MAX_SNAPSHOTS: Final = 64  # entries looked at: each may have 128 KiB of names
_MAX_TABLE: Final = MiB  # bytes read of a table; an L1 table of that size maps 64 TiB in clusters of 64 KiB
_METHODS: Final = {1: "AES", 2: "LUKS"}


def look_at_header(look: Look) -> bool:
    """Find what the header says, also of an image that is refused for what it says.

    Returns:
        Whether opening it with the driver is worth it: its header is not made to take memory and time.
    """
    head = look.read(0, _HEAD)
    if len(head) < layout.V2_HEADER_LENGTH:
        return True
    if 16 < (bits := int.from_bytes(head[20:24], "big")) <= layout.MAX_CLUSTER_BITS:
        head = look.read(0, 1 << bits)
    version = int.from_bytes(head[4:8], "big")
    # A version 2 header ends before the feature bits: what lies there is something else.
    fixed = head[: Header.SIZE] if version > 2 else head[: layout.V2_HEADER_LENGTH]
    header = Header.unpack(fixed.ljust(Header.SIZE, b"\0"))
    extensions = _extensions(head, header.header_length if version > 2 else layout.V2_HEADER_LENGTH)
    _find_names(look, header, extensions or {})
    _find_features(look, header)
    look.snapshots = header.nb_snapshots
    if header.nb_snapshots:
        look.add(Level.WARNING, "snapshots", f"The image has {header.nb_snapshots} internal snapshots")
    if header.crypt_method:
        method = _METHODS.get(header.crypt_method, f"method {header.crypt_method}")
        look.encrypted = True
        look.add(Level.WARNING, "encrypted", f"The data is encrypted ({method}), so nothing can be said of it")
    if extensions is None:
        look.add(Level.UNSAFE, "malformed", f"The header has more than {_MAX_EXTENSIONS} extensions")
    return extensions is not None


def _extensions(head: bytes, offset: int) -> dict[int, bytes] | None:
    """The header's extensions as far as they make sense, the last of a kind; None where there are too many."""
    found: dict[int, bytes] = {}
    for _ in range(_MAX_EXTENSIONS):
        kind = int.from_bytes(head[offset : offset + 4], "big")
        length = int.from_bytes(head[offset + 4 : offset + 8], "big")
        if kind == ExtensionType.END or offset + 8 + length > len(head):
            return found
        found[kind] = head[offset + 8 : offset + 8 + length]
        offset += 8 + -(-length // 8) * 8
    return None


def _find_names(look: Look, header: Header, extensions: dict[int, bytes]) -> None:
    if header.backing_file_offset and header.backing_file_offset <= INT64_MAX - _MAX_NAME:
        name = text(look.read(header.backing_file_offset, min(header.backing_file_size, _MAX_NAME)))
        format = extensions.get(ExtensionType.BACKING_FORMAT, b"").decode(errors="replace")
        if name:
            look.name([Claim("backing", name, format or None)])
    data_file = text(extensions.get(ExtensionType.DATA_FILE, b""))
    if header.incompatible_features & Incompatible.DATA_FILE:
        if data_file:
            look.name([Claim("data-file", data_file, "raw")])
        else:
            look.add(
                Level.UNSAFE, "external-data-file", "The data is in another file, and the image does not say which"
            )
    elif data_file:
        look.add(
            Level.WARNING,
            "unused-data-file",
            f"The image names an external data file that it does not use: '{data_file}'",
        )


def _find_features(look: Look, header: Header) -> None:
    if header.incompatible_features & Incompatible.DIRTY:
        look.add(Level.WARNING, "dirty", "The image was not closed properly (dirty bit): its refcounts may be wrong")
    if header.incompatible_features & Incompatible.CORRUPT:
        look.add(Level.UNSAFE, "corrupt", "The image is marked corrupt")
    for what, bits, known in (
        ("compatible", header.compatible_features, Compatible.LAZY_REFCOUNTS),
        ("autoclear", header.autoclear_features, Autoclear.BITMAPS | Autoclear.DATA_FILE_RAW),
    ):
        if unknown := bits & ~int(known):
            look.add(Level.NOTE, "unknown-features", f"Unknown {what} features, which may be ignored: {unknown:#x}")


def look_at_tables(look: Look) -> bool:
    """Find tables that are not where the image says; of one that the driver has opened.

    Returns:
        Whether all tables are small enough to read some of the guest's data.

    Raises:
        BlockError: a table makes no sense.
    """
    preamble = read_preamble(look.file)
    header, geometry = preamble.header, Geometry.of(preamble.header)
    if header.refcount_table_offset >= look.length:
        _beyond(look, "refcount table", header.refcount_table_offset)
    places = Places(geometry)
    places.add("L1 table", header.l1_table_offset, header.l1_size * 8)
    places.add("refcount table", header.refcount_table_offset, header.refcount_table_clusters * geometry.cluster_size)
    if header.crypt_method:
        places.add("LUKS header", *preamble.encryption_header)
    snapshots = _look_at_snapshots(look, header, geometry, places)
    are_small = _look_at_bitmaps(look, preamble, geometry, places)
    tables = _look_at_l1(look, header, geometry)
    blocks = _refcount_blocks(look, header, geometry)
    if places.judge(look, tables or (), blocks) and not header.incompatible_features & Incompatible.DATA_FILE:
        found = dict.fromkeys(filter(None, (*(tables or ()), *snapshots)))  # snapshots share most of theirs
        look_at_qcow2_entries(look, geometry, places.all(found, blocks), found)
    return are_small and tables is not None and header.l1_size * 8 <= _MAX_TABLE


def _beyond(look: Look, what: str, offset: int) -> None:
    look.add(
        Level.UNSAFE, "truncated", f"The {what} at byte {offset} is not all inside the file: it was cut off, or lies"
    )


def _look_at_l1(look: Look, header: Header, geometry: Geometry) -> list[int] | None:
    """The places of the L2 tables that are in what was looked at; None where one is not in the file."""
    offset, length = header.l1_table_offset, header.l1_size * 8
    if offset + length > look.length:
        _beyond(look, "L1 table", offset)
        return None
    tables = []
    entries = unpack_table(look.read(offset, min(length, _MAX_TABLE)))
    end = max(look.length, look.file.length)  # who writes the image may have made it longer
    for index, entry in enumerate(entries):
        place = entry & layout.OFFSET_MASK
        if entry & layout.L1_RESERVED or geometry.in_cluster(place):
            raise InvalidImage(f"L1 entry {index} makes no sense: {entry:#x}")
        if place >= end:
            _beyond(look, f"L2 table of L1 entry {index}", place)
            return None
        tables.append(place)
    if length > _MAX_TABLE:
        look.add(Level.NOTE, "large-table", f"Of the L1 table's {length} bytes only {_MAX_TABLE} were looked at")
    return tables


def _refcount_blocks(look: Look, header: Header, geometry: Geometry) -> array[int]:
    """The places of the refcount blocks; the driver has refused a larger table than QEMU has.

    Raises:
        InvalidImage: one makes no sense.
    """
    found = array("Q")
    length = header.refcount_table_clusters * geometry.cluster_size
    for start in range(0, length, _MAX_TABLE):
        piece = look.read(header.refcount_table_offset + start, min(length - start, _MAX_TABLE))
        found.extend(filter(None, unpack_table(_whole_words(piece))))
    for entry in found:
        if entry & layout.REFTABLE_RESERVED or geometry.in_cluster(entry):
            raise InvalidImage(f"A refcount table entry makes no sense: {entry:#x}")
    return found


def _whole_words(data: bytes) -> bytes:
    return data[: len(data) // 8 * 8]


def _look_at_snapshots(look: Look, header: Header, geometry: Geometry, places: Places) -> list[int]:
    """Look at the snapshots; the places of their L2 tables that are in what was looked at."""
    left, tables = _MAX_TABLE, array("Q")
    count = min(header.nb_snapshots, _MAX_SNAPSHOTS)
    if count < header.nb_snapshots:
        look.add(Level.NOTE, "large-table", f"Of {header.nb_snapshots} snapshots only {count} were looked at")
    table = snapshot_table.read(look.file, header.snapshots_offset, count, header.size)
    places.add("snapshot table", header.snapshots_offset, table.size)
    for snapshot in table.snapshots:
        validate_table(geometry, snapshot.l1_table_offset, snapshot.l1_size, 8, layout.MAX_L1_SIZE, "Snapshot L1 table")
        name = f"L1 table of snapshot '{text(snapshot.name)}'"
        places.add(name, snapshot.l1_table_offset, snapshot.l1_size * 8)
        look.snapshot_size = max(look.snapshot_size, snapshot.disk_size)
        if snapshot.l1_table_offset + snapshot.l1_size * 8 > look.length:
            _beyond(look, name, snapshot.l1_table_offset)
        length = min(snapshot.l1_size * 8, left)
        left -= length
        tables += unpack_table(_whole_words(look.read(snapshot.l1_table_offset, length)))
    if not left:
        look.add(Level.NOTE, "large-table", f"Of the snapshots' L1 tables only {_MAX_TABLE} bytes were looked at")
    return [entry & layout.OFFSET_MASK for entry in tables]


def _look_at_bitmaps(look: Look, preamble: Preamble, geometry: Geometry, places: Places) -> bool:
    extension = preamble.extension(ExtensionType.BITMAPS)
    if extension is None or not preamble.header.autoclear_features & Autoclear.BITMAPS:
        return True
    directory = bitmap_directory.parse_extension(extension)
    if directory.directory_size > _MAX_TABLE:
        look.add(
            Level.WARNING,
            "large-table",
            f"The bitmap directory has {directory.directory_size} bytes, and was not looked at",
        )
        return False
    entries = bitmap_directory.read_entries(look.file, directory, geometry, preamble.header.size)
    places.add("bitmap directory", directory.directory_offset, directory.directory_size)
    for entry, _ in entries:
        places.add("table of a bitmap", entry.table_offset, entry.table_size * 8)
        if entry.table_offset + entry.table_size * 8 > look.length:
            _beyond(look, "table of a bitmap", entry.table_offset)
    look.add(Level.NOTE, "bitmaps", f"The image has {len(entries)} persistent bitmaps")
    return True
