"""The host's SMBIOS, as ``dmidecode`` reads it; only root may (``virSysinfoReadDMI``)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from hostel.model.domain.sysinfo import BaseBoard, Chassis, Entry, OemStrings, SysinfoBios, SysinfoSystem
from hostel.model.host_sysinfo import HostSysinfo, MemoryModule, Processor

_SECONDS: Final = 20.0
_BLOCKS: Final = "0,1,2,3,4,11,17"
_STRING: Final = re.compile(r"String \d+$")
# dmidecode's names of values, and libvirt's, by dmidecode's names of blocks; in libvirt's order.
_NAMES: Final[dict[str, dict[str, str]]] = {
    "BIOS Information": {"Vendor": "vendor", "Version": "version", "Release Date": "date", "BIOS Revision": "release"},
    "System Information": {
        "Manufacturer": "manufacturer", "Product Name": "product", "Version": "version", "Serial Number": "serial",
        "UUID": "uuid", "SKU Number": "sku", "Family": "family",
    },
    "Base Board Information": {
        "Manufacturer": "manufacturer", "Product Name": "product", "Version": "version", "Serial Number": "serial",
        "Asset Tag": "asset", "Location In Chassis": "location",
    },
    "Chassis Information": {
        "Manufacturer": "manufacturer", "Version": "version", "Serial Number": "serial", "Asset Tag": "asset",
        "SKU Number": "sku",
    },
    "Processor Information": {
        "Socket Designation": "socket_destination", "Type": "type", "Family": "family", "Manufacturer": "manufacturer",
        "Signature": "signature", "Version": "version", "External Clock": "external_clock", "Max Speed": "max_speed",
        "Status": "status", "Serial Number": "serial_number", "Part Number": "part_number",
    },
    "Memory Device": {
        "Size": "size", "Form Factor": "form_factor", "Locator": "locator", "Bank Locator": "bank_locator",
        "Type": "type", "Type Detail": "type_detail", "Speed": "speed", "Manufacturer": "manufacturer",
        "Serial Number": "serial_number", "Part Number": "part_number",
    },
}  # fmt: skip
_EMPTY: Final = "No Module Installed"


def host_sysinfo() -> HostSysinfo | None:
    """What it says; None where the host has no SMBIOS, or we may not read it, or there is no dmidecode."""
    program = shutil.which("dmidecode") or shutil.which("dmidecode", path="/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, "-q", "-t", _BLOCKS], capture_output=True, text=True, errors="replace", timeout=_SECONDS,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described(answer.stdout) if answer.returncode == 0 else None


def described(text: str) -> HostSysinfo | None:
    """What dmidecode prints as a document; None where it says nothing."""
    blocks = list(_blocks(text))
    if not blocks:
        return None
    found = HostSysinfo(type="smbios")
    strings: list[Entry] = []
    for name, values in blocks:
        if name == "OEM Strings":
            strings += [Entry(value=value) for key, value in values.items() if _STRING.fullmatch(key)]
            continue
        entries = [Entry(name=ours, value=values[key]) for key, ours in _NAMES.get(name, {}).items() if key in values]
        if name == "BIOS Information":
            found.bios = found.bios or SysinfoBios(entries=entries)
        elif name == "System Information":
            found.system = found.system or SysinfoSystem(entries=entries)
        elif name == "Base Board Information":
            found.base_boards.append(BaseBoard(entries=entries))
        elif name == "Chassis Information":
            found.chassis = found.chassis or Chassis(entries=entries)
        elif name == "Processor Information":
            found.processors.append(Processor(entries=entries))
        elif name == "Memory Device" and values.get("Size") != _EMPTY:
            found.memory.append(MemoryModule(entries=entries))
    found.oem_strings = OemStrings(entries=strings) if strings else None
    return found


def _blocks(text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each block's name and its values; of a name that is there twice the first."""
    name, values = "", dict[str, str]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("\t"):
            key, colon, value = line.strip().partition(":")
            if colon and not line.startswith("\t\t") and value.strip():
                values.setdefault(key.strip(), value.strip())
            continue
        if name and values:
            yield name, values
        name, values = line.strip(), {}
