"""Names of images, for the metadata of overlays and for our own block layer (``qemuBlockGetBackingStoreString``)."""

from __future__ import annotations

import json
from typing import Any, Final

from hostel.drivers.qemu.block.chain import Image
from hostel.drivers.qemu.command.protocol import protocol
from hostel.model.domain.devices.disk import Disk, DiskTarget
from hostel.model.domain.devices.source import SourceType

# What says how a server is spoken to, and not where the image is; secrets have no business in an image.
_MANNERS: Final = ("auth", "encryption", "cookies", "ssl_verify", "readahead", "timeout", "initiator", "reservations")


def backing_name(image: Image) -> str:
    """A path, or QEMU's ``json:`` for what no path names: a part of a file, an image on a server.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` or ``XML_ERROR`` for what QEMU cannot open.
    """
    is_local = image.type in (SourceType.FILE, SourceType.BLOCK)
    part = image.source.slice
    if is_local and part is None:
        return image.path
    source = image.source.copy()
    for field in _MANNERS:
        setattr(source, field, None)
    found = protocol(Disk(target=DiskTarget(dev="backing")), image.type, source, image.number)
    where: dict[str, Any] = {key: value for key, value in found.items() if value is not None}
    if part is not None:
        where = {"driver": "raw", "offset": part.offset, "size": part.size, "file": where}
    return "json:" + json.dumps({"file": where}, separators=(",", ":"))
