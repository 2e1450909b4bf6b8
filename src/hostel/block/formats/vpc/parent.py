"""The parent of a differencing VHD: its identity, and the names that its header and the locators give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.block.driver import Reference
from hostel.block.formats.vpc.layout import DynamicHeader, Locator
from hostel.block.node import BlockNode
from hostel.block.parent import from_windows
from hostel.units import KiB

_MOST: Final = 64 * KiB  # bytes of a name
_ENCODINGS: Final = {
    b"W2ru": "utf-16-le",
    b"W2ku": "utf-16-le",
    b"Wi2r": "latin-1",
    b"Wi2k": "latin-1",
    b"MacX": "utf-8",
}
_ORDER: Final = (b"W2ru", b"Wi2r", b"W2ku", b"Wi2k", b"MacX")  # relative names first


def parent_of(file: BlockNode, header: DynamicHeader) -> Reference:
    """The parent, by the best name that there is."""
    names = list(_names(file, header))
    recorded = header.parent_name.decode("utf-16-be", "replace").partition("\0")[0]
    name = names[0] if names else recorded
    return Reference("backing", from_windows(name), "vpc", unique_id=header.parent_unique_id.hex())


def _names(file: BlockNode, header: DynamicHeader) -> Iterator[str]:
    found: dict[bytes, str] = {}
    for offset in range(0, len(header.locators), Locator.SIZE):
        locator = Locator.unpack(header.locators, offset)
        encoding = _ENCODINGS.get(locator.platform)
        end = locator.data_offset + locator.data_length
        if encoding is None or not 0 < locator.data_length <= _MOST or end > file.length:
            continue
        text = bytes(file.read(locator.data_offset, locator.data_length)).decode(encoding, "replace")
        found[locator.platform] = text.partition("\0")[0].removeprefix("file://localhost").removeprefix("file://")
    for platform in _ORDER:
        if found.get(platform):
            yield found[platform]
