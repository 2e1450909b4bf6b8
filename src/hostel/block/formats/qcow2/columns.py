"""The runs of a whole image by columns, a table at a time: for a map of millions of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.image import Qcow2Image


class Columns(NamedTuple):
    """Runs in order, without gaps between them or to the next ones.

    Attributes:
        starts: guest offsets, bytes.
        lengths: bytes.
        hosts: host offsets of data, bytes; 0 of what is not allocated.
    """

    starts: Sequence[int]
    lengths: Sequence[int]
    hosts: Sequence[int]


def columns(image: Qcow2Image) -> Iterator[Columns] | None:
    """The runs of an image; None where there is more to say of a run than where it lies.

    That is known from the tables alone, and they are looked at before the first run is told.
    """
    geometry = image.geometry
    if geometry.extended or image.external:
        return None
    special = layout.COMPRESSED | layout.L2_RESERVED | layout.ZERO | geometry.cluster_size - 1
    # All entries of a table at once, as one big integer.
    mask = int.from_bytes(special.to_bytes(8, sys.byteorder) * geometry.l2_entries, sys.byteorder)
    for index, entry in enumerate(image.l1):
        table = image.l2_table(index) if entry else None
        if table is not None and int.from_bytes(table.entries.tobytes(), sys.byteorder) & mask:
            return None
    return _columns(image)


def _columns(image: Qcow2Image) -> Iterator[Columns]:
    geometry, size = image.geometry, image.size & ~511
    step = geometry.cluster_size
    for l1_index in range(-(-size // geometry.l2_reach)):
        base = l1_index * geometry.l2_reach
        end = min(size, base + geometry.l2_reach)
        table = image.l2_table(l1_index)
        if table is None:
            yield Columns([base], [end - base], [0])
            continue
        places = [entry & layout.OFFSET_MASK for entry in table.entries[: -(-(end - base) // step)]]
        following = zip(range(1, len(places)), places, places[1:], strict=False)
        firsts = [0, *(at for at, one, other in following if other != (one + step if one else 0))]
        starts = [base + first * step for first in firsts]
        lengths = [after - start for start, after in pairwise([*starts, end])]
        yield Columns(starts, lengths, [places[first] for first in firsts])
