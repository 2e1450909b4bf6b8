"""``<sysinfo>``: what firmware tells the guest of the machine (``virSysinfoFormat``)."""

from __future__ import annotations

from hostel.codec.xml import Element, attr, child, children, choice, content


class Entry(Element, tag="entry"):
    """A named value, or the file that has it."""

    name: str | None = attr(default=None)
    file: str | None = attr(default=None)
    value: str | None = content(default=None)


class SysinfoBios(Element, tag="bios", drop_empty=True):
    """SMBIOS block 0."""

    entries: list[Entry] = children(Entry, factory=list)


class SysinfoSystem(Element, tag="system", drop_empty=True):
    """SMBIOS block 1."""

    entries: list[Entry] = children(Entry, factory=list)


class BaseBoard(Element, tag="baseBoard"):
    """SMBIOS block 2."""

    entries: list[Entry] = children(Entry, factory=list)


class Chassis(Element, tag="chassis", drop_empty=True):
    """SMBIOS block 3."""

    entries: list[Entry] = children(Entry, factory=list)


class OemStrings(Element, tag="oemStrings", drop_empty=True):
    """SMBIOS block 11."""

    entries: list[Entry] = children(Entry, factory=list)


class Sysinfo(Element, tag="sysinfo"):
    """SMBIOS blocks, or files for QEMU's firmware configuration."""

    type: str = attr(choice("smbios", "fwcfg"))
    bios: SysinfoBios | None = child(SysinfoBios, default=None)
    system: SysinfoSystem | None = child(SysinfoSystem, default=None)
    base_boards: list[BaseBoard] = children(BaseBoard, factory=list)
    chassis: Chassis | None = child(Chassis, default=None)
    oem_strings: OemStrings | None = child(OemStrings, default=None)
    entries: list[Entry] = children(Entry, factory=list)
