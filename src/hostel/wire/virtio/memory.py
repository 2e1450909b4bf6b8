"""A guest's memory, as a device sees it: regions by guest addresses and by the addresses of whoever shares them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from hostel.errors import RemoteProtocolError

_ADDRESSES: Final = 2**64


class Region(NamedTuple):
    """A range of guest memory.

    Attributes:
        guest: where it begins in the guest's physical addresses.
        user: where it begins in the addresses of the process that shares it.
        view: its bytes.
    """

    guest: int
    user: int
    view: memoryview


class GuestMemory:
    """Regions that do not overlap, in the order of their guest addresses; looked up by one thread.

    Args:
        regions: in any order.

    Attributes:
        low: where the region that was used last begins; guests keep their buffers in few.
        high: where it ends.
        bytes: what is in it.

    Raises:
        RemoteProtocolError: two overlap, or one is empty or ends beyond the address space.
    """

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        self._regions = sorted(regions, key=lambda region: region.guest)
        self._starts = [region.guest for region in self._regions]
        self._check()
        self.low, self.high, self.bytes = 1, 0, memoryview(b"")

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions)

    def __len__(self) -> int:
        return len(self._regions)

    def view(self, address: int, length: int) -> memoryview:
        """The bytes of a range of guest memory.

        Raises:
            RemoteProtocolError: they do not lie in one region.
        """
        low = self.low
        if low <= address and address + length <= self.high:
            return self.bytes[address - low : address - low + length]
        region = self._region(address)
        start = address - region.guest
        if start + length > len(region.view):
            raise RemoteProtocolError(f"{length} bytes at guest address {address:#x} leave the guest's memory")
        self.low, self.high, self.bytes = region.guest, region.guest + len(region.view), region.view
        return region.view[start : start + length]

    def views(self, address: int, length: int) -> list[memoryview]:
        """The bytes of a range of guest memory that may go over from a region to the next.

        Raises:
            RemoteProtocolError: not all of it is memory.
        """
        low = self.low
        if low <= address and address + length <= self.high:
            return [self.bytes[address - low : address - low + length]]
        found = []
        while length:
            region = self._region(address)
            start = address - region.guest
            part = region.view[start : start + length]
            found.append(part)
            address += len(part)
            length -= len(part)
            self.low, self.high, self.bytes = region.guest, region.guest + len(region.view), region.view
        return found

    def at_user(self, address: int, length: int) -> memoryview:
        """The bytes at an address of the process that shares the memory.

        Raises:
            RemoteProtocolError: they do not lie in one region.
        """
        for region in self._regions:
            start = address - region.user
            if start >= 0 and start + length <= len(region.view):
                return region.view[start : start + length]
        raise RemoteProtocolError(f"{length} bytes at user address {address:#x} are not in the shared memory")

    def _region(self, address: int) -> Region:
        index = bisect.bisect_right(self._starts, address) - 1
        if index >= 0:
            region = self._regions[index]
            if address < region.guest + len(region.view):
                return region
        raise RemoteProtocolError(f"guest address {address:#x} is not in the guest's memory")

    def _check(self) -> None:
        end = user_end = 0
        for region in self._regions:
            if not region.view or region.guest + len(region.view) > _ADDRESSES or region.guest < end:
                raise RemoteProtocolError(f"memory region at {region.guest:#x} is empty, too long or overlaps another")
            end = region.guest + len(region.view)
        for region in sorted(self._regions, key=lambda region: region.user):
            if region.user + len(region.view) > _ADDRESSES or region.user < user_end:
                raise RemoteProtocolError(f"memory region at user address {region.user:#x} overlaps another")
            user_end = region.user + len(region.view)
