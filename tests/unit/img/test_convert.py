from __future__ import annotations

import errno
import functools
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph
from hostel.block.extent import Extent, Status
from hostel.block.node import BlockNode
from hostel.block.options import given_options
from hostel.block.powers import BitmapStore, Compressing, Snapshotting
from hostel.block.protocols.file import FileDriver
from hostel.errors import BlockError, ImageLocked, UnsupportedFeature
from hostel.img import convert
from hostel.img import create as creating
from hostel.img.convert import Bitmaps
from hostel.img.copy import CopyJob, CopySettings, Feedback
from hostel.img.transfer import CopyError
from hostel.units import MiB
from support.images import content, make, write
from support.memory import FaultyDriver, Kind, MemoryDriver, memory_node
from support.qcow2 import check_file, header

SIZE = 9 * MiB + 512


@functools.cache
def disk(seed: int = 1, size: int = SIZE) -> bytes:
    """Data, zeroes that are written, and stretches of nothing."""
    rng = random.Random(seed)
    data = bytearray(size)
    for offset in range(0, size - MiB, MiB):
        length = rng.choice([0, 512, 4096, 65536, 300000, MiB])
        data[offset : offset + length] = rng.randbytes(length)
    data[-512:] = rng.randbytes(512)
    return bytes(data)


def convert_files(sources: Sequence[tuple[Path, str]], target: Path, format: str, **settings: object) -> None:
    options = str(settings.pop("options", ""))
    nodes = [graph.open(str(path), source_format) for path, source_format in sources]
    try:
        chosen = CopySettings(**settings)  # type: ignore[arg-type]
        plan = convert.plan_target(nodes, str(target), format, given=given_options(options), compress=chosen.compress)
        convert.convert(nodes, plan, chosen)
    finally:
        for node in nodes:
            node.close()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "source.raw"
    path.write_bytes(disk())
    return path


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(
    ("format", "options"),
    [("raw", ""), ("qcow2", ""), ("qcow2", "cluster_size=512"), ("qcow2", "cluster_size=2M"), ("qcow2", "compat=0.10")],
)
def test_copy_has_the_source_s_bytes(raw: Path, tmp_path: Path, format: str, options: str, threads: int) -> None:
    target = tmp_path / "target"
    convert_files([(raw, "raw")], target, format, options=options, threads=threads)
    assert content(target, format) == disk()
    if format == "qcow2":
        result, lines = check_file(target)
        assert (lines, result.leaks, result.corruptions) == ([], 0, 0)


@pytest.mark.parametrize("options", ["", "compression_type=zstd", "cluster_size=4k"])
@pytest.mark.parametrize("min_sparse", [0, 4096])
def test_compressed_copy_has_the_source_s_bytes(raw: Path, tmp_path: Path, options: str, min_sparse: int) -> None:
    target, back = tmp_path / "target.qcow2", tmp_path / "back.raw"
    convert_files([(raw, "raw")], target, "qcow2", options=options, compress=True, min_sparse=min_sparse)
    assert content(target, "qcow2") == disk()
    with graph.open(str(target), "qcow2") as node:
        kinds = {extent.status & Status.COMPRESSED for extent in node.extents() if extent.status & Status.DATA}
        assert Status.COMPRESSED in kinds
    assert check_file(target)[0].corruptions == 0
    convert_files([(target, "qcow2")], back, "raw")
    assert back.read_bytes() == disk()


def test_zeroes_take_no_space_unless_asked_for(raw: Path, tmp_path: Path) -> None:
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    convert_files([(raw, "raw")], sparse, "raw")
    convert_files([(raw, "raw")], full, "raw", min_sparse=0)
    assert full.read_bytes() == sparse.read_bytes() == disk()
    data = sum(any(disk()[start : start + 4096]) for start in range(0, SIZE, 4096)) * 4096
    assert sparse.stat().st_blocks * 512 <= data + 4096
    assert full.stat().st_blocks * 512 >= SIZE


