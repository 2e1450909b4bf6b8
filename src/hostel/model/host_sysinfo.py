"""``<sysinfo>`` of a host: what its firmware tells of it (``virSysinfoFormat``)."""

from __future__ import annotations

from hostel.codec.xml import Element, attr, child, children
from hostel.model.domain.sysinfo import BaseBoard, Chassis, Entry, OemStrings, SysinfoBios, SysinfoSystem


class Processor(Element, tag="processor"):
    """SMBIOS block 4."""

    entries: list[Entry] = children(Entry, factory=list)


class MemoryModule(Element, tag="memory_device"):
    """SMBIOS block 17."""

    entries: list[Entry] = children(Entry, factory=list)


class HostSysinfo(Element, tag="sysinfo"):
    """The blocks that libvirt has a place for."""

    type: str = attr()
    bios: SysinfoBios | None = child(SysinfoBios, default=None)
    system: SysinfoSystem | None = child(SysinfoSystem, default=None)
    base_boards: list[BaseBoard] = children(BaseBoard, factory=list)
    chassis: Chassis | None = child(Chassis, default=None)
    processors: list[Processor] = children(Processor, factory=list)
    memory: list[MemoryModule] = children(MemoryModule, factory=list)
    oem_strings: OemStrings | None = child(OemStrings, default=None)
