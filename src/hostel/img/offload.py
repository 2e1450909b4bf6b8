"""Copying done by the host: from file to file, without the bytes passing through us."""

from __future__ import annotations

import os

from hostel.block.host_file import host_file
from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver
from hostel.img.segments import Segment, Window


class Offload:
    """Lets the host copy ranges between files, without the bytes passing through us.

    Attributes:
        works: the host could do it so far.
    """

    def __init__(self, target: BlockNode) -> None:
        self._target = host_file(target, writable=True)
        self.works = self._target is not None

    def copy(self, window: Window) -> bool:
        """Copy a window of data; False where it has to be read and written after all."""
        target = self._target
        if not self.works or target is None or window.offset < target.guarded:
            return False
        for segment in window.segments:
            source = _source(segment.node)
            if source is None or not self._copy(source.fileno(), segment, target.fd, target.start + segment.offset):
                return False
        return True

    def _copy(self, source: int, segment: Segment, target: int, place: int) -> bool:
        done = 0
        while done < segment.length:
            try:
                count = os.copy_file_range(
                    source, target, segment.length - done, segment.source_offset + done, place + done
                )
            except OSError:
                self.works = False
                return False
            if not count:  # the source ends here: what is beyond reads as zeroes
                return False
            done += count
        return True


def _source(node: BlockNode | None) -> FileDriver | None:
    if node is None or not isinstance(node.driver, FileDriver) or node.driver.is_direct:
        return None  # what bypasses the page cache is not copied through it
    return node.driver
