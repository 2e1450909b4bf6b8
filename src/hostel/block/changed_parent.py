"""An overlay that is written into a parent which has changed since: a commit that was cut off leaves such a pair."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hostel.block import notice
from hostel.block.node import BlockNode
from hostel.block.powers import ParentBound
from hostel.block.rewiring import held_image


@contextlib.contextmanager
def committing(layer: BlockNode) -> Iterator[None]:
    """Let the layer above a base say what it has, whatever the base is like by now; that it has changed is told.

    QEMU commits such a layer too, and says nothing.
    """
    with contextlib.ExitStack() as stack:
        difference = None
        with held_image(layer) as image, image.lock():
            if isinstance(image.driver, ParentBound):
                difference = stack.enter_context(image.driver.ignoring_parent())
        if difference is not None:
            notice.tell(f"warning: {difference} What '{image.filename}' has is written into it all the same.")
        yield
