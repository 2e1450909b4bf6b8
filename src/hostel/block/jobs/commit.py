"""Commit: move the data of images within a chain down into a base, and take them out of the chain.

The images that are committed are not written by the guest; what is its own layer, see
:class:`hostel.block.jobs.mirror.ActiveCommitJob`. All data is in the base, and synced, before the overlay above names
it; cut off before, the chain is as it was, and a commit that is begun again copies what is there still.
"""

from __future__ import annotations

import contextlib
import errno

from hostel.block.changed_parent import committing
from hostel.block.extent import Status
from hostel.block.jobs.copying import CHUNK, copy_data, flush_last, grow, next_extent, write_zeroes
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.stream import change_backing
from hostel.block.node import BlockNode
from hostel.block.powers import BackingStore
from hostel.block.rewiring import bottom_of_filters, end_writing, reopen, replace_backing, retire
from hostel.errors import BlockError, UnsupportedFeature


class CommitJob(Job):
    """Copies ``top``, and what lies between, into ``base``; the overlay of ``top`` then stands on ``base``.

    Args:
        settings: see :class:`JobSettings`.
        root: the guest's layer, or a filter on it; above ``top``.
        top: a node of the chain.
        base: a node of the chain below ``top``.
        backing_file: what the overlay records then; the name of ``base`` where it is not given.

    Raises:
        BlockError: the nodes are not one above the other, or in use.
        UnsupportedFeature: the overlay cannot record another backing file.
    """

    type = "commit"

    def __init__(
        self,
        settings: JobSettings,
        root: BlockNode,
        top: BlockNode,
        base: BlockNode,
        *,
        backing_file: str | None = None,
    ) -> None:
        if top is base:
            raise BlockError("cannot commit an image into itself", errno=errno.EINVAL)
        chain = list(bottom_of_filters(root).chain())
        places = {id(layer): depth for depth, layer in enumerate(chain)}
        if not 0 < places.get(id(top), 0) < places.get(id(base), 0):
            raise BlockError(f"'{base.name}' is not in this backing file chain", errno=errno.EINVAL)
        self._overlay = chain[places[id(top)] - 1]
        if not isinstance(bottom_of_filters(self._overlay).driver, BackingStore):
            raise UnsupportedFeature(f"Image format driver '{self._overlay.format}' cannot change its backing file")
        self._top, self._base = top, base
        self._backing_file = backing_file
        self._above_base = chain[places[id(base)] - 1]
        self._committing = contextlib.ExitStack()
        self._reopened: list[BlockNode] = []
        self._place = 0
        used = chain[places[id(top)] - 1 : places[id(base)] + 1]
        super().__init__(settings, list(dict.fromkeys([root, *used])))
        self.length = top.length

    def _attach(self) -> None:
        self._committing.enter_context(committing(self._above_base))
        for node in (self._base, self._overlay):
            if node.read_only:
                reopen(node, read_only=False)
                self._reopened.append(node)
        grow(self._base, self._top.length)

    def _work(self) -> float | None:
        if self.offset >= self.length:
            self._zero_the_rest()
            return None
        extent = next_extent(
            self._top, self.offset, self.length, self._base, lambda extent: bool(extent.status & Status.DATA)
        )
        if not extent.status & Status.ALLOCATED:
            self.offset = extent.end
        elif extent.status & Status.ZERO:
            write_zeroes(self._base, extent.offset, extent.length)
            self._spent(extent.length)
        else:
            length = min(CHUNK, extent.length)
            copy_data(self._top, self._base, self.offset, length)
            self._spent(length)
        return 0.0

    def _zero_the_rest(self) -> None:
        """What a longer overlay read as zeroes because ``top`` had ended must not show the end of a longer base."""
        start, end = self._top.length, min(self._base.length, self._overlay.length)
        if start < end:
            write_zeroes(self._base, start, end - start)

    def _prepare(self) -> None:
        flush_last(self._base, self._overlay)
        change_backing(self._overlay, self._base, self._backing_file)
        former = replace_backing(self._overlay, self._base.share())
        if former is not None:
            retire(former)

    def _clean(self) -> None:
        self._committing.close()
        for node in reversed(self._reopened):
            end_writing(node)
        self._reopened.clear()
