"""Reading, validating and writing the header with its extensions and backing name.

The texts of refusals are QEMU's (``qcow2_do_open``, ``qcow2_read_extensions``), since scripts and people know them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.layout import (
    Autoclear,
    Compression,
    Extension,
    ExtensionType,
    FeatureKind,
    Header,
    Incompatible,
)
from hostel.block.node import BlockNode
from hostel.block.reading import read_as_far
from hostel.errors import BlockError, InvalidImage, NoSpace, UnsupportedFeature

_MAX_EXTENSIONS: Final = 1024  # no image has ten; a cluster of 2 MiB has room for 262,144 empty ones
_UNREADABLE: Final = "Could not read qcow2 header"
_HEAD: Final = 512  # bytes that every header fits in
_KNOWN = (
    Incompatible.DIRTY
    | Incompatible.CORRUPT
    | Incompatible.DATA_FILE
    | Incompatible.COMPRESSION
    | Incompatible.EXTENDED_L2
)


class Preamble(NamedTuple):
    """Everything in the header cluster.

    Attributes:
        header: the fixed fields; of a version 2 image with version 3's defaults.
        unknown_fields: header bytes beyond those we know, kept as they are.
        extensions: in the image's order, unknown ones included.
        backing_file: the name as recorded; None without one.
    """

    header: Header
    unknown_fields: bytes
    extensions: tuple[Extension, ...]
    backing_file: str | None

    def extension(self, kind: ExtensionType) -> bytes | None:
        """The data of the extension of this kind; of several, QEMU has the last count."""
        return next((extension.data for extension in reversed(self.extensions) if extension.type == kind), None)

    @property
    def backing_format(self) -> str | None:
        """The backing file's format as recorded."""
        data = self.extension(ExtensionType.BACKING_FORMAT)
        return data.decode(errors="replace") if data else None

    @property
    def encryption_header(self) -> tuple[int, int]:
        """Host offset and length of the LUKS header, bytes; both 0 where there is none."""
        pointer = self.extension(ExtensionType.CRYPTO_HEADER) or bytes(16)
        return int.from_bytes(pointer[:8], "big"), int.from_bytes(pointer[8:16], "big")


def read_preamble(file: BlockNode) -> Preamble:
    """Read and parse the first cluster.

    Raises:
        InvalidImage: it is malformed.
        UnsupportedFeature: the image needs what we do not know.
        BlockError: it cannot be read.
    """
    head, failure = read_as_far(file, 0, min(file.length, 1 << 16), _UNREADABLE)
    bits = int.from_bytes(head[20:24], "big")
    if 16 < bits <= layout.MAX_CLUSTER_BITS:
        head, failure = read_as_far(file, 0, min(file.length, 1 << bits), _UNREADABLE)
    size = 1 << bits if layout.MIN_CLUSTER_BITS <= bits <= layout.MAX_CLUSTER_BITS else 0
    head = head[: size or None]
    if failure is None or not size or len(head) == size:  # else what cannot be read is in the cluster
        # What a short file does not have reads as zeroes, and is wrong for what it says.
        return parse(head.ljust(_HEAD, b"\0"))
    try:
        preamble = parse(head.ljust(min(file.length, size), b"\0"))
    except BlockError:
        raise failure from None
    if _end(preamble) > len(head):
        raise failure
    return preamble


def _end(preamble: Preamble) -> int:
    """Where what counts of the first cluster ends, in bytes: extensions with the one that ends them, and the name."""
    header = preamble.header
    extensions = sum(8 + (len(each.data) + 7 & ~7) for each in preamble.extensions) + 8
    name = header.backing_file_offset + header.backing_file_size if header.backing_file_offset else 0
    return max(header.header_length + extensions, name)


def parse(head: bytes) -> Preamble:
    """Parse the first cluster (or as much of it as the file has).

    Raises:
        InvalidImage: a field is out of its limits.
        UnsupportedFeature: a version or an incompatible feature that we do not know.
    """
    header, unknown = _parse_fixed(head)
    cluster_size = 1 << header.cluster_bits
    end = cluster_size
    if header.backing_file_offset:
        if header.backing_file_offset > cluster_size:
            raise InvalidImage("Invalid backing file offset")
        end = header.backing_file_offset
    extensions = _parse_extensions(head, header.header_length, end)
    _check_features(header, extensions)
    return Preamble(header, unknown, extensions, _backing_name(head, header))


