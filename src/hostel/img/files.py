"""Which files of the host an open image is read from: whoever writes a new one must keep off them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from hostel.block import filename as names
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


def host_path(filename: str) -> str | None:
    """The path of a file of this host; None where the name is of another protocol."""
    return filename.removeprefix("file:") if names.protocol(filename) in (None, "file") else None


def holds_nothing(filename: str) -> bool:
    """Whether a name is free on this host, or that of an empty file."""
    path = host_path(filename)
    if path is None:
        return False
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and not status.st_size


@contextlib.contextmanager
def removed_on_failure(filename: str, held_nothing: bool) -> Iterator[None]:
    """Take a file away when the body fails, where :func:`holds_nothing` was true of it before."""
    try:
        yield
    except BaseException:
        path = host_path(filename)
        if held_nothing and path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


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
