"""qemu-img convert beside the real one: messages, exit codes, and images that the real tool finds equal and clean."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]


def real(folder: Path, *words: object) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def disk(size: int = 6 << 20) -> bytes:
    """Data in pieces of many sizes, zeroes that are written, and stretches of nothing."""
    rng = random.Random(11)
    data = bytearray(size)
    for offset in range(0, size, 256 << 10):
        length = rng.choice([0, 512, 3584, 4096, 65536, 100000, 256 << 10])
        data[offset : offset + length] = rng.choice([rng.randbytes(length), b"text " * (length // 5), bytes(length)])
    data[:512] = b"b" * 512  # the real tool gives a file of its own its first block, zeroes or not
    return bytes(data)


@pytest.fixture
def sources(twins: Twins) -> Twins:
    """``raw``, ``plain``, ``packed`` (both qcow2) with one content, and ``top`` on ``base`` with a snapshot ``one``."""
    twins.write("raw", disk())
    twins.prepare("qemu-img convert -f raw -O qcow2 raw plain")
    twins.prepare("qemu-img convert -c -f raw -O qcow2 raw packed")
    twins.prepare("qemu-img create -q -f qcow2 -b raw -F raw base 5M")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 1 1M 300k' -c 'write -q -z 3M 128k' base")
    twins.prepare("qemu-img create -q -f qcow2 -b base -F qcow2 top 7M")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 2 64k 64k' -c 'write -q -z 2M 1M' -c 'write -q -P 3 6M 5k' top")
    twins.prepare("qemu-img snapshot -c one top")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 4 100k 2M' top")
    return twins


TARGETS = [
    "-O raw",
    "-O raw -S 0",
    "-O raw -S 64k",
    "-O raw -S 512",
    "-O raw -C",
    "-O raw -W -m 2",
    "-O qcow2",
    "-O qcow2 -S 0",
    "-O qcow2 -o compat=0.10",
    "-O qcow2 -o cluster_size=512",
    "-O qcow2 -o cluster_size=2M",
    "-O qcow2 -o extended_l2=on",
    "-O qcow2 -o preallocation=metadata",
    "-O qcow2 -o preallocation=full",
    "-O qcow2 -o refcount_bits=1,lazy_refcounts=on",
    "-c -O qcow2",
    "-c -O qcow2 -S 0",
    "-c -O qcow2 -o compression_type=zstd",
    "-c -O qcow2 -o cluster_size=4k,compat=0.10",
    "-c -O qcow2 -o cluster_size=2M",
    "-c -W -O qcow2 -o compression_type=zstd,cluster_size=512k",
]


@pytest.mark.parametrize("target", TARGETS)
def test_copies_are_equal_and_clean(sources: Twins, target: str) -> None:
    format = "raw" if "-O raw" in target else "qcow2"
    for source, source_format in (("raw", "raw"), ("packed", "qcow2"), ("top", "qcow2")):
        sources.same(f"convert -f {source_format} {target} {source} target")
        real(sources.ours, "compare", "-f", source_format, "-F", format, source, "target")
        assert_same_description(sources, format)
        if format == "qcow2":
            assert "No errors were found" in real(sources.ours, "check", "-f", "qcow2", "target")


def assert_same_description(twins: Twins, format: str) -> None:
    """What ``info`` says of both targets, but for the space they take."""
    described = []
    for folder in (twins.real, twins.ours):
        found = json.loads(real(folder, "info", "--output=json", "-f", format, "target"))
        described.append({key: value for key, value in found.items() if key != "actual-size"})
    assert described[0] == described[1]


@pytest.mark.parametrize(
    "options", ["-O raw", "-O raw -S 0", "-O raw -S 8k", "-O qcow2", "-O qcow2 -o cluster_size=4k", "-c -O qcow2"]
)
def test_zeroes_are_left_out_where_the_real_tool_leaves_them_out(sources: Twins, options: str) -> None:
    for source, format in (("raw", "raw"), ("plain", "qcow2"), ("top", "qcow2")):
        sources.same(f"convert -f {format} {options} {source} target")
        target = "raw" if "-O raw" in options else "qcow2"
        layouts = []
        for folder in (sources.real, sources.ours):
            extents = json.loads(real(folder, "map", "--output=json", "-f", target, "target"))
            layouts.append([(extent["start"], extent["length"]) for extent in extents if extent["data"]])
        assert merged(layouts[0]) == merged(layouts[1])


def merged(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of start and length as start and end, joined where they touch."""
    joined: list[tuple[int, int]] = []
    for offset, length in extents:
        start = joined.pop()[0] if joined and joined[-1][1] == offset else offset
        joined.append((start, offset + length))
    return joined