def _parse_fixed(head: bytes) -> tuple[Header, bytes]:
    if len(head) < layout.V2_HEADER_LENGTH:
        raise InvalidImage("Could not read qcow2 header: the file is too short")
    # Version 2 ends at byte 72; what follows are its extensions, not fields (CVE-less but famous confusion).
    version = int.from_bytes(head[4:8], "big")
    if head[:4] != layout.MAGIC:
        raise InvalidImage("Image is not in qcow2 format")
    if version not in (2, 3):
        raise UnsupportedFeature(f"Unsupported qcow2 version {version}")
    known = head[: layout.V2_HEADER_LENGTH] if version == 2 else head[: Header.SIZE]
    header = Header.unpack(known.ljust(Header.SIZE, b"\0"))
    if not layout.MIN_CLUSTER_BITS <= header.cluster_bits <= layout.MAX_CLUSTER_BITS:
        raise InvalidImage(f"Unsupported cluster size: 2^{header.cluster_bits}")
    if version == 2:
        return header.replace(refcount_order=4, header_length=layout.V2_HEADER_LENGTH), b""
    length = header.header_length
    if length < layout.V3_MIN_HEADER_LENGTH:
        raise InvalidImage("qcow2 header too short")
    if length > 1 << header.cluster_bits or length > len(head):
        raise InvalidImage("qcow2 header exceeds cluster size")
    if length < Header.SIZE:
        header = header.replace(compression_type=0, padding=bytes(7))
        if length != layout.V3_MIN_HEADER_LENGTH:
            raise InvalidImage(f"qcow2 header length {length} is not supported: it ends inside a field")
    if header.refcount_order > layout.MAX_REFCOUNT_ORDER:
        raise InvalidImage("Reference count entry width too large; may not exceed 64 bits")
    return header, head[Header.SIZE : length]


def _parse_extensions(head: bytes, offset: int, end: int) -> tuple[Extension, ...]:
    extensions: list[Extension] = []
    end = min(end, len(head))
    while offset < end:
        kind = int.from_bytes(head[offset : offset + 4], "big")
        length = int.from_bytes(head[offset + 4 : offset + 8], "big")
        offset += 8
        if offset > end or length > end - offset:
            raise InvalidImage("Header extension too large")
        if kind == ExtensionType.END:
            break
        if len(extensions) == _MAX_EXTENSIONS:
            raise InvalidImage(f"More than {_MAX_EXTENSIONS} header extensions")
        if kind == ExtensionType.BACKING_FORMAT and length >= 16:
            raise InvalidImage(f"ERROR: ext_backing_format: len={length} too large (>=16)")
        extensions.append(Extension(kind, head[offset : offset + length]))
        offset += (length + 7) & ~7
    return tuple(extensions)


def _check_features(header: Header, extensions: tuple[Extension, ...]) -> None:
    if header.version == 2:
        return
    unknown = header.incompatible_features & ~int(_KNOWN)
    if unknown:
        names = _feature_names(extensions, unknown)
        raise UnsupportedFeature(f"Unsupported qcow2 feature(s): {names}")
    if header.compression_type not in list(Compression):
        raise UnsupportedFeature(f"qcow2: unknown compression type: {header.compression_type}")
    has_bit = bool(header.incompatible_features & Incompatible.COMPRESSION)
    if has_bit != (header.compression_type != Compression.ZLIB):
        must = "must not" if has_bit else "must"
        raise InvalidImage(f"qcow2: Compression type incompatible feature bit {must} be set")


