"""Rebase: give an overlay another backing file without changing its content.

What the overlay reads from its old backing file and the new one does not have is copied into the overlay first and
synced, while the old backing file is still recorded. Only then the header changes, with one write: wherever that is
cut off, the overlay stands on one of the two and reads the same.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.block import filename as names
from hostel.block import registry
from hostel.block.chain import ChainExtent, block_status, paired, rounded_length
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.powers import BackingStore, Compressing
from hostel.block.snapshots_inside import tell_of_change
from hostel.cause import beyond_errno, failed
from hostel.errors import BlockError, UnsupportedFeature
from hostel.img.team import Team, worker_count
from hostel.units import MiB

_WORKERS: Final = 2  # a third only waits for memory
_CHUNK: Final = 2 * MiB  # compared at once, at least one cluster of any format
_STEP: Final = 1024 * MiB  # of the overlay, whose metadata is looked at before any of it changes

# Protocols and filters whose names QEMU takes for a backing format, beside those that we have ourselves.
_OTHER_DRIVERS: Final = (
    *("copy-before-write", "file", "ftp", "ftps", "gluster", "host_cdrom", "host_device", "http", "https", "iscsi"),
    *("iser", "nfs", "nvme", "rbd", "replication", "snapshot-access", "ssh"),
)

Progress = Callable[[int, int], None]


def check_format(name: str) -> None:
    """Refuse a backing format that is not even a name; one that is only recorded need not be one that we read.

    Raises:
        BlockError: with QEMU's text.
    """
    rows = (registry.FORMATS, registry.PROTOCOLS, registry.FILTERS, _OTHER_DRIVERS)
    if not any(name in row for row in rows):
        raise BlockError(f"Invalid format name: '{name}'", errno=errno.EINVAL)


def find_in_chain(node: BlockNode, filename: str) -> BlockNode | None:
    """The image below ``node`` that lies in a file of this name."""
    wanted = os.path.realpath(filename)
    below = node.backing
    if names.protocol(filename) is not None or below is None:
        return None
    return next((layer for layer in below.chain() if os.path.realpath(layer.filename) == wanted), None)


def check_change(node: BlockNode, filename: str | None, format: str | None) -> None:
    """Refuse a backing file that could not be recorded.

    Raises:
        BlockError: with QEMU's text.
    """
    shown = f"Could not change the backing file to '{filename or ''}'"
    if filename and format is None:
        raise BlockError(f"{shown}: backing format must be specified", errno=errno.EINVAL)
    if not isinstance(node.driver, BackingStore):
        raise BlockError(f"{shown}: {os.strerror(errno.ENOTSUP)}", errno=errno.ENOTSUP)


def change_backing(node: BlockNode, filename: str | None, format: str | None) -> None:
    """Record another backing file, or none, and nothing else: what ``-u`` does.

    Raises:
        BlockError: with QEMU's text.
    """
    check_change(node, filename, format)
    driver = node.driver
    assert isinstance(driver, BackingStore)
    try:
        with node.lock():
            driver.change_backing(filename, format if filename else None)
        node.flush()
    except OSError as error:
        code = error.errno or errno.EIO
        reason = "No space left in the file header" if code == errno.ENOSPC else os.strerror(code)
        hint = beyond_errno(error)
        message = f"Could not change the backing file to '{filename or ''}': {reason}"
        raise BlockError(message, errno=code, hint=hint) from None


def check_compression(node: BlockNode) -> None:
    """Refuse to compress into a format that cannot hold it.

    Raises:
        UnsupportedFeature: with QEMU's text.
    """
    if not isinstance(node.driver, Compressing):
        raise UnsupportedFeature("Compression not supported for this file format")


def rebase(node: BlockNode, new: BlockNode | None, *, compress: bool = False, progress: Progress | None = None) -> None:
    """Copy into an overlay what it reads from its backing node and would not read from ``new``, and sync it.

    Args:
        node: the overlay, open for writing, on its old backing node.
        new: what it will stand on, open; it may be a node of the overlay's own chain. None for nothing.
        compress: store what is copied compressed, where that makes it smaller.
        progress: called with the bytes done and those in all.

    Raises:
        BlockError: with QEMU's text; the overlay's content has not changed.
    """
    if new is not node.backing:
        tell_of_change(node)
        _Rebase(node, new, progress, compress=compress).run()
    try:
        node.flush()
    except OSError as error:
        raise failed("Error while writing to COW image", error) from None


class _Slot(NamedTuple):
    """Buffers for a chunk of the old backing node and of the new one."""

    old: bytearray
    new: bytearray


class _Rebase:
    """Copies differences, cluster by cluster: each of a few threads reads a chunk, compares and writes it."""

    def __init__(self, node: BlockNode, new: BlockNode | None, progress: Progress | None, *, compress: bool) -> None:
        self._node = node
        driver = node.driver
        self._compressing = driver if compress and isinstance(driver, Compressing) else None
        self._compress = self._compressing.compressor() if self._compressing is not None else None
        self._old = node.backing
        self._new = new
        self._size = rounded_length(node)
        self._cluster = node.driver.info().cluster_size or MiB
        is_prefix = self._old is not None and any(layer is new for layer in self._old.chain())
        self._base = new if is_prefix else None
        self._chunk = max(_CHUNK, self._cluster)
        self._progress = progress
        self._done = 0
        self._done_lock = threading.Lock()

    def run(self) -> None:
        nodes = [self._node, *([self._new] if self._new is not None else [])]
        team = Team(self._chunks(), nodes, self._slot, lambda: self._copy)
        team.run_unordered(worker_count(_WORKERS) if self._size > self._chunk else 1)

    def _slot(self) -> _Slot:
        return _Slot(bytearray(self._chunk), bytearray(self._chunk))

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Offset and length of each piece of work; a whole step's are found before any of it is written."""
        for start in range(0, self._size, _STEP):
            for offset, end in self._differing(start, min(start + _STEP, self._size)):
                for chunk in range(offset, end, self._chunk):
                    yield chunk, min(self._chunk, end - chunk)

    def _differing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges, in whole clusters, where the metadata does not say that old and new read the same."""
        ranges: list[tuple[int, int]] = []
        try:
            for gap in self._node.extents(start, end - start):
                if not gap.status & Status.ALLOCATED:
                    for offset, stop in self._open_ranges(gap.offset, gap.end):
                        first = max(gap.offset, offset - offset % self._cluster)
                        last = min(gap.end, -(-stop // self._cluster) * self._cluster)
                        if ranges and ranges[-1][1] >= first:
                            first = ranges.pop()[0]
                        ranges.append((first, last))
        except OSError as error:
            raise failed("error while reading image metadata", error) from None
        return ranges

    def _open_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        old = self._walk(self._old, start, end, self._base)
        for offset, stop, one, other in paired(old, self._walk(self._new, start, end, None)):
            # Without a flag the layers above the new backing node say nothing: it decides now as it will then.
            if one.status and not one.status & other.status & Status.ZERO:
                yield offset, stop

    def _walk(self, node: BlockNode | None, start: int, end: int, base: BlockNode | None) -> Iterator[ChainExtent]:
        """Block status of a backing node that may be shorter, or absent: beyond it there are zeroes."""
        inside = max(start, min(end, node.length)) if node is not None else start
        if node is not None and start < inside:
            try:
                for extent in block_status(node, start, inside - start, base=base):
                    yield extent
                    start = extent.end
            except OSError:
                if base is not None:
                    raise
                # It is read then, as by QEMU, which tells what cannot be.
                yield ChainExtent(start, inside - start, Status.DATA, node, 0)
        if inside < end:
            yield ChainExtent(inside, end - inside, Status.ZERO, node or self._node, 0)

    def _copy(self, chunk: tuple[int, int], slot: _Slot) -> None:
        """Read a chunk from both, and write what differs of it."""
        offset, length = chunk
        with memoryview(slot.old) as old, memoryview(slot.new) as new:
            _read(self._old, offset, old[:length], "old")
            _read(self._new, offset, new[:length], "new")
            if not slot.old.startswith(new[:length]):
                try:
                    for start, end in self._runs(slot.old, new, length):
                        self._write(offset + start, old[start:end])
                except OSError as error:
                    raise failed("Error while writing to COW image", error) from None
        if self._progress is not None:
            with self._done_lock:
                self._done = max(self._done, offset + length)
                self._progress(self._done, self._size)

    def _runs(self, old: bytearray, new: memoryview, length: int) -> Iterator[tuple[int, int]]:
        """The runs of clusters that differ; only whole clusters are written, so that nothing is read again."""
        start = 0
        for position in range(0, length, self._cluster):
            end = min(position + self._cluster, length)
            if old.startswith(new[position:end], position):
                if start < position:
                    yield start, position
                start = end
        if start < length:
            yield start, length

    def _write(self, offset: int, view: memoryview) -> None:
        """Write clusters of the old backing node; beyond its end they are zeroes and need no space."""
        end = rounded_length(self._old) if self._old is not None else 0
        end = -(-end // self._cluster) * self._cluster
        data = max(0, min(end - offset, len(view)))
        if data:
            self._write_data(offset, view[:data])
        self._write_zeroes(offset + data, len(view) - data)

    def _write_data(self, offset: int, view: memoryview) -> None:
        if self._compressing is None or self._compress is None:
            self._node.pwrite(offset, view)
            return
        for start in range(0, len(view), self._cluster):
            part = view[start : start + self._cluster]
            # Beyond the end of the image, where the last cluster may go on, are zeroes. Of a cluster with subclusters
            # of its own only the others may be written.
            at, end = offset + start, offset + start + len(part)
            whole = not at % self._cluster and (len(part) == self._cluster or end == self._size)
            payload = self._compress(bytes(part).ljust(self._cluster, b"\0")) if whole else None
            if payload is None:
                self._node.pwrite(offset + start, part)
            else:
                with self._node.lock():
                    self._compressing.pwrite_compressed(offset + start, payload)

    def _write_zeroes(self, offset: int, length: int) -> None:
        """Zero a range in the overlay itself.

        A driver has nothing to do where zeroes are read from below; but what is below is about to change.
        """
        if not length:
            return
        self._node.write_zeroes(offset, length)
        left = [extent for extent in self._node.extents(offset, length) if not extent.status & Status.ALLOCATED]
        for extent in left:
            self._node.pwrite(extent.offset, bytes(extent.length))


def _read(node: BlockNode | None, offset: int, view: memoryview, which: str) -> None:
    if node is None:
        view[:] = bytes(len(view))
        return
    try:
        node.pread_padded(offset, view)
    except OSError as error:
        hint = error.message if isinstance(error, BlockError) else error.strerror
        message = f"error while reading from {which} backing file"
        raise BlockError(message, errno=error.errno, hint=hint) from None
