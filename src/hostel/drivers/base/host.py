"""The host: its processors and memory."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

ALL: Final = -1  # every CPU, every cell


class NodeInfo(NamedTuple):
    """``virNodeInfo``: memory in KiB, frequency in MHz; sockets of a cell, cores of a socket, threads of a core."""

    model: str
    memory: int
    cpus: int
    mhz: int
    nodes: int
    sockets: int
    cores: int
    threads: int


LIBRARY_VERSION: Final = 9_000_000  # the libvirt whose behaviour ours is


class HostDriver(Protocol):
    """What a hypervisor's host has."""

    def connect_get_lib_version(self) -> int:
        """The libvirt that is answered as: 1,000,000 * major + 1,000 * minor + release."""

    def node_get_info(self) -> NodeInfo:
        """Processors and memory."""

    def node_get_cpu_map(self) -> list[bool]:
        """Of each CPU that there may be, whether it is online."""

    def node_get_cpu_stats(self, cpu: int = ALL) -> dict[str, int]:
        """What a CPU's time went to, in nanoseconds; ``INVALID_ARG`` where there is no such CPU."""

    def node_get_memory_stats(self, cell: int = ALL) -> dict[str, int]:
        """Memory of a NUMA cell, in KiB; ``INVALID_ARG`` where there is no such cell."""

    def node_get_free_memory(self) -> int:
        """Free memory, in bytes."""

    def node_get_cells_free_memory(self, start: int, count: int) -> list[int]:
        """Free memory of NUMA cells from ``start`` on, in bytes."""

    def connect_get_max_vcpus(self, type: str | None = None) -> int:
        """How many CPUs a machine may have, of a domain's type."""

    def close(self) -> None:
        """Release what the driver holds."""
