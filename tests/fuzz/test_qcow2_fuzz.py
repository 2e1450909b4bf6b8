"""Hostile qcow2 images: refused or survived with one clean error, within bounds, and never changed by looking."""

from __future__ import annotations

import functools
import os
import random
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats.qcow2.layout import OFFSET_MASK, Header
from hostel.block.node import BlockNode
from hostel.block.registry import FORMATS
from hostel.block.trust import Trust
from hostel.errors import BlockError, CorruptImage, InvalidImage, UnsupportedFeature, UntrustedReference
from support import qcow2
from support.bounded import MIB, bounded
from support.qcow2_exercise import UNSAFE, attempt, digest, read_only, repairing, writing
from support.qcow2_hostile import BITMAPS, CLUSTER, KINDS, cuts, mutations, places, poked, sound
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
MISALIGNED = 0x1234567890ABCDEF
FAR = 0x7FFFFFFFFFFFFE00

# What is poked into the header, and the refusal; the words are QEMU's.
REFUSED: list[tuple[str, int, str]] = [
    ("magic", 0, "Image is not in qcow2 format"),
    ("version", 1, "Unsupported qcow2 version 1"),
    ("version", 4, "Unsupported qcow2 version 4"),
    ("version", 0xFFFFFFFF, "Unsupported qcow2 version 4294967295"),
    ("header_length", 0, "qcow2 header too short"),
    ("header_length", 103, "qcow2 header too short"),
    ("header_length", 0x7FFFFFFF, "qcow2 header exceeds cluster size"),
    ("header_length", 0xFFFFFFFF, "qcow2 header exceeds cluster size"),
    ("cluster_bits", 0, "Unsupported cluster size: 2^0"),
    ("cluster_bits", 8, "Unsupported cluster size: 2^8"),
    ("cluster_bits", 22, "Unsupported cluster size: 2^22"),
    ("cluster_bits", 0xFFFFFFFF, "Unsupported cluster size: 2^4294967295"),
    ("refcount_order", 7, "Reference count entry width too large"),
    ("refcount_order", 0xFFFFFFFF, "Reference count entry width too large"),
    ("crypt_method", 7, "Unsupported encryption method 7"),
    ("incompatible_features", 1 << 63, "Unsupported qcow2 feature"),
    ("compression_type", 1, "Compression type incompatible feature bit must be set"),
    ("extension length", 0x7FFFFFFF, "too large"),
    ("extension length", 0xFFFFFFFF, "too large"),
    ("backing_file_offset", CLUSTER + 1, "Invalid backing file offset"),
    ("backing_file_offset", FAR, "Invalid backing file offset"),
    ("backing_file_size", 1024, "Backing file name too long"),
    ("backing_file_size", 0x7FFFFFFF, "Backing file name too long"),
    ("backing_file_size", 0xFFFFFFFF, "Backing file name too long"),
    ("refcount_table_clusters", 0, "Image does not contain a reference count table"),
    ("refcount_table_clusters", 0x7FFFFFFF, "Reference count table too large"),
    ("refcount_table_clusters", 0xFFFFFFFF, "Reference count table too large"),
    ("refcount_table_offset", MISALIGNED, "Reference count table offset invalid"),
    ("refcount_table_offset", 1 << 63, "Reference count table offset invalid"),
    ("nb_snapshots", 65537, "Snapshot table too large"),
    ("nb_snapshots", 0x7FFFFFFF, "Snapshot table too large"),
    ("nb_snapshots", 0xFFFFFFFF, "Snapshot table too large"),
    ("snapshots_offset", MISALIGNED, "Snapshot table offset invalid"),
    ("snapshots_offset", 1 << 63, "Snapshot table offset invalid"),
    ("l1_size", 0, "L1 table is too small"),
    ("l1_size", 0x7FFFFFFF, "Active L1 table too large"),
    ("l1_size", 0xFFFFFFFF, "Active L1 table too large"),
    ("l1_table_offset", MISALIGNED, "Active L1 table offset invalid"),
    ("l1_table_offset", 1 << 63, "Active L1 table offset invalid"),
    ("l1_table_offset", FAR & -CLUSTER, "beyond the end of the file"),
    ("size", 1 << 40, "L1 table is too small"),
    ("size", (1 << 64) - 512, "Image is too big|L1 table is too small"),
]


