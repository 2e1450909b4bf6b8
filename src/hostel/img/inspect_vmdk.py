"""What a VMware disk says of itself: its descriptor, scanned more leniently than any program reads it.

Programs disagree on what counts in a descriptor, so whatever one of them may take for the name of a file is told.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from hostel.img.foreign import Claim, text
from hostel.img.inspection import Level, Look
from hostel.units import INT64_MAX, SECTOR, KiB

MAX_NAMES: Final = 64
_MAX_TEXT: Final = 1024 * KiB  # bytes of a descriptor that are looked at; VMware's have a few kilobytes
_MAX_NAME: Final = 4096
_FOOTER: Final = 0xFFFFFFFFFFFFFFFF  # the grain directory's offset where the header that counts is at the file's end
_EXTENT: Final = re.compile(
    rb'^[ \t\r\f\v]*(?:RW|RDONLY|NOACCESS)\s+(\d{1,19})\s+([A-Z]+)(?:\s+"([^"\r\n]*)")?', re.MULTILINE | re.IGNORECASE
)
_PARENT: Final = re.compile(rb'parentFileNameHint[ \t]*=[ \t]*"?([^"\r\n]*)', re.IGNORECASE)


class _Named(NamedTuple):
    """A file that a descriptor names; ``kind`` is an extent's, and empty for the parent."""

    filename: str
    kind: str


def look_at_descriptor(look: Look) -> None:
    """Find what the descriptors of an image name, also of one that is refused for what they say."""
    head = look.read(0, SECTOR)
    if not head.startswith(b"KDMV"):
        look.virtual_size, names = _scan(look.read(0, _MAX_TEXT))
        _tell(look, names)
        return
    look.virtual_size, names = _sparse(look, head)
    if int.from_bytes(head[56:64], "little") == _FOOTER:
        # The header is only a first guess then: the one that counts is the last but one sector.
        footer = look.read(max(0, look.length - 2 * SECTOR), SECTOR)
        if footer.startswith(b"KDMV"):
            size, more = _sparse(look, footer)
            look.virtual_size = size or look.virtual_size
            names += [each for each in more if each not in names]
    _tell(look, _without_itself(look, names))


def _tell(look: Look, names: list[_Named]) -> None:
    look.name(Claim("extent" if each.kind else "backing", each.filename) for each in names[:MAX_NAMES])


def _without_itself(look: Look, names: list[_Named]) -> list[_Named]:
    """What a descriptor inside an extent names besides that extent, which has the file's name or had it once."""
    extents = [each for each in names if each.kind]
    if len(extents) != 1 or extents[0].kind != "SPARSE" or "/" in extents[0].filename or "\\" in extents[0].filename:
        return names
    own = extents[0].filename
    if own != os.path.basename(look.file.filename):
        look.add(
            Level.WARNING,
            "renamed-extent",
            f"The image's own extent is called '{own}' in its descriptor: a program may look for a file of that name",
        )
    return [each for each in names if not each.kind]


def _sparse(look: Look, header: bytes) -> tuple[int | None, list[_Named]]:
    """A sparse extent's size and what its descriptor names."""
    capacity = int.from_bytes(header[12:20], "little") * SECTOR
    offset = int.from_bytes(header[28:36], "little") * SECTOR
    length = int.from_bytes(header[36:44], "little") * SECTOR
    size = capacity if 0 < capacity <= INT64_MAX else None
    names: list[_Named] = []
    # QEMU looks for it after the header, wherever the header says that it is.
    places = [(SECTOR, 20 * SECTOR), (offset, min(length, _MAX_TEXT))]
    for place, most in places if offset <= INT64_MAX - _MAX_TEXT else places[:1]:
        found, more = _scan(look.read(place, most)) if place else (None, [])
        size = size or found
        names += [each for each in more if each not in names]
    return size, names


def _scan(data: bytes) -> tuple[int | None, list[_Named]]:
    names: list[_Named] = []
    sectors = 0
    for match in _EXTENT.finditer(data):
        sectors += int(match[1])
        if match[3] is not None and len(names) < MAX_NAMES:
            named = _Named(text(match[3][:_MAX_NAME]), match[2].decode().upper())
            if named not in names:
                names.append(named)
    for match in _PARENT.finditer(data):
        named = _Named(text(match[1][:_MAX_NAME]), "")
        if named.filename and named not in names and len(names) <= MAX_NAMES:
            names.append(named)
    claimed = sectors * SECTOR
    return (claimed if 0 < claimed <= INT64_MAX else None), names
