"""The address of a PCI function of the host, where nothing else can be meant."""

from __future__ import annotations

from hostel.codec.xml import Element, attr, hexadecimal


class PciFunction(Element, tag="address"):
    """A PCI function (``virPCIDeviceAddressFormat``)."""

    domain: int = attr(hexadecimal(4, maximum=0xFFFFFFFF), default=0)
    bus: int = attr(hexadecimal(2), default=0)
    slot: int = attr(hexadecimal(2, maximum=0x1F), default=0)
    function: int = attr(hexadecimal(1, maximum=7), default=0)