def poke(data: bytes, name: str, value: int) -> bytes:
    """Change the first number of a name."""
    return poked(data, next(each for each in places(data) if each.name == name), value)


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_a_header_that_cannot_be_is_refused_by_name_and_left_alone(
    tmp_path: Path, name: str, value: int, words: str
) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(poke(sound("plain"), name, value))
    before = digest(path)
    for mode in ("ro", "rw"):
        with pytest.raises(BlockError, match=words.replace("^", r"\^")):
            graph.open(str(path), "qcow2", read_only=mode == "ro", no_backing=True)
    assert digest(path) == before


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("snapshot L1 offset", MISALIGNED, "Snapshot L1 table offset invalid"),
        ("snapshot L1 offset", 1 << 63, "Snapshot L1 table offset invalid"),
        ("snapshot L1 offset", FAR & -CLUSTER, "beyond the end of the file"),
        ("snapshot L1 size", 0x7FFFFFFF, "Snapshot L1 table too large"),
        ("snapshot L1 size", 0xFFFFFFFF, "Snapshot L1 table too large"),
        ("snapshot disk size", (1 << 64) - 512, "beyond what the format can map"),
    ],
)
def test_a_snapshot_that_cannot_be_is_neither_applied_nor_deleted(
    tmp_path: Path, name: str, value: int, words: str
) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(poke(sound("plain"), name, value))
    before = digest(path)
    with graph.open(str(path), "qcow2", read_only=False, no_backing=True) as node:
        with pytest.raises(BlockError, match=words):
            qcow2.driver_of(node).snapshot_apply("one")
        if "size" not in name or value < 1 << 32:
            with pytest.raises(BlockError, match=words):
                qcow2.driver_of(node).snapshot_delete("one")
    assert digest(path) == before


@pytest.mark.parametrize("value", [0x3FFFFFFFFFFFFFFF, 1 << 63 | 0x3FFFFFFFFFFFFE00, 1 << 63 | CLUSTER | 512])
def test_an_l2_entry_that_points_nowhere_is_found_before_anything_is_written(tmp_path: Path, value: int) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(poke(sound("plain"), "L2 entry", value))
    with graph.open(str(path), "qcow2", read_only=False, no_backing=True) as node, pytest.raises(CorruptImage):
        node.pwrite(0, b"data")
    assert qcow2.header(path.read_bytes()).incompatible_features & 2
    assert path.stat().st_size < 100 * MIB


def entries(data: bytes) -> dict[str, int]:
    """Where each kind of metadata lies, by QEMU's names."""
    header = qcow2.header(data)
    first = {each.name: each.offset for each in reversed(places(data))}

    def at(name: str) -> int:
        return int.from_bytes(data[first[name] : first[name] + 8], "big") & OFFSET_MASK

    return {
        "qcow2 header": 0,
        "active L1 table": header.l1_table_offset,
        "active L2 table": at("L1 entry"),
        "refcount table": header.refcount_table_offset,
        "refcount block": at("refcount table entry"),
        "snapshot table": header.snapshots_offset,
        "inactive L1 table": at("snapshot L1 offset"),
    }


