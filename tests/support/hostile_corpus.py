"""The malformed images of which CVEs and bug reports tell, each made here, with what a tool must say of it.

An image that is refused is so by each tool; one that opens is looked at and copied, and what is wrong in it is found by
those that go there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.block.formats.cloop import SCRIPT
from hostel.block.formats.parallels.layout import Header as ParallelsHeader
from hostel.block.formats.qcow import Header as QcowHeader
from hostel.block.formats.qcow2 import bitmap_directory
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.layout import ExtensionType
from hostel.block.formats.qed.layout import Header as QedHeader
from hostel.block.formats.vdi import Header as VdiHeader
from hostel.block.formats.vhdx import layout as vhdx_layout
from hostel.block.formats.vmdk.layout import SparseHeader
from hostel.block.formats.vpc.layout import DynamicHeader, Footer
from hostel.block.formats.vpc.layout import sealed as sealed_vpc
from hostel.block.options import Value
from hostel.block.registry import format_driver
from hostel.codec.record import Record
from support import dmg, hostile, qcow2, qcow2_hostile, vhdx, vmdk
from support.memory import MemoryDriver, memory_node
from support.old_images import bochs, cloop

MIB: Final = 1 << 20


class Case(NamedTuple):
    """An image.

    Attributes:
        name: where it is from, and what in it lies.
        format: as tools call it.
        make: its bytes.
        refusal: words of why it is not opened; empty where it is.
        mends: a check opens it all the same, and repairs it.
        checks: a check opens it all the same, and cannot repair it.
        fails: of one that opens, words of the command lines that find out what is wrong; all others may succeed.
    """

    name: str
    format: str
    make: Callable[[], bytes]
    refusal: str = ""
    mends: bool = False
    checks: bool = False
    fails: tuple[str, ...] = ()


def _fresh(format: str, size: int = MIB, **options: Value) -> bytes:
    driver = MemoryDriver()
    format_driver(format).create(memory_node(driver), size, options)  # type: ignore[attr-defined]
    return bytes(driver.data)


def _with(format: str, record: type[Record], **fields: int) -> Callable[[], bytes]:
    """A new image with other numbers in the header at its start."""

    def make() -> bytes:
        data = _fresh(format)
        return record.unpack(data[: record.SIZE]).replace(**fields).pack() + data[record.SIZE :]

    return make


def _qcow2(**fields: int) -> Callable[[], bytes]:
    return lambda: hostile.header(**fields) + hostile.CLUSTERS


def _place(name: str, value: int, kind: str = "plain") -> Callable[[], bytes]:
    """A sound qcow2 image with snapshots, of which the first number of that name is another."""

    def make() -> bytes:
        data = qcow2_hostile.sound(kind)
        place = next(each for each in qcow2_hostile.places(data) if each.name == name)
        return _without_backing(qcow2_hostile.poked(data, place, value))

    return make


def _without_backing(data: bytes) -> bytes:
    return data[:8] + bytes(12) + data[20:]


def _bitmap(**fields: int) -> Callable[[], bytes]:
    """An image of which an entry of the bitmap directory says something else."""

    def make() -> bytes:
        data = _without_backing(qcow2_hostile.sound(qcow2_hostile.BITMAPS))
        extension = bitmap_directory.Extension.unpack(
            headers.parse(data[:65536]).extension(ExtensionType.BITMAPS) or b""
        )
        at = extension.directory_offset
        entry = bitmap_directory.Entry.unpack(data[at : at + bitmap_directory.Entry.SIZE]).replace(**fields)
        return data[:at] + entry.pack() + data[at + entry.SIZE :]

    return make


def _stale_directory() -> bytes:
    """A bitmap directory that goes on with what was there before."""
    data = _without_backing(qcow2_hostile.sound(qcow2_hostile.BITMAPS))
    found = headers.parse(data[:65536]).extension(ExtensionType.BITMAPS) or b""
    extension = bitmap_directory.Extension.unpack(found)
    return data.replace(found, extension.replace(directory_size=extension.directory_size + 24).pack(), 1)


def _allocates_the_header() -> bytes:
    """Refcounts that know of no cluster in use: the first that is given out is the header's."""
    data = bytearray(qcow2.create(MIB, {"cluster_size": 65536}))
    block = int.from_bytes(data[0x10000:0x10008], "big")
    data[block : block + 64] = bytes(64)
    return bytes(data)


