"""Kinds of documents beside the domain's: the class of each, and what reads, completes and checks it."""

from __future__ import annotations

from collections.abc import Callable

from hostel.codec.xml import Element
from hostel.model.checkpoint import Checkpoint, read_checkpoint
from hostel.model.interface import HostInterface, read_interface
from hostel.model.network import Network
from hostel.model.network_defaults import read_network
from hostel.model.node_device import NodeDevice, read_node_device
from hostel.model.nwfilter.filter import Filter, read_filter
from hostel.model.pool import read_pool
from hostel.model.secret import Secret, read_secret
from hostel.model.snapshot import Snapshot, read_snapshot
from hostel.model.storage import Pool, PoolType, Volume
from hostel.model.volume import read_volume

Reader = Callable[[str], Element]

KINDS: dict[str, tuple[type[Element], Reader]] = {
    "network": (Network, read_network),
    "pool": (Pool, read_pool),
    "volume": (Volume, lambda xml: read_volume(xml, PoolType.DIR)),
    "interface": (HostInterface, read_interface),
    "node_device": (NodeDevice, read_node_device),
    "secret": (Secret, read_secret),
    "nwfilter": (Filter, read_filter),
    "snapshot": (Snapshot, lambda xml: read_snapshot(xml, now=None, redefine=True)),
    "checkpoint": (Checkpoint, lambda xml: read_checkpoint(xml, now=None, redefine=True)),
}
