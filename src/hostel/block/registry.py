"""The drivers we have, by the names QEMU uses; a driver's module is imported when it is first needed."""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

from hostel.block.driver import FormatDriver
from hostel.errors import UnknownFormat


class FormatRow(NamedTuple):
    """A format.

    Attributes:
        target: ``module:Class``.
        magic: byte strings, with their offsets, of which one is found in every image; empty where a format has none.
    """

    target: str
    magic: tuple[tuple[int, bytes], ...] = ()


FORMATS: Final[dict[str, FormatRow]] = {
    "qcow2": FormatRow("hostel.block.formats.qcow2.driver:Qcow2Driver", ((0, b"QFI\xfb"),)),
    "raw": FormatRow("hostel.block.formats.raw:RawDriver"),  # last: it always matches
}

# Formats and protocols of QEMU that we know by name only, so that a refusal can say so.
KNOWN_FORMATS: Final[dict[str, tuple[tuple[int, bytes], ...]]] = {
    "vmdk": ((0, b"KDMV"), (0, b"COWD"), (0, b"# Disk DescriptorFile")),
    "vhdx": ((0, b"vhdxfile"),),
    "vpc": ((0, b"conectix"),),
    "vdi": ((64, b"\x7f\x10\xda\xbe"),),
    "qed": ((0, b"QED\0"),),
    "parallels": ((0, b"WithoutFreeSpace"), (0, b"WithouFreSpacExt")),
    "luks": ((0, b"LUKS\xba\xbe"),),
    "bochs": ((0, b"Bochs Virtual HD Image"),),
    "cloop": ((0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),),
    "qcow": ((0, b"QFI\xfb\0\0\0\1"),),
    "dmg": (),
    "vvfat": (),
}


def format_driver(name: str) -> type[FormatDriver]:
    """Load a format's driver class.

    Raises:
        UnknownFormat: there is none of this name.
    """
    row = FORMATS.get(name)
    if row is None:
        raise UnknownFormat(f"Unknown driver '{name}'")
    module, _, attribute = row.target.partition(":")
    driver: type[FormatDriver] = getattr(importlib.import_module(module), attribute)
    return driver
