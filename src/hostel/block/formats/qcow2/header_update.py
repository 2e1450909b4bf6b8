"""Replacing the header, its extensions and the backing file's name so that a power cut leaves the old ones or the new.

A disk writes a sector of 512 bytes whole or not at all, and nothing more than that; what is to be replaced is often a
little longer. So it is replaced in steps, each of which changes one sector that counts, or sectors that do not count:

1. the first sector becomes a *bridge*: the new header, complete in itself, without the names of features, which are
   for people only, and with a name that is too long for it further behind in the cluster;
2. the sectors behind it, to which nothing refers now, become what they shall be;
3. the first sector becomes what it shall be.

Cut off after the first step, the image has everything new but the names of features; the next change adds them.
"""

from __future__ import annotations

from typing import Final

from hostel.block.formats.qcow2.header import Preamble, serialise
from hostel.block.formats.qcow2.layout import Autoclear, ExtensionType, Header
from hostel.units import SECTOR

_ALIGNMENT: Final = 8  # bytes of an extension's padding

Write = tuple[int, bytes]


def steps(current: Preamble, head: bytes, new: Preamble) -> list[Write]:
    """Plan the writes that replace one header by another: offsets and bytes; a sync belongs between each two.

    Where neither the extensions fit into the first sector nor the name anywhere beside the present one, all is one
    write, as QEMU does it: with a name of some 300 bytes in a cluster of 1 or 2 KiB, or large extensions of others.

    Args:
        current: what is on the disk.
        head: its bytes, from offset 0.
        new: what shall be there.

    Raises:
        NoSpace: it does not fit into the first cluster.
    """
    data = serialise(new)
    needed, used = len(data), _end(current)
    # What was there is not left behind: a name may be nobody else's business.
    data = data.ljust(max(needed, used), b"\0")
    present = head[: len(data)].ljust(len(data), b"\0")
    changed = [at for at in range(0, len(data), SECTOR) if data[at : at + SECTOR] != present[at : at + SECTOR]]
    if len(changed) < 2:
        return [(at, data[at : at + SECTOR]) for at in changed]
    first, rest = (0, data[:SECTOR]), (SECTOR, data[SECTOR:])
    if used <= SECTOR:
        return [rest, first]
    if needed <= SECTOR:
        return [first, rest]
    nameless = tuple(each for each in new.extensions if each.type != ExtensionType.FEATURE_NAMES)
    bridge = new._replace(extensions=nameless)
    complete = serialise(bridge)
    if len(complete) <= SECTOR:
        return [(0, complete.ljust(SECTOR, b"\0")), rest, first]
    return _with_name_elsewhere(bridge, len(data), rest, first) or _at_once(current, new, data)


def _with_name_elsewhere(bridge: Preamble, occupied: int, rest: Write, first: Write) -> list[Write]:
    """The steps with the backing file's name at the cluster's end meanwhile; none where there is no room."""
    name = (bridge.backing_file or "").encode(errors="surrogateescape")
    place = ((1 << bridge.header.cluster_bits) - len(name)) // SECTOR * SECTOR
    complete = serialise(bridge, name_offset=place)
    if not name or place < occupied or len(complete) > SECTOR:
        return []
    return [(place, name), (0, complete.ljust(SECTOR, b"\0")), rest, first, (place, bytes(len(name)))]


def _at_once(current: Preamble, new: Preamble, data: bytes) -> list[Write]:
    """One write, while the bitmaps that the header points to are said to be of no use."""
    place = Header.OFFSET["autoclear_features"]
    before, after = (each.header.autoclear_features for each in (current, new))
    if not (before | after) & Autoclear.BITMAPS:
        return [(0, data)]
    bits = ~int(Autoclear.BITMAPS)
    careful = data[:place] + (after & bits).to_bytes(8, "big") + data[place + 8 :]
    return [(place, (before & bits).to_bytes(8, "big")), (0, careful), (place, after.to_bytes(8, "big"))]


def _end(preamble: Preamble) -> int:
    """Where what a header consists of ends, bytes."""
    header = preamble.header
    end = int(header.header_length) + 8  # with the end of the extensions
    for extension in preamble.extensions:
        end += 8 + len(extension.data) + -len(extension.data) % _ALIGNMENT
    if header.backing_file_offset:
        end = max(end, header.backing_file_offset + header.backing_file_size)
    return min(end, 1 << header.cluster_bits)
