"""Copy a part of an image into a new one, as ``dd`` does: every byte of it, zeroes too."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.block import creating
from hostel.block.driver import WRITEBACK
from hostel.block.node import BlockNode
from hostel.cause import failed
from hostel.errors import BlockError
from hostel.img import create
from hostel.img.target import new_target, refuse_source, reported
from hostel.units import INT64_MAX, SECTOR, MiB

_BUFFER: Final = 2 * MiB


class Range(NamedTuple):
    """What is copied, in bytes of the source.

    Attributes:
        beyond: the start asked for lies beyond the end, so there is nothing.
    """

    start: int
    end: int
    beyond: bool = False


def select(length: int, block: int, count: int | None, skip: int) -> Range:
    """The range that ``bs``, ``count`` and ``skip`` leave of ``length`` bytes."""
    end = length
    if count is not None and count * block <= INT64_MAX:
        end = min(end, count * block)
    if skip * block > end:
        return Range(end, end, beyond=True)
    return Range(skip * block, end)


def plan_target(filename: str, format: str, size: int) -> create.Plan:
    """Settle what the target will be; nothing is written.

    Raises:
        BlockError: with QEMU's text.
    """
    try:
        driver = create.creatable(format)
    except BlockError as error:
        if error.errno == errno.EINVAL:
            raise BlockError("Unknown file format", errno=errno.EINVAL) from None
        raise
    return create.Plan(filename, format, driver, creating.creation_options(driver, filename), {"size": size})


def dd(
    source: BlockNode, chosen: Range, target: create.Plan, report: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Create the target and copy a range of the source into it; when that fails, it is taken away again.

    Args:
        source: open for reading.
        chosen: what of it is copied.
        target: from :func:`plan_target`.
        report: told the bytes done and those in all.

    Raises:
        BlockError: with QEMU's whole text.
    """
    with reported(f"{target.filename}: error while creating output image: "):
        refuse_source([source], target.filename)
    with new_target(
        target, f"{target.filename}: error while creating output image: ", cache=WRITEBACK, sources=[source]
    ) as node:
        buffer = memoryview(bytearray(_BUFFER))
        for start in range(chosen.start, chosen.end, _BUFFER):
            length = min(_BUFFER, chosen.end - start)
            try:
                source.pread_padded(start, buffer[:length])
            except OSError as error:
                raise failed("error while reading from input image file", error) from None
            # A disk has whole sectors: the last one is filled up with zeroes.
            padded = min(-(-length // SECTOR) * SECTOR, node.length - (start - chosen.start))
            buffer[length:padded] = bytes(padded - length)
            try:
                node.pwrite(start - chosen.start, buffer[:padded])
            except OSError as error:
                raise failed("error while writing to output image file", error) from None
            report(start + length - chosen.start, chosen.end - chosen.start)
