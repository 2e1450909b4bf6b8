"""Where on the first PCI bus a device is."""

from __future__ import annotations

import re
from typing import Final

from hostel.model.domain.devices.address import PciAddress
from hostel.model.native.qemu.commandline import Properties
from hostel.model.native.settings import refused

_PLACE: Final = re.compile(r"(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?([0-7]))?", re.IGNORECASE)


def pci_place(option: Properties) -> PciAddress | None:
    """The place that a device names; None where QEMU chooses it.

    Raises:
        ModelError: it is on another bus, or no place.
    """
    bus, where, several = option.take("bus"), option.take("addr"), option.flag("multifunction")
    if bus not in (None, "pci.0", "pcie.0", "pci"):
        raise refused(option.option, f"bus='{bus}': write bus=pci.0 or pcie.0, or leave it out")
    if where is None:
        return None
    found = _PLACE.fullmatch(where)
    if found is None:
        raise refused(option.option, f"addr='{where}' is no slot and function, such as 0x3.0x1")
    return PciAddress(slot=int(found[1], 16) & 0x1F, function=int(found[2] or "0"), multifunction=several)
