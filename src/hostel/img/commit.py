"""Commit: move the data of an overlay, and of the images between, down into a backing image."""

from __future__ import annotations

import errno
import os
from typing import Final

from hostel.block import filename as names
from hostel.block.changed_parent import committing
from hostel.block.node import BlockNode
from hostel.block.powers import Emptying
from hostel.block.snapshots_inside import tell_of_change
from hostel.cause import failed
from hostel.errors import BlockError
from hostel.img.copy import CopyJob, CopySettings, Feedback
from hostel.img.transfer import CopyError

_NOBODY: Final = Feedback()


def find_base(node: BlockNode, base: str | None, called: str | None = None) -> int:
    """How far down the chain the image to commit into is: 1 for the backing file itself, which None stands for.

    Args:
        node: the overlay, opened with its chain.
        base: the file's name as an image of the chain records it, or relative to that image.
        called: what an error calls the overlay, where that is not its name.

    Raises:
        BlockError: there is no such image.
    """
    layers = list(node.chain())
    if base is None:
        if len(layers) < 2:
            raise BlockError("Image does not have a backing file", errno=errno.EINVAL)
        return 1
    for depth, layer in enumerate(layers[:-1], 1):
        recorded = {reference.filename for reference in layer.driver.references() if reference.child == "backing"}
        resolved = os.path.realpath(names.resolve(base, layer.place))
        if base in recorded or resolved == os.path.realpath(layers[depth].filename):
            return depth
    raise BlockError(f"Did not find '{base}' in the backing chain of '{called or node.filename}'", errno=errno.EINVAL)


def commit(node: BlockNode, depth: int, *, rate: int = 0, empty: bool = True, feedback: Feedback = _NOBODY) -> None:
    """Write what lies above an image of the chain into that image.

    The base has all data and is synced before the overlay forgets any. A base that an overlay takes for changed, which
    a commit that was cut off leaves, is written all the same: that is how such a commit is ended.

    Args:
        node: the overlay, open for writing.
        depth: from :func:`find_base`; that image must be open for writing too.
        rate: bytes a second; 0 for no limit.
        empty: drop the overlay's own data afterwards.
        feedback: who is told how it goes.

    Raises:
        BlockError: with QEMU's text; the overlay has lost nothing.
    """
    layers = list(node.chain())
    base = layers[depth]
    tell_of_change(node)
    try:
        if base.length < node.length:
            base.resize(node.length)
        settings = CopySettings(min_sparse=None, base=base, rate=rate, in_order=False)
        with committing(layers[depth - 1]):
            CopyJob([node], base, settings, feedback).run()
        base.flush()
    except CopyError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise BlockError(f"Block job failed: {reason}", errno=error.errno, hint=error.hint) from None
    except OSError as error:
        raise failed("Block job failed", error) from None
    if empty and isinstance(node.driver, Emptying):
        try:
            with node.lock():
                node.driver.make_empty()
            node.flush()
        except OSError as error:
            raise failed(f"Failed to empty {node.filename}", error) from None