@pytest.mark.parametrize("options", ["", "-o cluster_size=4k", "-c"])
def test_overlay_target_leaves_to_its_backing_file_what_the_source_does(sources: Twins, options: str) -> None:
    sources.same(f"convert -f qcow2 -O qcow2 -B base -F qcow2 {options} top target")
    real(sources.ours, "compare", "top", "target")
    assert "No errors were found" in real(sources.ours, "check", "target")
    kept = [
        [
            (extent["start"], extent["length"])
            for extent in json.loads(real(folder, "map", "--output=json", "target"))
            if extent["depth"]
        ]
        for folder in (sources.real, sources.ours)
    ]
    assert merged(kept[0]) == merged(kept[1])


def test_backing_file_may_be_among_the_options(sources: Twins) -> None:
    sources.same("convert -O qcow2 -o backing_file=base,backing_fmt=qcow2 top target")
    real(sources.ours, "compare", "top", "target")
    assert_same_description(sources, "qcow2")


@pytest.mark.parametrize("flags", ["", "-S 0", "--target-is-zero"])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_existing_target_is_filled(sources: Twins, format: str, flags: str) -> None:
    sources.prepare(f"qemu-img create -q -f {format} target 8M")
    if flags != "--target-is-zero":
        sources.prepare(f"qemu-io -f {format} -c 'write -q -P 99 0 8M' target")
    sources.same(f"convert -n {flags} -f qcow2 -O {format} top target")
    assert sources.run_real(["compare", "top", "target"]).code in (0, 1)
    compared = subprocess.run(
        ["qemu-img", "compare", "-f", format, "-F", format, sources.real / "target", sources.ours / "target"],
        capture_output=True,
        timeout=60,
    )
    assert compared.returncode == 0, compared.stdout
    if format == "qcow2":
        assert "No errors were found" in real(sources.ours, "check", "target")


def test_sources_are_put_together(sources: Twins) -> None:
    sources.write("odd", b"odd" * 1000)
    for options in ("-O raw", "-O qcow2", "-c -O qcow2"):
        sources.same(f"convert {options} odd raw odd target")
        target = "raw" if "-O raw" in options else "qcow2"
        real(sources.ours, "compare", "-f", target, "-F", target, sources.real / "target", "target")


@pytest.mark.parametrize("wanted", ["one", "1", "snapshot.name=one", "snapshot.id=1,snapshot.name=one"])
def test_snapshot_is_copied(sources: Twins, wanted: str) -> None:
    sources.same(f"convert -l {wanted} -O qcow2 top target")
    real(sources.ours, "compare", sources.real / "target", "target")
    assert sources.run_real(["compare", "top", "target"]).code == 1


@pytest.mark.parametrize("wanted", ["2", "two", "snapshot.id=one", "snapshot.id=1,snapshot.name=two", "snapshot.x=1"])
def test_snapshot_that_is_not_there_is_refused(sources: Twins, wanted: str) -> None:
    sources.refused(f"convert -l {wanted} -O qcow2 top target")


