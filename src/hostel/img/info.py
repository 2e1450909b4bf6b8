"""What is known of an image without reading its data."""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple

from hostel.block import parent
from hostel.block.chain import rounded_length
from hostel.block.driver import FormatInfo
from hostel.block.node import BlockNode
from hostel.block.powers import SnapshotInfo
from hostel.img.snapshot import snapshots
from hostel.units import SECTOR

_MAX_IOV: Final = 1024  # buffers of one request, as Linux has it
# Filters that QEMU takes for protocols, and asks for no size.
_TELL_NO_SIZE: Final = ("blkdebug", "blkverify")


class ImageInfo(NamedTuple):
    """What ``qemu-img info`` shows of one image.

    Attributes:
        virtual_size: bytes that the guest sees, in whole sectors.
        actual_size: bytes occupied on the host; None where that is unknown.
        backing: the backing file's name as recorded.
        limits: QEMU's ``BlockLimitsInfo``; None where it was not asked for.
        full_backing: the same as seen from where we run; None where the image has no directory.
        children: the nodes below but for the backing file, by QEMU's names for the edges; None where they were not
            asked for, which only releases from 8.0 on tell of.
    """

    filename: str
    format: str
    virtual_size: int
    actual_size: int | None
    details: FormatInfo
    backing: str | None
    full_backing: str | None
    backing_format: str | None
    snapshots: list[SnapshotInfo]
    limits: dict[str, int] | None = None
    children: list[tuple[str, ImageInfo]] | None = None

    def to_json(self) -> dict[str, Any]:
        """QEMU's ``ImageInfo``; members in the order of its schema."""
        found: dict[str, Any] = {
            "filename": self.filename,
            "format": self.format,
            "dirty-flag": self.details.dirty,
            "actual-size": self.actual_size,
            "virtual-size": self.virtual_size,
            "cluster-size": self.details.cluster_size,
            "encrypted": self.details.encrypted or None,
            "compressed": self.details.compressed or None,
            "backing-filename": self.backing,
            "full-backing-filename": self.full_backing,
            "backing-filename-format": self.backing_format,
            "limits": self.limits,
            "snapshots": [_snapshot_json(snapshot) for snapshot in self.snapshots] or None,
            "format-specific": None,
        }
        if self.details.specific is not None:
            found["format-specific"] = {"type": self.format, "data": self.details.specific}
        if self.children is not None:
            found["children"] = [{"name": name, "info": child.to_json()} for name, child in self.children]
            if self.format == "file":  # where XFS hints at how much it allocates at once, 8.0 tells of it
                found["format-specific"] = {"type": "file", "data": {}}
        return {key: value for key, value in found.items() if value is not None}


def _snapshot_json(snapshot: SnapshotInfo) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_state_size,
        "date-sec": snapshot.date,
        "date-nsec": snapshot.date_nsec,
        "vm-clock-sec": snapshot.vm_clock_nsec // 10**9,
        "vm-clock-nsec": snapshot.vm_clock_nsec % 10**9,
    }
    if snapshot.icount is not None:
        found["icount"] = snapshot.icount
    return found


def info(node: BlockNode, *, limits: bool = False, children: bool = False) -> ImageInfo:
    """Describe an open image; its backing file is named, not opened.

    Args:
        node: the image.
        limits: tell of the limits of requests as well.
        children: tell of the nodes below as well, the newest edge first, as QEMU keeps them.
    """
    driver = node.driver
    edges = [edge for edge in reversed(driver.children) if edge != "backing"]
    backing = next((found for found in driver.references() if found.child == "backing"), None)
    return ImageInfo(
        filename=node.filename,
        format=node.format,
        virtual_size=rounded_length(node),
        actual_size=_allocated_length(node),
        details=driver.info(),
        backing=backing.filename if backing else None,
        full_backing=parent.locate(backing, node.place) if backing else None,
        backing_format=backing.format if backing else None,
        snapshots=snapshots(node),
        limits=_limits(node) if limits else None,
        children=[(edge, info(driver.children[edge], limits=limits, children=True)) for edge in edges]
        if children
        else None,
    )


def _limits(node: BlockNode) -> dict[str, int]:
    """What requests to a node must keep to, bytes; 512 where the driver of its file does not say."""
    storage = node.storage
    alignment = int(getattr(storage.driver if storage is not None else node.driver, "alignment", SECTOR))
    found = {"request-alignment": alignment if node.format == "raw" else 1}
    cluster = node.driver.info().cluster_size
    if cluster is not None:
        found |= {"discard-alignment": cluster, "write-zeroes-alignment": cluster}
    return found | {
        "max-iov": _MAX_IOV,
        "min-mem-alignment": alignment,
        "opt-mem-alignment": max(alignment, os.sysconf("SC_PAGESIZE")),
    }


def _allocated_length(node: BlockNode) -> int | None:
    """Bytes on the host: the image's file, and its data file where it has one."""
    if node.format in _TELL_NO_SIZE:
        return None
    total = 0
    for name, child in node.driver.children.items():
        if name != "backing":
            found = _allocated_length(child)
            if found is None:
                return None
            total += found
    if node.driver.children:
        return total
    found = getattr(node.driver, "allocated_length", None)
    return found if isinstance(found, int) else None
