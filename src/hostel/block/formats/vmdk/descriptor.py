"""The descriptor: the text that says what a VMware disk consists of ("The Descriptor")."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple

from hostel.block.driver import MAX_PARTS_OF_ONE_FILE
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR

NO_PARENT: Final = 0xFFFFFFFF

# A descriptor in a file of its own may be of these; the others lie inside their only extent.
SEPARATE: Final = (
    "monolithicFlat",
    "vmfs",
    "vmfsSparse",
    "seSparse",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
)
FLAT: Final = ("FLAT", "VMFS")
SPARSE: Final = ("SPARSE", "VMFSSPARSE")
SESPARSE: Final = "SESPARSE"

_MAX_EXTENT_NAME: Final = 511
_MAX_PARENT_NAME: Final = 4095
# Blanks may be line ends, or missing, since QEMU, whose reading counts, takes them for such.
_EXTENT: Final = re.compile(rb"^[ \t\r\f\v]*(RW|RDONLY|NOACCESS)\s+([+-]?\d+)\s*", re.MULTILINE)
_EXTENT_FILE: Final = re.compile(rb'([^\s"]+)(?:\s+"([^"\r\n]*)"(?:\s*([+-]?\d+))?)?(?=\s|\Z)')
_CID: Final = re.compile(rb"^[ \t]*CID[ \t]*=[ \t]*(?:0[xX])?([0-9a-fA-F]{1,8})\b", re.MULTILINE)
_PARENT_CID: Final = re.compile(rb"^[ \t]*parentCID[ \t]*=[ \t]*(?:0[xX])?([0-9a-fA-F]{1,8})\b", re.MULTILINE)
_PARENT: Final = re.compile(rb'parentFileNameHint[ \t]*=[ \t]*"([^"]*)"')
_CREATE_TYPE: Final = re.compile(rb'createType[ \t]*=[ \t]*"([^"]{0,127})"')
_BLANK: Final = re.compile(rb" +\r?\n")
_VERSION: Final = re.compile(rb"version=[123]\r?\n")


class ExtentLine(NamedTuple):
    """An extent as the descriptor has it.

    Attributes:
        length: bytes of the disk that it holds.
        kind: ``FLAT``, ``VMFS``, ``SPARSE``, ``VMFSSPARSE`` or ``SESPARSE``.
        filename: as written.
        offset: bytes into its file; 0 but for ``FLAT``.
    """

    length: int
    kind: str
    filename: str
    offset: int = 0


class Descriptor(NamedTuple):
    """What a descriptor says.

    Attributes:
        cid: changes whenever the disk's content does.
        cid_place: where in the text its digits are, and how many; bytes.
        parent_cid: the parent's ``cid`` when this disk was made; :data:`NO_PARENT` without one.
        parent: the parent's name, as written; empty without one.
    """

    cid: int
    cid_place: tuple[int, int]
    parent_cid: int
    parent: str


def is_descriptor(head: bytes) -> bool:
    """Whether a text starts as a descriptor does in QEMU's eyes: comments, lines of blanks, then its version."""
    at = 0
    while at < len(head):
        if head[at : at + 1] == b"#":
            end = head.find(b"\n", at)
            if end < 0:
                return False
            at = end + 1
        elif (blank := _BLANK.match(head, at)) is not None:
            at = blank.end()
        else:
            return _VERSION.match(head, at) is not None
    return False


def parse(text: bytes) -> Descriptor:
    """Read what every descriptor has.

    Raises:
        InvalidImage: it has no content IDs, or the parent's name has no end.
    """
    cid, parent_cid = _CID.search(text), _PARENT_CID.search(text)
    if cid is None or parent_cid is None:
        what = "CID" if cid is None else "parentCID"
        raise InvalidImage(
            "Invalid argument",
            hint=f"The descriptor has no {what}; an extent is opened through the descriptor that names it.",
        )
    parent = _PARENT.search(text)
    if (parent is None and b"parentFileNameHint" in text) or (parent and len(parent[1]) > _MAX_PARENT_NAME):
        raise InvalidImage("Invalid argument", hint="The descriptor's parentFileNameHint is malformed.")
    place = (cid.start(1), cid.end(1) - cid.start(1))
    return Descriptor(int(cid[1], 16), place, int(parent_cid[1], 16), _name(parent[1]) if parent else "")


def parse_create_type(text: bytes) -> str:
    """The create type of a descriptor in a file of its own.

    Raises:
        InvalidImage: there is none.
        UnsupportedFeature: disks of that type are not read.
    """
    found = _CREATE_TYPE.search(text)
    if found is None:
        raise InvalidImage("invalid VMDK image descriptor")
    kind = found[1].decode(errors="replace")
    if kind not in SEPARATE:
        raise UnsupportedFeature(f"Unsupported image type '{kind}'")
    return kind


