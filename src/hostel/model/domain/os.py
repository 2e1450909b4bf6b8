"""``<os>``: what the domain boots (``virDomainDefFormatInternalSetRootName``)."""

from __future__ import annotations

import enum

from hostel.codec.xml import (
    STRING,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    content,
    enumeration,
    integer,
    setting,
    settings,
    text,
    texts,
)
from hostel.model.domain.devices.source import FORMATS, DiskSource, SourceType


class BootDevice(enum.StrEnum):
    """``virDomainBootOrder``: kinds of devices to boot from."""

    FD = "fd"
    CDROM = "cdrom"
    HD = "hd"
    NETWORK = "network"


class OsType(Element, tag="type"):
    """Architecture, machine type, and how much the guest knows of being one."""

    arch: str | None = attr(default=None)
    machine: str | None = attr(default=None)
    value: str = content()


class FirmwareFeature(Element, tag="feature"):
    """What firmware must have or must not have."""

    enabled: bool = attr(YES_NO)
    name: str = attr(choice("enrolled-keys", "secure-boot"))


class Firmware(Element, tag="firmware", drop_empty=True):
    """What firmware to choose."""

    features: list[FirmwareFeature] = children(FirmwareFeature, factory=list)


class InitEnvironment(Element, tag="initenv"):
    """A variable for a container's first program."""

    name: str = attr()
    value: str | None = content(default=None)


class Loader(Element, tag="loader", drop_empty=True):
    """The firmware's file."""

    readonly: bool | None = attr(YES_NO, default=None)
    secure: bool | None = attr(YES_NO, default=None)
    type: str | None = attr(choice("rom", "pflash"), default=None)
    format_name: str | None = attr(choice(*FORMATS), name="format", default=None)
    stateless: bool | None = attr(YES_NO, default=None)
    path: str | None = content(default=None)


class Nvram(Element, tag="nvram", drop_empty=True):
    """Where the firmware keeps its variables, and from what these are made."""

    template: str | None = attr(default=None)
    type: SourceType | None = attr(enumeration(SourceType), default=None)
    format_name: str | None = attr(choice(*FORMATS), name="format", default=None)
    path: str | None = content(default=None)
    source: DiskSource | None = child(DiskSource, default=None)


class AcpiTable(Element, tag="table"):
    """A file with an ACPI table."""

    type: str = attr(choice("slic"))
    path: str | None = content(default=None)


class OsAcpi(Element, tag="acpi", drop_empty=True):
    """ACPI tables of the host's."""

    tables: list[AcpiTable] = children(AcpiTable, factory=list)


class BootMenu(Element, tag="bootmenu"):
    """Whether firmware asks what to boot, and for how many milliseconds."""

    enable: bool = attr(YES_NO)
    timeout: int | None = attr(integer(), default=None)


class Bios(Element, tag="bios", drop_empty=True):
    """The BIOS on the serial port, and after how many milliseconds it tries again; -1 for never."""

    use_serial: bool | None = attr(YES_NO, name="useserial", default=None)
    reboot_timeout: int | None = attr(integer(-1, 65535), name="rebootTimeout", default=None)


class Os(Element, tag="os", keep_open=True):
    """Machine, firmware, kernel, boot devices."""

    firmware: str | None = attr(choice("bios", "efi", words="unknown firmware value {}"), default=None)
    type: OsType = child(OsType)
    firmware_features: Firmware | None = child(Firmware, default=None)
    init: str | None = text(default=None)
    init_arguments: list[str] = texts(STRING, tag="initarg", factory=list)
    init_environment: list[InitEnvironment] = children(InitEnvironment, factory=list)
    init_directory: str | None = text(tag="initdir", default=None)
    init_user: str | None = text(tag="inituser", default=None)
    init_group: str | None = text(tag="initgroup", default=None)
    loader: Loader | None = child(Loader, default=None)
    nvram: Nvram | None = child(Nvram, default=None)
    kernel: str | None = text(default=None)
    initrd: str | None = text(default=None)
    cmdline: str | None = text(default=None)
    dtb: str | None = text(default=None)
    root: str | None = text(default=None)
    acpi: OsAcpi | None = child(OsAcpi, default=None)
    boot: list[BootDevice] = settings(enumeration(BootDevice), name="dev", factory=list)
    bootmenu: BootMenu | None = child(BootMenu, default=None)
    bios: Bios | None = child(Bios, default=None)
    smbios: str | None = setting(choice("none", "emulate", "host", "sysinfo"), name="mode", default=None)
