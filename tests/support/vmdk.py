"""VMware disks for tests: sparse ones in memory, and the kinds of ESX that no tool here makes, by their layouts."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.composing import Surroundings
from hostel.block.driver import OpenMode
from hostel.block.formats.vmdk.driver import VmdkDriver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.trust import Trust
from hostel.errors import BlockError
from support import images
from support.memory import MemoryDriver

SECTOR = 512
GRAIN = 65536
SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")


class Files(Surroundings):
    """Files in memory beside a new disk; ``parent`` is what its options name as backing file."""

    def __init__(self, parent: BlockNode | None = None) -> None:
        self.made: dict[str, MemoryDriver] = {}
        self.parent = parent

    def new_file(self, name: str) -> BlockNode:
        """Create a file in memory."""
        self.made[name] = MemoryDriver()
        return BlockNode(self.made[name], name, read_only=False)

    def backing(self) -> BlockNode:
        """The parent."""
        assert self.parent is not None
        return self.parent.share()


def create(
    size: int,
    options: Mapping[str, Value] | None = None,
    *,
    name: str = "disk.vmdk",
    around: Surroundings | None = None,
) -> bytes:
    """The bytes of a fresh disk's first file."""
    driver = MemoryDriver()
    file = BlockNode(driver, name, read_only=False)
    VmdkDriver.compose(file, size, options or {}, around or Surroundings())
    return bytes(driver.data)


def attach(driver: MemoryDriver, *, read_only: bool = False, check: bool = False) -> BlockNode:
    """Open a disk that lies in one file."""
    mode = OpenMode(read_only=read_only, check=check)
    opened = VmdkDriver.open(BlockNode(driver, "disk.vmdk", read_only=read_only), mode)
    return BlockNode(opened, "disk.vmdk", read_only=read_only)


def descriptor(
    create_type: str, *lines: str, cid: str = "12345678", parent_cid: str = "ffffffff", hint: str = ""
) -> str:
    """A descriptor with extents."""
    parent = f'parentFileNameHint="{hint}"\n' if hint else ""
    return (
        f"# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent_cid}\n"
        f'createType="{create_type}"\n{parent}\n# Extent description\n' + "".join(f"{line}\n" for line in lines)
    )


def cowd(capacity: int, grains: Mapping[int, bytes], *, granularity: int = 8) -> bytes:
    """A COWD extent of ``capacity`` sectors; grains by their number."""
    reach = 4096 * granularity
    tables = -(-capacity // reach)
    directory = 4
    first = directory + -(-tables * 4 // SECTOR)
    used = sorted({number // 4096 for number in grains})
    places = {index: first + at * 32 for at, index in enumerate(used)}
    data = bytearray((first + 32 * len(used)) * SECTOR)
    struct.pack_into("<4s10I", data, 0, b"COWD", 1, 3, capacity, granularity, directory, tables, 0, 1, 1, 1)
    for index, place in places.items():
        struct.pack_into("<I", data, directory * SECTOR + index * 4, place)
    for number, grain in sorted(grains.items()):
        at = places[number // 4096] * SECTOR + number % 4096 * 4
        struct.pack_into("<I", data, at, len(data) // SECTOR)
        data += grain.ljust(granularity * SECTOR, b"\0")
    return bytes(data)


def sesparse(capacity: int, grains: Mapping[int, bytes | None], **fields: int) -> bytes:
    """An seSparse extent of ``capacity`` sectors; grains by their number, None for one of zeroes.

    ``fields`` replace words of the constant header, by ``word<N>``.
    """
    tables = -(-capacity // (4096 * 8))
    directory_sectors = -(-tables * 8 // SECTOR)
    directory, table_start = 2, 2 + directory_sectors
    used = sorted({number // 4096 for number in grains})
    grains_start = -(-(table_start + 64 * len(used)) // 8) * 8
    words = [0xCAFEBABE, 0x200000001, capacity, 8, 64, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, directory, directory_sectors]
    words += [table_start, 64 * len(used), 0, 0, 0, 0, grains_start, 0]
    for name, value in fields.items():
        words[int(name.removeprefix("word"))] = value
    data = bytearray(grains_start * SECTOR)
    struct.pack_into("<26Q", data, 0, *words)
    struct.pack_into("<4Q", data, SECTOR, 0xCAFECAFE, 0, 0, 0)
    for at, index in enumerate(used):
        struct.pack_into("<Q", data, directory * SECTOR + index * 8, 0x1000000000000000 | at)
    count = 0
    for number, grain in sorted(grains.items()):
        at = (table_start + used.index(number // 4096) * 64) * SECTOR + number % 4096 * 8
        if grain is None:
            struct.pack_into("<Q", data, at, 0x2000000000000000)
            continue
        struct.pack_into("<Q", data, at, 0x3000000000000000 | (count & 0xFFF) << 48 | count >> 12)
        data += grain.ljust(4096, b"\0")
        count += 1
    return bytes(data)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files by their names."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def make(path: Path, size: int, options: str = "", backing: Path | None = None) -> None:
    """Create an empty disk."""
    images.make(path, size, format="vmdk", options=options, backing=backing, backing_format="vmdk")


def opened(path: Path, *, read_only: bool = True, trust: Trust = Trust.TRUSTED) -> BlockNode:
    """Open the disk that a descriptor or a sparse file is of."""
    return graph.open(str(path), "vmdk", read_only=read_only, trust=trust)


def refusal(path: Path, *, read_only: bool = True) -> str:
    """What is said to who opens a disk that is refused."""
    with pytest.raises(BlockError) as caught:
        opened(path, read_only=read_only)
    return str(caught.value)


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    """The bytes with numbers of the forms of :mod:`struct` in them, the lowest byte first."""
    changed = bytearray(data)
    struct.pack_into("<" + form, changed, offset, *values)
    return bytes(changed)


def directories(data: bytes | bytearray) -> tuple[int, int]:
    """Where the redundant and the other grain directory are, bytes."""
    rgd, gd = struct.unpack_from("<2Q", data, 48)
    return rgd * SECTOR, gd * SECTOR