@pytest.mark.parametrize("victim", entries(sound("plain")))
@pytest.mark.parametrize("liar", ["L2 entry", "L1 entry", "refcount table entry"])
def test_nothing_is_written_over_metadata_of_another_kind(tmp_path: Path, liar: str, victim: str) -> None:
    path = tmp_path / "disk.qcow2"
    data = sound("plain")
    offset = entries(data)[victim]
    copied = 0 if liar == "refcount table entry" else 1 << 63
    path.write_bytes(poke(data, liar, copied | offset))
    if (liar, victim) in (("L1 entry", "active L2 table"), ("refcount table entry", "refcount block")):
        return  # where it belongs
    if offset == 0 and liar != "L2 entry":
        return  # no table at all
    before = path.read_bytes()
    changes: tuple[Callable[[BlockNode], None], ...] = (
        lambda node: node.pwrite(0, b"\xff" * 12 * CLUSTER),
        lambda node: node.write_zeroes(0, 12 * CLUSTER),
        lambda node: node.discard(0, 12 * CLUSTER),
    )
    for change in changes:
        path.write_bytes(before)
        with graph.open(str(path), "qcow2", read_only=False, no_backing=True, cache=UNSAFE) as node:
            attempt(functools.partial(change, node))
            attempt(node.flush)
            attempt(node.close)
        after = path.read_bytes()
        # The header's features, and entries of L1 and refcounts of other clusters, may have changed: nothing else.
        assert b"\xff" * 16 not in after[offset : offset + CLUSTER]
        if victim not in ("qcow2 header", "active L1 table", "active L2 table", "refcount block"):
            assert after[offset : offset + CLUSTER] == before[offset : offset + CLUSTER]


# ---- random damage


def survive(folder: Path, kind: str, seed: str, count: int) -> int:
    """Exercise damaged images; returns how many could be opened nevertheless."""
    path = folder / "disk.qcow2"
    opened = 0
    for history, data in mutations(kind, random.Random(seed), count):
        try:
            path.write_bytes(data)
            opened += read_only(path)
            writing(path, data)
            repairing(path, data)
        except BaseException as error:
            error.add_note(f"{kind}: {history}")
            raise
    return opened


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("kind", [*KINDS, BITMAPS])
def test_random_damage_raises_nothing_but_clean_errors_in_bounded_memory(
    tmp_path: Path, kind: str, part: int, tried: Counter[str]
) -> None:
    count = 60
    tried["damaged images"] += count
    opened = bounded(lambda: survive(tmp_path, kind, f"damage {part}", count), seconds=240)
    assert count // 8 < opened < count


@pytest.mark.parametrize("kind", [*KINDS, BITMAPS])
def test_a_truncated_image_is_refused_or_read_as_far_as_it_goes(tmp_path: Path, kind: str, tried: Counter[str]) -> None:
    path = tmp_path / "disk.qcow2"
    data = sound(kind)
    tried["cut images"] += len(cuts(data))

    def cut() -> None:
        for length in cuts(data):
            path.write_bytes(data[:length])
            opened = read_only(path)
            assert not opened or length >= 3 << qcow2.header(data).cluster_bits
            if opened and length % 512 == 0:
                repairing(path, data[:length])

    bounded(cut, seconds=240)


# ---- what it names, and what it is not


