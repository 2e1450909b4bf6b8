"""Compressed clusters: reading runs of them, storing them, and the functions that make them.

See "Compressed Clusters Descriptor" in the qcow2 specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.layout import Compression
from hostel.errors import CorruptImage
from hostel.units import MiB

if TYPE_CHECKING:
    from hostel.block.formats.qcow2.image import Qcow2Image
    from hostel.block.formats.run import Run

Packer = Callable[[bytes | bytearray | memoryview], "bytes | None"]

_READ_AHEAD: Final = 2 * MiB  # bytes read at once
_GAP: Final = 64 * 1024  # bytes that are read along rather than skipped


def read_compressed(image: Qcow2Image, batch: list[tuple[int, Run]], buf: memoryview) -> None:
    """Decompress runs of one cluster at most, each given with its place in ``buf``.

    Raises:
        CorruptImage: a stream is broken.
    """
    todo: list[tuple[int, Run, int, int]] = []
    start = end = 0
    for place, run in batch:
        offset, length = image.geometry.compressed_range(run.host & ~(layout.COMPRESSED | layout.COPIED))
        if todo and not (start <= offset <= end + _GAP and offset + length - start <= _READ_AHEAD):
            _decompress(image, todo, start, end, buf)
            todo = []
        if not todo:
            start = end = offset
        end = max(end, offset + length)
        todo.append((place, run, offset, length))
    if todo:
        _decompress(image, todo, start, end, buf)


def _decompress(
    image: Qcow2Image, todo: list[tuple[int, Run, int, int]], start: int, end: int, buf: memoryview
) -> None:
    size = image.geometry.cluster_size
    unpack = unpacker(image.header.compression_type)
    image.file.debug_event("read_compressed")
    payload = memoryview(image.file.read(start, end - start))
    for place, run, offset, length in todo:
        cached = image.last_cluster
        if cached is not None and cached[0] == run.host:
            cluster = cached[1]
        else:
            try:
                cluster = unpack(payload[offset - start : offset - start + length], size)
            except CorruptImage as error:
                raise CorruptImage(f"{error} (guest offset {run.offset}, host offset {offset})") from None
        within = image.geometry.in_cluster(run.offset)
        buf[place : place + run.length] = cluster[within : within + run.length]
        if run.length < size:
            image.last_cluster = (run.host, cluster)


def store_compressed(image: Qcow2Image, payload: bytes) -> int:
    """Write a compressed payload behind the last one; returns its host offset.

    Each cluster that the payload touches gets one reference more.

    Raises:
        CorruptImage: what seems free is metadata.
        OSError: there is no room, or the host's own errors; nothing is allocated then.
    """
    host = _allocate(image, len(payload))
    try:
        image.file.debug_event("write_compressed")
        image.file.pwrite(host, payload)
    except BaseException:
        image.refcounts.free(host, len(payload))
        image.end_of_bytes = 0
        raise
    return host


def _allocate(image: Qcow2Image, length: int) -> int:
    bits = image.geometry.cluster_bits
    image.file.debug_event("cluster_alloc_bytes")
    while True:
        offset = _place(image, length)
        first, last = offset >> bits, (offset + length - 1) >> bits
        # Counting may need a new refcount block, which may take the very place.
        if not image.refcounts.reserve(first, last):
            break
    if image.map.find(first, last - first + 1) is not None:
        image.corrupt("Preventing invalid allocation: a free cluster overlaps with metadata")
    image.refcounts.update(first, last - first + 1, 1)
    image.refcounts.skip(last + 1)
    end = offset + length
    image.end_of_bytes = end if image.geometry.in_cluster(end) else 0
    return offset


def _place(image: Qcow2Image, length: int) -> int:
    """Where a payload goes: into the rest of the last one's cluster, and on where the next cluster is free too."""
    bits = image.geometry.cluster_bits
    offset = image.end_of_bytes
    room = -offset % image.geometry.cluster_size
    if not room or image.refcounts.get(offset >> bits) >= image.geometry.refcount_max:
        room = 0
    if room >= length:
        return offset
    cluster = image.refcounts.find(1, "compressed cluster")
    return offset if room and cluster << bits == offset + room else cluster << bits


def unpacker(kind: int) -> Callable[[bytes | memoryview, int], bytes]:
    """The function that decompresses a payload to a given number of bytes."""
    from hostel.codec import compress

    return compress.unzstd if kind == Compression.ZSTD else compress.inflate


def packer(kind: int, cluster_size: int) -> Packer:
    """A function for one thread that compresses a whole cluster; None where it would not get smaller."""
    from hostel.codec import compress

    pack = compress.zstd_compressor() if kind == Compression.ZSTD else compress.deflate_compressor()

    def compress_cluster(data: bytes | bytearray | memoryview) -> bytes | None:
        if len(data) < cluster_size:
            data = bytes(data).ljust(cluster_size, b"\0")
        payload = pack(data)
        return payload if len(payload) < cluster_size else None

    return compress_cluster
