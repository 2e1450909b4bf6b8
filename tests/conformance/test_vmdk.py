"""The format ``vmdk`` beside real ``qemu-img``: every kind of disk, read, written and refused by both."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from support import vmdk
from support.formats import GIB, KIB, MIB, SECTOR, TIB, Result, disks, good, ours, theirs
from support.vmdk import descriptor, write_files
from support.vmdk_hostile import KINDS, mutations, sound

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]

SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")
WRITABLE = SUBFORMATS[:4]
SPARSE = ("monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized")
TOOLS = ((ours, theirs), (theirs, ours))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return disks(tmp_path_factory.mktemp("disks"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def both(*words: object, tool: str = "qemu-img") -> Result:
    """Run both tools, which must say and print the same."""
    found, told = ours(*words, tool=tool), theirs(*words, tool=tool)
    assert found == told
    return found


def same(first: Path | str, first_format: str, second: Path | str, second_format: str) -> None:
    for tool in (ours, theirs):
        good(tool("compare", "-q", "-f", first_format, "-F", second_format, first, second))


def clean(path: Path | str) -> None:
    for tool in (ours, theirs):
        good(tool("check", "-q", "-f", "vmdk", path))


# ---- what one writes, the other reads


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("disk", ["sparse", "dense", "odd"])
def test_copies_of_either_tool_are_the_disk_to_both(sources: dict[str, Path], subformat: str, disk: str) -> None:
    for make, _ in TOOLS:
        name = f"{make.__name__}.vmdk"
        good(make("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", sources[disk], name))
        same(sources[disk], "raw", name, "vmdk")
        clean(name)
        for words in (("info",), ("info", "--output=json"), ("map", "--output=json"), ("check", "--output=json")):
            good(both(*words, name))
        good(ours("convert", "-f", "vmdk", "-O", "raw", name, "back"))
        same(sources[disk], "raw", "back", "raw")


@pytest.mark.parametrize("subformat", WRITABLE)
def test_both_tools_write_the_same_disk_in_turns(subformat: str) -> None:
    rng = random.Random(subformat)
    size = 3 * GIB + 5 * SECTOR
    good(rng.choice((ours, theirs))("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", "d.vmdk", size))
    (Path("expected")).touch()
    good(theirs("resize", "-q", "-f", "raw", "expected", size))
    for turn in range(6):
        writes: list[str] = []
        for _ in range(10):
            place = rng.choice((rng.randrange(size), 2 * GIB - rng.randrange(100 * KIB), size - rng.randrange(MIB)))
            length = min(size - place, rng.choice((1, SECTOR, 64 * KIB, 3 * 64 * KIB + 7)))
            kind = rng.choice((f"write -q -P {rng.randrange(1, 256)}", "write -q -z"))
            writes += ["-c", f"{kind} {place} {length}"]
        good(TOOLS[turn % 2][0]("-f", "vmdk", *writes, "d.vmdk", tool="qemu-io"))
        good(theirs("-f", "raw", *writes, "expected", tool="qemu-io"))
        clean("d.vmdk")
    same("expected", "raw", "d.vmdk", "vmdk")


@pytest.mark.parametrize(
    ("subformat", "size"),
    [
        ("monolithicSparse", 5 * GIB + SECTOR),
        ("monolithicSparse", 3 * TIB),
        ("monolithicFlat", 3 * TIB + SECTOR),
        ("twoGbMaxExtentSparse", 9 * GIB + SECTOR),
        ("twoGbMaxExtentFlat", 9 * GIB + SECTOR),
        ("streamOptimized", 3 * TIB),
    ],
)
def test_large_disks(subformat: str, size: int) -> None:
    grain = 64 * KIB
    places = [0, 4 * GIB, size // 2 // grain * grain, (size - 1) // grain * grain]
    for make, judge in TOOLS:
        name = f"{make.__name__}.vmdk"
        good(make("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", name, size))
        lengths = [min(grain, size - place) for place in places]
        parts = list(zip(places, lengths, strict=True))
        writes = [
            part for at, (place, length) in enumerate(parts, 1) for part in ("-c", f"write -q -P {at} {place} {length}")
        ]
        reads = [part.replace("write", "read") for part in writes] + ["-c", f"read -q -P 0 {GIB} 1M"]
        good(make("-t", "unsafe", "-f", "vmdk", *writes, name, tool="qemu-io"))
        assert judge("-f", "vmdk", *reads, name, tool="qemu-io") == (0, "", "")
        clean(name)
        if size < TIB:  # it takes the real tool a quarter of a minute
            good(both("map", "--output=json", name))


def test_a_stream_is_appended_to_by_both() -> None:
    good(theirs("create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "d.vmdk", 10 * MIB))
    for at, (make, _) in enumerate(TOOLS * 2):
        good(make("-f", "vmdk", "-c", f"write -q -P {at + 1} {at * 2}M 128k", "d.vmdk", tool="qemu-io"))
    reads = [part for at in range(4) for part in ("-c", f"read -q -P {at + 1} {at * 2}M 128k")]
    good(both("-f", "vmdk", *reads, "d.vmdk", tool="qemu-io"))
    clean("d.vmdk")
    for words in (("write -P 9 0 64k",), ("write -P 9 1M 512",), ("write -P 9 1025k 64k",)):
        found, told = (tool("-f", "vmdk", "-c", *words, "d.vmdk", tool="qemu-io") for tool in (ours, theirs))
        assert found.code == told.code == 1
        assert set(found.out.splitlines()) == set(told.out.splitlines())


def test_streams_and_others_from_compressed_sources(sources: dict[str, Path]) -> None:
    good(theirs("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096", sources["sparse"], "s.qcow2"))
    for words in (("-o", "subformat=streamOptimized"), ("-c", "-o", "subformat=streamOptimized"), ("-c",)):
        good(ours("convert", "-O", "vmdk", *words, "s.qcow2", "d.vmdk"))
        same(sources["sparse"], "raw", "d.vmdk", "vmdk")
        clean("d.vmdk")
    both("convert", "-c", "-O", "vmdk", "-o", "subformat=monolithicFlat", "s.qcow2", "d.vmdk")


# ---- parents


@pytest.mark.parametrize("subformat", ["monolithicSparse", "twoGbMaxExtentSparse"])
def test_overlays_of_both_over_parents_of_both(sources: dict[str, Path], subformat: str) -> None:
    option = f"subformat={subformat}"
    for number, (make, overlay) in enumerate((a, b) for a in (ours, theirs) for b in (ours, theirs)):
        base, over = f"base{number}.vmdk", f"over{number}.vmdk"
        good(make("convert", "-f", "raw", "-O", "vmdk", "-o", option, sources["sparse"], base))
        good(overlay("create", "-q", "-f", "vmdk", "-o", option, "-b", base, "-F", "vmdk", over))
        same(sources["sparse"], "raw", over, "vmdk")
        for words in (("info",), ("info", "--output=json"), ("info", "--backing-chain"), ("map", "--output=json")):
            good(both(*words, over))
        writes = ("-c", "write -q -P 7 1M 5k", "-c", "write -q -P 8 2047k 130k", "-c", "write -q -z 3M 1M")
        good(overlay("-f", "vmdk", *writes, over, tool="qemu-io"))
        good(theirs("convert", "-f", "raw", "-O", "raw", sources["sparse"], "expected"))
        good(theirs("-f", "raw", *writes, "expected", tool="qemu-io"))
        same("expected", "raw", over, "vmdk")
        clean(over)
        good(ours("convert", "-f", "vmdk", "-O", "vmdk", over, "flat.vmdk"))
        same("expected", "raw", "flat.vmdk", "vmdk")


def test_a_parent_that_was_changed_by_either_is_refused_by_both() -> None:
    for number, (change, _) in enumerate(TOOLS):
        base, over = f"base{number}.vmdk", f"over{number}.vmdk"
        good(ours("create", "-q", "-f", "vmdk", base, "1M"))
        good(theirs("create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", over))
        both("-f", "vmdk", "-c", "read -q -P 0 0 4k", over, tool="qemu-io")
        good(change("-f", "vmdk", "-c", "write -q -P 1 0 4k", base, tool="qemu-io"))
        found, told = (tool("-f", "vmdk", "-c", "read 0 4k", over, tool="qemu-io") for tool in (ours, theirs))
        assert (found.code, found.out) == (told.code, told.out) == (1, "read failed: Invalid argument\n")
        assert ours("convert", "-O", "raw", over, "x").code == theirs("convert", "-O", "raw", over, "x").code == 1


def test_commit_into_a_parent(sources: dict[str, Path]) -> None:
    contents = []
    for tool in (ours, theirs):
        base, over = f"base-{tool.__name__}.vmdk", f"over-{tool.__name__}.vmdk"
        good(tool("convert", "-f", "raw", "-O", "vmdk", sources["sparse"], base))
        good(tool("create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", over))
        good(tool("-f", "vmdk", "-c", "write -q -P 7 1M 700k", over, tool="qemu-io"))
        ended = tool("commit", "-f", "vmdk", over)
        # The parent has changed by that; a commit that was cut off must be ended all the same.
        again = tool("commit", "-f", "vmdk", over)
        contents.append((base, (ended.code, again.code)))
        clean(base)
    assert contents[0][1] == contents[1][1]
    same(contents[0][0], "vmdk", contents[1][0], "vmdk")


# ---- creating


@pytest.mark.parametrize(
    "options",
    [
        "subformat=foo", "adapter_type=foo", "compat6=on,hwversion=5", "subformat=monolithicFlat,zeroed_grain=on",
        "hwversion=13,toolsversion=10338,adapter_type=lsilogic", "compat6=on,adapter_type=legacyESX",
        "subformat=twoGbMaxExtentSparse,zeroed_grain=on", "foo=1",
    ],
)  # fmt: skip
def test_creating_says_and_records_the_same(options: str) -> None:
    texts = []
    for tool in (ours, theirs):
        result = tool("create", "-f", "vmdk", "-o", options, "d.vmdk", 5 * GIB + 1)
        # Whatever follows the disk's name is random or the other tool's.
        data = b"" if result.code else Path("d.vmdk").read_bytes()[: 20 * KIB]
        text = data.partition(b"# Disk")[2].partition(b"\0")[0]
        texts.append((result, [line for line in text.splitlines() if not line.startswith(b"CID=")]))
    assert texts[0] == texts[1]


def test_overlays_that_cannot_be_are_refused_alike() -> None:
    good(theirs("create", "-q", "-f", "vmdk", "b.vmdk", "1M"))
    good(theirs("create", "-q", "-f", "qcow2", "b.qcow2", "1M"))
    for words in (
        ("-o", "subformat=monolithicFlat", "-b", "b.vmdk", "-F", "vmdk"),
        ("-b", "b.qcow2", "-F", "qcow2"),
        ("-b", "b.vmdk", "-F", "raw"),
    ):
        result = both("create", "-q", "-f", "vmdk", *words, "o.vmdk")
        assert result.code == 1
        assert not Path("o.vmdk").exists()


def test_commands_that_the_format_has_not_are_refused_alike() -> None:
    good(theirs("create", "-q", "-f", "vmdk", "d.vmdk", "1M"))
    for words in (
        ("resize", "d.vmdk", "2M"),
        ("resize", "--shrink", "d.vmdk", "512k"),
        ("amend", "-o", "compat6=on", "d.vmdk"),
        ("check", "-r", "all", "d.vmdk"),
        ("measure", "-O", "vmdk", "--size", "1G"),
        ("rebase", "-u", "-b", "", "d.vmdk"),
        ("snapshot", "-c", "s", "d.vmdk"),
        ("convert", "-O", "vmdk", "-o", "preallocation=metadata", "d.vmdk", "e.vmdk"),
        ("create", "-q", "-f", "vmdk", "-o", "preallocation=foo", "f.vmdk", "1M"),
    ):
        assert both(*words).code


# ---- disks of other programs, and damaged ones


def test_disks_of_esx_are_read_as_qemu_reads_them() -> None:
    rng = random.Random("esx")
    grains = {number: rng.randbytes(4096) for number in rng.sample(range(9000), 60)}
    zeroes: dict[int, bytes | None] = dict.fromkeys(rng.sample(range(9000, 9990), 20))
    write_files(
        Path(),
        {
            "cowd": vmdk.cowd(80000, grains),
            "se": vmdk.sesparse(80000, {**grains, **zeroes}),
            "flat": rng.randbytes(MIB),
            "c": descriptor("vmfsSparse", 'RW 80000 VMFSSPARSE "cowd"'),
            "s": descriptor("seSparse", 'RW 80000 SESPARSE "se"'),
            "f": descriptor("vmfs", 'RW 2048 VMFS "flat"'),
            "m": descriptor("vmfsSparse", 'RW 1000 FLAT "flat" 7', 'RW 80000 VMFSSPARSE "cowd"', 'RW 2048 VMFS "flat"'),
        },
    )
    for name in "csfm":
        for tool in (ours, theirs):
            good(tool("convert", "-f", "vmdk", "-O", "raw", name, f"{name}-{tool.__name__}"))
        same(f"{name}-ours", "raw", f"{name}-theirs", "raw")
        for words in (("info",), ("info", "--output=json"), ("map", "--output=json")):
            good(both(*words, name))
        clean(name)


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ('RW 12582912 VMFS "dummy.vmdk" 1', True),
        ('RW 10 FLAT "x"', True),
        ('RW 10 SPARSE "missing"', True),
        ('RW 10 FLAT "/nonexistent/x" 0', True),
        ('RW 10 SPARSE "x"', True),
        ('RW 10 SESPARSE "x"', True),
        ('RW 10 ZERO "x"', False),
        ('RDONLY 10 FLAT "x" 0', False),
    ],
)
def test_descriptors_that_cannot_be_followed_are_refused_alike(text: str, alike: bool) -> None:
    write_files(Path(), {"d": descriptor("vmfsSparse", text), "x": bytes(MIB)})
    found, told = ours("info", "-f", "vmdk", "d"), theirs("info", "-f", "vmdk", "d")
    assert found.code == 1
    assert (found == told) is alike


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (4, b"\x04"), (20, b"\xff" * 8), (44, b"\xff" * 4), (44, bytes(4)), (12, b"\0" * 5 + b"\x10"),
        (64, b"\0\0\xff"), (512, b"x" * 100),
    ],
)  # fmt: skip
def test_damaged_headers_are_refused_in_the_same_words(offset: int, value: bytes) -> None:
    good(theirs("create", "-q", "-f", "vmdk", "d.vmdk", "64M"))
    with open("d.vmdk", "r+b") as stream:
        stream.seek(offset)
        stream.write(value)
    found, told = ours("info", "d.vmdk"), theirs("info", "d.vmdk")
    assert (found.code, found.out) == (told.code, told.out) == (1, "")
    assert found.err.startswith(told.err)


def test_check_finds_what_qemu_finds_and_ends_as_a_check_that_found_something() -> None:
    good(theirs("create", "-q", "-f", "vmdk", "d.vmdk", "1M"))
    good(theirs("-c", "write -q 0 192k", "d.vmdk", tool="qemu-io"))
    with open("d.vmdk", "r+b") as stream:
        stream.truncate(Path("d.vmdk").stat().st_size - 64 * KIB)
    found, told = ours("check", "d.vmdk"), theirs("check", "d.vmdk")
    line = "ERROR: cluster offset for sector 256 points after EOF\n"
    assert told.code == 1
    assert told.err.startswith(line)
    assert (found.code, found.err) == (2, line)
    assert "1 errors were found on the image." in found.out
    assert json.loads(ours("check", "--output=json", "d.vmdk").out)["corruptions"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_damage_that_qemu_refuses_to_open_we_refuse(kind: str) -> None:
    write_files(Path(), sound(kind))
    both_refuse = 0
    for history, victim, data in mutations(kind, random.Random(f"beside QEMU {kind}"), 120):
        Path(victim).write_bytes(data)
        # It takes the first letters "CID" anywhere for the content ID's name; ours a line that begins so.
        if b"CID=" in data.partition(b"\nCID=")[0]:
            continue
        told = theirs("info", "-f", "vmdk", "d")
        if told.code:
            both_refuse += 1
            assert ours("info", "-f", "vmdk", "d").code, f"{history}: {told.err}"
    assert both_refuse
