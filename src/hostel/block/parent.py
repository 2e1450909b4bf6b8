"""Parents of differencing images (VDI, VHD, VHDX): found by a name from another system, or by their identity alone.

Such an image records what its parent calls itself, and perhaps where it lay: a path of Windows', relative or not.
VirtualBox records no name at all. What is not at the recorded place is looked for beside the image, and in the
directory above it, where VirtualBox keeps the parents of what lies in ``Snapshots``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from hostel.block import filename, registry
from hostel.block.driver import OpenMode, Reference
from hostel.block.node import BlockNode
from hostel.block.protocols.file import open_file
from hostel.errors import BlockError, CorruptImage

_SUFFIXES: Final = {"vdi": (".vdi",), "vpc": (".vhd", ".avhd", ".vpc"), "vhdx": (".vhdx", ".avhdx")}
_MOST_FILES: Final = 1000  # that are looked into
_LOOK: Final = OpenMode(read_only=True, no_io=True, force_share=True)


def from_windows(path: str) -> str:
    """A path as this system writes it; of one that begins at a drive or a server only the last name is of use."""
    name = path.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":":
        return name.rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return name.removeprefix("./")


def find(reference: Reference, place: str) -> str | None:
    """The file beside ``place`` that is the parent by its identity; None where there is none."""
    if not reference.unique_id or reference.format not in _SUFFIXES:
        return None
    for name in _candidates(place, _SUFFIXES[reference.format]):
        if _unique_id(name, reference.format) == reference.unique_id:
            return name
    return None


def locate(reference: Reference, place: str) -> str | None:
    """Where what an image at ``place`` refers to is; None where its name is relative and the image has no directory."""
    name = filename.resolve_backing(reference.filename, place)
    if reference.unique_id and (name is None or not os.path.exists(name)):
        return find(reference, place) or name
    return name


def require(reference: Reference, holder: str, node: BlockNode) -> None:
    """Refuse a parent that is not the one that the image was made on, or not any more.

    Raises:
        CorruptImage: it is another one.
    """
    found = node.driver.unique_id
    if reference.unique_id and found != reference.unique_id:
        raise CorruptImage(
            f"'{node.filename}' is not the image that '{holder}' was made on, or has been changed since: that was "
            f"{reference.unique_id}, and this is {found or 'of no such format'}",
            errno=errno.EINVAL,
        )


def missing(reference: Reference, place: str) -> BlockError:
    """Why a parent cannot be opened."""
    folder = os.path.dirname(place) or "."
    return BlockError(
        f"'{reference.filename}' is not there, and no {reference.format} image in '{folder}' is {reference.unique_id}",
        errno=errno.ENOENT,
        hint=f"Put the parent of '{place}' beside it.",
    )


def _candidates(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    folder = os.path.dirname(place)
    count = 0
    for each in (folder, os.path.join(folder, os.pardir)):
        try:
            names = sorted(os.listdir(each or os.curdir))
        except OSError:
            continue
        for name in names:
            path = os.path.join(each, name)
            if name.lower().endswith(suffixes) and os.path.isfile(path) and not os.path.samefile(path, place):
                count += 1
                if count > _MOST_FILES:
                    return
                yield path


def _unique_id(path: str, format: str) -> str | None:
    """What the image in a file calls itself; None where it is none."""
    try:
        with BlockNode(open_file(path, _LOOK), path, read_only=True) as file:
            driver = registry.format_driver(format).open(file, _LOOK)
            return driver.unique_id
    except OSError:
        return None
