"""The runs of a whole image by columns, many tables at a time: for a map of millions of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.image import Qcow2Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENOUGH: Final = 1 << 16  # entries; fewer are mapped before numpy is loaded
_ENTRIES: Final = 1 << 14  # done at once: they stay in the processor's cache


class Columns(NamedTuple):
    """Runs in order, without gaps between them or to the next ones.

    Attributes:
        starts: guest offsets, bytes.
        lengths: bytes.
        hosts: host offsets of data, bytes; 0 of what is not allocated.
    """

    starts: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    hosts: NDArray[np.uint64]


def columns(image: Qcow2Image) -> Iterator[Columns] | None:
    """The runs of an image; None where there are few, or more to say of a run than where it lies.

    That is known from the tables alone, and they are looked at before the first run is told.
    """
    geometry = image.geometry
    used = [index for index, entry in enumerate(image.l1) if entry]
    if geometry.extended or image.external or len(used) * geometry.l2_entries < _ENOUGH:
        return None
    import numpy as np

    special = layout.COMPRESSED | layout.L2_RESERVED | layout.ZERO | geometry.cluster_size - 1
    for index in used:
        table = image.l2_table(index)
        if table is not None and int(np.bitwise_or.reduce(np.frombuffer(table.entries, np.uint64))) & special:
            return None
    return _columns(image)


def _columns(image: Qcow2Image) -> Iterator[Columns]:
    import numpy as np

    geometry, size = image.geometry, image.size & ~511
    step, reach = np.uint64(geometry.cluster_size), geometry.l2_reach
    tables = max(1, _ENTRIES // geometry.l2_entries)
    count = -(-size // reach)
    first = 0
    while first < count:
        base, last = first * reach, min(first + tables, count)
        if not any(image.l1[first:last]):
            # Nothing of it is allocated, however large it is.
            while last < count and not image.l1[last]:
                last += 1
            end = min(size, last * reach)
            yield Columns(*(np.array([value], np.uint64) for value in (base, end - base, 0)))
        else:
            end = min(size, last * reach)
            places = np.concatenate([_places(image, index) for index in range(first, last)])
            places = places[: -(-(end - base) // geometry.cluster_size)]
            expected = np.where(places[:-1] != 0, places[:-1] + step, np.uint64(0))
            firsts = np.concatenate([[0], np.flatnonzero(places[1:] != expected) + 1]).astype(np.uint64)
            starts = np.uint64(base) + firsts * step
            yield Columns(starts, np.diff(starts, append=np.uint64(end)), places[firsts.astype(np.intp)])
        first = last


def _places(image: Qcow2Image, index: int) -> NDArray[np.uint64]:
    import numpy as np

    table = image.l2_table(index) if image.l1[index] else None
    if table is None:
        return np.zeros(image.geometry.l2_entries, np.uint64)
    return np.frombuffer(table.entries, np.uint64) & np.uint64(layout.OFFSET_MASK)
