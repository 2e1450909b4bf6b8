"""Drives."""

from __future__ import annotations

from typing import Final

from hostel.drivers.nodedev.sysfs import SysDevice
from hostel.model.node_device_capability import Removable, StorageCapability

# Kinds of drives that udev's rules say nothing of, by the names of their files.
_KNOWN: Final = {"/dev/vd": "disk", "/dev/nvme": "disk", "/dev/dasd": "dasd"}
_MARKS: Final = {"ID_DRIVE_FLOPPY": "floppy", "ID_CDROM": "cd", "ID_DRIVE_FLASH_SD": "sd"}
_FLAGGED: Final = "1"


def describe(device: SysDevice) -> StorageCapability | None:
    """What a drive is; None for what is none, such as a loop device."""
    node = device.node
    kind = None if node is None else _kind(device, node)
    if node is None or kind is None:
        return None
    found = StorageCapability(
        block=node,
        bus=device.fact("ID_BUS"),
        drive_type="cdrom" if kind in ("cd", "cd/dvd") else kind,
        model=_trimmed(device.attribute("device/model")),
        vendor=_trimmed(device.attribute("device/vendor")),
        serial=device.attribute("device/uid") if kind == "dasd" else device.fact("ID_SERIAL"),
    )
    blocks, block_size = device.number("size"), device.number("queue/logical_block_size")
    if kind in ("disk", "dasd", "sd"):
        if blocks is None or block_size is None:
            return None
        found.num_blocks, found.logical_block_size, found.size = blocks, block_size, blocks * block_size
        return found
    has_medium = device.fact("ID_CDROM_MEDIA" if found.drive_type == "cdrom" else "ID_FS_LABEL")
    has_medium = has_medium if found.drive_type == "cdrom" else has_medium and _FLAGGED
    if device.attribute("removable") == _FLAGGED:
        found.capabilities.append(_medium(device, has_medium == _FLAGGED, blocks, block_size))
    return found


def _kind(device: SysDevice, node: str) -> str | None:
    kind = device.fact("ID_TYPE")
    if kind not in (None, "generic"):
        return kind if kind in ("disk", "cd", "cd/dvd", "floppy", "sd", "dasd") else None
    for name, found in _MARKS.items():
        if device.fact(name) is not None:
            return found
    return next((found for prefix, found in _KNOWN.items() if node.startswith(prefix)), None)


def _medium(device: SysDevice, is_there: bool, blocks: int | None, block_size: int | None) -> Removable:
    if not is_there or blocks is None or block_size is None:
        return Removable(media_available=0, media_size=0)
    return Removable(
        media_available=1,
        media_size=blocks * block_size,
        media_label=device.fact("ID_FS_LABEL"),
        logical_block_size=block_size,
        num_blocks=blocks,
    )


def _trimmed(text: str | None) -> str | None:
    return None if text is None else text.strip()
