"""Whether an image is safe to accept: each case of a hostile image with its verdict."""

from __future__ import annotations

import os
import random
import resource
import struct
import time
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats.qcow2.layout import Header
from hostel.errors import BlockError, UsageError
from hostel.img.foreign import Claim
from hostel.img.inspect import EXPECTED, inspect
from hostel.img.inspection import Inspection, Level
from hostel.img.snapshot import create as create_snapshot
from support import dmg, hostile, images, qcow2, qcow2_hostile, vmdk
from support.bounded import MIB, bounded
from support.format_subjects import SUBJECTS

SECTOR = 512
DATA_FILE = 0x44415441
BACKING_FORMAT = 0xE2792ACA
BITMAPS = 0x23852875


def look(path: Path, data: bytes, expected: str | None = None, limit: int | None = None) -> Inspection:
    image = path / "image"
    image.write_bytes(data)
    found = inspect(str(image), expected=expected, max_virtual_size=limit)
    assert image.read_bytes() == data, "looking changed the image"
    return found


def codes(found: Inspection, level: Level = Level.UNSAFE) -> list[str]:
    return [each.code for each in found.findings if each.level is level]


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def with_extensions(*extensions: bytes, **fields: int) -> bytes:
    head = hostile.header(**fields) + b"".join(extensions)
    return head + bytes(65536 - len(head)) + hostile.CLUSTERS


def fresh(size: int = MIB, **options: object) -> bytes:
    return qcow2.create(size, options)  # type: ignore[arg-type]


def over(data: bytes, offset: int, piece: bytes) -> bytes:
    data = data.ljust(offset + len(piece), b"\0")
    return data[:offset] + piece + data[offset + len(piece) :]


def mbr(start: int = 2048, kind: int = 0x83) -> bytes:
    entry = bytes([0x80, 0, 0, 0, kind, 0, 0, 0]) + struct.pack("<II", start, 2048)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def ext(compatible: int = 0, incompatible: int = 0) -> bytes:
    block = over(bytes(1024), 0, struct.pack("<II", 128, 1024))
    block = over(block, 56, b"\x53\xef\1\0")
    return over(over(block, 76, struct.pack("<I", 1)), 92, struct.pack("<II", compatible, incompatible))


# ---- formats


@pytest.mark.parametrize("expected", [None, "qcow2"])
def test_a_fresh_image_is_safe_without_a_word(tmp_path: Path, expected: str | None) -> None:
    found = look(tmp_path, fresh(), expected)
    assert (found.verdict, found.findings, found.format, found.virtual_size) == (Level.NOTE, (), "qcow2", MIB)


def test_raw_is_safe_where_it_was_said_and_a_warning_where_it_is_guessed(tmp_path: Path) -> None:
    assert look(tmp_path, bytes(MIB), "raw").findings == ()
    assert codes(look(tmp_path, bytes(MIB)), Level.WARNING) == ["format-guessed"]


@pytest.mark.parametrize("expected", [name for name in EXPECTED if name != "qcow2"])
def test_content_of_another_format_than_expected_is_unsafe(tmp_path: Path, expected: str) -> None:
    found = look(tmp_path, fresh(), expected)
    assert codes(found) == ["format-mismatch"]
    assert found.findings[0].message == f"The format should be {expected}; the content is of qcow2"


def test_raw_disk_whose_first_sector_a_guest_made_a_header_is_unsafe_and_its_backing_file_named(tmp_path: Path) -> None:
    # CVE-2008-2004, CVE-2024-40767, CVE-2026-24708
    found = look(tmp_path, over(bytes(MIB), 0, hostile.naming(b"/etc/shadow")), "raw")
    assert codes(found) == ["format-mismatch", "backing-file"]
    assert found.names == (Claim("backing", "/etc/shadow"),)


def test_raw_bytes_are_no_qcow2(tmp_path: Path) -> None:
    found = look(tmp_path, bytes(MIB), "qcow2")
    assert codes(found) == ["format-mismatch"]
    assert "no known format" in found.findings[0].message


