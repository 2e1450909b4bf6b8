"""The public object model: a connection, and typed handles of what it manages.

>>> with hostel.open("qemu:///session") as connection:  # doctest: +SKIP
...     pool = connection.pool("default")
...     volume = pool.create_volume(name="web1.qcow2", capacity=10 * 1024**3, format="qcow2")
...     connection.domain("web1").start()

A handle names an object and holds nothing: two handles of one object are equal, and every property asks the driver.
Errors are :class:`hostel.errors.VirtError` with libvirt's code and text.
"""

from __future__ import annotations

from hostel.drivers.base import DomainState, Hole, PoolState, VolumeType, WipeAlgorithm
from hostel.objects.connection import Connection
from hostel.objects.domain import Domain
from hostel.objects.network import Network
from hostel.objects.storage import StoragePool, StorageVolume

__all__ = [
    "Connection", "Domain", "DomainState", "Hole", "Network", "PoolState", "StoragePool", "StorageVolume", "VolumeType",
    "WipeAlgorithm",
]  # fmt: skip