@pytest.mark.parametrize("flags", ["", "-C", "-S 0", "-W -m 2"])
def test_windows_of_raw_files_are_read_and_written(sources: Twins, flags: str) -> None:
    windows = ["", ",offset=512k", ",offset=1M,size=6M"]
    for source, target in itertools.product((*windows[:2], ",offset=1M,size=2M"), windows):
        sources.write("target", b"k" * (8 << 20))
        opened = f"driver=raw,file.filename=raw{source} driver=raw,file.filename=target{target}"
        assert sources.same(f"convert {flags} -n --image-opts --target-image-opts {opened}").code == 0
        assert (sources.ours / "target").read_bytes() == (sources.real / "target").read_bytes(), opened


def test_bitmaps_are_copied(sources: Twins) -> None:
    sources.prepare("qemu-img bitmap --add plain one")
    sources.prepare("qemu-img bitmap --add --disable -g 128k plain two")
    sources.prepare("qemu-io -f qcow2 -c 'write -q -P 1 1M 70k' plain")
    sources.same("convert --bitmaps -O qcow2 plain target")
    assert_same_description(sources, "qcow2")
    assert "No errors were found" in real(sources.ours, "check", "target")
    sources.refused("convert --bitmaps -O raw plain other")
    sources.refused("convert --bitmaps -O qcow2 -f raw raw other")
    sources.refused("convert --bitmaps -O qcow2 plain plain other")
    sources.prepare("qemu-img create -q -f qcow2 -o compat=0.10 old 8M")
    sources.refused("convert --bitmaps -O qcow2 old other")
    sources.refused("convert --bitmaps -n -O qcow2 plain old")
    sources.refused("convert --bitmaps -n -O qcow2 base old")  # there are none to be copied


def test_an_overlay_is_copied_into_another_one_of_the_same_base(sources: Twins) -> None:
    sources.prepare("qemu-img create -q -f qcow2 -b base -F qcow2 other 7M")
    sources.same("convert -n -f qcow2 -O qcow2 -B base top other")
    for name in ("other", "top"):
        real(sources.ours, "check", name)
    real(sources.ours, "compare", "-f", "qcow2", "-F", "qcow2", "top", "other")


REFUSED = [
    "convert",
    "convert raw",
    "convert nothing target",
    "convert -f nothing raw target",
    "convert -f qcow2 raw target",
    "convert -O nothing raw target",
    "convert raw missing/target",
    "convert -c raw target",
    "convert -c -O raw raw target",
    "convert -c -C -O qcow2 raw target",
    "convert -c -O qcow2 -o preallocation=metadata raw target",
    "convert -C -S 4k raw target",
    "convert -C --salvage raw target",
    "convert -S 3 raw target",
    "convert -S 32M raw target",
    "convert -S x raw target",
    "convert -m 0 raw target",
    "convert -m 17 raw target",
    "convert -m x raw target",
    "convert -r x raw target",
    "convert -r -1 raw target",
    "convert -t nothing raw target",
    "convert -T nothing raw target",
    "convert -O qcow2 -o nothing=1 raw target",
    "convert -O qcow2 -o cluster_size=5 raw target",
    "convert -O qcow2 -o , raw target",
    "convert -O qcow2 -B base raw target",
    "convert -O raw -B base -F qcow2 raw target",
    "convert -O qcow2 -B base -F qcow2 raw raw target",
    "convert -n raw nothing",
    "convert -n -O qcow2 raw raw2",
    "convert -n -o cluster_size=4k raw target",
    "convert --target-is-zero raw target",
    "convert --target-image-opts raw driver=raw,file.filename=target",
    "convert --skip-broken-bitmaps raw target",
    "convert --image-opts -f raw driver=raw,file.filename=raw target",
    "convert --image-opts driver=nothing,file.filename=raw target",
    "convert --nothing raw target",
    "convert -l one raw target",
]


@pytest.mark.parametrize("command", REFUSED)
def test_mistakes_are_told_as_the_real_tool_does(sources: Twins, command: str) -> None:
    sources.write("raw2", bytes(512))
    sources.refused(command)


