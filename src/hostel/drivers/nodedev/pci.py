"""PCI functions."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.nodedev.names import PciNames
from hostel.drivers.nodedev.sysfs import SysDevice
from hostel.model.node_device_capability import (
    HeaderType,
    IommuGroup,
    MediatedType,
    MediatedTypes,
    PciCapability,
    PciExpress,
    PciExpressLink,
    PhysicalFunction,
    Product,
    Vendor,
    VirtualFunctions,
)
from hostel.model.pci_address import PciFunction

_ADDRESS: Final = re.compile(r"([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_UNPRIVILEGED: Final = 64  # bytes of the configuration that everybody may read
_CONFIGURATION: Final = 4096
# Offsets into the configuration (PCI 3.0, 6.1 and 6.7; PCI Express 2.0, 7.8).
_STATUS, _HEADER, _CAPABILITIES = 0x06, 0x0E, 0x34
_HAS_CAPABILITIES: Final = 0x10
_EXPRESS: Final = 0x10
_LINK_CAPABILITIES, _LINK_STATUS = 0x0C, 0x12
_INTEGRATED: Final = (9, 10)  # kinds of functions that have no link
_HEADERS: Final = {1: "pci-bridge", 2: "cardbus-bridge"}
_SPEEDS: Final = {1: "2.5", 2: "5", 3: "8", 4: "16", 5: "32", 6: "64"}


def address_of(path: Path) -> PciFunction | None:
    """The address in the name of a function's directory."""
    match = _ADDRESS.fullmatch(path.name)
    if match is None:
        return None
    domain, bus, slot, function = (int(part, 16) for part in match.groups())
    return PciFunction(domain=domain, bus=bus, slot=slot, function=function)


def numbers(device: SysDevice) -> tuple[int, int] | None:
    """The numbers of a PCI function's vendor and product; None where it is no function."""
    if device.subsystem != "pci":
        return None
    vendor, product = device.number("vendor", 16), device.number("device", 16)
    return None if vendor is None or product is None else (vendor, product)


def describe(device: SysDevice, names: PciNames, *, privileged: bool) -> PciCapability | None:
    """What a PCI function is; None where it has no address or number.

    Args:
        device: the function.
        names: of vendors and products.
        privileged: tell what only root can read, too.
    """
    where, pair = address_of(device.path), numbers(device)
    if where is None or pair is None:
        return None
    vendor, product = pair
    number = device.fact("PCI_CLASS")
    names.load([pair])
    found = PciCapability(
        device_class=None if number is None else int(number, 16),
        domain=where.domain,
        bus=where.bus,
        slot=where.slot,
        function=where.function,
        product=Product(id=product, name=names.product(vendor, product)),
        vendor=Vendor(id=vendor, name=names.vendor(vendor)),
        capabilities=_functions(device),
        iommu_group=_group(device),
    )
    node = device.number("numa_node")
    found.numa_node = node if node is not None and node >= 0 else None
    if privileged:
        _read_configuration(device, found)
    types = mediated_types(device)
    if types is not None:
        found.capabilities.append(types)
    return found


def _functions(device: SysDevice) -> list[Element]:
    found: list[Element] = []
    physical = device.link("physfn")
    if physical is not None and (where := address_of(physical)) is not None:
        found.append(PhysicalFunction(address=where))
    names = sorted(
        (entry.name for entry in device.path.glob("virtfn*")), key=lambda name: int(name.removeprefix("virtfn") or "0")
    )
    links = [link for name in names if (link := device.link(name)) is not None]
    virtual = [where for link in links if (where := address_of(link)) is not None]
    most = device.number("sriov_totalvfs")
    if virtual or most:
        found.append(VirtualFunctions(max_count=most or None, addresses=virtual))
    return found


def _group(device: SysDevice) -> IommuGroup | None:
    group = device.link("iommu_group")
    if group is None or not group.name.isdecimal():
        return None
    try:
        paths = sorted((group / "devices").iterdir())
    except OSError:
        return None
    members = [where for path in paths if (where := address_of(path)) is not None]
    return IommuGroup(number=int(group.name), addresses=members) if members else None


def mediated_types(device: SysDevice) -> MediatedTypes | None:
    """The mediated devices that can be made on a device."""
    found = []
    for path in sorted(device.path.glob("mdev_supported_types/*")):
        kind = SysDevice(device.tree, path, "mdev")
        interface, available = kind.attribute("device_api"), kind.number("available_instances")
        if interface is not None and available is not None:
            name = kind.attribute("name")
            found.append(MediatedType(id=path.name, name=name, device_api=interface, available_instances=available))
    return MediatedTypes(types=found) if found else None


def _read_configuration(device: SysDevice, found: PciCapability) -> None:
    try:
        with (device.path / "config").open("rb") as stream:
            data = stream.read(_CONFIGURATION)
    except OSError:
        return
    if len(data) <= _UNPRIVILEGED:
        return
    header = _HEADERS.get(data[_HEADER] & 0x7F)
    if header is not None:
        found.capabilities.append(HeaderType(type=header))
    at = _find_express(data)
    if at:
        found.pci_express = PciExpress(links=_links(data, at))


def _find_express(data: bytes) -> int:
    """Where the capability of PCI Express lies; 0 where there is none."""
    if not data[_STATUS] & _HAS_CAPABILITIES:
        return 0
    at, seen = data[_CAPABILITIES] & ~3, set[int]()
    while _UNPRIVILEGED <= at <= 252 and at not in seen:
        if data[at] == _EXPRESS:
            return at
        seen.add(at)
        at = data[at + 1] & ~3
    return 0


def _links(data: bytes, at: int) -> list[PciExpressLink]:
    if data[at + 2] >> 4 in _INTEGRATED:
        return []
    (can,) = struct.unpack_from("<I", data, at + _LINK_CAPABILITIES)
    (does,) = struct.unpack_from("<H", data, at + _LINK_STATUS)
    return [
        PciExpressLink(validity="cap", port=can >> 24, speed=_SPEEDS.get(can & 15), width=can >> 4 & 0x3F),
        PciExpressLink(validity="sta", speed=_SPEEDS.get(does & 15), width=does >> 4 & 0x3F),
    ]
