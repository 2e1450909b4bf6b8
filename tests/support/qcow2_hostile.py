"""qcow2 images whose metadata lies, made from sound ones by changing what is where it is known to be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.block.formats.qcow2 import bitmap_directory
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.layout import OFFSET_MASK, ExtensionType, Header
from hostel.block.options import Value
from support import qcow2
from support.memory import MemoryDriver, memory_node

CLUSTER: Final = 4096
SIZE: Final = 200 * CLUSTER
# Sizes and places that overflow, or lie nowhere.
WORDS: Final = (
    *(0, 1, 2, 0x1FF, 0x200, 0x1234, CLUSTER, 3 * CLUSTER, 5 * CLUSTER, CLUSTER | 1),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 40, 0x1234567890ABCDEF, 0x0080000000000000),
    *(0x3FFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFE00, 0x7FFFFFFFFFFFF000, 0x00FFFFFFFFFFF000),
    *(1 << 63, (1 << 64) - 512, (1 << 64) - 1, 1 << 62, 1 << 62 | CLUSTER, 1 << 63 | 0x0000000100000000),
    *(1 << 63 | CLUSTER, 1 << 63 | 2 * CLUSTER, 1 << 63 | 3 * CLUSTER),
)
KINDS: Final[dict[str, dict[str, Value]]] = {
    "plain": {"cluster_size": CLUSTER},
    "old": {"cluster_size": CLUSTER, "compat": "0.10"},
    "narrow": {"cluster_size": CLUSTER, "refcount_bits": 4, "compression_type": "zstd", "lazy_refcounts": True},
    "subclusters": {"cluster_size": 16384, "extended_l2": True},
}
BITMAPS: Final = "bitmaps"


class Place(NamedTuple):
    """A number in an image: where, and how many bytes."""

    name: str
    offset: int
    length: int


def sound(kind: str) -> bytes:
    """An image with data, compressed and zero clusters, a backing file's name and two snapshots.

    Its kind is one of :data:`KINDS`, or :data:`BITMAPS`, which is ``plain`` with bitmaps.
    """
    return with_bitmaps("plain") if kind == BITMAPS else _sound(kind)


def with_bitmaps(kind: str) -> bytes:
    """A sound image that also has two bitmaps, which record what is written."""
    driver = MemoryDriver(_sound(kind))
    with qcow2.attach(driver, backing=b"below" * 1000) as node:
        node.driver.bitmap_add("one", 4096)  # type: ignore[attr-defined]
        node.driver.bitmap_add("two", 65536)  # type: ignore[attr-defined]
        node.pwrite(0, b"changed" * 1000)
    return bytes(driver.data)


def _sound(kind: str) -> bytes:
    driver = MemoryDriver(qcow2.create(SIZE, {**KINDS[kind], "backing_file": "base.raw", "backing_fmt": "raw"}))
    with qcow2.attach(driver, backing=b"below" * 1000) as node:
        image = qcow2.driver_of(node)
        cluster = image.cluster_size
        node.pwrite(0, b"first" * cluster)
        for index in range(10, 14):
            qcow2.pwrite_compressed(node, index * cluster, bytes([index]) * cluster)
        node.write_zeroes(20 * cluster, 3 * cluster)
        image.snapshot_create("one", date=(1, 2))
        node.pwrite(cluster, b"second" * cluster)
        image.snapshot_create("two", date=(3, 4))
        node.pwrite(2 * cluster, b"third" * cluster)
    return bytes(driver.data)


def places(data: bytes) -> list[Place]:
    """Every number of the metadata."""
    header = qcow2.header(data)
    found = []
    fields = Header.FIELDS[: Header.FIELDS.index("incompatible_features") if header.version == 2 else -1]
    for name, after in zip(fields, (*fields[1:], None), strict=True):
        end = Header.OFFSET[after] if after else Header.OFFSET[name] + 1
        found.append(Place(name, Header.OFFSET[name], end - Header.OFFSET[name]))
    found += _extensions(data, header.header_length)
    found += _snapshots(data, header)
    found += _tables(data, header)
    found += bitmap_places(data)
    return found


def bitmap_places(data: bytes) -> Iterator[Place]:
    """The numbers of the bitmap directory and of its tables; none without one."""
    found = headers.parse(data[:65536]).extension(ExtensionType.BITMAPS)
    if found is None:
        return
    extension = bitmap_directory.Extension.unpack(found)
    for offset in range(0, extension.directory_size, 4):
        yield Place("bitmap directory", extension.directory_offset + offset, 4)
    header = headers.parse(data[:65536]).header
    geometry = Geometry.of(header)
    for entry, _ in bitmap_directory.read_entries(memory_node(MemoryDriver(data)), extension, geometry, header.size):
        for index in range(entry.table_size):
            yield Place("bitmap table entry", entry.table_offset + 8 * index, 8)


def _extensions(data: bytes, offset: int) -> Iterator[Place]:
    while int.from_bytes(data[offset : offset + 4], "big"):
        yield Place("extension type", offset, 4)
        yield Place("extension length", offset + 4, 4)
        offset += 8 + -(-int.from_bytes(data[offset + 4 : offset + 8], "big") // 8) * 8
    yield Place("extension type", offset, 4)
    yield Place("extension length", offset + 4, 4)


def _snapshots(data: bytes, header: Header) -> Iterator[Place]:
    offset = header.snapshots_offset
    for _ in range(header.nb_snapshots):
        for name, at, length in (
            ("snapshot L1 offset", 0, 8),
            ("snapshot L1 size", 8, 4),
            ("snapshot id length", 12, 2),
            ("snapshot name length", 14, 2),
            ("snapshot VM state", 32, 4),
            ("snapshot extra data", 36, 4),
            ("snapshot disk size", 48, 8),
        ):
            yield Place(name, offset + at, length)
        size = int.from_bytes(data[offset + 12 : offset + 14], "big")
        size += int.from_bytes(data[offset + 14 : offset + 16], "big")
        size += 40 + int.from_bytes(data[offset + 36 : offset + 40], "big")
        offset += -(-size // 8) * 8


def _tables(data: bytes, header: Header) -> Iterator[Place]:
    cluster = 1 << header.cluster_bits

    def entry(offset: int) -> int:
        return int.from_bytes(data[offset : offset + 8], "big")

    for index in range(header.l1_size):
        place = header.l1_table_offset + 8 * index
        yield Place("L1 entry", place, 8)
        table = entry(place) & OFFSET_MASK
        for at in range(0, cluster if table else 0, 8):
            if entry(table + at):
                yield Place("L2 entry", table + at, 8)
    for index in range(4):
        yield Place("refcount table entry", header.refcount_table_offset + 8 * index, 8)
    block = entry(header.refcount_table_offset)
    for at in range(0, 64, 2):
        yield Place("refcount", block + at, 2)


def poked(data: bytes, place: Place, value: int) -> bytes:
    """The image with a number changed, cut to its width."""
    raw = (value & (1 << 8 * place.length) - 1).to_bytes(place.length, "big")
    return data[: place.offset] + raw + data[place.offset + place.length :]


def mutations(kind: str, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Random damage to a sound image, each with what was done."""
    data = sound(kind)
    by_name: dict[str, list[Place]] = {}
    for place in places(data):
        by_name.setdefault(place.name, []).append(place)
    for _ in range(count):
        damaged, history = data, []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            place = rng.choice(by_name[rng.choice(list(by_name))])
            old = int.from_bytes(damaged[place.offset : place.offset + place.length], "big")
            value = rng.choice(
                (rng.choice(WORDS), old ^ 1 << rng.randrange(8 * place.length), old + 1, rng.getrandbits(64))
            )
            damaged = poked(damaged, place, value)
            history.append(f"{place.name} at {place.offset:#x} = {value:#x}")
        if rng.random() < 0.1:
            length = rng.randrange(len(damaged))
            damaged = damaged[:length]
            history.append(f"cut to {length}")
        yield ", ".join(history), damaged


def cuts(data: bytes) -> list[int]:
    """Interesting lengths to cut an image to."""
    ends = {0, 1, 3, 4, 5, 7, 8, 20, 23, 24, 71, 72, 73, 100, 103, 104, 105, 111, 112, 113, 119, 120, 511, 512, 513}
    for place in places(data):
        if place.name not in ("L2 entry", "refcount"):
            ends |= {place.offset, place.offset + place.length - 1, place.offset + place.length}
    for start in range(CLUSTER, len(data), CLUSTER):
        ends |= {start - 1, start, start + 1}
    return sorted(end for end in ends if end < len(data))
