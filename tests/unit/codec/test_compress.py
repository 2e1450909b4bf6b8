from __future__ import annotations

import random
import sys
import zlib

import pytest

from hostel.codec import compress
from hostel.errors import CorruptImage, UnsupportedFeature

# Repeats further back than 4 KiB: a compressor with a larger window would refer to them.
FAR = random.Random(1).randbytes(6000) * 11
SAMPLES = [bytes(65536), b"abc" * 1000, random.Random(2).randbytes(65536), FAR[:65536], b"x"]


@pytest.mark.parametrize("data", SAMPLES, ids=range(len(SAMPLES)))
@pytest.mark.parametrize("level", [None, 0, 1, 2, 3])
def test_deflate_is_readable_with_a_4_kib_window(data: bytes, level: int | None) -> None:
    packed = compress.deflate_compressor(level=level)(data)
    assert zlib.decompressobj(-12).decompress(packed) == data
    assert compress.inflate(packed, len(data)) == data


def test_deflate_falls_back_to_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    packed = compress.deflate_compressor()(FAR)
    assert zlib.decompressobj(-12).decompress(packed) == FAR
    assert compress.inflate(packed, len(FAR)) == FAR
    with pytest.raises(CorruptImage):
        compress.inflate(b"\xff" * 50, 65536)


@pytest.mark.parametrize("data", SAMPLES, ids=range(len(SAMPLES)))
def test_zstd_round_trip(data: bytes) -> None:
    assert compress.unzstd(compress.zstd_compressor()(data) + bytes(100), len(data)) == data


def test_zstd_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UnsupportedFeature, match="zstandard") as caught:
        compress.zstd_compressor()
    assert "pip install zstandard" in str(caught.value.hint)


def test_bytes_after_the_stream_are_ignored() -> None:
    assert compress.inflate(compress.deflate_compressor()(b"data" * 99) + b"\xff" * 300, 396) == b"data" * 99


@pytest.mark.parametrize("decode", [compress.inflate, compress.unzstd])
@pytest.mark.parametrize("data", [b"", b"\xff" * 50, b"\0" * 50, b"\x28\xb5\x2f\xfd" + b"\xff" * 20])
def test_broken_stream_is_a_corrupt_image(decode: object, data: bytes) -> None:
    with pytest.raises(CorruptImage):
        decode(data, 65536)  # type: ignore[operator]


def test_short_stream_is_a_corrupt_image() -> None:
    with pytest.raises(CorruptImage, match="holds 5 bytes instead of 6"):
        compress.inflate(compress.deflate_compressor()(b"abcde"), 6)
    with pytest.raises(CorruptImage, match="holds 5 bytes instead of 6"):
        compress.unzstd(compress.zstd_compressor()(b"abcde"), 6)


@pytest.mark.parametrize("name", ["inflate", "unzstd"])
def test_bomb_is_cut_at_the_length_asked_for(name: str) -> None:
    bomb = bytes(64 << 20)
    packed = (compress.deflate_compressor() if name == "inflate" else compress.zstd_compressor())(bomb)
    assert getattr(compress, name)(packed, 65536) == bytes(65536)


@pytest.mark.parametrize("data", [*SAMPLES, b""], ids=range(len(SAMPLES) + 1))
@pytest.mark.parametrize("package", ["isal", "zlib"])
def test_zlib_streams_are_zlibs_own(data: bytes, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    packed = compress.zlib_compressor()(data)
    assert zlib.decompress(packed) == data
    assert compress.unzlib(packed + b"behind", len(data)) == data
    assert compress.unzlib(zlib.compress(data, 9), len(data) + 1) == data


@pytest.mark.parametrize("package", ["isal", "zlib"])
@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (zlib.compress(bytes(1001)), "holds more than 1000 bytes"),
        (zlib.compress(bytes(1000))[:-1], "cut off"),
        (zlib.compress(bytes(1000))[:-4] + b"sum?", "cannot be inflated"),
        (b"\xff" * 50, "cannot be inflated"),
        (b"", "cut off"),
    ],
)
def test_a_broken_zlib_stream_is_told(packed: bytes, why: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    with pytest.raises(CorruptImage, match=why):
        compress.unzlib(packed, 1000)
