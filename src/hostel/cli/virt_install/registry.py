"""Every option that describes a part of the machine, in the order in which virt-install reads them."""

from __future__ import annotations

from typing import Final

from hostel.cli.virt_install import (
    character,
    device,
    disk,
    edit,
    general,
    graphics,
    hostdev,
    network,
    tuning,
)
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import Option
from hostel.cli.virt_install.suboption import Sub, SubOptions
from hostel.errors import UsageError

XML: Final = SubOptions(
    "--xml", tuple(Sub(f"xpath.{verb}", comma=True) for verb in ("delete", "set", "create", "value")), clears=False
)
_TABLES: Final = (
    *general.OPTIONS, *tuning.OPTIONS, *network.OPTIONS, *graphics.OPTIONS, *device.OPTIONS, *character.OPTIONS,
)  # fmt: skip
# What is installed depends on these; they are read first.
EARLY: Final = ("boot", "metadata")
# As virt-install has them: a device may depend on one that was read before.
_ORDER: Final = (
    "disk", "network", "graphics", "metadata", "memory", "cpu", "vcpus", "iothreads", "seclabel", "keywrap", "cputune",
    "numatune", "memtune", "blkiotune", "memorybacking", "features", "clock", "pm", "events", "resource", "sysinfo",
    "qemu-commandline", "launchSecurity", "boot", "idmap", "controller", "input", "serial", "parallel", "channel",
    "console", "hostdev", "filesystem", "sound", "audio", "watchdog", "video", "smartcard", "redirdev", "memballoon",
    "tpm", "rng", "panic", "shmem", "memdev", "vsock", "iommu",
)  # fmt: skip


def options(guest: Guest) -> dict[str, Option]:
    """The options by name, for a guest."""
    bound = (disk.option(guest.storage), hostdev.option(guest.host))
    named = {option.name: option for option in (*_TABLES, *bound)}
    return {name: named[name] for name in (*EARLY, *(name for name in _ORDER if name not in EARLY))}


def tables() -> dict[str, SubOptions]:
    """What each option can be asked to list, by its name."""
    found = [option.table for option in _TABLES] + [disk.DISK, hostdev.HOSTDEV, XML]
    named = {table.flag.removeprefix("--"): table for table in found}
    return {name: named[name] for name in (*_ORDER, "xml")}


def read_xml(text: str) -> edit.Edit:
    """Read one ``--xml``: ``XPATH=VALUE``, or ``xpath.delete=``, ``xpath.create=``, ``xpath.set=``, ``xpath.value=``.

    Raises:
        UsageError: it is none of these.
    """
    if not text.startswith("xpath."):
        return edit.setting(text)
    given = XML.read(text)
    unknown = [name for name in given if XML.find(name) is None]
    if unknown:
        raise UsageError(f"Unknown --xml options: {unknown}")
    return edit.choose(given)
