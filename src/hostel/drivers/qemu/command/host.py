"""Devices of the host by what a document says of them, as sysfs has them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from hostel.drivers.fault import fault
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_SYS = Path("/sys")
_PROC: Final = Path("/proc")
_PAGE_SIZE: Final = re.compile(r",pagesize=(\d+)([KMG]),")
_UNITS: Final = {"K": 1, "M": 1024, "G": 1024 * 1024}  # KiB


class HostDevices(Protocol):
    """Finds devices of the host."""

    def usb(self, vendor: int, product: int) -> tuple[int, int]:
        """The bus and the number of a USB device.

        Raises:
            VirtError: ``INTERNAL_ERROR``: there is none; ``OPERATION_FAILED``: there is more than one.
        """

    def scsi_generic(self, adapter: str, bus: int, target: int, unit: int) -> str:
        """The node that speaks SCSI to a device of an adapter, such as ``scsi_host0``.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is no such device.
        """


class LargePages(NamedTuple):
    """The host's large pages, as far as guests can be given them.

    Attributes:
        default: the size that is meant where none is said, in KiB; 0 where the host has none.
        mounts: where those of each size, in KiB, are mounted.
    """

    default: int = 0
    mounts: Mapping[int, str] = {}

    def path(self, size: int) -> str:
        """The directory in which QEMU makes a file of pages of a size.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: they are mounted nowhere.
        """
        if size not in self.mounts:
            which = f"{size} KiB" if size else "the default size"
            fix = "mount -t hugetlbfs -o pagesize=… hugetlbfs /dev/hugepages"
            raise unsupported(f"Unable to find any usable hugetlbfs mount for {which}; {fix}, or leave <hugepages> out")
        return self.mounts[size]


def large_pages(proc: Path = _PROC, only: Collection[str] | None = None) -> LargePages:
    """Those of this host that we may use.

    Args:
        proc: where the kernel tells of them.
        only: the places where they are mounted for guests; None for all.
    """
    default = next((line.split()[1] for line in _lines(proc / "meminfo") if line.startswith("Hugepagesize:")), "0")
    mounts: dict[int, str] = {}
    for line in _lines(proc / "mounts"):
        _, place, kind, settings, *_ = [*line.split(), "", "", "", ""]
        size = _PAGE_SIZE.search(f",{settings},")
        is_meant = only is None or place in only
        if kind == "hugetlbfs" and is_meant and size is not None and os.access(place, os.W_OK):
            mounts.setdefault(int(size[1]) * _UNITS[size[2]], place)
    return LargePages(int(default), mounts)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


class Sysfs:
    """Devices as the kernel shows them."""

    def __init__(self, root: Path = _SYS) -> None:
        self._root = root

    def usb(self, vendor: int, product: int) -> tuple[int, int]:
        """The bus and the number of a USB device.

        Raises:
            VirtError: ``INTERNAL_ERROR``: there is none; ``OPERATION_FAILED``: there is more than one.
        """
        found = [place for place, kind in self._usb() if kind == (vendor, product)]
        name = f"{vendor:04x}:{product:04x}"
        if not found:
            raise _not_found(f"{name}; plug it in, or write its <address bus=… device=…>")
        if len(found) > 1:
            places = ", ".join(f"bus='{bus}' device='{number}'" for bus, number in found)
            reason = f"Multiple USB devices for {vendor:x}:{product:x}, use <address> to specify one of {places}"
            raise fault(ErrorCode.OPERATION_FAILED, reason, ErrorDomain.QEMU)
        return found[0]

    def usb_at(self, bus: int, number: int, *, kind: tuple[int, int] | None = None) -> tuple[int, int]:
        """The same, of the device at a place, which may have to be of a vendor and a product.

        Raises:
            VirtError: ``INTERNAL_ERROR``: there is none.
        """
        if any(place == (bus, number) and kind in (None, found) for place, found in self._usb()):
            return bus, number
        which = f"{kind[0]:04x}:{kind[1]:04x} " if kind is not None else ""
        raise _not_found(f"{which}bus:{bus} device:{number}; plug it in, or write its <vendor> and <product>")

    def _usb(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Every USB device: its bus and number there, its vendor and product."""
        for folder in sorted(self._root.glob("bus/usb/devices/*")):
            try:
                place = (int(_line(folder / "busnum")), int(_line(folder / "devnum")))
                yield place, (int(_line(folder / "idVendor"), 16), int(_line(folder / "idProduct"), 16))
            except ValueError:
                continue  # an interface of a device, or one that is going

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


def _not_found(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, f"Did not find USB device {what}", ErrorDomain.QEMU)


def _line(path: Path) -> str:
    """The one line of a file of sysfs; empty where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
