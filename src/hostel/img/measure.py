"""How large an image will be in another format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hostel.block import creating, registry
from hostel.block.chain import block_status
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.options import Given, Value
from hostel.block.powers import Creatable, Measured, Measuring
from hostel.cause import failed
from hostel.errors import UnsupportedFeature
from hostel.img.create import convert

_DIRECTORY_ENTRY: Final = 24  # bytes of a qcow2 bitmap's entry without its name


def measuring(format: str) -> type[Measuring]:
    """The driver of a format whose size can be told beforehand.

    Raises:
        UnsupportedFeature: it cannot be measured.
    """
    found = registry.format_driver(format) if format in registry.FORMATS else None
    if found is None or not issubclass(found, Measuring):
        raise UnsupportedFeature(f"Block driver '{format}' does not support size measurement")
    return found


def options(driver: Creatable, given: Iterable[Given]) -> dict[str, Value]:
    """Convert creation options, and add the defaults of the others.

    Raises:
        OptionError: an unknown name or a bad value.
    """
    declared = creating.creation_options(driver)
    values = {option.name: option.convert(option.default) for option in declared if option.default is not None}
    return values | convert(declared, given)


def measure(driver: type[Measuring], values: dict[str, Value], source: BlockNode | int) -> Measured:
    """Measure what ``source`` would be: an open image, or an empty image of so many bytes.

    Raises:
        BlockError: an option makes no sense, the size is too large for the format, or the source's metadata could
            not be read.
    """
    if isinstance(source, int):
        return driver.measure(source, values, None)
    return driver.measure(source.length, values, _data(source))


def bitmaps_length(source: BlockNode, values: dict[str, Value]) -> int | None:
    """Bytes that a copy of the source's bitmaps would take; None where one of the images cannot have any.

    Raises:
        CorruptImage: the source's bitmaps make no sense.
    """
    specific = source.driver.info().specific or {}
    if source.format != "qcow2" or specific["compat"] == "0.10":
        return None
    if "refcount_bits" not in values or values.get("compat") in ("0.10", "v2"):
        return None
    cluster_size = int(values["cluster_size"])
    total = directory = 0
    for bitmap in specific.get("bitmaps", ()):
        bits = -(-source.length // bitmap["granularity"])
        clusters = -(-bits // (8 * cluster_size))
        total += clusters * cluster_size + _align(clusters * 8, cluster_size)
        directory += _align(_DIRECTORY_ENTRY + len(bitmap["name"].encode(errors="surrogateescape")), 8)
    return total + _align(directory, cluster_size)


def _data(source: BlockNode) -> Iterator[tuple[int, int]]:
    try:
        for extent in block_status(source):
            if extent.status & Status.DATA and not extent.status & Status.ZERO:
                yield extent.offset, extent.length
    except OSError as error:
        raise failed("Unable to get block status", error) from error


def _align(length: int, unit: int) -> int:
    return -(-length // unit) * unit