def test_zeroes_between_data_are_kept_below_the_size_that_is_asked_for(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes((b"x" * 4096 + bytes(8192)) * 8 + b"x" * 4096 + bytes(65536) + b"x" * 4096)
    convert_files([(source, "raw")], target, "raw", min_sparse=16384)
    with graph.open(str(target), "raw") as node:
        assert [(extent.length, bool(extent.status & Status.ZERO)) for extent in node.extents()] == [
            (114688, False),
            (49152, True),
            (8192, False),
        ]


def test_sources_follow_one_another_in_whole_sectors(tmp_path: Path) -> None:
    first, second, target = tmp_path / "first", tmp_path / "second", tmp_path / "target"
    first.write_bytes(b"1" * 1000)
    second.write_bytes(b"2" * 70000)
    for compress, format in ((False, "raw"), (False, "qcow2"), (True, "qcow2")):
        convert_files([(first, "raw"), (second, "raw")], target, format, compress=compress)
        assert content(target, format) == b"1" * 1000 + bytes(24) + b"2" * 70000 + bytes(144)


def test_empty_image_of_8_tib_is_copied_without_reading_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source.qcow2", tmp_path / "target.qcow2"
    make(source, 8 << 40)
    convert_files([(source, "qcow2")], target, "qcow2")
    with graph.open(str(target), "qcow2") as node:
        assert node.length == 8 << 40
    assert target.stat().st_size < MiB


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_existing_target_is_overwritten_where_the_source_has_zeroes_too(raw: Path, tmp_path: Path, format: str) -> None:
    target = tmp_path / "target"
    make(target, SIZE + MiB, format=format)
    write(target, format, {0: b"old" * ((SIZE + MiB) // 3)})
    with graph.open(str(raw), "raw") as source:
        convert.convert_into([source], graph.open(str(target), format, read_only=False))
    found = content(target, format)
    assert found[:SIZE] == disk()
    assert found[SIZE:].strip(b"old\0") == b""
    assert found[SIZE : SIZE + 600] != bytes(600)


def test_target_that_is_too_small_is_refused_untouched(raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"x" * (SIZE - 512))
    with (
        graph.open(str(raw), "raw") as source,
        pytest.raises(BlockError, match="output file is smaller than input file"),
    ):
        convert.convert_into([source], graph.open(str(target), "raw", read_only=False))
    assert target.read_bytes() == b"x" * (SIZE - 512)


def test_overlay_target_gets_only_what_the_source_itself_holds(tmp_path: Path) -> None:
    base, other, source, target = (tmp_path / name for name in ("base", "other", "source", "target"))
    base.write_bytes(b"b" * MiB)
    other.write_bytes(b"b" * MiB)
    make(source, 3 * MiB, backing=base)
    write(source, "qcow2", {65536: b"s" * 65536, 131072: 65536, 2 * MiB: b"t" * 512})
    with graph.open(str(source), "qcow2") as node:
        plan = convert.plan_target([node], str(target), "qcow2", backing=str(other), backing_format="raw")
        convert.convert([node], plan)
    assert content(target, "qcow2") == content(source, "qcow2")
    with graph.open(str(target), "qcow2", no_backing=True) as node:
        held = [extent for extent in node.extents() if extent.status & Status.ALLOCATED]
        assert sum(extent.length for extent in held) == 3 * 65536


def faulty(kind_at: Sequence[int], data: bytes, kind: Kind = Kind.READ) -> BlockNode:
    class Broken(MemoryDriver):
        name = "broken"
        supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS

        def pread(self, offset: int, buf: memoryview) -> None:
            if kind is Kind.READ and any(offset <= bad < offset + len(buf) for bad in kind_at):
                raise OSError(errno.EIO, "an injected fault")
            super().pread(offset, buf)

        def pwrite(self, offset: int, data: memoryview) -> None:
            if kind is Kind.WRITE and any(offset <= bad < offset + len(data) for bad in kind_at):
                raise OSError(errno.ENOSPC, "an injected fault")
            super().pwrite(offset, data)

    return BlockNode(Broken(data), "broken", read_only=False)


@pytest.mark.parametrize("copied", [False, True])
def test_a_copy_on_an_image_further_down_has_what_lies_between(tmp_path: Path, *, copied: bool) -> None:
    """A copy of the uppermost backing image elsewhere stands for that, as the manual of qemu-img has it."""
    base, middle, top, target = (tmp_path / name for name in ("base", "middle", "top", "target"))
    make(base, 3 * MiB)
    write(base, "qcow2", {0: b"b" * MiB, 2 * MiB: b"b" * MiB})
    make(middle, 2 * MiB, backing=base, backing_format="qcow2")
    write(middle, "qcow2", {65536: b"m" * 65536})
    make(top, 3 * MiB, backing=middle, backing_format="qcow2")
    write(top, "qcow2", {512: b"t" * 512})
    below = base
    if copied:
        below = tmp_path / "other"
        convert_files([(middle, "qcow2")], below, "qcow2")
    with graph.open(str(top), "qcow2") as node:
        plan = convert.plan_target([node], str(target), "qcow2", backing=str(below), backing_format="qcow2")
        convert.convert([node], plan)
    assert content(target, "qcow2") == content(top, "qcow2")
    with graph.open(str(target), "qcow2", no_backing=True) as node:
        told = sum(extent.length for extent in node.extents() if extent.status & Status.ALLOCATED)
    # The cluster that top has; with base below also the one of middle, and zeroes since middle is shorter.
    assert told == 65536 + (0 if copied else 65536 + MiB)


@pytest.mark.parametrize("threads", [1, 4])
def test_earliest_read_that_fails_is_reported_and_the_target_goes_away(tmp_path: Path, threads: int) -> None:
    target = tmp_path / "target.qcow2"
    source = faulty([3 * MiB, 8 * MiB], disk())
    plan = convert.plan_target([source], str(target), "qcow2")
    with pytest.raises(CopyError, match=r"^error while reading at byte 2097152: Input/output error$"):
        convert.convert([source], plan, CopySettings(threads=threads))
    assert not target.exists()


def test_failed_copy_onto_an_old_file_leaves_it_empty(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    source = faulty([0], disk())
    with pytest.raises(CopyError):
        convert.convert([source], convert.plan_target([source], str(target), "raw"))
    assert target.read_bytes() == b""


def test_target_that_cannot_be_created_is_left_alone(raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"in use")
    with (
        graph.open(str(target), "raw", read_only=False),
        pytest.raises(ImageLocked, match=f"^{target}: error while converting qcow2: Failed to get"),
    ):
        convert_files([(raw, "raw")], target, "qcow2")
    assert target.read_bytes() == b"in use"


@pytest.mark.parametrize("threads", [1, 4])
def test_full_target_is_reported_with_the_place(threads: int) -> None:
    source = BlockNode(MemoryDriver(disk()), "source", read_only=True)
    target = faulty([5 * MiB], bytes(SIZE), Kind.WRITE)
    with pytest.raises(CopyError, match=r"^error while writing at byte \d+: No space left on device$"):
        CopyJob([source], target, CopySettings(min_sparse=0, threads=threads)).run()


def test_metadata_that_cannot_be_written_at_the_end_fails_the_copy(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target.qcow2"
    real = FileDriver.pwrite

    def refuse_tables(self: FileDriver, offset: int, data: memoryview) -> None:
        if self._path == str(target) and len(data) < 65536:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, offset, data)

    with graph.open(str(raw), "raw") as node:
        plan = convert.plan_target([node], str(target), "qcow2")
        monkeypatch.setattr(creating, "create", _created_then(monkeypatch, refuse_tables))
        with pytest.raises(BlockError, match="No space left on device"):
            convert.convert([node], plan)
    assert not target.exists()


def _created_then(monkeypatch: pytest.MonkeyPatch, pwrite: object) -> object:
    create = creating.create

    def create_and_break(*args: Any, **keywords: Any) -> list[str]:
        parts = create(*args, **keywords)
        monkeypatch.setattr(FileDriver, "pwrite", pwrite)
        return parts

    return create_and_break


def test_salvage_reports_each_bad_sector_and_copies_the_rest(tmp_path: Path) -> None:
    target = tmp_path / "target"
    data = disk()
    source = faulty([4 * MiB + 700, 4 * MiB + 5000], data)
    lines: list[str] = []
    convert.convert(
        [source],
        convert.plan_target([source], str(target), "raw"),
        CopySettings(salvage=True),
        Feedback(warn=lines.append),
    )
    bad = [4 * MiB + 512, 4 * MiB + 4608]
    assert lines == [f"error while reading offset {offset}: Input/output error" for offset in bad]
    expected = bytearray(data)
    for offset in bad:
        expected[offset : offset + 512] = bytes(512)
    assert target.read_bytes() == expected


def test_image_is_not_copied_into_what_it_stands_on(tmp_path: Path) -> None:
    base, source, link = tmp_path / "base.raw", tmp_path / "source.qcow2", tmp_path / "link"
    base.write_bytes(b"b" * MiB)
    make(source, MiB, backing=base)
    link.symlink_to(base)
    with graph.open(str(source), "qcow2", force_share=True) as node:
        for name in (base, link, source):
            with pytest.raises(ImageLocked, match="error while converting raw") as caught:
                convert.convert([node], convert.plan_target([node], str(name), "raw"))
            assert "among the files that are read" in str(caught.value.hint)
    assert base.read_bytes() == b"b" * MiB


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"format": "raw", "compress": True}, "Compression not supported for this file format"),
        ({"options": "preallocation=full", "compress": True}, "Compression and preallocation not supported"),
        ({"backing": "b"}, "Use of backing file requires explicit backing format"),
        ({"format": "raw", "backing": "b"}, "Backing file not supported for file format 'raw'"),
        ({"options": "nonsense=1"}, "Invalid parameter 'nonsense'"),
        ({"format": "nonsense"}, "Unknown file format 'nonsense'"),
    ],
)
def test_target_that_makes_no_sense_is_refused_before_it_is_made(
    raw: Path, tmp_path: Path, keywords: dict[str, object], message: str
) -> None:
    chosen = {"format": "qcow2", **keywords}
    given = given_options(str(chosen.pop("options", "")))
    format = str(chosen.pop("format"))
    with graph.open(str(raw), "raw") as node, pytest.raises(BlockError, match=message):
        convert.plan_target([node], str(tmp_path / "target"), format, given=given, **chosen)  # type: ignore[arg-type]
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("count_data", [False, True])
def test_progress_reaches_all_of_it(raw: Path, tmp_path: Path, count_data: bool) -> None:
    seen: list[tuple[int, int]] = []
    with graph.open(str(raw), "raw") as node:
        feedback = Feedback(lambda done, total: seen.append((done, total)), count_data)
        convert.convert([node], convert.plan_target([node], str(tmp_path / "t"), "qcow2"), feedback=feedback)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_host_copies_where_it_can(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    real = os.copy_file_range

    def count(source: int, target: int, length: int, start: int, end: int) -> int:
        done = real(source, target, length, start, end)
        copied.append(done)
        return done

    monkeypatch.setattr(os, "copy_file_range", count)
    convert_files([(raw, "raw")], tmp_path / "offloaded", "raw", offload=True)
    assert (tmp_path / "offloaded").read_bytes() == disk()
    assert sum(copied) == SIZE

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    convert_files([(raw, "raw")], tmp_path / "read", "raw", offload=True)
    assert (tmp_path / "read").read_bytes() == disk()


def test_rate_holds_a_copy_back(tmp_path: Path) -> None:
    import time

    source = BlockNode(MemoryDriver(b"x" * (4 * MiB)), "source", read_only=True)
    target = memory_node(MemoryDriver(bytes(4 * MiB)))
    start = time.monotonic()
    CopyJob([source], target, CopySettings(rate=16 * MiB)).run()
    # Two pieces of 2 MiB: the second may only be written once the first one's time is over.
    assert 0.12 <= time.monotonic() - start < 5


def test_only_drivers_that_can_compress_are_asked_to(tmp_path: Path) -> None:
    source = BlockNode(MemoryDriver(b"x" * MiB), "source", read_only=True)
    target = memory_node(FaultyDriver(bytes(MiB)))
    assert not isinstance(target.driver, Compressing)
    with pytest.raises(UnsupportedFeature, match="Compression not supported"):
        CopyJob([source], target, CopySettings(compress=True))


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """An image with two bitmaps, one of which records nothing, and a write between."""
    path = tmp_path / "marked.qcow2"
    make(path, 4 * MiB)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        driver = node.driver
        assert isinstance(driver, BitmapStore)
        driver.bitmap_add("recording", 65536)
        driver.bitmap_add("still", 131072, enabled=False)
        node.pwrite(MiB, b"x" * 70000)
    return path


def bitmaps_of(path: Path) -> dict[str, tuple[int, tuple[str, ...], int]]:
    with graph.open(str(path), "qcow2") as node:
        driver = node.driver
        assert isinstance(driver, BitmapStore)
        return {name: (granularity, flags, driver.bitmap(name).count) for name, granularity, flags in driver.bitmaps()}


@pytest.mark.parametrize("compress", [False, True])
def test_bitmaps_are_copied_with_their_bits_and_state(marked: Path, tmp_path: Path, compress: bool) -> None:
    target = tmp_path / "target.qcow2"
    with graph.open(str(marked), "qcow2") as node:
        plan = convert.plan_target([node], str(target), "qcow2", compress=compress)
        convert.convert([node], plan, CopySettings(compress=compress), bitmaps=Bitmaps.ALL)
    assert bitmaps_of(target) == {"recording": (65536, ("auto",), 2), "still": (131072, (), 0)}
    assert content(target, "qcow2") == content(marked, "qcow2")


def test_bitmaps_that_cannot_be_copied_are_refused_before_anything_is(marked: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "raw").write_bytes(bytes(512))
    for name, source_format, format, message in (
        ("marked.qcow2", "qcow2", "raw", "Format driver 'raw' does not support bitmaps"),
        ("raw", "raw", "qcow2", "Source lacks bitmap support"),
    ):
        with graph.open(str(tmp_path / name), source_format) as node:
            plan = convert.plan_target([node], str(target), format)
            with pytest.raises(BlockError, match=message):
                convert.convert([node], plan, bitmaps=Bitmaps.ALL)
    with graph.open(str(marked), "qcow2") as node, pytest.raises(BlockError, match="only possible with single source"):
        convert.convert([node, node], convert.plan_target([node], str(target), "qcow2"), bitmaps=Bitmaps.ALL)
    assert not target.exists()


def test_snapshot_is_copied_instead_of_the_present_state(marked: Path, tmp_path: Path) -> None:
    before, target = content(marked, "qcow2"), tmp_path / "target"
    with graph.open(str(marked), "qcow2", read_only=False) as node:
        assert isinstance(node.driver, Snapshotting)
        for bitmap in ("recording", "still"):
            node.driver.bitmap_remove(bitmap)  # type: ignore[attr-defined]
        node.driver.snapshot_create("kept", date=(1, 0))
        node.pwrite(0, b"later" * 20000)
    with graph.open(str(marked), "qcow2") as node:
        assert isinstance(node.driver, Snapshotting)
        node.driver.snapshot_load(None, "kept")
        convert.convert([node], convert.plan_target([node], str(target), "qcow2"))
    assert content(target, "qcow2") == before
    assert content(marked, "qcow2") != before


@pytest.mark.parametrize("count_data", [False, True])
def test_metadata_that_makes_no_sense_is_told_by_its_place(tmp_path: Path, count_data: bool) -> None:
    source, target = tmp_path / "source.qcow2", tmp_path / "target"
    make(source, 4 << 30)
    write(source, "qcow2", {0: b"x" * 512, 3 << 30: b"y" * 512})
    with source.open("r+b") as stream:
        stream.seek(header(source.read_bytes()[:512]).l1_table_offset + 6 * 8)
        stream.write((0x8000_0000_0000_0200).to_bytes(8, "big"))
    with graph.open(str(source), "qcow2") as node:
        plan = convert.plan_target([node], str(target), "qcow2")
        feedback = Feedback(lambda done, total: None, count_data)
        with pytest.raises(CopyError, match=r"^error while reading block status at offset \d+: ") as caught:
            convert.convert([node], plan, feedback=feedback)
        assert "L2 table offset 0x200 unaligned" in str(caught.value.hint)
    assert not target.exists()


def test_salvage_goes_on_where_metadata_cannot_be_read(tmp_path: Path) -> None:
    data, bad = disk(), [MiB + 512, 3 * MiB + 700, SIZE - 1]

    class Doubtful(MemoryDriver):
        name = "doubtful"
        supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS

        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            if any(offset <= place < offset + length for place in bad):
                raise OSError(errno.EIO, "an injected fault")
            return super().extents(offset, length)

    source = BlockNode(Doubtful(data), "doubtful", read_only=True)
    target = tmp_path / "target"
    lines: list[str] = []
    settings, feedback = CopySettings(salvage=True), Feedback(warn=lines.append)
    convert.convert([source], convert.plan_target([source], str(target), "raw"), settings, feedback)
    assert target.read_bytes() == data
    assert lines == [
        f"error while reading block status at offset {place // 512 * 512}: Input/output error" for place in bad
    ]


def test_progress_is_told_of_each_stretch_of_data(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        for start in (0, 2, 4, 32):
            file.seek(start * MiB)
            file.write(b"x" * MiB)
        file.truncate(64 * MiB)
    seen: list[float] = []
    with graph.open(str(path), "raw") as source:
        plan = convert.plan_target([source], str(tmp_path / "b"), "raw")
        feedback = Feedback(lambda done, total: seen.append(done / total), True)
        convert.convert([source], plan, CopySettings(), feedback)
    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_an_empty_image_of_terabytes_is_copied_into_an_existing_one_without_tables(tmp_path: Path) -> None:
    paths = [tmp_path / "source.qcow2", tmp_path / "target.qcow2"]
    for path in paths:
        make(path, 1 << 43)
    with graph.open(str(paths[0]), "qcow2") as source:
        convert.convert_into([source], graph.open(str(paths[1]), "qcow2", read_only=False))
    assert paths[1].stat().st_size < 1 << 20
