"""The commands of virsh 9.0 that are not here yet: they are refused by name, not as unknown."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
allocpages checkpoint-edit
dom-fd-associate domdirtyrate-calc domdisplay
domifaddr domlaunchsecinfo
domsetlaunchsecstate dump edit freepages
iface-bridge iface-edit iface-unbridge
lxc-enter-namespace managedsave-edit
net-dhcp-leases net-edit net-event net-port-create net-port-delete net-port-dumpxml net-port-list
node-memory-tune nodedev-event nodesevinfo nodesuspend nwfilter-edit
pool-edit pool-event qemu-attach qemu-monitor-event save-image-edit
secret-event send-process-signal set-lifecycle-action setvcpu snapshot-edit
sysinfo update-memory-device
"""
NAMES: Final = frozenset(_TEXT.split())
