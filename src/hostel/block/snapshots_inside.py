"""Snapshots inside an image also show what is below it: whoever changes that says so."""

from __future__ import annotations

from hostel.block import notice
from hostel.block.node import BlockNode
from hostel.block.powers import Snapshotting
from hostel.block.rewiring import held_image


def tell_of_change(node: BlockNode) -> None:
    """Warn, where an image has snapshots inside, that what they show of its backing file is about to change.

    QEMU does the same to them, and says nothing.

    Raises:
        CorruptImage: the snapshots cannot be read.
    """
    with held_image(node) as image, image.lock():
        found = image.driver.snapshots() if isinstance(image.driver, Snapshotting) else []
    if found:
        names = ", ".join(each.name for each in found)
        notice.tell(
            f"warning: '{node.filename}' has snapshots inside ({names}): what they show of its backing file changes"
        )