def test_foreign_and_empty_files_are_no_qcow2(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    magics = [magic for name, row in FORMATS.items() if name != "qcow2" for magic in row.magic]
    for offset, magic in [*magics, (0, b""), (0, b"Q"), (0, b"QFI"), (1, b"QFI\xfb\0\0\0\3")]:
        for size in (0, 512, 1 << 16):
            path.write_bytes((bytes(offset) + magic).ljust(size, b"\0") if magic or size else b"")
            before = digest(path)
            with pytest.raises((InvalidImage, UnsupportedFeature)):
                graph.open(str(path), "qcow2", read_only=False)
            assert digest(path) == before


def overlay(path: Path, backing: str, format: str = "qcow2") -> None:
    qcow2.create_file(path, 1 << 20, {"backing_file": backing, "backing_fmt": format})


def test_a_loop_in_the_backing_chain_is_found(tmp_path: Path) -> None:
    for names in (("a",), ("a", "b"), ("a", "b", "c")):
        for name, below in zip(names, (*names[1:], names[0]), strict=True):
            overlay(tmp_path / name, below)
        with pytest.raises(BlockError, match="infinite loop"):
            graph.open(str(tmp_path / "a"), "qcow2")


def test_a_loop_through_a_link_is_found(tmp_path: Path) -> None:
    overlay(tmp_path / "a", "link")
    os.link(tmp_path / "a", tmp_path / "link")
    with pytest.raises(BlockError, match="infinite loop"):
        graph.open(str(tmp_path / "a"), "qcow2")


def test_an_endless_chain_is_cut_off(tmp_path: Path) -> None:
    for number in range(210):
        overlay(tmp_path / f"{number}", f"{number + 1}")
    with pytest.raises(BlockError, match="more than 200 images"):
        graph.open(str(tmp_path / "0"), "qcow2")


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "/", "fifo", "missing", "nul\0byte", "x" * 1000, "~root"])
def test_a_backing_file_that_is_no_file_is_one_clean_error(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / "disk.qcow2"
    overlay(path, name.replace("\0", "?"), "raw")
    path.write_bytes(path.read_bytes().replace(b"nul?byte", b"nul\0byte"))
    with pytest.raises(BlockError, match="Could not open backing file"):
        graph.open(str(path), "qcow2")


@pytest.mark.parametrize("name", ["/etc/passwd", "json:{}", "nbd://127.0.0.1:1/x", "file:///etc/passwd", "base"])
def test_an_untrusted_image_opens_nothing_that_it_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk.qcow2"
    overlay(path, name, "raw")
    before = digest(path)
    with pytest.raises(UntrustedReference, match="is not trusted and names a backing file"):
        graph.open(str(path), "qcow2", trust=Trust.UNTRUSTED)
    assert digest(path) == before


# ---- bombs


def bomb(path: Path, payload: bytes, kind: str) -> None:
    """An image whose first cluster is a compressed ``payload``."""
    qcow2.create_file(path, 1 << 20, {"cluster_size": 2 * MIB, "compression_type": kind})
    with graph.open(str(path), "qcow2", read_only=False) as node:
        qcow2.driver_of(node).pwrite_compressed(0, payload)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_a_compressed_bomb_takes_no_more_memory_than_a_cluster(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk.qcow2"
    if kind == "zlib":
        stream = zlib.compressobj(9, zlib.DEFLATED, -12)
        payload = stream.compress(bytes(400 * MIB)) + stream.flush()
    else:
        import zstandard

        payload = zstandard.ZstdCompressor(level=1).compress(bytes(1024 * MIB))
    bomb(path, payload, kind)

    def read() -> bytes:
        with graph.open(str(path), "qcow2") as node:
            return bytes(node.read(0, 1 << 20)[:4])

    assert bounded(read, memory=64 * MIB) == bytes(4)


def test_the_largest_tables_are_checked_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    qcow2.create_file(path, 0, {"cluster_size": 512})
    header = qcow2.header(path.read_bytes())
    entries = (32 << 20) // 8
    changed = header.replace(l1_size=entries, l1_table_offset=1 << 20, size=entries << 15)
    with path.open("r+b") as file:
        file.write(changed.pack()[: Header.SIZE])
        file.truncate((1 << 20) + entries * 8)

    def look() -> None:
        with graph.open(str(path), "qcow2") as node:
            assert not any(extent.status for extent in node.extents())
            for at in range(0, node.length, node.length // 50):
                node.read(at // 512 * 512, 512)
        qcow2.check_file(path)

    bounded(look, memory=256 * MIB, seconds=120)


def test_opening_without_reading_data_looks_at_the_header_only(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(poke(sound("plain"), "nb_snapshots", 0)[: 2 * CLUSTER])
    with graph.open(str(path), "qcow2", no_io=True, no_backing=True) as node:
        assert node.driver.info().cluster_size == CLUSTER
