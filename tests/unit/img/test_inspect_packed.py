"""What ``inspect`` says of compressed files: what they are packed with, what is inside, how large it may become."""

from __future__ import annotations

import gzip
import lzma
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.img.inspect import inspect
from hostel.img.inspection import Inside, Inspection, Level
from support import hostile, images
from support.bounded import MIB, bounded

zstandard = pytest.importorskip("zstandard")
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: bytes(zstandard.ZstdCompressor().compress(data)),
}


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def codes(found: Inspection, level: Level = Level.UNSAFE) -> list[str]:
    return [each.code for each in found.findings if each.level is level]


@pytest.mark.parametrize("wrapper", PACKERS)
def test_wrapper_and_image_are_named(tmp_path: Path, wrapper: str) -> None:
    images.make(tmp_path / "image", 7 * MIB)
    data = (tmp_path / "image").read_bytes()
    found = inspect(write(tmp_path / "a", PACKERS[wrapper](data)), expected="raw")
    largest = found.file_size * 1032 if wrapper == "gzip" else len(data)
    size = None if wrapper == "gzip" else len(data)
    assert found.inside == Inside(wrapper, "qcow2", size, largest, 7 * MIB)
    assert (codes(found), codes(found, Level.WARNING)[-1]) == ([], "packed")
    told = found.to_json()
    assert (told["wrapper"], told["inner-format"], told["inner-virtual-size"]) == (wrapper, "qcow2", 7 * MIB)


def test_what_is_no_image_is_named_too(tmp_path: Path) -> None:
    iso = bytes(32769) + b"CD001" + bytes(40_000)
    found = inspect(write(tmp_path / "a", gzip.compress(iso)))
    assert found.inside is not None and found.inside.format == "iso9660"
    found = inspect(write(tmp_path / "a", gzip.compress(b"text" * 100)))
    assert found.inside is not None and found.inside.format == "raw"


@pytest.mark.parametrize("wrapper", PACKERS)
def test_what_may_become_too_large_is_unsafe(tmp_path: Path, wrapper: str) -> None:
    path = write(tmp_path / "a", PACKERS[wrapper](bytes(64 * MIB)))
    assert codes(inspect(path, max_virtual_size=MIB)) == ["unpacked-size"]
    assert codes(inspect(path, max_virtual_size=1 << 40)) == []


def test_an_image_inside_that_claims_too_much_is_unsafe(tmp_path: Path) -> None:
    path = write(tmp_path / "a", gzip.compress(hostile.header(size=1 << 45).ljust(65536, b"\0")))
    assert "virtual-size" in codes(inspect(path, max_virtual_size=1 << 40))


@pytest.mark.parametrize("wrapper", PACKERS)
def test_a_broken_file_is_unsafe(tmp_path: Path, wrapper: str) -> None:
    data = PACKERS[wrapper](bytes(range(256)) * 100)
    assert codes(inspect(write(tmp_path / "a", data[: len(data) // 2]))) == ["malformed"]


def test_a_bomb_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(32 * MIB)) * 100
    path = write(tmp_path / "a", bomb)
    started = time.process_time()
    found = bounded(lambda: codes(inspect(path, max_virtual_size=MIB)), memory=64 * MIB, seconds=20)
    assert found == ["unpacked-size", "virtual-size"] and time.process_time() - started < 20
