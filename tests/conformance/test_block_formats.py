"""vdi, vpc and vhdx beside real ``qemu-img`` and ``qemu-io``: written in turn, sizes, logs, damage."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.driver import CACHE_MODES
from support.block_subjects import record, replayed
from support.formats import MIB, SECTOR, Image, clean, equal, good, ours, theirs
from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
UNSAFE = CACHE_MODES["unsafe"]
KINDS = [
    ("vdi", ""),
    ("vdi", "static=on"),
    ("vpc", "force_size=on"),
    ("vpc", "force_size=on,subformat=fixed"),
    ("vhdx", "block_size=1M"),
    ("vhdx", "block_size=2M,block_state_zero=off"),
    ("vhdx", "block_size=1M,subformat=fixed"),
]
SIZE = 11 * MIB + 3 * SECTOR


def places(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Offsets and lengths of whole sectors: inside blocks, across their ends, whole ones."""
    found = []
    for _ in range(count):
        offset = rng.choice((rng.randrange(SIZE // SECTOR) * SECTOR, rng.randrange(11) * MIB))
        length = rng.choice((SECTOR, 5 * SECTOR, MIB, 3 * MIB + SECTOR))
        found.append((offset, min(length, SIZE - offset)))
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("format", "options"), KINDS)
def test_we_and_qemu_write_one_image_in_turn(tmp_path: Path, format: str, options: str, seed: int) -> None:
    rng = random.Random(f"{format} {options} {seed}")
    image, content, raw = Image(tmp_path / "disk", format), bytearray(SIZE), tmp_path / "expected.raw"
    make = ours if seed else theirs
    good(make("create", "-q", "-f", format, *(("-o", options) if options else ()), image.path, SIZE))
    for turn in range(4):
        writes = [(offset, length, rng.randrange(256)) for offset, length in places(rng, 6)]
        for offset, length, value in writes:
            content[offset : offset + length] = bytes([value]) * length
        if turn % 2:
            words = [
                part for offset, length, value in writes for part in ("-c", f"write -q -P {value} {offset} {length}")
            ]
            assert theirs("-t", "unsafe", "-f", format, *words, image.path, tool="qemu-io") == (0, "", "")
        else:
            with graph.open(str(image.path), format, read_only=False, cache=UNSAFE) as node:
                for offset, length, value in writes:
                    if value:
                        node.pwrite(offset, bytes([value]) * length)
                    else:
                        node.write_zeroes(offset, length, unmap=rng.random() < 0.5)
        raw.write_bytes(content)
        equal(Image(raw, "raw"), image)
        with graph.open(str(image.path), format) as node:
            assert node.read(0, SIZE) == content
        clean(image)


COMMANDS = [
    "create -f FORMAT x 10M",
    "create -f FORMAT -o size=5M,foo=bar x",
    "create -f FORMAT x",
    "create -f FORMAT x 3000T",
    "create -q -f FORMAT -o preallocation=xx x 1M",
    "create -q -f FORMAT -o preallocation=falloc x 1M",
    "create -f FORMAT -b a -F FORMAT x",
    "check a",
    "check --output=json a",
    "resize a 20M",
    "resize --shrink a 5M",
    "resize --preallocation=full a 50M",
    "measure -O FORMAT --size 1G",
    "snapshot -l a",
    "snapshot -c x a",
    "snapshot -a x a",
    "snapshot -d x a",
    "amend -f FORMAT -o size=5M a",
    "convert -c -O FORMAT a x",
    "convert -O FORMAT -B a -F FORMAT a x",
    "convert -l snap -O raw a x",
    "rebase -b '' a",
    "rebase -u -b b -F FORMAT a",
    "commit a",
    "compare a b",
    "info -f FORMAT short",
    "info short",
]


@pytest.mark.parametrize("format", ["vdi", "vpc", "vhdx"])
def test_what_a_format_cannot_do_is_refused_in_qemus_words(twins: Twins, format: str) -> None:
    for name in ("a", "b"):
        twins.prepare(f"qemu-img create -q -f {format} {name} 10M")
        twins.share(name)
    twins.write("short", (twins.real / "a").read_bytes()[:700])
    for command in COMMANDS:
        if format == "vhdx" and "short" in command:
            continue  # QEMU says nothing but "Invalid argument"
        twins.same(command.replace("FORMAT", format))


@pytest.mark.parametrize("seed", range(40))
def test_a_vhd_has_the_size_and_the_geometry_that_qemu_gives_it(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"geometry {seed}")
    size = rng.randrange(1 << rng.randrange(1, 41))
    words = ("-o", "force_size=on") if seed % 5 == 0 else ()
    footers = []
    for tool in (theirs, ours):
        path = tmp_path / "disk"
        good(tool("create", "-q", "-f", "vpc", *words, path, size))
        footer = path.read_bytes()[:512]
        footers.append(footer[:24] + footer[28:64])  # without time, checksum and identity
    assert footers[0] == footers[1]


@pytest.mark.parametrize("calculation", ["chs", "current_size"])
@pytest.mark.parametrize("creator", [b"qemu", b"qem2", b"win ", b"vs  ", b"d2v ", b"CTXS", b"tap\0", b"vpc "])
def test_the_size_of_a_vhd_is_what_qemu_makes_of_its_creator(tmp_path: Path, creator: bytes, calculation: str) -> None:
    path = tmp_path / "disk"
    good(theirs("create", "-q", "-f", "vpc", path, "10M"))
    data = bytearray(path.read_bytes())
    for start in (0, len(data) - 512):
        data[start + 28 : start + 32] = creator
        data[start + 48 : start + 56] = (9 * MIB).to_bytes(8, "big")
        data[start + 64 : start + 68] = bytes(4)
        total = ~sum(data[start : start + 512]) & 0xFFFFFFFF
        data[start + 64 : start + 68] = total.to_bytes(4, "big")
    path.write_bytes(data)
    for words in (
        ("-f", "vpc", path),
        ("--image-opts", f"driver=vpc,force_size_calc={calculation},file.filename={path}"),
    ):
        found, told = (json.loads(good(tool("info", "--output=json", *words)).out) for tool in (ours, theirs))
        assert found["virtual-size"] == told["virtual-size"]


@pytest.mark.parametrize("seed", range(4))
def test_qemu_does_our_log_again_and_finds_what_we_do(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"log {seed}")
    recording = record("vhdx", rng, 5)
    pending = [each for each in recording.states(rng, samples=0) if replayed("vhdx", each.data) != each.data]
    assert pending or recording.workload.options["subformat"] == "fixed"
    for state in rng.sample(pending, min(4, len(pending))):
        left, right = Image(tmp_path / "left", "vhdx"), Image(tmp_path / "right", "vhdx")
        left.path.write_bytes(state.data)
        right.path.write_bytes(replayed("vhdx", state.data))
        good(theirs("check", "-q", "-r", "all", "-f", "vhdx", left.path))
        equal(left, right)
        good(theirs("-f", "vhdx", "-c", "write -q -P 9 0 512", right.path, tool="qemu-io"))


@pytest.mark.parametrize("seed", range(4))
def test_qemu_writes_what_a_power_cut_left_of_our_image(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"cut {seed}")
    recording = record("vhdx", rng, 5)
    states = list(recording.states(rng, samples=0))
    for state in rng.sample(states, min(6, len(states))):
        path = tmp_path / "disk"
        path.write_bytes(state.data)
        length = len(recording.versions[0].content)
        done = theirs("-f", "vhdx", "-c", f"write -q -P 9 {length - 512} 512", path, tool="qemu-io")
        assert done == (0, "", "")
        with graph.open(str(path), "vhdx") as node:
            assert node.read(length - 512, 512) == b"\t" * 512
