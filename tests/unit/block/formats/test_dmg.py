"""The format dmg: reading every kind of chunk, and images that are refused."""

from __future__ import annotations

import random
import struct
import threading
import zlib
from pathlib import Path

import lzfse as compressor
import pytest

from hostel.block import graph
from hostel.block.driver import FormatInfo
from hostel.block.extent import Status
from hostel.block.formats.dmg import driver as driver_module
from hostel.block.probe import detect, matching
from hostel.block.unpacked import Unpacked
from hostel.codec import adc, lzfse
from hostel.drivers.storage.inspect import detect_format
from hostel.errors import BlockError, CorruptImage, InvalidImage, ReadOnly, UnsupportedFeature
from support.dmg import (
    ADC,
    BZIP2,
    COMMENT,
    IGNORED,
    LZFSE,
    LZMA,
    RAW,
    ZERO,
    ZLIB,
    Part,
    dmg,
    part,
    plist,
    table,
    trailer,
)

RANDOM = random.Random("dmg")
KINDS = {"adc": ADC, "zlib": ZLIB, "bzip2": BZIP2, "lzma": LZMA, "raw": RAW}


def mixed(length: int) -> bytes:
    return b"".join(
        RANDOM.choice((RANDOM.randbytes(64), bytes([RANDOM.randrange(256)]) * 64)) for _ in range(length // 64)
    )


CONTENT = {name: mixed(7 * 512) for name in KINDS}
DISK = b"".join(CONTENT.values()) + bytes(9 * 512)
PARTS = [part(kind, index * 7, CONTENT[name]) for index, (name, kind) in enumerate(KINDS.items())]
PARTS += [Part(COMMENT, 0, 0), Part(ZERO, 35, 5), Part(IGNORED, 40, 4)]


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("fork", [False, True], ids=["property list", "resource fork"])
@pytest.mark.parametrize("tables", [1, 3])
def test_every_kind_of_chunk_is_read(tmp_path: Path, fork: bool, tables: int) -> None:
    with graph.open(write(tmp_path / "a.dmg", dmg(PARTS, len(DISK), fork=fork, tables=tables))) as node:
        assert (node.format, node.length) == ("dmg", len(DISK))
        assert node.driver.info() == FormatInfo(dirty=None)
        assert node.read(0, len(DISK)) == DISK
        for _ in range(50):
            start = RANDOM.randrange(len(DISK))
            length = RANDOM.randrange(1, len(DISK) - start + 1)
            assert node.read(start, length) == DISK[start : start + length]


def test_tables_and_chunks_need_no_order(tmp_path: Path) -> None:
    shuffled = RANDOM.sample(PARTS[:5], 5) + PARTS[6:]
    with graph.open(write(tmp_path / "a", dmg(shuffled, len(DISK), tables=4)), "dmg") as node:
        assert node.read(0, len(DISK)) == DISK


def test_offsets_count_from_where_the_data_and_the_table_say(tmp_path: Path) -> None:
    xml = plist([table([Part(RAW, 3, 1, b"x" * 512)], [100], first=2, data_offset=30)])
    data = bytes(7 + 30 + 100) + b"x" * 512
    tail = bytearray(trailer(4 * 512, xml=(len(data), len(xml))))
    struct.pack_into(">Q", tail, 24, 7)
    with graph.open(write(tmp_path / "a", data + xml + tail), "dmg") as node:
        assert node.read(3 * 512, 512) == b"x" * 512


def test_the_trailer_is_found_where_the_file_was_filled_up_to_a_sector(tmp_path: Path) -> None:
    image = dmg(PARTS, len(DISK))
    with graph.open(write(tmp_path / "a", image + bytes(-len(image) % 512)), "dmg") as node:
        assert node.read(0, len(DISK)) == DISK


def test_zeroes_are_told_and_data_that_lie_bare_have_their_place(tmp_path: Path) -> None:
    with graph.open(write(tmp_path / "a", dmg(PARTS, len(DISK))), "dmg") as node:
        last = list(node.extents())[-1]
        assert (last.offset, last.length, last.status) == (35 * 512, 9 * 512, Status.ZERO | Status.ALLOCATED)
        bare = next(each for each in node.extents() if each.host_offset is not None)
        assert (bare.offset, bare.length) == (28 * 512, 7 * 512)
        assert node.file is not None and bare.host_offset is not None
        assert node.file.read(bare.host_offset, bare.length) == CONTENT["raw"]


def test_threads_read_the_same_chunks_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "Unpacked", lambda: Unpacked(8000))
    wrong: list[int] = []
    with graph.open(write(tmp_path / "a", dmg(PARTS, len(DISK))), "dmg") as node:

        def work(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(60):
                start = rng.randrange(len(DISK))
                if node.read(start, min(900, len(DISK) - start)) != DISK[start : start + 900]:
                    wrong.append(start)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert isinstance(node.driver, driver_module.DmgDriver)
        assert node.driver._unpacked.kept <= 8000
    assert not wrong


def test_a_chunk_is_unpacked_once_while_it_is_kept(tmp_path: Path) -> None:
    content = mixed(64 * 512)
    with graph.open(write(tmp_path / "a", dmg([part(ZLIB, 0, content)], len(content))), "dmg") as node:
        node.read(0, 512)
        assert node.file is not None
        node.file.driver.pread = lambda offset, buf: pytest.fail("read again")  # type: ignore[method-assign]
        assert node.read(512, 1024) == content[512:1536]


def test_it_cannot_be_opened_for_writing(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly, match=r"^Image is read-only$"):
        graph.open(write(tmp_path / "a.dmg", dmg(PARTS, len(DISK))), read_only=False)


def test_it_is_told_by_its_name() -> None:
    assert detect(bytes(512), "a.dmg") == "dmg"
    assert matching(bytes(512), "a.dmg") == ["dmg"]
    assert detect(bytes(512), "a.dmg.raw") == detect(bytes(512), ".dmg") == "raw"
    assert detect(b"QFI\xfb\0\0\0\3".ljust(512, b"\0"), "a.dmg") == "qcow2"


def test_a_volume_of_a_pool_is_told_by_what_is_in_it_alone(tmp_path: Path) -> None:
    assert detect_format(write(tmp_path / "a.dmg", bytes(4096))) == "raw"


# ---- images that are refused


def altered(offset: int, layout: str, *values: int) -> bytes:
    """An image with other values in its trailer."""
    image = bytearray(dmg(PARTS, len(DISK)))
    struct.pack_into(layout, image, len(image) - 512 + offset, *values)
    return bytes(image)


def with_xml(xml: bytes, size: int = 512) -> bytes:
    return xml + trailer(size, xml=(0, len(xml)))


def with_fork(fork: bytes) -> bytes:
    return fork + trailer(512, resource=(0, len(fork)))


def entry(kind: int, sector: int, sectors: int, offset: int, length: int) -> bytes:
    head = table([], [])[:204]
    return with_xml(plist([head + struct.pack(">IIQQQQ", kind, 0, sector, sectors, offset, length)]))


BIG = 1 << 63
HOSTILE = {
    "nothing": (b"", "dmg file must be at least 512 bytes long"),
    "no trailer": (bytes(5000), "Could not locate UDIF trailer in dmg file"),
    "a trailer cut off": (bytes(4096) + b"koly", "The trailer lies beyond the end of the file"),
    "data behind the trailer": (altered(24, ">Q", BIG), "The data begin at 0x8000000000000000, behind the trailer"),
    "a fork behind the trailer": (altered(40, ">QQ", BIG, 0), "The resource fork .* does not lie before the trailer"),
    "an endless fork": (altered(40, ">QQ", 0, BIG * 2 - 1), "The resource fork .* does not lie before the trailer"),
    "a list behind the trailer": (altered(216, ">QQ", BIG, 1), "The property list .* does not lie before the trailer"),
    "an endless list": (altered(216, ">QQ", 1, BIG * 2 - 1), "The property list .* does not lie before the trailer"),
    "neither fork nor list": (altered(216, ">QQ", 0, 0), "neither a resource fork nor a property list"),
    "a disk of exabytes": (altered(492, ">Q", 1 << 54), "A disk of 18014398509481984 sectors is too large"),
    "a list without an end": (with_xml(b"<data>AAAA"), "The property list ends within its data"),
    "a list of something else": (with_xml(b"<data>AAAAA</data>"), "data that are no base64"),
    "an empty fork": (with_fork(bytes(300)), "The resource fork is too short for its data"),
    "a fork of less": (with_fork(struct.pack(">III", 256, 0, 100).ljust(300, b"\0")), "too short for its data"),
    "resources of nothing": (with_fork(struct.pack(">III", 16, 0, 8).ljust(24, b"\0")), "A resource of 0 bytes"),
    "a resource of gigabytes": (
        with_fork(struct.pack(">IIIII", 16, 0, 8, 0, 1 << 30).ljust(24, b"\0")),
        "A resource of 1073741824 bytes does not fit",
    ),
    "sectors of gigabytes": (entry(ZLIB, 0, 131073, 0, 10), r"sector count 131073 .* is larger than max \(131072\)"),
    "packed bytes of gigabytes": (entry(ADC, 0, 8, 0, 67108865), r"length 67108865 .* is larger than max \(67108864\)"),
    "sectors beyond every disk": (entry(ZERO, 1 << 62, 1 << 63, 0, 0), "is too large for any disk"),
    "sectors that wrap around": (entry(ZERO, BIG * 2 - 1, 2, 0, 0), "is too large for any disk"),
    "bytes beyond every file": (entry(RAW, 0, 1, BIG * 2 - 1, 512), "is too large for any disk"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_image_is_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(InvalidImage, match=message):
        graph.open(write(tmp_path / "a", data), "dmg")


def test_a_list_or_a_fork_too_large_to_be_read_is_refused(tmp_path: Path) -> None:
    for where in ("xml", "resource"):
        size = 17 << 20
        path = tmp_path / where
        with path.open("wb") as stream:
            stream.write(struct.pack(">III", 256, 0, size - 256))
            stream.truncate(size)
            stream.seek(size)
            stream.write(trailer(512, **{where: (0, size)}))  # type: ignore[arg-type]
        with pytest.raises(InvalidImage, match="16777216 are the most"):
            graph.open(str(path), "dmg")


def test_an_image_that_cannot_be_read_as_a_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeature, match="The image is one of 2 parts"):
        graph.open(write(tmp_path / "a", altered(60, ">I", 2)), "dmg")
    with pytest.raises(UnsupportedFeature, match="Encrypted disk images"):
        graph.open(write(tmp_path / "b", b"encrcdsa" + bytes(1000)), "dmg")


def test_chunks_over_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptImage, match="Two chunks hold sector 4 of the disk"):
        graph.open(write(tmp_path / "a", dmg([Part(ZERO, 0, 5), Part(ZERO, 4, 5)], 9 * 512)), "dmg")


PACKED = zlib.compress(bytes(1024))
BROKEN = {
    "no chunk": ([Part(ZERO, 1, 1)], "No chunk holds sector 0 of the disk"),
    "an unknown kind": ([Part(0x80000099, 0, 2, b"x")], "The chunk at 0x0 is of the unknown type 0x80000099"),
    "raw bytes too few": ([Part(RAW, 0, 2, bytes(512))], "The chunk at 0x0 has 512 bytes instead of 1024"),
    "no zlib stream": ([Part(ZLIB, 0, 2, b"nonsense")], "The chunk at 0x0 cannot be read: it cannot be inflated"),
    "a zlib stream cut off": ([Part(ZLIB, 0, 2, PACKED[:-1])], "cannot be read: it is cut off"),
    "a short zlib stream": ([Part(ZLIB, 0, 3, PACKED)], "it holds 1024 bytes instead of 1536"),
    "no bzip2 stream": ([Part(BZIP2, 0, 2, b"nonsense")], "it cannot be decompressed"),
    "a bzip2 stream cut off": ([Part(BZIP2, 0, 2, part(BZIP2, 0, bytes(1024)).data[:-3])], "it is cut off"),
    "no xz stream": ([Part(LZMA, 0, 2, b"nonsense")], "it cannot be decompressed"),
    "an xz stream cut off": ([Part(LZMA, 0, 2, part(LZMA, 0, bytes(1024)).data[:-3])], "it is cut off"),
    "ADC that ends early": ([Part(ADC, 0, 2, b"\x81ab")], "it ends after 2 of 1024 bytes"),
    "ADC of a run cut off": ([Part(ADC, 0, 2, b"\x89ab")], "it ends after 0 of 1024 bytes"),
    "ADC that reaches back": ([Part(ADC, 0, 2, b"\x80a\x40\0\1")], "it reaches back before its start"),
    "ADC that holds more": ([Part(ADC, 0, 1, b"\x80a" + b"\x7f\0\0" * 8)], "it holds more than 512 bytes"),
    "a chunk without bytes": ([Part(ZLIB, 0, 2)], "it is cut off"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_chunk_cannot_be_read(tmp_path: Path, case: str) -> None:
    parts, message = BROKEN[case]
    with (
        graph.open(write(tmp_path / "a", dmg(parts, 1024)), "dmg") as node,
        pytest.raises(BlockError, match=message),
    ):
        node.read(0, 1024)


@pytest.mark.parametrize(
    ("kind", "length", "message"),
    [
        (ZLIB, 1 << 26, "it holds more than 1024 bytes"),
        (BZIP2, 1 << 26, "it holds 1025 bytes instead of 1024"),
        (LZMA, 1 << 24, "it holds 1025 bytes instead of 1024"),
    ],
    ids=["zlib", "bzip2", "xz"],
)
def test_a_bomb_cannot_be_read(tmp_path: Path, kind: int, length: int, message: str) -> None:
    bomb = part(kind, 0, bytes(length))._replace(sectors=2)
    with (
        graph.open(write(tmp_path / "a", dmg([bomb], 1024)), "dmg") as node,
        pytest.raises(BlockError, match=message),
    ):
        node.read(0, 1024)


@pytest.mark.parametrize("kind", [RAW, ZLIB])
def test_a_chunk_beyond_the_end_of_the_file_cannot_be_read(tmp_path: Path, kind: int) -> None:
    with (
        graph.open(write(tmp_path / "a", entry(kind, 0, 1, 1 << 40, 512)), "dmg") as node,
        pytest.raises(CorruptImage, match="The chunk at 0x10000000000 lies beyond the end of the file"),
    ):
        node.read(0, 512)


# ---- compression


def test_adc_copies_near_and_far_and_onto_itself() -> None:
    packed = b"\x84abcde" + bytes([0x00, 4]) + bytes([0x41, 0, 6]) + bytes([0x08, 0])
    assert adc.unpack(packed, 18) == b"abcde" + b"abc" + b"bcdea" + b"aaaaa"


def test_lzfse_is_unpacked_in_bounded_memory(tmp_path: Path) -> None:
    content = mixed(40 * 512)
    packed = compressor.compress(content)
    parts = [Part(LZFSE, 0, 40, packed), Part(LZFSE, 40, 39, packed), Part(LZFSE, 79, 41, packed)]
    parts.append(Part(LZFSE, 120, 1, b"nonsense"))
    with graph.open(write(tmp_path / "a", dmg(parts, 121 * 512)), "dmg") as node:
        assert node.read(0, len(content)) == content
        for sector, message in ((40, "it holds more than 19968"), (79, "20480 instead of 20992"), (120, "cannot be")):
            with pytest.raises(CorruptImage, match=message):
                node.read(sector * 512, 512)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lzfse, "_library", lambda: None)
    with (
        graph.open(write(tmp_path / "a", dmg([Part(LZFSE, 0, 1, b"x")], 512)), "dmg") as node,
        pytest.raises(UnsupportedFeature, match="'lzfse'"),
    ):
        node.read(0, 512)
