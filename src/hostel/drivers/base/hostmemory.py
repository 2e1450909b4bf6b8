"""What of the host itself can be changed: pages that are kept for guests, how memory is shared, whether it sleeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

ANY_CELL: Final = -1  # of NUMA cells: the host as a whole


@runtime_checkable
class HostMemoryDriver(Protocol):
    """A host whose memory and sleep are in our hands; ``SYSTEM_ERROR`` where the kernel refuses."""

    def node_get_free_pages(self, pages: Sequence[int], start_cell: int, cell_count: int) -> list[int]:
        """How many pages of some sizes (in KiB) are free in each cell, cell by cell."""

    def node_alloc_pages(
        self,
        page_sizes: Sequence[int],
        page_counts: Sequence[int],
        start_cell: int,
        cell_count: int,
        *,
        exactly: bool = False,
    ) -> int:
        """Keep so many more pages of each size (in KiB) in each cell, or ``exactly`` so many; how many pools."""

    def node_get_memory_parameters(self) -> Mapping[str, int]:
        """How the kernel merges memory of guests that is the same."""

    def node_set_memory_parameters(self, params: Mapping[str, int]) -> None:
        """Change that: ``shm_pages_to_scan``, ``shm_sleep_millisecs``, ``shm_merge_across_nodes``."""

    def node_suspend_for_duration(self, target: int, duration: int) -> None:
        """Have the host sleep for so many seconds, 60 at least; it begins a little later."""