def is_empty(text: bytes) -> bool:
    """Whether a descriptor is of a disk of no bytes, whose only extent it lies in."""
    kind, extent = _CREATE_TYPE.search(text), _EXTENT.search(text)
    inside = kind is not None and kind[1] in (b"monolithicSparse", b"streamOptimized")
    return inside and extent is not None and int(extent[2]) == 0


def parse_extents(text: bytes) -> list[ExtentLine]:
    """The extents of a descriptor in a file of its own, in the disk's order.

    Raises:
        InvalidImage: a line is malformed, or there is none.
        UnsupportedFeature: an extent is of a kind that is not read; QEMU leaves it out, and moves what follows. Or too
            many are of one file.
    """
    lines = [_extent_line(match) for match in _EXTENT.finditer(text)]
    if not lines:
        raise InvalidImage("The VMDK descriptor names no extent")
    if sum(line.length for line in lines) > INT64_MAX:
        raise InvalidImage("The extents of the VMDK descriptor are too long together")
    name, count = Counter(line.filename for line in lines).most_common(1)[0]
    if count > MAX_PARTS_OF_ONE_FILE:  # under one name; whoever opens them counts by the file
        raise UnsupportedFeature(f"{count} extents lie in '{name}', and may be {MAX_PARTS_OF_ONE_FILE} of one file")
    return lines


def _extent_line(match: re.Match[bytes]) -> ExtentLine:
    access, sectors = match.groups()
    rest = _EXTENT_FILE.match(match.string, match.end())
    if rest is None:
        raise _invalid(match)
    raw_kind, name, offset = rest.groups()
    kind = raw_kind.decode(errors="replace")
    if kind not in (*FLAT, *SPARSE, SESPARSE):
        raise UnsupportedFeature(f"Unsupported extent type '{kind}'")
    if access != b"RW":
        raise UnsupportedFeature(f"Unsupported extent access '{access.decode()}'")
    has_offset = offset is not None
    if not name or len(name) > _MAX_EXTENT_NAME or has_offset is not (kind == "FLAT") or len(sectors) > 19:
        raise _invalid(match)
    length, start = int(sectors) * SECTOR, int(offset or 0) * SECTOR
    if length <= 0 or start < 0 or start > INT64_MAX - length:
        raise _invalid(match)
    return ExtentLine(length, kind, _name(name), start)


def _invalid(match: re.Match[bytes]) -> InvalidImage:
    start = match.start(1)
    end = match.string.find(b"\n", start)
    line = match.string[start : end if end >= 0 else None]
    return InvalidImage(f"Invalid extent line: {line.decode(errors='replace')}")


def _name(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def require_quotable(*values: str) -> None:
    """Refuse what cannot stand in the quotes of a descriptor.

    Raises:
        InvalidImage: a value cannot.
    """
    for value in values:
        if any(char in value for char in '"\r\n\0'):
            raise InvalidImage(f"'{value}' has a character that a VMDK descriptor cannot hold")


def compose(
    size: int,
    create_type: str,
    extents: list[ExtentLine],
    *,
    cid: int,
    parent_cid: int = NO_PARENT,
    parent: str = "",
    hardware_version: str = "4",
    adapter: str = "ide",
    tools_version: str = "2147483647",
) -> bytes:
    """Write a descriptor, as QEMU does; ``size`` is in bytes.

    Raises:
        InvalidImage: a name or a version cannot be written in quotes; QEMU writes a descriptor that nobody can read.
    """
    require_quotable(parent, hardware_version, tools_version, *(extent.filename for extent in extents))
    heads = 16 if adapter == "ide" else 255  # VMware's own numbers
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        f"CID={cid:08x}",
        f"parentCID={parent_cid:08x}",
        f'createType="{create_type}"',
        f'parentFileNameHint="{parent}"' if parent else "",
        "# Extent description",
        *(_written(extent) for extent in extents),
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        f'ddb.virtualHWVersion = "{hardware_version}"',
        f'ddb.geometry.cylinders = "{size // (63 * heads * SECTOR)}"',
        f'ddb.geometry.heads = "{heads}"',
        'ddb.geometry.sectors = "63"',
        f'ddb.adapterType = "{adapter}"',
        f'ddb.toolsVersion = "{tools_version}"',
    ]
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _written(extent: ExtentLine) -> str:
    place = f" {extent.offset // SECTOR}" if extent.kind == "FLAT" else ""
    return f'RW {extent.length // SECTOR} {extent.kind} "{extent.filename}"{place}'