ISO = over(bytes(40_000), 32768, b"\1CD001\1")
POLYGLOTS = {
    "a CD's system area holds an image": over(fresh(), 32768, b"\1CD001\1"),
    "an image is a boot sector too": over(fresh(), 510, b"\x55\xaa"),
    "an image has a GPT": over(fresh(), 512, b"EFI PART" + bytes(84)),
    "an image has an ext superblock": over(fresh(), 1024, ext()),
    "an image has an LVM label": over(over(fresh(), 512, b"LABELONE"), 536, b"LVM2 001"),
    "an image holds VDI's magic": over(fresh(), 64, b"\x7f\x10\xda\xbe"),
    "an image ends as a fixed VHD": fresh().ljust(MIB, b"\0") + b"conectix" + bytes(504),
    "an image ends as an Apple disk image": fresh().ljust(MIB, b"\0") + b"koly" + bytes(508),
    "a VMDK in a CD's system area": over(ISO, 0, b"KDMV"),
}


@pytest.mark.parametrize("data", POLYGLOTS.values(), ids=POLYGLOTS.keys())
@pytest.mark.parametrize("expected", [None, "qcow2", "raw", "iso"])
def test_what_can_be_taken_for_two_things_is_unsafe(tmp_path: Path, data: bytes, expected: str | None) -> None:
    assert "ambiguous" in codes(look(tmp_path, data, expected))


def test_a_cd_is_raw_and_iso_and_a_hybrid_one_too(tmp_path: Path) -> None:
    hybrid = over(over(ISO, 0, mbr()), 40_448, bytes(512))
    for data in (over(ISO, 40_448, bytes(512)), hybrid):
        assert look(tmp_path, data, "iso").verdict is look(tmp_path, data, "raw").verdict is Level.NOTE
    assert codes(look(tmp_path, bytes(MIB), "iso")) == ["format-mismatch"]


@pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1])
def test_qcow2s_magic_with_another_version_is_never_raw(tmp_path: Path, version: int) -> None:
    found = look(tmp_path, hostile.header(version=version) + hostile.CLUSTERS, "raw")
    assert found.verdict is Level.UNSAFE
    assert "format-mismatch" in codes(found)


def test_unknown_expected_format_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown format 'nosuch'"):
        inspect("/nowhere", expected="nosuch")


# ---- what is named


NAMES = {
    b"base.qcow2": "by a relative path: 'base.qcow2'",
    b"/etc/passwd": "by an absolute path: '/etc/passwd'",
    b"../../etc/passwd": "by a relative path: '../../etc/passwd'",
    b'json:{"driver":"nbd","host":"h"}': 'as a pseudo-protocol\'s options: \'json:{"driver":"nbd","host":"h"}\'',
    b"nbd://127.0.0.1:1/x": "by the protocol 'nbd': 'nbd://127.0.0.1:1/x'",
    b"ssh://host/x": "by the protocol 'ssh': 'ssh://host/x'",
}


@pytest.mark.parametrize(("name", "said"), NAMES.items())
def test_a_backing_file_is_named_and_unsafe(tmp_path: Path, name: bytes, said: str) -> None:
    # CVE-2011-3147, CVE-2014-0134, CVE-2015-5163, CVE-2024-4467
    found = look(tmp_path, hostile.naming(name), "qcow2")
    assert codes(found) == ["backing-file"]
    assert found.findings[0].message == f"The image names a backing file, {said}"


def test_a_backing_file_is_not_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it would wait for ever
    found = look(tmp_path, hostile.naming(str(fifo).encode()), "qcow2")
    assert found.names == (Claim("backing", str(fifo)),)


def test_a_backing_format_is_told(tmp_path: Path) -> None:
    data = with_extensions(extension(BACKING_FORMAT, b"raw"), backing_offset=512, backing_size=4)
    found = look(tmp_path, over(data, 512, b"base"))
    assert found.names == (Claim("backing", "base", "raw"),)
    assert "of format raw" in found.findings[0].message


