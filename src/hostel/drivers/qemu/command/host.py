"""Devices of the host by what a document says of them, as sysfs has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from hostel.drivers.qemu.document import unsupported

_SYS = Path("/sys")


class HostDevices(Protocol):
    """Finds devices of the host."""

    def usb(self, vendor: int, product: int) -> tuple[int, int]:
        """The bus and the number of a USB device.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is none, or more than one.
        """

    def scsi_generic(self, adapter: str, bus: int, target: int, unit: int) -> str:
        """The node that speaks SCSI to a device of an adapter, such as ``scsi_host0``.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is no such device.
        """


class Sysfs:
    """Devices as the kernel shows them."""

    def __init__(self, root: Path = _SYS) -> None:
        self._root = root

    def usb(self, vendor: int, product: int) -> tuple[int, int]:
        """The bus and the number of a USB device.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is none, or more than one.
        """
        wanted = [f"{vendor:04x}", f"{product:04x}"]
        found = [
            (int(_line(folder / "busnum") or 0), int(_line(folder / "devnum") or 0))
            for folder in sorted(self._root.glob("bus/usb/devices/*"))
            if [_line(folder / "idVendor"), _line(folder / "idProduct")] == wanted
        ]
        name = f"{wanted[0]}:{wanted[1]}"
        if not found:
            raise unsupported(f"Did not find USB device {name}; plug it in, or write its <address bus=… device=…>")
        if len(found) > 1:
            raise unsupported(f"Multiple USB devices for {name}; write the <address bus=… device=…> of one")
        return found[0]

    def scsi_generic(self, adapter: str, bus: int, target: int, unit: int) -> str:
        """The node that speaks SCSI to a device of an adapter, such as ``scsi_host0``.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is no such device.
        """
        number = adapter.removeprefix("scsi_host")
        if not (number.isascii() and number.isdecimal()):
            raise unsupported(f"<adapter name='{adapter}'>; write scsi_host and its number")
        folder = self._root / f"bus/scsi/devices/{int(number)}:{bus}:{target}:{unit}/scsi_generic"
        try:
            (name,) = os.listdir(folder)
        except (OSError, ValueError):
            raise unsupported(f"there is no SCSI device {int(number)}:{bus}:{target}:{unit} on this host") from None
        return f"/dev/{name}"


def _line(path: Path) -> str:
    """The one line of a file of sysfs; empty where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