@pytest.mark.parametrize(
    "command", ["convert -o help", "convert -O qcow2 -o help raw target", "convert -O raw -o '?' a b"]
)
def test_options_are_listed(twins: Twins, command: str) -> None:
    assert twins.same(command).code == 0


def test_zero_target_with_a_backing_file_is_refused_and_fails(sources: Twins) -> None:
    words = ["convert", "-n", "--target-is-zero", "-B", "base", "raw", "target"]
    expected, found = sources.run_real(words), sources.run_ours(words)
    # The real one says so, copies nothing and ends with 0.
    assert (found.out, found.err) == (expected.out, expected.err)
    assert found.code == 1


def test_target_that_is_too_small_is_refused(sources: Twins) -> None:
    sources.truncate("small", 1 << 20)
    sources.refused("convert -n -f raw -O raw raw small")


@pytest.mark.parametrize(
    "command", ["convert -f raw -O raw raw raw", "convert -f qcow2 -O raw top raw", "convert -n -O qcow2 top base"]
)
def test_file_that_is_read_is_no_target(sources: Twins, command: str) -> None:
    before = {name: (sources.ours / name).read_bytes() for name in ("raw", "top", "base")}
    expected, found = sources.run_real(command.split()), sources.run_ours(command.split())
    assert (found.code, found.out) == (expected.code, expected.out) == (1, "")
    # We say on a line more that it is we who read it.
    assert found.err == expected.err + "It is among the files that are read.\n"
    unlocked = ["convert", "-U", *command.split()[1:]]
    assert sources.run_ours(unlocked).code == 1
    assert before == {name: (sources.ours / name).read_bytes() for name in before}


def test_file_that_is_read_is_no_target_by_any_name(sources: Twins) -> None:
    before = (sources.ours / "base").read_bytes()
    target = "driver=qcow2,file.filename=base"
    found = sources.run_ours(["convert", "-n", "-U", "--target-image-opts", "top", target])
    assert found.code == 1
    assert "It is among the files that are read." in found.err
    assert (sources.ours / "base").read_bytes() == before


def test_damaged_source_is_reported_and_no_target_left(sources: Twins) -> None:
    entry = first_l2_entry(sources.ours / "packed")
    sources.write("packed", (0x4000000000000000 | 0x00F0000000000000 | 0x7FFF000).to_bytes(8, "big"), entry)
    for options in ("-O raw", "-O qcow2", "-c -O qcow2"):
        words = ["convert", *options.split(), "packed", "target"]
        expected, found = sources.run_real(words), sources.run_ours(words)
        assert (found.code, found.out) == (expected.code, expected.out) == (1, "")
        assert found.err.splitlines()[0] == expected.err.splitlines()[0]
        assert not (sources.ours / "target").exists()


def first_l2_entry(image: Path) -> int:
    """Where the first L2 entry of a qcow2 image with clusters of 64 KiB is."""
    data = image.read_bytes()
    l1 = int.from_bytes(data[40:48], "big")
    return int.from_bytes(data[l1 : l1 + 8], "big") & 0x00FFFFFFFFFFFE00


def test_salvage_copies_what_can_be_read(sources: Twins) -> None:
    entry = first_l2_entry(sources.ours / "packed")
    sources.write("packed", (0x4000000000000000 | 0x00F0000000000000 | 0x7FFF000).to_bytes(8, "big"), entry)
    found = sources.same("convert --salvage -O raw packed target")
    assert found.code == 0
    assert "warning: error while reading offset 0: Input/output error" in found.err
    assert (sources.ours / "target").read_bytes() == (sources.real / "target").read_bytes()
    assert sources.same("convert -q --salvage -O raw packed target").err == ""


