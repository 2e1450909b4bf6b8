"""Stream: copy what an overlay reads from images below into the overlay, and then do without them.

What is copied is decided by what the overlay does not have, so a stream that was cut off is simply begun again. The
header is rewritten only when all that it gives up was synced.
"""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager, nullcontext

from hostel.block.chain import ChainExtent
from hostel.block.extent import Status
from hostel.block.jobs.copying import CHUNK, copy_data, first_extent, flush_last, next_extent, write_own_zeroes
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.policy import SourceError, TargetError
from hostel.block.node import BlockNode
from hostel.block.powers import BackingStore, BitmapStore
from hostel.block.rewiring import bottom_of_filters, end_writing, held_image, reopen, replace_backing, retire
from hostel.block.snapshots_inside import tell_of_change
from hostel.errors import BlockError, UnsupportedFeature


class StreamJob(Job):
    """Copies into an overlay what lies above ``base`` in its chain.

    Args:
        settings: see :class:`JobSettings`.
        node: the overlay, or a filter on it; the guest may use it meanwhile.
        base: what the overlay stands on afterwards; None for nothing. It is a node of the chain below.
        backing_file: what the overlay's image records then; the name of ``base`` where it is not given.

    Raises:
        BlockError: ``base`` is not in the chain, or a node is in use.
        UnsupportedFeature: the image cannot record another backing file.
    """

    type = "stream"

    def __init__(
        self,
        settings: JobSettings,
        node: BlockNode,
        *,
        base: BlockNode | None = None,
        backing_file: str | None = None,
    ) -> None:
        overlay = bottom_of_filters(node)
        chain = list(overlay.chain())
        if base is not None and not any(layer is base for layer in chain[1:]):
            raise BlockError(f"'{base.name}' is not in the backing chain of '{node.name}'", errno=errno.EINVAL)
        if base is None and backing_file is not None:
            raise BlockError("backing file specified, but streaming the entire chain", errno=errno.EINVAL)
        if overlay.backing is not None and not isinstance(overlay.driver, BackingStore):
            raise UnsupportedFeature(f"Image format driver '{overlay.format}' cannot change its backing file")
        self._overlay = overlay
        self._base = base
        self._backing_file = backing_file
        self._reopened = False
        self._failure: SourceError | None = None
        above = chain[: len(chain) if base is None else next(i for i, each in enumerate(chain) if each is base)]
        super().__init__(settings, list(dict.fromkeys([node, *above])))
        self.length = overlay.length

    def _attach(self) -> None:
        if self._overlay.backing is not self._base:
            tell_of_change(self._overlay)
        if self._overlay.read_only:
            reopen(self._overlay, read_only=False)
            self._reopened = True

    def _work(self) -> float | None:
        overlay, start = self._overlay, self.offset
        if overlay.backing is self._base or start >= self.length:
            self.offset = self.length
            return None
        extent = next_extent(overlay, start, self.length, self._base, self._is_data)
        if extent.depth == 0 or not self._is_needed(extent.status):
            self.offset = extent.end
            return 0.0
        length = extent.length if extent.status & Status.ZERO else min(CHUNK, extent.length)
        try:
            # Nobody may write between the look at the metadata and the copy; bitmaps do not record what reads the same.
            with held_image(overlay) as image, _unrecorded(image):
                copied = self._copy(image, start, start + length)
        except TargetError as failure:
            # To QEMU a stream is a read that is kept: whatever fails of it is told as a read.
            raise SourceError(failure.cause) from None
        self._spent(copied)
        return 0.0

    def _is_data(self, extent: ChainExtent) -> bool:
        return extent.depth > 0 and bool(extent.status & Status.DATA)

    def _is_needed(self, status: Status) -> bool:
        """Whether a range that the overlay does not decide would read otherwise without the images between."""
        if not status & Status.ALLOCATED:
            return False
        return self._base is not None or not status & Status.ZERO

    def _copy(self, image: BlockNode, start: int, end: int) -> int:
        """Copy the first extent of a range, with the overlay's image held; how many bytes are done."""
        extent = first_extent(image, start, end, self._base)
        if extent.depth and self._is_needed(extent.status):
            if extent.status & Status.ZERO:
                write_own_zeroes(image, start, extent.length)
            else:
                length = min(CHUNK, extent.length)
                copy_data(image, image, start, length)
                return length
        return extent.length

    def _ignored(self, failure: SourceError) -> None:
        """Go on behind what failed; the job fails at its end."""
        self._failure = self._failure or failure
        self.offset = min(self.length, self.offset + CHUNK - self.offset % CHUNK)

    def _prepare(self) -> None:
        if self._failure is not None:
            raise self._failure.cause
        overlay, base = self._overlay, self._base
        if overlay.backing is None:
            return
        flush_last(overlay)
        change_backing(overlay, base, self._backing_file)  # it may be opened by another name than the recorded one
        if overlay.backing is base:
            return
        former = replace_backing(overlay, base.share() if base is not None else None)
        if former is not None:
            retire(former)

    def _clean(self) -> None:
        if self._reopened and not self._overlay.closed:
            end_writing(self._overlay)


def _unrecorded(image: BlockNode) -> AbstractContextManager[None]:
    """Let the image's own bitmaps record nothing."""
    return image.driver.unrecorded() if isinstance(image.driver, BitmapStore) else nullcontext()


def change_backing(overlay: BlockNode, base: BlockNode | None, name: str | None) -> None:
    """Record in an overlay, all of whose data is synced, that it stands on ``base``, and sync that.

    Raises:
        OSError: the header could not be written.
    """
    with held_image(overlay) as image, image.lock():
        driver = image.driver
        assert isinstance(driver, BackingStore)
        if base is None:
            driver.change_backing(None, None)
        else:
            driver.change_backing(name if name is not None else base.filename, bottom_of_filters(base).format)
    overlay.flush()
