"""``<address>``: where a device is on its bus; the ``type`` says which bus (``virDomainDeviceInfoFormat``)."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, Element, attr, child, hexadecimal, integer


class Address(Element, tag="address"):
    """Where a device is; a subclass for each ``type``."""


class ZpciAddress(Element, tag="zpci"):
    """A PCI device's numbers on s390x."""

    uid: int | None = attr(hexadecimal(4), default=None)
    fid: int | None = attr(hexadecimal(8), default=None)


class PciAddress(Address, when={"type": "pci"}):
    """Domain, bus, slot and function; it is still to be chosen where the first three are zero."""

    domain: int = attr(hexadecimal(4, maximum=0xFFFFFFFF), default=0)
    bus: int = attr(hexadecimal(2), default=0)
    slot: int = attr(hexadecimal(2, maximum=0x1F), default=0)
    function: int = attr(hexadecimal(1, maximum=7), default=0)
    multifunction: bool | None = attr(ON_OFF, default=None)
    zpci: ZpciAddress | None = child(ZpciAddress, default=None)

    @property
    def is_chosen(self) -> bool:
        """Whether it names a place."""
        return bool(self.domain or self.bus or self.slot)

    @property
    def place(self) -> tuple[int, int, int, int]:
        """What no two devices may share."""
        return self.domain, self.bus, self.slot, self.function


class DriveAddress(Address, when={"type": "drive"}):
    """Controller, bus, target and unit of a disk."""

    controller: int = attr(integer(), default=0)
    bus: int = attr(integer(), default=0)
    target: int = attr(integer(), default=0)
    unit: int = attr(integer(), default=0)

    @property
    def place(self) -> tuple[int, int, int, int]:
        """What no two disks of one kind of controller may share."""
        return self.controller, self.bus, self.target, self.unit


class VirtioSerialAddress(Address, when={"type": "virtio-serial"}):
    """A port of a virtio serial controller."""

    controller: int = attr(integer(), default=0)
    bus: int = attr(integer(), default=0)
    port: int | None = attr(integer(), default=None)


class CcidAddress(Address, when={"type": "ccid"}):
    """A slot of a smartcard reader."""

    controller: int = attr(integer(), default=0)
    slot: int = attr(integer(), default=0)


class UsbAddress(Address, when={"type": "usb"}):
    """A USB bus and, hub by hub, the ports on the way: ``1.3``."""

    bus: int = attr(integer(), default=0)
    port: str | None = attr(default=None)


class SpaprVioAddress(Address, when={"type": "spapr-vio"}):
    """A register of a POWER machine's virtual I/O bus."""

    reg: int | None = attr(hexadecimal(8, base=16, maximum=2**64 - 1), default=None)


class VirtioS390Address(Address, when={"type": "virtio-s390"}):
    """The legacy virtio bus of s390."""


class CcwAddress(Address, when={"type": "ccw"}):
    """A channel of s390x; None where it is still to be chosen."""

    cssid: int | None = attr(hexadecimal(1, maximum=0xFE), default=None)
    ssid: int | None = attr(hexadecimal(1, maximum=3), default=None)
    devno: int | None = attr(hexadecimal(4), default=None)


class VirtioMmioAddress(Address, when={"type": "virtio-mmio"}):
    """A virtio device in memory."""


class IsaAddress(Address, when={"type": "isa"}):
    """An I/O port and an interrupt."""

    iobase: int | None = attr(hexadecimal(1, base=16, maximum=0xFFFFFFFF), default=None)
    irq: int | None = attr(hexadecimal(1, base=16, maximum=0xFFFFFFFF), default=None)


class DimmAddress(Address, when={"type": "dimm"}):
    """A slot for memory, and where it begins."""

    slot: int = attr(integer())
    base: int | None = attr(hexadecimal(1, base=16, maximum=2**64 - 1), default=None)


class UnassignedAddress(Address, when={"type": "unassigned"}):
    """A host device that is known to the domain and not plugged in."""