def _feature_names(extensions: tuple[Extension, ...], bits: int) -> str:
    """Name feature bits from the image's own table, as QEMU's message does."""
    # The last of several tables counts; what an incomplete last entry lacks is zeroes.
    table = next((data for kind, data in reversed(extensions) if kind == ExtensionType.FEATURE_NAMES), b"")
    table = table.ljust(-(-len(table) // layout.FEATURE_NAME_LENGTH) * layout.FEATURE_NAME_LENGTH, b"\0")
    names: list[str] = []
    for start in range(0, len(table) - layout.FEATURE_NAME_LENGTH + 1, layout.FEATURE_NAME_LENGTH):
        kind, bit = table[start], table[start + 1]
        if kind == FeatureKind.INCOMPATIBLE and bit < 64 and bits & (1 << bit):
            raw = table[start + 2 : start + layout.FEATURE_NAME_LENGTH].split(b"\0")[0]
            names.append("".join(c if c.isprintable() else "?" for c in raw.decode(errors="replace")))
            bits &= ~(1 << bit)
    if bits:
        names.append(f"Unknown incompatible feature: {bits:x}")
    return ", ".join(names)


def _backing_name(head: bytes, header: Header) -> str | None:
    if not header.backing_file_offset:
        return None
    length = header.backing_file_size
    limit = min(layout.MAX_BACKING_NAME, (1 << header.cluster_bits) - header.backing_file_offset)
    if length > limit:
        raise InvalidImage("Backing file name too long")
    name = head[header.backing_file_offset : header.backing_file_offset + length]
    if len(name) < length:
        raise InvalidImage("Could not read backing file name")
    return name.split(b"\0")[0].decode(errors="surrogateescape") or None


def serialise(preamble: Preamble, *, name_offset: int | None = None) -> bytes:
    """Lay the preamble out again: header, unknown fields, extensions, backing name, each where QEMU puts it.

    Args:
        preamble: what to lay out.
        name_offset: another place for the backing file's name, bytes; the name is then no part of the result.

    Returns:
        The bytes from offset 0; the rest of the cluster is not touched.

    Raises:
        NoSpace: it does not fit into the first cluster.
    """
    header = preamble.header
    extensions = b"".join(
        each.type.to_bytes(4, "big") + len(each.data).to_bytes(4, "big") + each.data + bytes(-len(each.data) % 8)
        for each in preamble.extensions
    ) + bytes(8)
    fixed_length = header.header_length
    name = (preamble.backing_file or "").encode(errors="surrogateescape")
    if len(name) > layout.MAX_BACKING_NAME:
        raise InvalidImage("Backing file name too long")
    behind = fixed_length + len(extensions)
    offset = behind if name_offset is None else name_offset
    if max(behind, offset + len(name)) > 1 << header.cluster_bits:
        raise NoSpace(
            "The header, its extensions and the backing file's name do not fit into one cluster "
            f"({1 << header.cluster_bits} bytes)"
        )
    header = header.replace(backing_file_offset=offset if name else 0, backing_file_size=len(name))
    fixed = (header.pack() + preamble.unknown_fields)[:fixed_length]
    return fixed + extensions + (name if name_offset is None else b"")


def with_extension(preamble: Preamble, kind: ExtensionType, data: bytes | None) -> Preamble:
    """Replace, add (in front) or drop one extension."""
    rest = tuple(each for each in preamble.extensions if each.type != kind)
    added = () if data is None else (Extension(int(kind), data),)
    return preamble._replace(extensions=added + rest)


def replace_extension(preamble: Preamble, kind: ExtensionType, data: bytes | None) -> Preamble:
    """Replace one extension where it is, add it behind the others, or drop it."""
    if data is None or preamble.extension(kind) is None:
        rest = tuple(each for each in preamble.extensions if each.type != kind)
        return preamble._replace(extensions=rest + (() if data is None else (Extension(int(kind), data),)))
    changed = (Extension(int(kind), data) if each.type == kind else each for each in preamble.extensions)
    return preamble._replace(extensions=tuple(changed))


def unknown_autoclear(header: Header) -> int:
    """Autoclear bits that a writer of ours must clear, since it does not know them."""
    kept = Autoclear.BITMAPS
    if header.incompatible_features & Incompatible.DATA_FILE:
        kept |= Autoclear.DATA_FILE_RAW
    return header.autoclear_features & ~int(kept)
