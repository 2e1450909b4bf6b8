"""What is on a disk, told from fixed places near its start: a partition table, a file system, a container.

Signatures and a few plausible fields, nothing more: no table is walked further than its first kilobytes, and what is
found is a name to show. Layouts: UEFI 2.10 chapter 5 (GPT, MBR), and each file system's own superblock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.units import INT64_MAX, SECTOR

# Reads ``length`` bytes at a byte offset; fewer where the disk ends.
Read = Callable[[int, int], bytes]

ISO_MAGIC: Final = (32769, b"CD001")  # where, and what

_START: Final = 68 * 1024  # bytes in which every signature lies; that of btrfs is the last
_BOOT: Final = b"\x55\xaa"
_ENTRIES: Final = 1024  # GPT entries that are looked at; 128 are usual
_ENTRY_SIZES: Final = (128, 256, 512)

# Names, offsets and bytes of what one signature tells; a longer or safer one stands before a shorter.
_SIGNATURES: Final[tuple[tuple[str, int, bytes], ...]] = (
    ("luks", 0, b"LUKS\xba\xbe"),
    ("xfs", 0, b"XFSB"),
    ("squashfs", 0, b"hsqs"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("vfat", 82, b"FAT32   "),
    ("vfat", 54, b"FAT16   "),
    ("vfat", 54, b"FAT12   "),
    ("swap", 4086, b"SWAPSPACE2"),
    ("swap", 4086, b"SWAP-SPACE"),
    ("iso9660", *ISO_MAGIC),
    ("btrfs", 65600, b"_BHRfS_M"),
)
_PACKED: Final[tuple[tuple[str, int, bytes], ...]] = (
    ("gzip", 0, b"\x1f\x8b\x08"),
    ("xz", 0, b"\xfd7zXZ\0"),
    ("bzip2", 0, b"BZh"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd"),
    ("zip", 0, b"PK\3\4"),
    ("tar", 257, b"ustar"),
)


class Content(NamedTuple):
    """What was found.

    Attributes:
        boot_signature: the first sector ends as a boot sector does, whether or not it has a partition table.
        table: ``mbr`` or ``gpt``; None without a partition table.
        partitions: how many the table lists, of an MBR without the logical ones.
        filesystem: what the disk itself begins with: a file system's name as ``mount`` has it, or ``luks``, ``lvm2``,
            ``swap``; None where nothing is recognised.
        first_filesystem: the same of the first partition.
        packed: the compression or archive format of what is no disk at all.
    """

    boot_signature: bool = False
    table: str | None = None
    partitions: int = 0
    filesystem: str | None = None
    first_filesystem: str | None = None
    packed: str | None = None

    def names(self) -> list[str]:
        """What the first bytes can be taken for."""
        found = [name for name in (self.table, self.filesystem, self.packed) if name is not None]
        return found if self.table or not self.boot_signature else ["a boot sector", *found]


def look(read: Read) -> Content:
    """Look at a disk that ``read`` gives the bytes of.

    Raises:
        OSError: what ``read`` raises.
    """
    head = read(0, _START)
    filesystem = _filesystem(head)
    packed = next((name for name, offset, magic in _PACKED if _at(head, offset, magic)), None)
    boot = _at(head, SECTOR - 2, _BOOT)
    if (gpt := _gpt(read, head)) is not None:
        table, starts = "gpt", gpt
    elif boot and filesystem not in ("vfat", "ntfs", "exfat") and (starts := _mbr(head)):
        table = "mbr"
    else:
        return Content(boot, filesystem=filesystem, packed=packed)
    first = _filesystem(read(min(starts), _START)) if starts else None
    return Content(boot, table, len(starts), filesystem, first, packed)


def _at(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset : offset + len(magic)] == magic


def _number(data: bytes, offset: int, length: int) -> int:
    return int.from_bytes(data[offset : offset + length], "little")


def _filesystem(head: bytes) -> str | None:
    for name, offset, magic in _SIGNATURES:
        if _at(head, offset, magic):
            return name
    for sector in range(0, 4 * SECTOR, SECTOR):
        if _at(head, sector, b"LABELONE") and _at(head, sector + 24, b"LVM2 001"):
            return "lvm2"
    return _ext(head[1024:2048])


def _ext(block: bytes) -> str | None:
    """Name the second to fourth extended file system: their magic has two bytes only, so more must make sense."""
    if len(block) < 1024 or not _at(block, 56, b"\x53\xef"):
        return None
    inodes, blocks, log_block_size = _number(block, 0, 4), _number(block, 4, 4), _number(block, 24, 4)
    state, revision = _number(block, 58, 2), _number(block, 76, 4)
    if not inodes or not blocks or log_block_size > 6 or state > 7 or revision > 1:
        return None
    compatible, incompatible = _number(block, 92, 4), _number(block, 96, 4)
    if revision and incompatible & 0x2C0:  # extents, 64 bits, flexible groups
        return "ext4"
    return "ext3" if revision and compatible & 4 else "ext2"


def _mbr(head: bytes) -> list[int]:
    """Where the primary partitions start, in bytes; empty where this is no partition table."""
    starts = []
    for place in range(446, 510, 16):
        if head[place] not in (0, 0x80):
            return []
        start, count = _number(head, place + 8, 4), _number(head, place + 12, 4)
        if head[place + 4] and start and count:
            starts.append(start * SECTOR)
    return starts


def _gpt(read: Read, head: bytes) -> list[int] | None:
    """Where the partitions start, in bytes; None where there is no GPT. Sectors may have 512 or 4096 bytes."""
    for sector in (512, 4096):
        if not _at(head, sector, b"EFI PART"):
            continue
        place = _number(head, sector + 72, 8) * sector
        count, size = _number(head, sector + 80, 4), _number(head, sector + 84, 4)
        if size not in _ENTRY_SIZES or place > INT64_MAX - _START:
            return []
        entries = read(place, min(count, _ENTRIES) * size)
        starts = [
            _number(entries, at + 32, 8) * sector
            for at in range(0, len(entries) - size + 1, size)
            if any(entries[at : at + 16])
        ]
        return [start for start in starts if start <= INT64_MAX - _START]
    return None
