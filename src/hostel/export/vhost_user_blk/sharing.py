"""The guest's memory, mapped from the descriptors that the front end sends."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from hostel.errors import NetworkError, RemoteProtocolError
from hostel.wire.vhost_user.message import MemoryRegion
from hostel.wire.virtio.memory import GuestMemory, Region

MAX_REGIONS = 32  # that are added one by one


class SharedMemory:
    """Mapped regions by their guest addresses. A mapping goes when nothing uses its bytes any more."""

    def __init__(self) -> None:
        self._regions: dict[int, tuple[MemoryRegion, memoryview]] = {}

    def replace(self, regions: Sequence[MemoryRegion], descriptors: Sequence[int]) -> GuestMemory:
        """Map a whole table in the place of what was there.

        Raises:
            RemoteProtocolError: the table makes no sense.
            NetworkError: a region cannot be mapped.
        """
        if len(regions) != len(descriptors):
            raise RemoteProtocolError(f"a table of {len(regions)} memory regions has {len(descriptors)} descriptors")
        self._regions = {}
        for region, fd in zip(regions, descriptors, strict=True):
            self._add(region, fd)
        return self.memory()

    def add(self, region: MemoryRegion, fd: int) -> GuestMemory:
        """Map one more region; see :meth:`replace`."""
        if len(self._regions) >= MAX_REGIONS:
            raise RemoteProtocolError(f"there are more than {MAX_REGIONS} memory regions")
        self._add(region, fd)
        return self.memory()

    def remove(self, region: MemoryRegion) -> GuestMemory:
        """Forget a region; see :meth:`replace`."""
        found = self._regions.get(region.guest)
        if found is None or (found[0].size, found[0].user) != (region.size, region.user):
            raise RemoteProtocolError(f"there is no memory region at {region.guest:#x} to be removed")
        del self._regions[region.guest]
        return self.memory()

    def memory(self) -> GuestMemory:
        """What is mapped."""
        return GuestMemory(Region(region.guest, region.user, view) for region, view in self._regions.values())

    def _add(self, region: MemoryRegion, fd: int) -> None:
        if region.guest in self._regions:
            raise RemoteProtocolError(f"there are two memory regions at {region.guest:#x}")
        self._regions[region.guest] = region, _map(region, fd)


def _map(region: MemoryRegion, fd: int) -> memoryview:
    """Map a region of a file; it must all be there, since touching what is not would end the process."""
    if not region.size or region.offset + region.size > os.fstat(fd).st_size:
        raise RemoteProtocolError(
            f"memory region at {region.guest:#x}: {region.size} bytes at offset {region.offset} are not in its file"
        )
    skipped = region.offset % mmap.ALLOCATIONGRANULARITY
    try:
        mapped = mmap.mmap(fd, region.size + skipped, offset=region.offset - skipped)
    except (OSError, ValueError, OverflowError) as error:
        raise NetworkError(f"memory region at {region.guest:#x} cannot be mapped: {error}") from None
    return memoryview(mapped)[skipped:]