def _parallels_extension() -> bytes:
    """A format extension whose feature has more bytes than are left."""
    data = _fresh("parallels", MIB, cluster_size=4096)
    header = ParallelsHeader.unpack(data)
    start = -(-len(data) // 4096) * 4096
    feature = struct.pack("<QQII", 0x20385FAE252CB34A, 0, 0xFFFFFFFF, 0)
    rest = feature.ljust(4096 - 24, b"\0")
    area = struct.pack("<Q16s", 0xAB234CEF23DCEA87, hashlib.md5(rest, usedforsecurity=False).digest()) + rest
    data = header.replace(ext_off=start // 512).pack() + data[header.SIZE :]
    return data.ljust(start, b"\0") + area


def _bochs(offset: int, form: str, value: int) -> Callable[[], bytes]:
    def make() -> bytes:
        data = bytearray(bochs({0: b"x" * 512}, 64 * 512))
        struct.pack_into(form, data, offset, value)
        return bytes(data)

    return make


def _cloop(block_size: int = 4096, blocks: int = 2, offset: int | None = None) -> Callable[[], bytes]:
    def make() -> bytes:
        data = bytearray(cloop(bytes(8192)))
        struct.pack_into(">II", data, len(SCRIPT.ljust(128, b"\0")), block_size, blocks)
        if offset is not None:
            struct.pack_into(">Q", data, 136 + 8, offset)
        return bytes(data)

    return make


def _dmg(kind: int, sectors: int, length: int) -> Callable[[], bytes]:
    """A chunk that says how many sectors it has, and how many bytes it takes."""

    def make() -> bytes:
        content = dmg.part(kind, 0, b"data" * 512)
        whole = dmg.dmg([content], 8 * 512)
        table = dmg.table([content], [0])
        said = dmg.table([content._replace(sectors=sectors)], [0])
        said = said[: 204 + 32] + struct.pack(">Q", length) + said[204 + 40 :]
        packed = dmg.plist([b"something else", said])
        assert len(table) == len(said)
        end = len(content.data)
        return whole[:end] + packed + dmg.trailer(8 * 512, xml=(end, len(packed)))

    return make


def _vhdx_item(index: int, value: int, length: int) -> Callable[[], bytes]:
    return lambda: vhdx.with_item(vhdx.fresh(2 * MIB), index, vhdx.number(value, length))


def _vhdx_log() -> bytes:
    """A log entry of so many descriptors that their length overflows."""
    data = vhdx.with_headers(vhdx.fresh(2 * MIB), log_guid=b"g" * 16)
    entry = vhdx_layout.LogEntry(
        signature=b"loge", checksum=0, entry_length=4096, tail=0, sequence_number=1, descriptor_count=0x08000000,
        reserved=0, log_guid=b"g" * 16, flushed_file_offset=0, last_file_offset=0,
    )  # fmt: skip
    return vhdx.patched(data, vhdx.LOG, vhdx_layout.sealed(entry.pack().ljust(4096, b"\0")))


def _same_headers() -> bytes:
    """What Disk2vhd writes: both headers with one number."""
    return vhdx.with_headers(vhdx.fresh(2 * MIB), sequence_number=7)


def _vpc(**fields: int) -> Callable[[], bytes]:
    def make() -> bytes:
        data = _fresh("vpc")
        header = sealed_vpc(DynamicHeader.unpack(data[512:1536]).replace(**fields))
        return data[:512] + header + data[1536:]

    return make


def _vpc_footer(**fields: int | bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        data = _fresh("vpc")
        footer = sealed_vpc(Footer.unpack(data[:512]).replace(**fields))
        return footer + data[512:-512] + footer

    return make


def _vmdk(**fields: int) -> Callable[[], bytes]:
    def make() -> bytes:
        data = vmdk.create(MIB)
        return SparseHeader.unpack(data).replace(**fields).pack() + data[SparseHeader.SIZE :]

    return make


def _extents() -> bytes:
    """So many extents in one file that opening them takes long."""
    return vmdk.descriptor("vmfs", *['RW 1 VMFS "x"'] * 1025).encode()


_MOST: Final = 0xFFFFFFFF
_ODD: Final = 0x1234567890ABCDEF
_WHERE_IT_GROWS: Final = ("check -f", "--add", "write", "snapshot -c")
_IN_SNAPSHOT: Final = ("check -f", "snapshot -a one", "snapshot -d one")
CORPUS: Final = (
    # qcow2
    Case("CVE-2014-0143 snapshots", "qcow2", _qcow2(snapshots=_MOST), "Snapshot table too large", checks=True),
    Case("iotest 080 snapshots", "qcow2", _place("nb_snapshots", _MOST), "Snapshot table too large", mends=True),
    Case("CVE-2014-0143 refcount table", "qcow2", _qcow2(refcount_clusters=_MOST), "too large"),
    Case("CVE-2014-0144 cluster bits", "qcow2", _qcow2(cluster_bits=64), "luster size"),
    Case("CVE-2014-0144 L1 size", "qcow2", _qcow2(l1_size=_MOST), "L1 table"),
    Case("CVE-2014-0144 L1 offset", "qcow2", _qcow2(l1_offset=_ODD), "L1 table offset"),
    Case("CVE-2014-0144 refcount offset", "qcow2", _qcow2(refcount_offset=_ODD), "count table offset"),
    Case("CVE-2014-0144 backing name", "qcow2", _qcow2(backing_offset=512, backing_size=_MOST), "acking file"),
    Case("CVE-2014-0144 header length", "qcow2", _qcow2(header_length=_MOST), "eader"),
    Case("CVE-2014-0145 snapshot's L1 size", "qcow2", _place("snapshot L1 size", _MOST), fails=_IN_SNAPSHOT),
    Case("CVE-2014-0146 snapshots' offset", "qcow2", _place("snapshots_offset", 1 << 63), "napshot"),
    Case("CVE-2014-0147 snapshot's L1 offset", "qcow2", _place("snapshot L1 offset", _ODD), fails=_IN_SNAPSHOT),
    Case("multipass 2321 extra data", "qcow2", _place("snapshot extra data", _MOST), "napshot", mends=True),
    Case("QEMU-GL 3516 bitmap without a name", "qcow2", _bitmap(name_length=0), "satisfy the constraints", mends=True),
    Case("QEMU-GL 3516 bitmap's table", "qcow2", _bitmap(table_size=_MOST), "satisfy the constraints", mends=True),
    Case("QEMU-GL 3516 stale directory", "qcow2", _stale_directory, "More bitmaps found", mends=True),
    Case("iotest 080 snapshot's id", "qcow2", _place("snapshot id length", _MOST), "beyond the end", mends=True),
    Case("iotest 080 L1 table of none", "qcow2", _place("l1_size", 0), "L1 table is too small"),
    Case("CH 8261 backing name outside", "qcow2", _qcow2(backing_offset=0x20000, backing_size=10), "acking file"),
    Case("CH 8679 refcount table", "qcow2", _qcow2(refcount_clusters=1 << 20), "too large"),
    Case("commit 6bf45d59 cluster 0 is free", "qcow2", _allocates_the_header, fails=_WHERE_IT_GROWS),
    Case("iotest 080 L2 entry", "qcow2", _place("L2 entry", _ODD >> 2), fails=("check -f", "convert", "write")),
    Case("iotest 080 extension", "qcow2", lambda: hostile.images()["extension-max"], "eader extension"),
    Case("GHSA-m674 virtual size", "qcow2", lambda: qcow2.create(1 << 46, {"cluster_size": 2 * MIB})),
    # qcow, qed
    Case("CVE-2014-0222 L2 bits", "qcow", _with("qcow", QcowHeader, l2_bits=255), "L2 table size"),
    Case("CVE-2014-0223 size", "qcow", _with("qcow", QcowHeader, size=2**64 - 512), "too large"),
    Case("qed table size", "qed", _with("qed", QedHeader, table_size=_MOST), "table size"),
    Case("qed L1 offset", "qed", _with("qed", QedHeader, l1_table_offset=2**64 - 4096), "table offset"),
    # parallels
    Case("CVE-2014-0142 tracks", "parallels", _with("parallels", ParallelsHeader, tracks=0), "Zero sectors per track"),
    Case("iotest 076 tracks", "parallels", _with("parallels", ParallelsHeader, tracks=_MOST), "Too big cluster"),
    Case("CVE-2014-0143 catalog", "parallels", _with("parallels", ParallelsHeader, bat_entries=_MOST), "Catalog too"),
    Case("iotest 076 sectors", "parallels", _with("parallels", ParallelsHeader, nb_sectors=2**64 - 1), "too big"),
    Case("QEMU 4156 extension", "parallels", _parallels_extension, fails=("check -f", "convert")),
    # read only formats
    Case("CVE-2014-0142 extent size", "bochs", _bochs(0x50, "<I", 0), "xtent"),
    Case("CVE-2014-0143 catalog", "bochs", _bochs(0x48, "<I", _MOST), "atalog"),
    Case("CVE-2014-0147 disk size", "bochs", _bochs(0x58, "<Q", 1 << 63), "size"),
    Case("CVE-2014-0144 block size", "cloop", _cloop(block_size=_MOST), "block_size"),
    Case("CVE-2014-0144 block size 0", "cloop", _cloop(block_size=0), "block_size"),
    Case("CVE-2014-0143 blocks", "cloop", _cloop(blocks=_MOST), "locks"),
    Case("CVE-2014-0144 offsets", "cloop", _cloop(offset=1 << 60), "invalid compressed block size"),
    Case("CVE-2014-0145 sector count", "dmg", _dmg(dmg.ZLIB, 1 << 40, 100), "sector"),
    Case("CVE-2014-0145 length", "dmg", _dmg(dmg.ZLIB, 4, 1 << 40), "length"),
    Case("QEMU-GL 3846 raw chunk", "dmg", _dmg(dmg.RAW, 4, 100), fails=("convert", " dd ", "read")),
    # vhdx
    Case("CVE-2014-0148 block size", "vhdx", _vhdx_item(0, 0, 4), "block size"),
    Case("CVE-2014-0148 sector size", "vhdx", _vhdx_item(3, 0, 4), "sector size"),
    Case("CVE-2014-0148 huge blocks", "vhdx", _vhdx_item(0, _MOST, 4), "block size"),
    Case("CVE-2014-0148 huge sectors", "vhdx", _vhdx_item(3, _MOST, 4), "sector size"),
    Case("QEMU-GL 4470 over 64 TiB", "vhdx", _vhdx_item(1, (64 << 40) + 512, 8), "disk size"),
    Case("QEMU-GL 4033 size", "vhdx", _vhdx_item(1, ((1 << 32) + 25) * MIB, 8), "disk size"),
    Case("QEMU-GL 3860 descriptors", "vhdx", _vhdx_log),
    Case("Disk2VHD headers", "vhdx", _same_headers),
    # the others
    Case("vdi blocks", "vdi", _with("vdi", VdiHeader, blocks_in_image=_MOST), "block"),
    Case("vdi block size", "vdi", _with("vdi", VdiHeader, block_size=0), "block size"),
    Case("vpc block size", "vpc", _vpc(block_size=0), "Invalid block size"),
    Case("vpc entries", "vpc", _vpc(max_table_entries=_MOST), "Max Table Entries too large"),
    Case("vpc size", "vpc", _vpc_footer(current_size=1 << 62, creator_app=b"qem2"), "sectors"),
    Case("vmdk granularity", "vmdk", _vmdk(granularity=_MOST), "granularity"),
    Case("vmdk table entries", "vmdk", _vmdk(table_entries=_MOST), "L2 table size too big"),
    Case("vmdk capacity", "vmdk", _vmdk(capacity=1 << 62), "too"),
    Case("vmdk extents", "vmdk", _extents, "extents lie in"),
)  # fmt: skip
