"""What qcow2 metadata looks like on disk: header, feature bits, table entries, limits."""

from __future__ import annotations

import enum
from typing import Annotated, Final, NamedTuple

from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.units import MiB

MAGIC: Final = b"QFI\xfb"

MIN_CLUSTER_BITS: Final = 9
MAX_CLUSTER_BITS: Final = 21
MAX_REFCOUNT_ORDER: Final = 6
MAX_L1_SIZE: Final = 32 * MiB  # bytes (QCOW_MAX_L1_SIZE)
MAX_REFTABLE_SIZE: Final = 8 * MiB  # bytes (QCOW_MAX_REFTABLE_SIZE)
MAX_SNAPSHOTS: Final = 65536
MAX_SNAPSHOT_TABLE_SIZE: Final = 64 * MiB
MAX_BACKING_NAME: Final = 1023
V2_HEADER_LENGTH: Final = 72
V3_MIN_HEADER_LENGTH: Final = 104

# Bits of L1 and L2 entries ("L1 table entry", "Standard Cluster Descriptor").
COPIED: Final = 1 << 63  # the refcount is exactly one
COMPRESSED: Final = 1 << 62
ZERO: Final = 1  # reads as zeroes, whatever the host offset
OFFSET_MASK: Final = 0x00FFFFFFFFFFFE00
L1_RESERVED: Final = 0x7F000000000001FF
L2_RESERVED: Final = 0x3F000000000001FE
# The second half of an extended L2 entry ("Extended L2 Entries"): bit x and bit 32 + x speak of subcluster x.
SUBCLUSTERS: Final = 32
ALL_ALLOCATED: Final = 0x00000000FFFFFFFF
ALL_ZERO: Final = 0xFFFFFFFF00000000
MIN_EXTENDED_BITS: Final = 14
REFTABLE_OFFSET_MASK: Final = 0xFFFFFFFFFFFFFE00
REFTABLE_RESERVED: Final = 0x1FF


class Header(Record, endian="big"):
    """The fixed part of the header, as version 3 with a compression type has it: 112 bytes with its padding."""

    magic: Annotated[bytes, 4]
    version: u32
    backing_file_offset: u64
    backing_file_size: u32
    cluster_bits: u32
    size: u64
    crypt_method: u32
    l1_size: u32
    l1_table_offset: u64
    refcount_table_offset: u64
    refcount_table_clusters: u32
    nb_snapshots: u32
    snapshots_offset: u64
    # From here on version 3 only.
    incompatible_features: u64
    compatible_features: u64
    autoclear_features: u64
    refcount_order: u32
    header_length: u32
    compression_type: u8
    padding: Annotated[bytes, 7]


class Incompatible(enum.IntFlag):
    """Incompatible features: an image with one that we do not know must not be opened."""

    NONE = 0
    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


class Compatible(enum.IntFlag):
    """Compatible features: may be ignored, must be kept."""

    NONE = 0
    LAZY_REFCOUNTS = 1


class Autoclear(enum.IntFlag):
    """Autoclear features: a writer that does not know one clears it."""

    NONE = 0
    BITMAPS = 1
    DATA_FILE_RAW = 2


class Compression(enum.IntEnum):
    """Compression types; the names are those of the create option."""

    ZLIB = 0
    ZSTD = 1


class ExtensionType(enum.IntEnum):
    """Header extensions that we know."""

    END = 0
    BACKING_FORMAT = 0xE2792ACA
    FEATURE_NAMES = 0x6803F857
    BITMAPS = 0x23852875
    CRYPTO_HEADER = 0x0537BE77
    DATA_FILE = 0x44415441


class Extension(NamedTuple):
    """A header extension as it lies in the image, without its padding to 8 bytes."""

    type: int
    data: bytes


class FeatureKind(enum.IntEnum):
    """The first byte of a feature name entry."""

    INCOMPATIBLE = 0
    COMPATIBLE = 1
    AUTOCLEAR = 2


FEATURE_NAME_LENGTH: Final = 48  # bytes an entry: kind, bit, 46 bytes of name

# What QEMU 7.2 writes into the feature name table.
FEATURE_NAMES: Final[tuple[tuple[FeatureKind, int, str], ...]] = (
    (FeatureKind.INCOMPATIBLE, 0, "dirty bit"),
    (FeatureKind.INCOMPATIBLE, 1, "corrupt bit"),
    (FeatureKind.INCOMPATIBLE, 2, "external data file"),
    (FeatureKind.INCOMPATIBLE, 3, "compression type"),
    (FeatureKind.INCOMPATIBLE, 4, "extended L2 entries"),
    (FeatureKind.COMPATIBLE, 0, "lazy refcounts"),
    (FeatureKind.AUTOCLEAR, 0, "bitmaps"),
    (FeatureKind.AUTOCLEAR, 1, "raw external data"),
)


class SnapshotHeader(Record, endian="big"):
    """The fixed part of a snapshot table entry; extra data, id and name follow, padded to 8 bytes."""

    l1_table_offset: u64
    l1_size: u32
    id_length: u16
    name_length: u16
    date_sec: u32
    date_nsec: u32
    vm_clock_nsec: u64
    vm_state_size: u32
    extra_data_size: u32


def feature_name_table() -> bytes:
    """The data of the feature name extension."""
    return b"".join(bytes((kind, bit)) + name.encode().ljust(46, b"\0") for kind, bit, name in FEATURE_NAMES)


def c_hex(value: int) -> str:
    """A number as C's ``%#x`` prints it: zero goes without the prefix."""
    return f"{value:#x}" if value else "0"
