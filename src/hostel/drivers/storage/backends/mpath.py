"""Pool type ``mpath``: every multipath device of the host."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.device import DeviceVolumes, device_facts
from hostel.drivers.storage.document import PoolDefinition, PoolSizes, VolumeFacts

_MAP: Final = re.compile(r"(\S+)\s+\(\d+[:,]\s*(\d+)\)")  # a name, and the device's number


class MultipathBackend(DeviceVolumes):
    """What the kernel's device mapper has of the kind ``multipath``."""

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether the host has a device mapper."""
        return os.path.exists(f"{self.host.dev}/mapper") or os.path.exists(f"{self.host.dev}/mpath")

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Make sure that the device mapper answers."""
        tool.settle()
        self.describe_all(pool)
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The sum of the devices; nothing is free."""
        volumes = list(self.describe_all(pool))
        total = sum(facts.capacity for facts in volumes)
        return pool, PoolSizes(total, sum(facts.allocation for facts in volumes), 0)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """Every multipath device."""
        found = []
        for line in tool.run(["dmsetup", "ls", "--target", "multipath"]).out.splitlines():
            match = _MAP.fullmatch(line.strip())
            facts = device_facts(f"dm-{match[2]}", f"{self.host.dev}/mapper/{match[1]}") if match else None
            if facts is not None:
                found.append(facts)
        return found
