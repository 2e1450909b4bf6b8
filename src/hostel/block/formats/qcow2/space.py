"""Room in an open image's files: clusters that are allocated, given up, and given back to the host.

What is given up stays counted until nothing on the disk refers to it: :meth:`Qcow2Image.write_metadata` frees it last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostel.block.formats.qcow2.released import Holes, Released, Run
from hostel.errors import CorruptImage

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.image import Qcow2Image


class Space:
    """What finds and frees clusters.

    Args:
        image: open for writing.
    """

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image
        self._released = Released(image.geometry)
        self._holes = Holes()

    def allocate(self, length: int, purpose: str = "metadata") -> int:
        """Allocate host clusters for ``length`` bytes; returns the host offset in bytes.

        Raises:
            CorruptImage: what seems free is metadata.
            NoSpace: there is no room.
        """
        image, count = self._image, self._image.geometry.clusters(length)
        image.file.debug_event("cluster_alloc")
        first = image.refcounts.allocate_clusters(count, purpose)
        found = image.map.find(first, count)
        if found is not None:
            image.corrupt(f"Preventing invalid allocation: a free cluster overlaps with {found}")
        return first << image.geometry.cluster_bits

    def claim(self, offset: int, length: int) -> bool:
        """Count the clusters of a host range, in bytes, once if all are free and no metadata is there; whether so."""
        image = self._image
        first, count = offset >> image.geometry.cluster_bits, image.geometry.clusters(length)
        values, _ = image.refcounts.counts(first, count)
        if any(values) or image.map.find(first, count) is not None:
            return False
        image.refcounts.update(first, count, 1)
        return True

    def allocate_data(self, guest_offset: int, length: int) -> int:
        """Find room for guest clusters; returns the host offset. In an external data file each has its own place."""
        if self._image.external:
            start = guest_offset - self._image.geometry.in_cluster(guest_offset)
            self._holes.keep(start, start + length)
            return start
        return self.allocate(length, "data cluster")

    def allocate_behind(self, offset: int, length: int) -> int:
        """Allocate guest clusters at host offset ``offset``, as many as are free there; returns their length."""
        image = self._image
        bits = image.geometry.cluster_bits
        count = image.refcounts.allocate_behind(offset >> bits, length >> bits)
        if count and image.map.find(offset >> bits, count) is not None:
            image.corrupt("Preventing invalid allocation: a free cluster overlaps with metadata")
        return count << bits

    def abandon_data(self, offset: int, length: int) -> None:
        """Give back at once what was allocated and never referred to."""
        if not self._image.external:
            self._image.refcounts.free(offset, length)

    def release_data(self, offset: int, *, discard: bool = False) -> None:
        """Give a guest cluster's place up; see :meth:`release`."""
        if not self._image.external:
            self.release(offset, self._image.geometry.cluster_size, discard=discard)
        elif discard:
            self._holes.add(offset, offset + self._image.geometry.cluster_size)

    def release(self, offset: int, length: int, *, discard: bool = False) -> None:
        """Give a host range up once the disk refers to it no more; with ``discard`` its space goes back to the host."""
        self._released.add(Run(offset, length, discard))

    def free_released(self) -> None:
        """Free what was given up, now that nothing on the disk refers to it, and give space back to the host.

        Raises:
            CorruptImage: what was given up is metadata, or is counted wrongly.
            OSError: the host's own errors; what could not be freed is still given up.
        """
        image = self._image
        while self._released:
            run = self._released.take()
            offset, length, discard = run
            image.refuse_overlap("release of", offset, length, "inactive L2 table")
            try:
                image.refcounts.free(offset, length)
            except CorruptImage:
                raise
            except OSError:
                self._released.put_back(run)
                raise
            if image.end_of_bytes and not image.refcounts.get(image.end_of_bytes >> image.geometry.cluster_bits):
                # The half-filled cluster is free, and may become anything.
                image.end_of_bytes = 0
            if discard and not image.geometry.in_cluster(offset | length):
                self._discard(offset, length)
        self.discard_holes(self._holes)

    def discard_holes(self, holes: Holes) -> None:
        """Give space of guest data back to the host: only what nobody reads."""
        image = self._image
        while holes:
            start, end = holes.take()
            image.prevent_overlap(start, end - start)
            end = min(end, image.data.length)  # which need not be the end of a cluster
            if start < end:
                image.data.discard(start, end - start)

    def _discard(self, offset: int, length: int) -> None:
        """Give space back to the host: only of clusters that nothing refers to now."""
        image = self._image
        bits = image.geometry.cluster_bits
        for first, count in image.refcounts.unused(offset >> bits, length >> bits):
            image.file.discard(first << bits, count << bits)

    def settle(self, *, reuse: bool = True) -> None:
        """Keep what is waiting bounded; without ``reuse``, for one who allocates nothing, only what memory it takes."""
        many = self._released.are_many if reuse else self._released.are_scattered
        if many or self._holes.are_many:
            self._image.write_metadata()
