"""Change an image's virtual size."""

from __future__ import annotations

from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation


def resize(node: BlockNode, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
    """Grow or shrink an image to ``size`` bytes, and make that survive a power cut.

    Raises:
        UnsupportedFeature: the format cannot.
        BlockError: the size or the preallocation is none that the format can have; the image is as it was.
        OSError: the host's own errors.
    """
    node.resize(size, preallocation)
    node.flush()
