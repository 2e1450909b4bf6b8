"""What this host's QEMU says of itself, for a kernel of a test's own, in which it takes long to ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from unittest import mock

from hostel.drivers.base import StartFlag
from hostel.drivers.qemu import probe
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from support.answers import remembered

_MACHINE: Final = (
    "<domain type='qemu'><name>asked</name><memory unit='MiB'>16</memory>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>"
)


def tell(home: Path) -> Path:
    """Write to the cache below ``home`` what is asked for capabilities and to start a machine; the cache."""
    directories = Directories.under(home)
    # What this process has in memory it would not write again.
    with remembered(directories.cache / "qemu", "hostel"), mock.patch.dict(probe._answered, clear=True):
        driver = QemuDriver(directories)
        driver.connect_get_capabilities()
        driver.domain_destroy(driver.domain_create_xml(_MACHINE, StartFlag.PAUSED))
    return directories.cache