@pytest.mark.parametrize("name", [b"/etc/passwd", b'json:{"file":{"filename":"/etc/passwd"}}', b"nbd:unix:/x"])
def test_an_external_data_file_is_named_and_unsafe(tmp_path: Path, name: bytes) -> None:
    # CVE-2024-32498, CVE-2024-4467
    found = look(tmp_path, with_extensions(extension(DATA_FILE, name), incompatible=4), "qcow2")
    assert codes(found) == ["external-data-file"]
    assert found.names == (Claim("data-file", name.decode(), "raw"),)


def test_an_external_data_file_without_a_name_is_unsafe(tmp_path: Path) -> None:
    assert "external-data-file" in codes(look(tmp_path, with_extensions(incompatible=4)))


def test_a_data_file_that_is_named_but_not_used_is_a_warning(tmp_path: Path) -> None:
    found = look(tmp_path, with_extensions(extension(DATA_FILE, b"/etc/passwd")))
    assert (codes(found), codes(found, Level.WARNING)) == ([], ["unused-data-file"])


def test_names_of_an_image_that_is_refused_are_told_all_the_same(tmp_path: Path) -> None:
    found = look(tmp_path, hostile.naming(b"/etc/shadow", incompatible=1 << 63))
    assert sorted(codes(found)) == ["backing-file", "unsupported-feature"]


FLAT = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/passwd" 0\n'
DESCRIPTORS = {
    "as VMware writes it": FLAT,
    "after a comment of one's own": b'#x\r\n \r\nversion=3\r\nRW 2048 FLAT "/etc/passwd" 0\r\n',
    "in lower case": b'version=2\nrw 2048 flat "/etc/passwd" 0\n',
}


@pytest.mark.parametrize("data", DESCRIPTORS.values(), ids=DESCRIPTORS.keys())
@pytest.mark.parametrize("expected", [None, "vmdk", "raw"])
def test_extents_of_a_vmdk_descriptor_are_named_and_unsafe(tmp_path: Path, data: bytes, expected: str | None) -> None:
    # CVE-2022-47951, CVE-2024-40767
    found = look(tmp_path, data, expected)
    assert found.format == "vmdk"
    assert "extent" in codes(found)
    assert ("format-mismatch" in codes(found)) == (expected == "raw")
    assert found.names == (Claim("extent", "/etc/passwd"),)
    assert found.virtual_size == MIB


def sparse(descriptor: bytes, *, gd_offset: int = 0) -> bytes:
    head = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 2048, 128, 1, -(-len(descriptor) // SECTOR))
    return over(over(head, 56, struct.pack("<Q", gd_offset)), SECTOR, descriptor)


def test_the_descriptor_inside_a_sparse_vmdk_is_scanned(tmp_path: Path) -> None:
    found = look(tmp_path, sparse(FLAT + b'parentFileNameHint="/base.vmdk"\n'), "vmdk")
    assert found.names == (Claim("extent", "/etc/passwd"), Claim("backing", "/base.vmdk"))


def test_the_descriptor_that_only_a_vmdks_footer_points_to_is_scanned(tmp_path: Path) -> None:
    hidden = FLAT.replace(b"passwd", b"shadow")
    data = sparse(FLAT, gd_offset=2**64 - 1).ljust(8192, b"\0") + hidden.ljust(SECTOR, b"\0")
    footer = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 4096, 128, 16, 1).ljust(SECTOR, b"\0")
    found = look(tmp_path, data + footer + bytes(SECTOR), "vmdk")
    assert found.names == (Claim("extent", "/etc/passwd"), Claim("extent", "/etc/shadow"))
    assert found.virtual_size == 2 * MIB


def test_a_vmdks_own_extent_is_no_other_file(tmp_path: Path) -> None:
    data = vmdk.create(MIB, name="image")
    assert codes(look(tmp_path, data, "vmdk")) == codes(look(tmp_path, data, "vmdk"), Level.WARNING) == []
    found = look(tmp_path, vmdk.create(MIB, name="other.vmdk"), "vmdk")
    assert (found.names, codes(found), codes(found, Level.WARNING)) == ((), [], ["renamed-extent"])
    found = look(tmp_path, vmdk.create(MIB, name="image").replace(b'"image"', b'"/x/y"'), "vmdk")
    assert (found.names, codes(found)) == ((Claim("extent", "/x/y"),), ["extent"])


