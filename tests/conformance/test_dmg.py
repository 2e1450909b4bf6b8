"""Disk images of macOS beside the real tool, as far as it reads them: bzip2, lzfse and ADC are not among that."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from support.dmg import IGNORED, RAW, ZERO, ZLIB, Part, dmg, part
from support.formats import good, ours, theirs

pytestmark = pytest.mark.requires_tool("qemu-img")
RANDOM = random.Random("dmg")
SECTORS = 4096


def image(path: Path, *, fork: bool) -> Path:
    """Chunks of every kind that the real tool reads here, of any length, in the disk's order."""
    parts: list[Part] = []
    at = 0
    while at < SECTORS:
        count = min(RANDOM.randrange(1, 300), SECTORS - at)
        kind = RANDOM.choice((RAW, ZLIB, ZERO, IGNORED))
        content = RANDOM.randbytes(count * 256) + bytes(count * 256)
        parts.append(Part(kind, at, count) if kind in (ZERO, IGNORED) else part(kind, at, content))
        at += count
    path.write_bytes(dmg(parts, SECTORS * 512, fork=fork, tables=5))
    return path


@pytest.mark.parametrize("fork", [False, True], ids=["property list", "resource fork"])
def test_the_real_tool_reads_the_same(tmp_path: Path, fork: bool) -> None:
    source = image(tmp_path / "a.dmg", fork=fork)
    good(ours("convert", "-O", "raw", source, tmp_path / "ours"))
    good(theirs("convert", "-O", "raw", source, tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("info", "{image}"),
        ("info", "--output=json", "{image}"),
        ("check", "{image}"),
        ("resize", "{image}", "1G"),
        ("create", "-f", "dmg", "new", "1M"),
        ("create", "-f", "dmg", "-o", "help"),
        ("convert", "-O", "dmg", "{image}", "new"),
        ("measure", "-O", "dmg", "--size", "1M"),
        ("snapshot", "-l", "{image}"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_commands_print_what_the_real_tool_prints(tmp_path: Path, words: tuple[str, ...]) -> None:
    source = image(tmp_path / "a.dmg", fork=False)
    command = [word.format(image=source) for word in words]
    our, their = ours(*command), theirs(*command)
    # Without its modules for bzip2 and lzfse the real tool says so each time.
    lines = [line for line in their.err.splitlines() if "qemu-block-extra" not in line]
    assert (our.code, our.out, our.err.splitlines()) == (their.code, their.out, lines)


def test_what_is_told_of_zeroes_is_true(tmp_path: Path) -> None:
    source = image(tmp_path / "a.dmg", fork=False)
    good(theirs("convert", "-O", "raw", source, tmp_path / "theirs"))
    content = (tmp_path / "theirs").read_bytes()
    found = json.loads(good(ours("map", "--output=json", source)).out)
    assert sum(each["length"] for each in found) == SECTORS * 512
    assert any(each["zero"] for each in found)
    for each in found:
        part = content[each["start"] : each["start"] + each["length"]]
        assert not each["zero"] or not any(part)
