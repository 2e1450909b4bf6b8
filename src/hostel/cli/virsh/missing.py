"""The commands of virsh 9.0 that are not here yet: they are refused by name, not as unknown."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
allocpages
dom-fd-associate
domlaunchsecinfo
domsetlaunchsecstate freepages
iface-bridge iface-unbridge
node-memory-tune nodedev-event nodesevinfo nodesuspend
pool-event qemu-monitor-event
secret-event setvcpu
sysinfo update-memory-device
"""
NAMES: Final = frozenset(_TEXT.split())