@pytest.mark.parametrize("data", [b"\n" * MIB, b"RW\n" * (MIB // 3), b" " * MIB, b"RW 1 " + b"\n" * MIB])
def test_blanks_in_a_vmdk_descriptor_take_no_time(tmp_path: Path, data: bytes) -> None:
    started = time.process_time()
    assert look(tmp_path, b"version=1\n" + data).format == "vmdk"
    assert time.process_time() - started < 5


def test_names_of_a_vmdk_are_bounded(tmp_path: Path) -> None:
    found = look(tmp_path, b"version=1\n" + b'RW 1 FLAT "x%d" 0\n' * 50_000)
    assert len({each.filename for each in found.names}) == 1
    lines = b"".join(b'RW 1 FLAT "x%d" 0\n' % n for n in range(50_000))
    for head in (b"version=1\n", b'version=1\nCID=1\nparentCID=2\ncreateType="vmfs"\n'):
        started = time.process_time()
        assert len(look(tmp_path, head + lines).names) == 64
        assert time.process_time() - started < 5


def test_backing_files_of_older_formats_are_named(tmp_path: Path) -> None:
    for format in ("qcow", "qed"):
        found = look(tmp_path, SUBJECTS[format].create(MIB, {"backing_file": "/etc/passwd"}), format)
        assert codes(found) == ["backing-file"]
        assert (found.names, found.virtual_size) == ((Claim("backing", "/etc/passwd"),), MIB)


# ---- sizes, marks, tables


def test_virtual_size_over_the_limit_is_unsafe(tmp_path: Path) -> None:
    bomb = fresh(1 << 45)
    assert look(tmp_path, bomb, limit=1 << 45).verdict is Level.NOTE
    found = look(tmp_path, bomb, limit=(1 << 45) - 1)
    assert codes(found) == ["virtual-size"]
    assert found.ratio == -(-(1 << 45) // len(bomb))
    assert codes(look(tmp_path, bytes(MIB), "raw", MIB - 1)) == ["virtual-size"]


def test_virtual_size_that_a_snapshot_brings_back_counts(tmp_path: Path) -> None:
    path = tmp_path / "image"
    images.make(path, 64 * MIB)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        create_snapshot(node, "large")
        node.resize(MIB)
    found = inspect(str(path), max_virtual_size=MIB)
    assert codes(found) == ["virtual-size"]
    assert codes(found, Level.WARNING) == ["snapshots"]


def test_unknown_virtual_size_is_unsafe_where_there_is_a_limit(tmp_path: Path) -> None:
    assert "virtual-size" in codes(look(tmp_path, b"vhdxfile".ljust(MIB, b"\0"), limit=MIB))


@pytest.mark.parametrize(
    ("fields", "level", "code"),
    [
        ({"incompatible": 1}, Level.WARNING, "dirty"),
        ({"incompatible": 2}, Level.UNSAFE, "corrupt"),
        ({"incompatible": 1 << 40}, Level.UNSAFE, "unsupported-feature"),
        ({"compatible": 1 << 40}, Level.NOTE, "unknown-features"),
        ({"autoclear": 1 << 40}, Level.NOTE, "unknown-features"),
        ({"crypt": 2}, Level.WARNING, "encrypted"),
        ({"crypt": 7}, Level.UNSAFE, "malformed"),
        ({"snapshots": 70_000, "snapshots_offset": 65536}, Level.UNSAFE, "malformed"),
        ({"l1_offset": 1 << 40}, Level.UNSAFE, "truncated"),
        ({"refcount_offset": 1 << 40}, Level.UNSAFE, "truncated"),
        ({"size": 1 << 62}, Level.UNSAFE, "malformed"),
    ],
)
def test_marks_and_tables(tmp_path: Path, fields: dict[str, int], level: Level, code: str) -> None:
    assert code in codes(look(tmp_path, hostile.header(**fields) + hostile.CLUSTERS, "qcow2"), level)


def test_feature_bits_that_look_like_an_extension_of_version_2_are_feature_bits(tmp_path: Path) -> None:
    # A version 3 header read as version 2 has its feature bits where the extensions start.
    found = look(tmp_path, hostile.header(incompatible=BACKING_FORMAT << 32 | 8) + hostile.CLUSTERS)
    assert codes(found) == ["unsupported-feature"]


def test_version_2_ends_before_the_feature_bits(tmp_path: Path) -> None:
    assert look(tmp_path, fresh(compat="0.10"), "qcow2").findings == ()


def test_an_l1_entry_beyond_the_file_or_misaligned_is_unsafe(tmp_path: Path) -> None:
    good = hostile.header() + hostile.CLUSTERS
    assert codes(look(tmp_path, over(good, 0x30000, struct.pack(">Q", 1 << 40)))) == ["truncated"]
    assert codes(look(tmp_path, over(good, 0x30000, struct.pack(">Q", 0x200)))) == ["malformed"]


@pytest.mark.parametrize("kind", qcow2_hostile.KINDS)
def test_snapshot_tables_are_looked_at(tmp_path: Path, kind: str) -> None:
    data = qcow2_hostile.sound(kind)
    assert codes(look(tmp_path, data)) == ["backing-file"]
    places = {place.name: place for place in qcow2_hostile.places(data)}
    places["snapshots_offset"] = qcow2_hostile.Place("snapshots_offset", Header.OFFSET["snapshots_offset"], 8)
    for name, value, code in (
        ("snapshot L1 size", 0x7FFFFFFF, "malformed"),  # CVE-2014-0145
        ("snapshot L1 offset", 0x1234567890ABCDEF, "malformed"),
        ("snapshot L1 offset", 1 << 40, "truncated"),
        ("snapshot extra data", 0xFFFFFFFF, "malformed"),
        ("snapshots_offset", 1 << 40, "malformed"),  # CVE-2014-0146
    ):
        assert code in codes(look(tmp_path, qcow2_hostile.poked(data, places[name], value))), (name, value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("L1 entry", "l1", "The L2 table at byte {l1} lies on the L1 table"),
        ("L1 entry", "refcounts", "The L2 table at byte {refcounts} lies on the refcount table"),
        ("snapshot L1 offset", "l1", "The L1 table of snapshot 'one' and the L1 table lie on each other, at byte {l1}"),
        (
            "snapshots_offset",
            "refcounts",
            "The snapshot table and the refcount table lie on each other, at byte {refcounts}",
        ),
    ],
)
def test_tables_on_other_tables_are_unsafe(tmp_path: Path, name: str, value: str, said: str) -> None:
    data = qcow2_hostile.sound("plain")
    header = Header.unpack(data[: Header.SIZE])
    at = {"l1": header.l1_table_offset, "refcounts": header.refcount_table_offset}
    found = {place.name: place for place in reversed(qcow2_hostile.places(data))}
    found["snapshots_offset"] = qcow2_hostile.Place("snapshots_offset", Header.OFFSET["snapshots_offset"], 8)
    messages = [each.message for each in look(tmp_path, qcow2_hostile.poked(data, found[name], at[value])).findings]
    assert said.format(**at) in messages


def test_one_l2_table_for_many_l1_entries_is_unsafe(tmp_path: Path) -> None:
    bomb = over(
        hostile.header(size=1 << 30, l1_size=2) + hostile.CLUSTERS, 0x30000, struct.pack(">QQ", 0x40000, 0x40000)
    )
    found = look(tmp_path, over(bomb, 0x40000, bytes(65536)))
    assert [each.message for each in found.findings if each.code == "overlap"] == [
        "The L1 table names the L2 table at byte 262144 more than once"
    ]


def test_a_chunk_that_takes_memory_is_not_unpacked(tmp_path: Path) -> None:
    usual = dmg.dmg([dmg.part(dmg.ZLIB, 0, bytes(MIB))], MIB)
    assert codes(look(tmp_path, usual, "dmg"), Level.WARNING) == []
    large = dmg.dmg([dmg.part(dmg.ZLIB, 0, bytes(32 * MIB))], 32 * MIB)
    found = bounded(lambda: look(tmp_path, large, "dmg"), memory=24 * MIB)
    assert codes(found, Level.WARNING) == ["large-chunk"]


def test_bitmaps_are_counted_and_a_directory_that_lies_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "bitmaps"
    images.make(path, MIB)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.driver.bitmap_add("one")  # type: ignore[attr-defined]
    data = path.read_bytes()
    found = look(tmp_path, data)
    assert (found.verdict, codes(found, Level.NOTE)) == (Level.NOTE, ["bitmaps"])
    place = data.index(struct.pack(">II", BITMAPS, 24)) + 8
    assert codes(look(tmp_path, over(data, place, struct.pack(">I", 7)))) == ["malformed"]
    large = over(data, place + 8, struct.pack(">Q", 32 * MIB))
    assert codes(look(tmp_path, large), Level.WARNING) == ["large-table"]
    beyond = over(data, place + 8, struct.pack(">Q", 64 * MIB))  # more than bitmaps may take
    assert codes(look(tmp_path, beyond)) == ["malformed"]


@pytest.mark.parametrize("expected", [None, "raw", "qcow2"])
def test_an_empty_file_is_unsafe(tmp_path: Path, expected: str | None) -> None:
    assert codes(look(tmp_path, b"", expected)) == ["empty"]


@pytest.mark.parametrize("length", [4, 8, 20, 71, 72, 100, 104, 512, 65536, 0x30000])
def test_a_truncated_image_is_unsafe(tmp_path: Path, length: int) -> None:
    found = look(tmp_path, fresh()[:length], "qcow2")
    assert found.verdict is Level.UNSAFE


def test_part_of_a_sector_is_a_warning(tmp_path: Path) -> None:
    assert codes(look(tmp_path, bytes(1000), "raw"), Level.WARNING) == ["partial-sector"]


# ---- content


FILESYSTEMS = {
    "ext2": over(bytes(MIB), 1024, ext()),
    "ext3": over(bytes(MIB), 1024, ext(compatible=4)),
    "ext4": over(bytes(MIB), 1024, ext(compatible=4, incompatible=0x40)),
    "xfs": over(bytes(MIB), 0, b"XFSB"),
    "btrfs": over(bytes(MIB), 65600, b"_BHRfS_M"),
    "ntfs": over(over(bytes(MIB), 3, b"NTFS    "), 510, b"\x55\xaa"),
    "vfat": over(over(bytes(MIB), 82, b"FAT32   "), 510, b"\x55\xaa"),
    "iso9660": over(bytes(MIB), 32769, b"CD001"),
    "lvm2": over(over(bytes(MIB), 512, b"LABELONE"), 536, b"LVM2 001"),
    "swap": over(bytes(MIB), 4086, b"SWAPSPACE2"),
}


@pytest.mark.parametrize(("name", "data"), FILESYSTEMS.items(), ids=FILESYSTEMS.keys())
def test_a_file_system_is_named_on_the_disk_and_in_its_first_partition(tmp_path: Path, name: str, data: bytes) -> None:
    content = look(tmp_path, data, "raw").content
    assert content is not None
    assert (content.filesystem, content.table) == (name, None)
    content = look(tmp_path, mbr().ljust(MIB, b"\0") + data, "raw").content
    assert content is not None
    assert (content.table, content.partitions, content.first_filesystem) == ("mbr", 1, name)


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_is_named_with_its_partitions(tmp_path: Path, sector: int) -> None:
    header = over(b"EFI PART", 72, struct.pack("<QII", 2, 128, 128))
    entries = b"".join(b"type" * 8 + struct.pack("<QQ", start, start) + bytes(80) for start in (512, 256))
    data = over(over(over(mbr(1, 0xEE), sector, header), 2 * sector, entries), 256 * sector, FILESYSTEMS["ext4"])
    content = look(tmp_path, data, "raw").content
    assert content is not None
    assert (content.table, content.partitions, content.first_filesystem) == ("gpt", 2, "ext4")


def test_the_disk_inside_an_image_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "image"
    images.make(path, 4 * MIB)
    images.write(path, "qcow2", {0: mbr(), MIB: FILESYSTEMS["ext3"]})
    content = inspect(str(path)).content
    assert content is not None
    assert (content.table, content.first_filesystem) == ("mbr", "ext3")


@pytest.mark.parametrize(
    "inner", [hostile.naming(b"/etc/shadow")[:4096], FLAT.ljust(512, b"\0")], ids=["qcow2", "vmdk"]
)
def test_an_image_inside_an_image_is_unsafe(tmp_path: Path, inner: bytes) -> None:
    # Converted to raw and opened without a format, the inner one would be followed.
    path = tmp_path / "image"
    images.make(path, MIB)
    images.write(path, "qcow2", {0: inner})
    assert codes(inspect(str(path))) == ["nested-format"]


def test_an_archive_is_a_warning(tmp_path: Path) -> None:
    assert codes(look(tmp_path, b"\x1f\x8b\x08".ljust(512, b"\0"), "raw"), Level.WARNING) == ["packed"]


# ---- bounds


@pytest.mark.parametrize("path", ["fifo", "directory", "missing", "/dev/zero"])
def test_what_is_no_image_file_cannot_be_looked_at(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    with pytest.raises(BlockError):
        inspect(str(tmp_path / path))


def test_a_name_with_a_protocol_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbd:x").write_bytes(fresh())
    assert inspect("nbd:x").verdict is Level.NOTE


@pytest.mark.parametrize(("name", "data"), hostile.images().items(), ids=hostile.images().keys())
def test_a_hostile_image_gets_a_verdict(tmp_path: Path, name: str, data: bytes) -> None:
    found = look(tmp_path, data)
    harmless = ("text", "zeroes", "truncated-001", "truncated-003", "iso", "size-zero")
    assert (found.verdict is not Level.UNSAFE) == (name in harmless), found.findings


def test_random_damage_gets_a_verdict(tmp_path: Path) -> None:
    for kind in qcow2_hostile.KINDS:
        for what, data in qcow2_hostile.mutations(kind, random.Random(7), 60):
            assert isinstance(look(tmp_path, data, "qcow2").verdict, Level), what


def test_a_header_of_endless_extensions_is_unsafe_and_not_parsed_further(tmp_path: Path) -> None:
    many = struct.pack(">II", 0x12345678, 0) * 250_000
    found = look(tmp_path, hostile.header(cluster_bits=21) + many + bytes(8 * MIB))
    assert [each.message for each in found.findings] == ["The header has more than 256 extensions"]
    few = struct.pack(">II", 0x12345678, 0) * 255
    assert look(tmp_path, with_extensions(few)).findings == ()


def test_claims_of_huge_tables_cost_neither_memory_nor_time(tmp_path: Path) -> None:
    path = tmp_path / "image"
    head = Header.unpack(hostile.header().ljust(Header.SIZE, b"\0")).replace(
        cluster_bits=21, size=1 << 60, l1_size=4 * MIB, l1_table_offset=16 * MIB, refcount_table_offset=8 * MIB,
        refcount_table_clusters=4, nb_snapshots=65536, snapshots_offset=64 * MIB,
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(head.pack())
        file.truncate(1 << 40)

    def bounded_look() -> tuple[list[str], int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = inspect(str(path))
        return codes(found, Level.NOTE), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024

    begun = time.process_time()
    notes, grown = bounded(bounded_look, memory=64 * MIB, seconds=30)
    assert notes == ["large-table", "large-table"]
    assert grown < 32
    assert time.process_time() - begun < 20