def test_progress_begins_and_ends_as_the_real_one(sources: Twins) -> None:
    expected, found = (
        run(["convert", "-p", "-O", "qcow2", "raw", "target"]) for run in (sources.run_real, sources.run_ours)
    )
    steps = r"(    \(\d+\.\d\d/100%\)\r)+\n"
    for result in (expected, found):
        assert re.fullmatch(steps, result.out)
        assert result.out.startswith("    (0.00/100%)\r")
        assert result.out.endswith("    (100.00/100%)\r\n")
    assert sources.same("convert -q -p -O qcow2 raw target").out == ""


@pytest.mark.parametrize("options", ["-O raw", "-O qcow2", "-c -O qcow2"])
def test_full_file_system_is_reported_and_no_target_left(twins: Twins, small_disk: Path, options: str) -> None:
    twins.write("raw", random.Random(1).randbytes(6 << 20))
    words = ["convert", "-f", "raw", *options.split(), "raw", str(small_disk / "target")]
    expected = twins.run_real(words)
    (small_disk / "target").unlink(missing_ok=True)
    found = twins.run_ours(words)
    assert found.code == expected.code == 1
    shape = r"qemu-img: error while writing at byte \d+: No space left on device\n"
    assert re.match(shape, expected.err)
    assert re.match(shape, found.err)
    assert os.listdir(small_disk) == []


BASE = {"driver": "qcow2", "file": {"driver": "file", "filename": "base"}}
RAW = {"driver": "raw", "file": {"driver": "file", "filename": "raw"}}
PLAIN = {"driver": "qcow2", "file": {"driver": "file", "filename": "plain"}}


def over(below: Mapping[str, object] | None) -> dict[str, object]:
    """An image whose header names no backing file, on an empty one of the same kind, on what is given."""
    middle = {"driver": "qcow2", "file": {"driver": "file", "filename": "middle"}, "backing": below}
    return {"driver": "qcow2", "file": {"driver": "file", "filename": "upper"}, "backing": middle}


@pytest.mark.parametrize(
    "image",
    [
        over(PLAIN),
        over(RAW),
        over({"driver": "raw", "file": PLAIN}),
        over(BASE),
        over(BASE | {"backing": None}),
        {"driver": "qcow2", "file": {"driver": "file", "filename": "far"}, "backing": over(BASE)},
        {"driver": "qcow2", "file": {"driver": "file", "filename": "far"}, "backing": over(None)},
    ],
    ids=str,
)
def test_options_describe_a_chain_however_long_it_is(sources: Twins, image: dict[str, object]) -> None:
    for name in ("far", "upper", "middle"):
        sources.prepare(f"qemu-img create -q -f qcow2 {name} 6M")
    sources.prepare("qemu-io -f qcow2 -c 'write -q -P 9 200k 10k' middle")
    words = ["convert", "-O", "raw", "json:" + json.dumps(image), "target"]
    assert sources.run_ours(words) == sources.run_real(words)
    assert (sources.ours / "target").read_bytes() == (sources.real / "target").read_bytes()


def test_compressed_data_takes_the_place_of_what_is_there(twins: Twins) -> None:
    # QEMU's ends with EIO at the first cluster that is allocated, and leaves a half.
    twins.write("a", b"new" * 50_000 + bytes(500_000))
    twins.truncate("a", 1 << 20)
    twins.prepare("qemu-img create -q -f qcow2 b 1M")
    twins.prepare("qemu-io -c 'write -P 1 0 200k' b")
    twins.prepare("qemu-img snapshot -c old b")
    twins.prepare("qemu-io -c 'write -P 2 64k 600k' -c 'write -c -P 3 768k 64k' b")
    twins.prepare("qemu-img convert -l old -O raw b before")
    assert twins.run_ours(["convert", "-n", "-c", "-f", "raw", "-O", "qcow2", "a", "b"]) == (0, "", "")
    folder = twins.ours
    for command in (
        "qemu-img compare -f raw -F qcow2 a b",
        "qemu-img check b",
        "qemu-img convert -l old -O raw b after",
        "cmp before after",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=60)
