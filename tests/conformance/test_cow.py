"""Overlays of the format "cow" through the commands; the real tool, which cannot read them, judges the outcome."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from support.formats import good, ours, theirs
from support.old_images import cow

pytestmark = pytest.mark.requires_tool("qemu-img")
RANDOM = random.Random("cow")
SECTORS = 3000


@pytest.mark.parametrize("kind", ["qemu", "1", "2", "3"])
def test_an_overlay_becomes_one_that_the_real_tool_reads(tmp_path: Path, kind: str) -> None:
    base = RANDOM.randbytes(SECTORS * 512)
    own = {number: RANDOM.randbytes(512) for number in RANDOM.sample(range(SECTORS), 400)}
    (tmp_path / "base").write_bytes(base)
    (tmp_path / "a").write_bytes(cow(own, len(base), kind=kind, backing=b"base"))
    disk = bytearray(base)
    for number, data in own.items():
        disk[number * 512 : number * 512 + 512] = data
    (tmp_path / "disk").write_bytes(disk)
    good(ours("convert", "-O", "qcow2", tmp_path / "a", tmp_path / "b"))
    good(theirs("compare", tmp_path / "b", "-f", "qcow2", "-F", "raw", tmp_path / "disk"))
    # Only what is the overlay's own goes into another one on the same base.
    good(ours("convert", "-O", "qcow2", "-B", tmp_path / "base", "-F", "raw", tmp_path / "a", tmp_path / "c"))
    good(theirs("compare", "-f", "qcow2", "-F", "raw", tmp_path / "c", tmp_path / "disk"))


def test_info_and_map_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(8 * 512))
    (tmp_path / "a").write_bytes(cow({2: b"x" * 512}, 8 * 512, backing=b"base"))
    told = json.loads(good(ours("info", "--output=json", tmp_path / "a")).out)
    assert (told["format"], told["virtual-size"], told["backing-filename"]) == ("cow", 4096, "base")
    found = json.loads(good(ours("map", "--output=json", tmp_path / "a")).out)
    assert [(each["start"], each["length"], each["depth"]) for each in found] == [
        (0, 1024, 1),
        (1024, 512, 0),
        (1536, 2560, 1),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "-f", "cow", "new", "1M"),
        ("convert", "-O", "cow", "base", "new"),
        ("check", "a"),
        ("resize", "a", "1M"),
    ],
    ids=lambda words: words[0],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").write_bytes(bytes(4096))
    (tmp_path / "a").write_bytes(cow({}, 4096))
    result = ours(*words)
    assert result.code and result.err.startswith("qemu-img: ")
    assert not (tmp_path / "new").exists()
