"""Copying done by the host: from file to file, without the bytes passing through us."""

from __future__ import annotations

import os

from hostel.block.formats.raw import RawDriver
from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver
from hostel.img.segments import Segment, Window


class Offload:
    """Lets the host copy ranges between files, without the bytes passing through us.

    Attributes:
        works: the host could do it so far.
    """

    def __init__(self, target: BlockNode) -> None:
        self._raw = target.driver if isinstance(target.driver, RawDriver) else None
        self._file = _host_file(target.file)
        self.works = self._raw is not None and self._file is not None

    def copy(self, window: Window) -> bool:
        """Copy a window of data; False where it has to be read and written after all."""
        raw, file = self._raw, self._file
        if not self.works or raw is None or file is None or window.offset < raw.first_unguarded:
            return False
        for segment in window.segments:
            source = _host_file(segment.node)
            if source is None or not self._copy(source.fileno(), segment, file.fileno(), raw.start + segment.offset):
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


def _host_file(node: BlockNode | None) -> FileDriver | None:
    if node is None or not isinstance(node.driver, FileDriver) or node.driver.is_direct:
        return None  # what bypasses the page cache is not copied through it
    return node.driver
