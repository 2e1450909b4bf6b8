"""Persistent dirty bitmaps of an image: made, dropped, and their bits changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from hostel.block.node import BlockNode
from hostel.block.powers import BitmapStore
from hostel.errors import BlockError, UnsupportedFeature


def add(node: BlockNode, name: str, granularity: int | None = None) -> None:
    """Make an empty bitmap that records writes; its granularity in bytes is the format's default where none is given.

    Raises:
        UnsupportedFeature: the format keeps no bitmaps.
        BlockError: there is one of this name, or it is out of the format's limits.
    """
    driver = node.driver
    if not name:
        raise BlockError("Bitmap name cannot be empty", errno=errno.EINVAL)
    if not isinstance(driver, BitmapStore):
        raise UnsupportedFeature(f"Can't store persistent bitmaps to {node.filename}: {os.strerror(errno.ENOTSUP)}")
    with node.lock():
        driver.bitmap_add(name, granularity)


def names(node: BlockNode) -> list[str]:
    """The bitmaps of an image, also those that were not stored properly.

    Raises:
        UnsupportedFeature: the format keeps no bitmaps.
    """
    if not isinstance(node.driver, BitmapStore):
        raise UnsupportedFeature(f"{node.format} images have no bitmaps")
    with node.lock():
        return [found.name for found in node.driver.bitmaps()]


def remove(node: BlockNode, name: str) -> None:
    """Drop a bitmap, also one that was not stored properly.

    Raises:
        BlockError: there is none of this name (ENOENT).
    """
    with node.lock():
        _store(node, name).bitmap_remove(name)


def clear(node: BlockNode, name: str) -> None:
    """Let a bitmap say that nothing was written.

    Raises:
        BlockError: there is none of this name (ENOENT), or it is inconsistent.
    """
    with node.lock():
        _store(node, name).bitmap_clear(name)


def enable(node: BlockNode, name: str) -> None:
    """Let a bitmap record writes from now on.

    Raises:
        BlockError: there is none of this name (ENOENT), or it is inconsistent.
    """
    with node.lock():
        _store(node, name).bitmap_enable(name, True)


def disable(node: BlockNode, name: str) -> None:
    """Let a bitmap record no more writes.

    Raises:
        BlockError: there is none of this name (ENOENT), or it is inconsistent.
    """
    with node.lock():
        _store(node, name).bitmap_enable(name, False)


def merge(node: BlockNode, name: str, source: BlockNode, source_name: str) -> None:
    """Mark in a bitmap what is dirty in another one, of the same image or of another.

    Raises:
        BlockError: one of them is not there (ENOENT) or inconsistent, or the images differ in size.
    """
    with node.hold():
        with node.lock():
            _store(node, name).bitmap(name)  # of two that are missing, the target is named
        with source.lock():
            bits = _store(source, source_name).bitmap(source_name)
        with node.lock():
            _store(node, name).bitmap_merge(name, bits)


def _store(node: BlockNode, name: str) -> BitmapStore:
    driver = node.driver
    if not isinstance(driver, BitmapStore):
        raise BlockError(f"Dirty bitmap '{name}' not found", errno=errno.ENOENT)
    return driver


# Those that need nothing but the bitmap's name.
ACTIONS: Final[dict[str, Callable[[BlockNode, str], None]]] = {
    "remove": remove,
    "clear": clear,
    "enable": enable,
    "disable": disable,
}
