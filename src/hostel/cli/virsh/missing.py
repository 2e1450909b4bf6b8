"""The commands of virsh 9.0 that are not here yet: they are refused by name, not as unknown."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
allocpages checkpoint-edit
dom-fd-associate
domifaddr domlaunchsecinfo
domsetlaunchsecstate edit freepages
iface-bridge iface-edit iface-unbridge
managedsave-edit
net-dhcp-leases net-edit net-event net-port-create net-port-delete net-port-dumpxml net-port-list
node-memory-tune nodedev-event nodesevinfo nodesuspend nwfilter-edit
pool-edit pool-event qemu-monitor-event save-image-edit
secret-event setvcpu snapshot-edit
sysinfo update-memory-device
"""
NAMES: Final = frozenset(_TEXT.split())
