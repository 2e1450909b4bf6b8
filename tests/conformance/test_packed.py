"""Files that gzip, xz and zstd packed, through the commands: the real qemu-img judges what comes out."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from support.formats import good, ours, theirs

pytestmark = pytest.mark.requires_tool("qemu-img")
RANDOM = random.Random("packed")
MIB = 1 << 20

# The filter, the command that packs, and what it has to do.
PACKERS = {
    "gzip": ("gzip", ["gzip", "-1"]),
    "xz": ("xz", ["xz", "-0"]),
    "xz in blocks": ("xz", ["xz", "-0", "-T2", "--block-size=1MiB"]),
    "xz with sha256": ("xz", ["xz", "-0", "--check=sha256"]),
    "zstd": ("zstd", ["zstd", "-q"]),
    "zstd without a length": ("zstd", ["zstd", "-q", "--no-content-size"]),
    "zstd of a long window": ("zstd", ["zstd", "-q", "--long=27"]),
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(9 * MIB)
        for offset in (0, 3 * MIB + 512, 8 * MIB):
            stream.seek(offset)
            stream.write(RANDOM.randbytes(MIB // 2))
    return path


def pack(words: list[str], source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        subprocess.run([*words, "-c"], stdin=reading, stdout=writing, timeout=60, check=True)


@pytest.mark.requires_tool("gzip")
@pytest.mark.requires_tool("xz")
@pytest.mark.requires_tool("zstd")
@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("packer", PACKERS)
def test_an_image_is_read_through_its_wrapper(tmp_path: Path, disk: Path, packer: str, format: str) -> None:
    name, words = PACKERS[packer]
    good(theirs("convert", "-f", "raw", "-O", format, disk, tmp_path / "image"))
    pack(words, tmp_path / "image", tmp_path / "packed")
    wrapped = f"{name}:{tmp_path / 'packed'}"
    info = good(ours("info", wrapped)).out
    assert f"file format: {format}\n" in info and "virtual size: 9 MiB" in info
    good(ours("convert", "-O", "qcow2", wrapped, tmp_path / "out"))
    good(theirs("compare", "-f", "raw", "-F", "qcow2", disk, tmp_path / "out"))
    options = f"driver={format},file.driver={name},file.file.filename={tmp_path / 'packed'}"
    good(ours("compare", "--image-opts", options, f"driver=raw,file.filename={disk}"))


def test_nothing_is_unpacked_that_was_not_asked_for(tmp_path: Path, disk: Path) -> None:
    pack(["gzip", "-1"], disk, tmp_path / "a.gz")
    for command in (("info", tmp_path / "a.gz"), ("convert", "-O", "raw", tmp_path / "a.gz", tmp_path / "b")):
        assert ours(*command) == theirs(*command)


def test_writing_is_refused(tmp_path: Path, disk: Path) -> None:
    pack(["gzip", "-1"], disk, tmp_path / "a.gz")
    result = ours("resize", "-f", "raw", f"gzip:{tmp_path / 'a.gz'}", "1G")
    assert (result.code, result.err) == (
        1,
        f"qemu-img: Could not open 'gzip:{tmp_path / 'a.gz'}': Image is read-only\n",
    )
