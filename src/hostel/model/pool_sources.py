"""Sources that were found for a pool (``virStoragePoolSourceListFormat``)."""

from __future__ import annotations

from hostel.codec.xml import Element, children
from hostel.model.storage import PoolSource


class PoolSources(Element, tag="sources", keep_open=True):
    """What ``virsh find-storage-pool-sources`` shows."""

    sources: list[PoolSource] = children(PoolSource, factory=list)
