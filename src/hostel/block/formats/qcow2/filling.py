"""The steps of a write to unallocated clusters, apart: see :mod:`hostel.block.filling`."""

from __future__ import annotations

from hostel.block.formats.qcow2.write import Guest


def reserve(guest: Guest, offset: int, length: int) -> int | None:
    """Take host clusters for guest clusters, all of them unallocated and of one L2 table; None for any other range.

    Raises:
        OSError: there is no room, or metadata cannot be read.
    """
    image = guest.image
    if guest.encryption is not None or image.external or image.geometry.extended:
        return None
    if image.geometry.in_cluster(offset | length) or not length:
        return None
    found = _entries(guest, offset, length)
    if found is None:
        return None
    guest.begin(offset, length)
    # Marking the image may have written and read tables.
    if _entries(guest, offset, length) is None:
        return None
    return image.space.allocate_data(offset, length)


def adopt(guest: Guest, offset: int, length: int, place: int) -> bool:
    """Refer to what was written; where the guest range is not unallocated any more the place is given back.

    Raises:
        OSError: metadata cannot be read or written; the place was given back.
    """
    image = guest.image
    try:
        image.begin_write()
        found = _entries(guest, offset, length)
        if found is None:
            image.space.abandon_data(place, length)
            return False
        l1_index, index, stop = found
        table = image.l2_for_write(l1_index)
    except BaseException:
        image.space.abandon_data(place, length)
        raise
    guest.refer(table, l1_index, index, stop, place)
    image.space.settle()
    return True


def _entries(guest: Guest, offset: int, length: int) -> tuple[int, int, int] | None:
    """The L1 index of a range, and its first and end L2 index, where all its clusters are unallocated."""
    image = guest.image
    bits = image.geometry.cluster_bits
    l1_index, within = divmod(offset, image.geometry.l2_reach)
    index, stop = within >> bits, (within + length) >> bits
    if stop > image.geometry.l2_entries or l1_index >= len(image.l1):
        return None
    table = image.l2_table(l1_index)
    if table is not None and any(table.entries[index:stop]):
        return None
    return l1_index, index, stop
