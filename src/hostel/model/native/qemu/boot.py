"""What a machine boots from: ``-boot``, ``-kernel``, firmware."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.os import Bios, BootDevice, BootMenu, Loader, Nvram, Os
from hostel.model.native.qemu.commandline import Option, Properties
from hostel.model.native.qemu.drive import Drives, flash_path
from hostel.model.native.settings import refused

_LETTERS: Final = {
    "a": BootDevice.FD, "b": BootDevice.FD, "c": BootDevice.HD, "d": BootDevice.CDROM,
    **dict.fromkeys("nop", BootDevice.NETWORK),
}  # fmt: skip
_ORDER: Final = "abcdefghijklmnop"  # the letters that QEMU takes


def read_boot(os: Os, option: Option) -> list[str]:
    """``-boot``; returns what a document has no place for, as an option.

    Raises:
        ModelError: what is asked for at the first start only cannot be said in a document.
    """
    found = Properties("boot", option.value, "order")
    order, once = found.take("order") or "", found.take("once") or ""
    for letter in order + once:
        if letter not in _ORDER or letter not in _LETTERS:
            raise refused(found.option, f"'{letter}' is no boot device; write letters of a to d and n to p")
    if once and not order.startswith(once):
        reason = f"once={once}: a document has one order for every start; write order={once}{order}"
        raise refused(found.option, reason)
    devices = list(dict.fromkeys(_LETTERS[letter] for letter in order))
    os.boot = devices or os.boot
    menu, delay = found.flag("menu"), found.number("splash-time", high=65535)
    if menu is not None:
        os.bootmenu = BootMenu(enable=menu, timeout=delay if menu else None)
    reboot = found.number("reboot-timeout", low=-1, high=65535)
    if reboot is not None:
        os.bios = Bios(reboot_timeout=reboot)
    splash = found.take("splash")
    found.ignore("strict")
    found.end()
    rest = [f"splash={splash.replace(',', ',,')}"] if splash is not None else []
    if delay is not None and not menu:
        rest.append(f"splash-time={delay}")
    return ["-boot", ",".join(rest)] if rest else []


def read_firmware(os: Os, drives: Drives) -> None:
    """Flash: first the firmware, then what it keeps its variables in."""
    for place, (source, format, readonly) in enumerate(drives.flash):
        path = flash_path(source)
        if place == 0:
            os.loader = Loader(type="pflash", readonly=readonly or len(drives.flash) > 1, path=path)
            os.loader.format_name = format if format != "raw" else None
        else:
            os.nvram = Nvram(path=path, format_name=format if format != "raw" else None)
