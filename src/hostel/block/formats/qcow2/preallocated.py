"""Data clusters that are holes of the host's file, as preallocation of metadata leaves them: they read as zeroes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hostel.block.extent import Extent, Status
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.protocols.file import FileDriver
from hostel.errors import CorruptImage, InvalidImage


def is_preallocated(image: Qcow2Image) -> bool:
    """Whether clearly more clusters are in use than the host's file has space for.

    Only then is it worth while to ask the host about each data cluster. The measure is QEMU's, so that the same
    images show their holes.
    """
    driver = image.file.driver
    if not isinstance(driver, FileDriver):
        return False
    cluster_size = image.geometry.cluster_size
    real = driver.allocated_length // cluster_size
    threshold = max(real * 10 // 9, real + 2)
    clusters = -(-image.file.length // cluster_size)
    if clusters < threshold:
        return False
    try:
        if not image.refcounts.table:
            image.load_refcounts()
        return image.refcounts.count_used(clusters, threshold) >= threshold
    except (InvalidImage, CorruptImage):
        # Reading needs no refcounts, and a check is the place to complain of them.
        return False


def with_holes(image: Qcow2Image, extents: Iterable[Extent]) -> Iterator[Extent]:
    """The extents, in which data that the host's file has no bytes for is marked as zeroes too."""
    for extent in extents:
        if extent.status != Status.DATA | Status.ALLOCATED or extent.host_offset is None:
            yield extent
            continue
        for part in image.data.driver.extents(extent.host_offset, extent.length):
            yield Extent(
                extent.offset + part.offset - extent.host_offset,
                part.length,
                extent.status | (part.status & Status.ZERO),
                part.offset,
            )
