"""Codecs of compressed clusters: raw deflate and zstd.

``isal`` reads and writes deflate several times faster than zlib, and ``zstandard`` brings zstd; both release the GIL,
and both are wheels that may be missing: deflate then falls back to zlib, zstd is refused by name. QEMU inflates qcow2's
clusters with a 12-bit window, so a compressor must not look back further than 4 KiB.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any, cast

from hostel.errors import CorruptImage, UnsupportedFeature

Compressor = Callable[[bytes | bytearray | memoryview], bytes]
QCOW2_WINDOW_BITS = 12
ZLIB_WINDOW_BITS = 15

_thread = threading.local()


def deflate_compressor(window_bits: int = QCOW2_WINDOW_BITS, level: int | None = None) -> Compressor:
    """Return a function that deflates one buffer, raw where not said otherwise; threads may share it.

    Args:
        window_bits: a base-2 logarithm: how far back matches may reach; negative for a zlib stream.
        level: the codec's own level (isal: 0 to 3, zlib: 1 to 9); None picks the codec's usual one.
    """
    try:
        from isal import isal_zlib
    except ImportError:
        return _zlib_compressor(window_bits, -1 if level is None else level)
    chosen = 1 if level is None else level

    def compress(data: bytes | bytearray | memoryview) -> bytes:
        stream = isal_zlib.compressobj(chosen, isal_zlib.DEFLATED, -window_bits)
        packed: bytes = stream.compress(data) + stream.flush()
        return packed

    return compress


def _zlib_compressor(window_bits: int, level: int) -> Compressor:
    def compress(data: bytes | bytearray | memoryview) -> bytes:
        stream = zlib.compressobj(level, zlib.DEFLATED, -window_bits, 9)
        return stream.compress(data) + stream.flush()

    return compress


def zlib_compressor(level: int | None = None) -> Compressor:
    """Return a function that deflates one buffer into a zlib stream, with header and checksum; see above."""
    return deflate_compressor(-ZLIB_WINDOW_BITS, level)


def inflate(data: bytes | memoryview, length: int, window_bits: int = QCOW2_WINDOW_BITS) -> bytes:
    """Inflate raw deflate to exactly ``length`` bytes; bytes after the stream's end are ignored.

    Raises:
        CorruptImage: the stream is broken or too short. Memory is bounded by ``length`` whatever the stream says.
    """
    start, failure = inflater()
    try:
        result: bytes = start(-window_bits).decompress(data, length)
    except failure as error:
        raise CorruptImage(f"a compressed cluster cannot be inflated: {error}") from None
    if len(result) != length:
        raise CorruptImage(f"a compressed cluster holds {len(result)} bytes instead of {length}")
    return result


def inflater() -> tuple[Any, Any]:
    """What makes decompressors by window bits, and the error that they raise."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.decompressobj, zlib.error
    return isal_zlib.decompressobj, isal_zlib.error


def unzlib(data: bytes | memoryview, limit: int) -> bytes:
    """Inflate a zlib stream of at most ``limit`` bytes; bytes after the stream's end are ignored.

    Raises:
        CorruptImage: the stream is broken, cut off or longer. Memory is bounded by ``limit`` whatever it says.
    """
    start, failure = inflater()
    stream = start(ZLIB_WINDOW_BITS)
    try:
        result: bytes = stream.decompress(data, limit + 1)
    except failure as error:
        raise CorruptImage(f"it cannot be inflated: {error}") from None
    if len(result) > limit:
        raise CorruptImage(f"it holds more than {limit} bytes")
    if not stream.eof:
        raise CorruptImage("it is cut off")
    return result


def zstd_compressor(level: int | None = None) -> Compressor:
    """Return a function that compresses one buffer into one zstd frame; each thread needs its own.

    Raises:
        UnsupportedFeature: the ``zstandard`` package is missing.
    """
    context = zstandard_library().ZstdCompressor(level=1 if level is None else level)

    def compress(data: bytes | bytearray | memoryview) -> bytes:
        packed: bytes = context.compress(data)
        return packed

    return compress


def unzstd(data: bytes | memoryview, length: int) -> bytes:
    """Decompress one zstd frame to exactly ``length`` bytes; bytes after the frame are ignored.

    Raises:
        CorruptImage: the frame is broken or holds fewer bytes.
        UnsupportedFeature: the ``zstandard`` package is missing.
    """
    zstandard = zstandard_library()
    try:
        if zstandard.frame_content_size(data) == length:
            return cast(bytes, _decompressor(zstandard).decompress(data))
        # A frame's claims about its size are not believed: a stream stops growing at what we ask for.
        with _decompressor(zstandard).stream_reader(data) as stream:
            result: bytes = stream.read(length)
    except zstandard.ZstdError as error:
        raise CorruptImage(f"a compressed cluster cannot be decompressed: {error}") from None
    if len(result) != length:
        raise CorruptImage(f"a compressed cluster holds {len(result)} bytes instead of {length}")
    return result


def _decompressor(zstandard: Any) -> Any:
    """This thread's decompressor: one serves one thread at a time, and making one takes as long as a small frame."""
    if not hasattr(_thread, "decompressor"):
        _thread.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    return _thread.decompressor


def zstandard_library() -> Any:
    """The module of zstd.

    Raises:
        UnsupportedFeature: the ``zstandard`` package is missing.
    """
    try:
        import zstandard
    except ImportError:
        raise UnsupportedFeature(
            "zstd compression needs the package 'zstandard'", hint="Install it: pip install zstandard"
        ) from None
    return zstandard
