"""The processors and memory that libvirt's test driver invents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hostel.drivers.base.host import ALL, LIBRARY_VERSION, NodeInfo
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_MOST_COUNTS: Final = 1024
_WHOLE: Final = 2**64
INFO: Final = NodeInfo("i686", 3 << 20, 16, 1400, 2, 2, 2, 2)


def _unsupported(function: str) -> VirtError:
    return fault(ErrorCode.NO_SUPPORT, function, ErrorDomain.NONE)


class TestHostDriver:
    """Implements :class:`hostel.drivers.base.host.HostDriver`."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, info: NodeInfo = INFO) -> None:
        self._info = info

    def connect_get_lib_version(self) -> int:
        """The libvirt that is answered as."""
        return LIBRARY_VERSION

    def node_get_info(self) -> NodeInfo:
        """Sixteen CPUs in two cells, or what a file says."""
        return self._info

    def node_get_free_pages(self, pages: Sequence[int], start_cell: int, cell_count: int) -> list[int]:
        """Invented numbers, as libvirt's, and no more of them than go over its protocol."""
        if cell_count * len(pages) > _MOST_COUNTS:
            raise fault(ErrorCode.INTERNAL_ERROR, "the result won't fit into REMOTE_NODE_MAX_CELLS")
        found = [6]
        for _ in range(cell_count * len(pages)):
            found.append((found[-1] * 2 + 7) % _WHOLE)
        return found[1:]

    def node_alloc_pages(
        self,
        page_sizes: Sequence[int],
        page_counts: Sequence[int],
        start_cell: int,
        cell_count: int,
        *,
        exactly: bool = False,
    ) -> int:
        """Refused, as by libvirt's."""
        raise _unsupported("virNodeAllocPages")

    def node_get_memory_parameters(self) -> dict[str, int]:
        """Refused, as by libvirt's."""
        raise _unsupported("virNodeGetMemoryParameters")

    def node_set_memory_parameters(self, params: Mapping[str, int]) -> None:
        """Refused, as by libvirt's."""
        raise _unsupported("virNodeSetMemoryParameters")

    def node_suspend_for_duration(self, target: int, duration: int) -> None:
        """Refused, as by libvirt's."""
        raise _unsupported("virNodeSuspendForDuration")

    def node_get_cpu_map(self) -> list[bool]:
        """Eight CPUs, three of which are online: they are not those of the other call."""
        return [cpu in (0, 2, 4) for cpu in range(8)]

    def node_get_cpu_stats(self, cpu: int = ALL) -> dict[str, int]:
        """The same, each time."""
        return {"user": 9797400000, "kernel": 34678723400000, "idle": 87264900000, "iowait": 763600000}

    def node_get_memory_stats(self, cell: int = ALL) -> dict[str, int]:
        """Refused, as by libvirt's test driver."""
        raise _unsupported("virNodeGetMemoryStats")

    def node_get_free_memory(self) -> int:
        """All of what is said in KiB, in bytes: libvirt's test driver mixes them up."""
        return 3 << 20

    def node_get_cells_free_memory(self, start: int, count: int) -> list[int]:
        """Two cells."""
        if not 0 <= start < 2:
            raise fault(ErrorCode.INVALID_ARG, "Range exceeds available cells", ErrorDomain.TEST)
        return [2 << 20, 4 << 20][start : start + count]

    def connect_get_max_vcpus(self, type: str | None = None) -> int:
        """Always 32."""
        return 32

    def close(self) -> None:
        """Nothing is held."""
