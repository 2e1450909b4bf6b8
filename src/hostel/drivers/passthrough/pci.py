"""PCI functions of the host: who drives them, and the driver by which a guest may have one (``virpci.c``).

A function is taken from the host by binding it to ``vfio-pci`` and given back by letting the kernel find its driver
again (Documentation/ABI/testing/sysfs-bus-pci, ``driver_override``). The kernel keeps apart groups of functions, not
single ones: what is in a group belongs to one guest, or to none (Documentation/driver-api/vfio.rst).
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Final

from hostel.drivers import tool
from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

DRIVER: Final = "vfio-pci"
_ROOT: Final = Path("/")
_HEADER: Final = 0x0E  # in the configuration (PCI 3.0, 6.1)
_PLAIN: Final = 0  # the kind of header that functions have which are no bridges
_MODPROBE_SECONDS: Final = 30.0
_FREE_SECONDS: Final = 10.0  # in which the kernel closes what a program had that has ended
_READY_SECONDS: Final = 10.0  # in which a driver that the kernel is trying has made what guests open
_SETTLED: Final = 0.1  # seconds in which who had a device has let go of it for good
_TRIES: Final = 3
_POLL: Final = 0.05  # seconds
_LET_GO: Final = (errno.ENOENT, errno.ENODEV)  # of a driver that was trying a new function, and could not drive it


def _led_to(link: Path) -> str | None:
    """The name of what a link of sysfs leads to; None where it is not there, for links come and go with drivers."""
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return None


class PciFunctions:
    """The PCI functions of a host, by names such as ``0000:01:00.0``.

    Args:
        domain: what errors are about.

    Attributes:
        root: where the host's files lie.
    """

    def __init__(self, root: Path = _ROOT, domain: ErrorDomain = ErrorDomain.NONE) -> None:
        self.root = root
        self._sys = root / "sys/bus/pci"
        self._domain = domain

    def path(self, name: str) -> Path:
        """Where sysfs has a function."""
        return self._sys / "devices" / name

    def exists(self, name: str) -> bool:
        """Whether there is one of this name."""
        return self.path(name).is_dir()

    def driver(self, name: str) -> str | None:
        """Who drives it; None where nobody does."""
        return _led_to(self.path(name) / "driver")

    def group(self, name: str) -> int | None:
        """The number of its IOMMU group; None where it is in none."""
        number = _led_to(self.path(name) / "iommu_group")
        return int(number) if number is not None and number.isdecimal() else None

    def companions(self, name: str) -> list[str]:
        """The functions of its group, itself among them."""
        try:
            return sorted(os.listdir(self.path(name) / "iommu_group" / "devices"))
        except OSError:
            return [name]

    def is_endpoint(self, name: str) -> bool:
        """Whether it is a device, and no bridge."""
        try:
            with (self.path(name) / "config").open("rb") as stream:
                header = stream.read(_HEADER + 1)
        except OSError:
            return True
        return len(header) <= _HEADER or header[_HEADER] & 0x7F == _PLAIN

    def has_iommu(self) -> bool:
        """Whether the host keeps the memory of devices apart at all."""
        try:
            return bool(os.listdir(self.root / "sys/kernel/iommu_groups"))
        except OSError:
            return False

    def physical(self, name: str) -> str | None:
        """The function whose virtual one it is; None where it is none (Single Root I/O Virtualization)."""
        return _led_to(self.path(name) / "physfn")

    def virtual(self, name: str) -> list[str]:
        """The virtual functions that it has, in the order of their numbers."""
        links = {int(found.name[6:]): found for found in self.path(name).glob("virtfn*") if found.name[6:].isdecimal()}
        return [Path(os.path.realpath(links[number])).name for number in sorted(links)]

    def in_group_of_others(self, name: str) -> str | None:
        """A function of its group that the host drives, for which nobody may have the group; None where none is."""
        for other in self.companions(name):
            if self.driver(other) not in (None, DRIVER) and self.is_endpoint(other):
                return other
        return None

    def load_driver(self) -> None:
        """Have the kernel load the driver by which guests get functions.

        Raises:
            VirtError: ``INTERNAL_ERROR``: it cannot, or is forbidden to.
        """
        folder, said = self._sys / "drivers" / DRIVER, ""
        if not folder.is_dir() and self.root == _ROOT:
            done = tool.run(["modprobe", "-b", DRIVER], self._domain, expected=range(256), timeout=_MODPROBE_SECONDS)
            said = done.err.strip().replace("\n", "; ")
        if not folder.is_dir():
            reason = said or f"administratively prohibited, or not there; modprobe {DRIVER} says which"
            raise fault(ErrorCode.INTERNAL_ERROR, f"Failed to load PCI stub module {DRIVER}: {reason}", self._domain)

    def take(self, name: str) -> None:
        """Take a function from the host, so that QEMU can open it; one that is taken already stays so.

        Raises:
            VirtError: the kernel refused.
        """
        self.load_driver()
        for _ in range(_TRIES):
            taken = self.driver(name) != DRIVER
            if taken:
                self._bind(name, DRIVER)
            if self.driver(name) == DRIVER:
                self._wait_until_ready(name)
            # A driver that could not start a device lets go of it by work of its own, maybe only once it is another's.
            if taken:
                time.sleep(_SETTLED)
            if self.driver(name) == DRIVER:
                return
        reason = f"PCI device {name} was taken from its driver, and {DRIVER} did not take it; see dmesg"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, self._domain)

    def give_back(self, name: str) -> None:
        """Let the host have a function again.

        Raises:
            VirtError: the kernel refused, or a program has it open.
        """
        self._wait_until_free(name)
        self._bind(name, "\n")

    def reset(self, name: str) -> None:
        """Reset a function; ``vfio-pci`` does so by itself whenever somebody else gets it.

        Raises:
            VirtError: ``INTERNAL_ERROR``: it is none that can be reset.
        """
        if not self.is_endpoint(name):
            reason = f"Invalid attempt to reset PCI device {name}. Only PCI endpoint devices can be reset"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, self._domain)
        if self.driver(name) == DRIVER:
            return
        if not (self.path(name) / "reset").exists():
            reason = f"Unable to reset PCI device {name}: no FLR, PM reset or bus reset available"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, self._domain)
        self._write(self.path(name) / "reset", "1", f"Unable to reset PCI device {name}")

    def _bind(self, name: str, driver: str) -> None:
        """Say who is to drive a function, take it from who does, and let the kernel look again."""
        folder = self.path(name)
        doing = f"Failed to add driver '{driver.strip()}' to driver_override interface of PCI device '{name}'"
        self._write(folder / "driver_override", driver, doing)
        old = self.driver(name)
        if old is not None:
            try:
                self._write(folder / "driver/unbind", name, f"Failed to unbind PCI device '{name}' from {old}")
            except VirtError as error:
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _LET_GO:
                    raise
        self._write(self._sys / "drivers_probe", name, f"Failed to trigger a probe for PCI device '{name}'")

    def _wait_until_ready(self, name: str) -> None:
        """The kernel shows the driver that it tries on a new function, and asks no other, before that one has it.

        Where VFIO has no files here, or the group's does not come, QEMU says so.
        """
        group, folder = self.group(name), self.root / "dev/vfio"
        if group is None or not (folder / "vfio").exists():
            return
        deadline = time.monotonic() + _READY_SECONDS
        names = str(group), f"noiommu-{group}"  # the latter on a host that keeps no memory of devices apart
        while not any((folder / each).exists() for each in names) and time.monotonic() < deadline:
            time.sleep(_POLL)

    def _wait_until_free(self, name: str) -> None:
        """The kernel would wait without end for who has a function open; a group has one user at a time."""
        group = self.group(name)
        if self.driver(name) != DRIVER or group is None:
            return
        deadline = time.monotonic() + _FREE_SECONDS
        while True:
            try:
                os.close(os.open(self.root / f"dev/vfio/{group}", os.O_RDWR | os.O_CLOEXEC))
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    return
            if time.monotonic() >= deadline:
                reason = f"PCI device {name} is not given back: its group {group} is open in another program"
                raise fault(ErrorCode.OPERATION_FAILED, reason, self._domain)
            time.sleep(_POLL)

    def _write(self, path: Path, text: str, doing: str) -> None:
        try:
            path.write_text(text)
        except OSError as error:
            raise system_fault(error, doing, self._domain) from error
