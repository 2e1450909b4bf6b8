"""What devices have in common (``virDomainDeviceInfoFormat``): place in the boot order, alias, ROM, address."""

from __future__ import annotations

import re
from typing import Final

from hostel.codec.xml import ON_OFF, YES_NO, Element, Kind, attr, child, integer, setting
from hostel.errors import ErrorCode
from hostel.model.domain.devices.address import (
    Address,
    CcidAddress,
    CcwAddress,
    DimmAddress,
    DriveAddress,
    IsaAddress,
    PciAddress,
    SpaprVioAddress,
    UnassignedAddress,
    UsbAddress,
    VirtioMmioAddress,
    VirtioS390Address,
    VirtioSerialAddress,
)

_LOAD_PARAMETER: Final = re.compile("[A-Za-z0-9. ]+")


def _load_parameter(text: str) -> str:
    if not 1 <= len(text) <= 8:
        raise ValueError("Write 1 to 8 characters")
    if not _LOAD_PARAMETER.fullmatch(text):
        raise ValueError("Write letters, digits, dots and blanks")
    return text.upper()


class Boot(Element, tag="boot"):
    """A device's place in the boot order, from 1 up; on s390x with what the boot loader is told."""

    order: int = attr(integer(1))
    loadparm: str | None = attr(Kind(_load_parameter, str, code=ErrorCode.INTERNAL_ERROR), default=None)


class Rom(Element, tag="rom", drop_empty=True):
    """A PCI device's option ROM."""

    enabled: bool | None = attr(YES_NO, default=None)
    bar: bool | None = attr(ON_OFF, default=None)
    file: str | None = attr(default=None)


class VirtioOptions(Element):
    """The ``<driver>`` attributes that every virtio device may have; last, as its base class's."""

    iommu: bool | None = attr(ON_OFF, default=None)
    ats: bool | None = attr(ON_OFF, default=None)
    packed: bool | None = attr(ON_OFF, default=None)
    page_per_vq: bool | None = attr(ON_OFF, default=None)


class VirtioDriver(VirtioOptions, tag="driver", drop_empty=True):
    """The ``<driver>`` of a virtio device that has no options of its own."""


class Device(Element):
    """A device: alias, ACPI index, address."""

    alias: str | None = setting(name="name", default=None, implied=None)
    acpi_index: int | None = setting(integer(1, 16 * 1024 - 1), tag="acpi", name="index", default=None, implied=None)
    address: Address | None = child(
        PciAddress,
        DriveAddress,
        VirtioSerialAddress,
        CcidAddress,
        UsbAddress,
        SpaprVioAddress,
        VirtioS390Address,
        CcwAddress,
        VirtioMmioAddress,
        IsaAddress,
        DimmAddress,
        UnassignedAddress,
        default=None,
    )


class BootableDevice(Device):
    """A device that firmware can boot from."""

    boot: Boot | None = child(Boot, default=None)


class RomDevice(BootableDevice):
    """A bootable device that may have an option ROM."""

    boot: Boot | None = child(Boot, default=None)
    alias: str | None = setting(name="name", default=None, implied=None)
    rom: Rom | None = child(Rom, default=None)
