"""Which files of the host an open image is read from: whoever writes a new one must keep off them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver

Identity = tuple[int, int]  # the host's device and inode numbers


def identity(filename: str) -> Identity | None:
    """What tells two names of one file from two files; None where there is no such file."""
    try:
        status = os.stat(filename.removeprefix("file:"))
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def is_device(filename: str) -> bool:
    """Whether a name is that of a block device."""
    try:
        return stat.S_ISBLK(os.stat(filename).st_mode)
    except (OSError, ValueError):
        return False


def files(node: BlockNode, *, written: bool = False) -> Iterator[Identity]:
    """All files that an image lies in: its own, those of its parts, and those of the images below it.

    ``written``: only those that are written with the image, and so none of a backing image.
    """
    if isinstance(node.driver, FileDriver):
        yield node.driver.identity
    for edge, child in node.driver.children.items():
        if not written or edge != "backing":
            yield from files(child, written=written)
