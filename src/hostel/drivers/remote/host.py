"""The processors and memory of a daemon's host."""

from __future__ import annotations

from hostel.drivers.base.host import ALL
from hostel.drivers.remote.driver import RemoteDriver


class RemoteHost(RemoteDriver, kind="host"):
    """Implements :class:`hostel.drivers.base.host.HostDriver`."""

    def node_get_cpu_map(self) -> list[bool]:
        """Of each CPU that there may be, whether it is online."""
        raw, _, count = self._client.call("node_get_cpu_map", 1, 0, 0)
        return [bool(raw[cpu >> 3] >> (cpu & 7) & 1) for cpu in range(count)]

    def node_get_cpu_stats(self, cpu: int = ALL) -> dict[str, int]:
        """What a CPU's time went to."""
        (_, count) = self._client.call("node_get_cpu_stats", cpu, 0, 0)
        return dict(self._client.call("node_get_cpu_stats", cpu, count, 0)[0])

    def node_get_memory_stats(self, cell: int = ALL) -> dict[str, int]:
        """Memory of a NUMA cell."""
        (_, count) = self._client.call("node_get_memory_stats", 0, cell, 0)
        return dict(self._client.call("node_get_memory_stats", count, cell, 0)[0])
