"""Compressed streams of any length, unpacked piece by piece: memory is bounded whatever they hold."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator
from typing import Any, Final

from hostel.codec.compress import ZLIB_WINDOW_BITS, inflater, zstandard_library
from hostel.errors import CorruptImage
from hostel.units import KiB, MiB

PIECE: Final = MiB  # bytes of a piece at most
_PACKED: Final = 64 * KiB  # bytes that are read at once
_GZIP: Final = 16 + ZLIB_WINDOW_BITS  # how zlib calls streams with a header of gzip
XZ_MEMORY: Final = 256 * MiB  # what a dictionary may take; xz -9 needs 65 MiB

# Gives the next bytes of the file, as many as are asked for at most; none at its end.
Read = Callable[[int], bytes]


def gunzip(read: Read) -> Iterator[bytes]:
    """Unpack the members of a gzip file, and check what they say of themselves.

    Raises:
        CorruptImage: the file is broken, cut off, or goes on with something else.
    """
    start, failure = inflater()
    return _unpack(read, lambda: start(_GZIP), failure, b"\x1f\x8b", "gzip member")


def unxz(read: Read) -> Iterator[bytes]:
    """Unpack the streams of an xz file, and check what they say of themselves.

    Raises:
        CorruptImage: the file is broken, cut off, or goes on with something else.
    """
    return _unpack(
        read, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY), lzma.LZMAError, b"\xfd7zXZ", "xz stream"
    )


def _unpack(read: Read, start: Callable[[], Any], failure: type[Exception], magic: bytes, what: str) -> Iterator[bytes]:
    data = read(_PACKED)
    while data:
        if not data.startswith(magic[: len(data)]):
            raise CorruptImage(f"No {what} begins where one should")
        stream = start()
        while not stream.eof:
            try:
                piece = stream.decompress(data, PIECE)
            except failure as error:
                raise CorruptImage(f"A {what} is broken: {error}") from None
            if piece:
                yield piece
            data = getattr(stream, "unconsumed_tail", b"")  # of zlib; lzma keeps it
            if stream.eof:
                break
            if not data and getattr(stream, "needs_input", True):
                data = read(_PACKED)
                if not data and not piece:
                    raise CorruptImage(f"A {what} is cut off")
        data = _skip_zeroes(stream.unused_data, read)


def _skip_zeroes(data: bytes, read: Read) -> bytes:
    """What follows: zeroes may fill a file up, and are passed over."""
    while True:
        rest = data.lstrip(b"\0")
        if rest:
            return rest
        data = read(_PACKED)
        if not data:
            return b""


def unzstd_frames(read: Read) -> Iterator[bytes]:
    """Unpack zstd frames, of which somebody has made sure that they are whole, and check what they say of themselves.

    Raises:
        CorruptImage: a frame is broken.
        UnsupportedFeature: the ``zstandard`` package is missing.
    """
    library = zstandard_library()
    source = _Source(read)
    with library.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source, read_across_frames=True) as stream:
        while True:
            try:
                piece = stream.read(PIECE)
            except library.ZstdError as error:
                raise CorruptImage(f"A zstd frame is broken: {error}") from None
            if not piece:
                return
            yield piece


class _Source:
    """A file to read from, as ``zstandard`` wants it."""

    def __init__(self, read: Read) -> None:
        self.read = read
