"""The options that disks are created with; apart from what does it, since every command declares them."""

from __future__ import annotations

from typing import Final

from hostel.block.options import Kind, Option, Options

SUBFORMATS: Final = (
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "streamOptimized",
)
ADAPTERS: Final = ("ide", "lsilogic", "buslogic", "legacyESX")

# In QEMU's order, in which qemu-img prints them.
CREATE_OPTIONS: Final = Options(
    Option("size", Kind.SIZE, "Virtual disk size"),
    Option(
        "adapter_type",
        Kind.STRING,
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
    ),
    Option("backing_file", Kind.STRING, "File name of a base image"),
    Option("backing_fmt", Kind.STRING, "Must be 'vmdk' if present"),
    Option("compat6", Kind.BOOL, "VMDK version 6 image", "off"),
    Option("hwversion", Kind.STRING, "VMDK hardware version", "undefined"),
    Option("toolsversion", Kind.STRING, "VMware guest tools version"),
    Option(
        "subformat",
        Kind.STRING,
        f"VMDK flat extent format, can be one of {{monolithicSparse (default) | {' | '.join(SUBFORMATS[1:])}}} ",
    ),
    Option("zeroed_grain", Kind.BOOL, "Enable efficient zero writes using the zeroed-grain GTE feature"),
)
