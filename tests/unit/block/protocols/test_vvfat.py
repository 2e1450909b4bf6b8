"""The protocol vvfat: a directory read as a disk by a reader of the test's own, and directories that are refused."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.protocols.vvfat import names, tree
from hostel.block.protocols.vvfat.volume import geometry
from hostel.errors import BlockError, HostelError, InvalidImage, ReadOnly
from support.descriptors import descriptors

RANDOM = random.Random("vvfat")
KINDS = ["", "12:", "16:", "32:", "floppy:", "floppy:12:", "floppy:16:"]
FILES = {
    "README.TXT": b"hello\n",
    "a long name, with blanks.tar.gz": RANDOM.randbytes(100_001),
    "empty": b"",
    "sub/deep/ünïcode ☃.dat": RANDOM.randbytes(8192),
    "sub/deep/.hidden": b"x",
    "sub/one cluster more": RANDOM.randbytes(8193),
    **{f"many/file number {number}": str(number).encode() for number in range(120)},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for name, data in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


class Reader:
    """A FAT file system, read by the specification."""

    def __init__(self, node: BlockNode) -> None:
        self.node = node
        start = 0
        if bytes(node.read(0, 1)) not in (b"\xeb", b"\xe9"):
            start = struct.unpack("<I", node.read(446 + 8, 4))[0] * 512
        boot = bytes(node.read(start, 512))
        size, self.unit, reserved, tables, roots, total16 = struct.unpack_from("<HBHBHH", boot, 11)
        total = total16 or struct.unpack_from("<I", boot, 32)[0]
        table = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
        assert (size, tables, boot[510:]) == (512, 2, b"\x55\xaa")
        first = reserved + 2 * table + roots * 32 // 512
        self.clusters = (total - first) // self.unit
        # The number of clusters is what tells the type, and nothing else.
        self.bits = 12 if self.clusters < 4085 else 16 if self.clusters < 65525 else 32
        self.data = start + first * 512
        self.tables = [bytes(node.read(start + (reserved + copy * table) * 512, table * 512)) for copy in (0, 1)]
        assert self.tables[0] == self.tables[1]
        if roots:
            self.root = bytes(node.read(start + (reserved + 2 * table) * 512, roots * 32))
        else:
            self.root = self.chain(struct.unpack_from("<I", boot, 44)[0])

    def following(self, cluster: int) -> int:
        table = self.tables[0]
        if self.bits == 12:
            both = int.from_bytes(table[cluster * 3 // 2 :][:2], "little")
            return both >> 4 if cluster & 1 else both & 0xFFF
        width = self.bits // 8
        return int.from_bytes(table[cluster * width :][:width], "little")

    def chain(self, cluster: int) -> bytes:
        found = b""
        while cluster < (1 << min(self.bits, 28)) - 8:
            assert 2 <= cluster < self.clusters + 2
            found += self.node.read(self.data + (cluster - 2) * self.unit * 512, self.unit * 512)
            cluster = self.following(cluster)
        return found

    def walk(self, directory: bytes, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        parts: list[bytes] = []
        for at in range(0, len(directory), 32):
            entry = directory[at : at + 32]
            if not entry[0]:
                break
            if entry[11] == 15:
                parts.insert(0, entry[1:11] + entry[14:26] + entry[28:32])
                total = 0
                for byte in next(d for d in self.shorts(directory, at)):
                    total = ((total & 1) * 128 + (total >> 1) + byte) % 256
                assert entry[13] == total
                continue
            if entry[11] & 8 or entry[:1] == b".":
                parts = []
                continue
            long = b"".join(parts).decode("utf-16-le").rstrip("\uffff").rstrip("\0")
            name, parts = prefix + (long or names.shown(entry[:11])), []
            high, low, size = *struct.unpack_from("<H", entry, 20), *struct.unpack_from("<HI", entry, 26)
            cluster = high << 16 | low
            if entry[11] & 16:
                yield from self.walk(self.chain(cluster), f"{name}/")
            else:
                yield name, self.chain(cluster)[:size] if cluster else b""

    @staticmethod
    def shorts(directory: bytes, at: int) -> Iterator[bytes]:
        while directory[at + 11] == 15:
            at += 32
        yield directory[at : at + 11]


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_read_on_every_kind_of_disk(folder: Path, kind: str) -> None:
    with graph.open(f"fat:{kind}{folder}") as node:
        reader = Reader(node)
        wanted = next((int(bits) for bits in ("12", "16", "32") if bits in kind), 12 if "floppy" in kind else 16)
        assert reader.bits == wanted
        assert dict(reader.walk(reader.root)) == FILES


@pytest.mark.parametrize("kind", ["floppy:", "floppy:16:"])
def test_any_range_can_be_read(folder: Path, kind: str) -> None:
    with graph.open(f"fat:{kind}{folder}") as node:
        whole = node.read(0, node.length)
        for _ in range(300):
            start = RANDOM.randrange(node.length)
            length = RANDOM.randrange(1, min(200_000, node.length - start + 1))
            assert node.read(start, length) == whole[start : start + length]


def test_parts_of_the_tables_of_fat32_are_those_of_the_whole(folder: Path) -> None:
    with graph.open(f"fat:32:{folder}") as node:
        start = (63 + 32) * 512
        whole = node.read(start, 40_000)
        for _ in range(200):
            first, length = RANDOM.randrange(3000), RANDOM.randrange(1, 3000)
            assert node.read(start + first, length) == whole[first : first + length]


def test_what_lies_behind_the_last_file_is_zeroes_and_said_to_be(folder: Path) -> None:
    with graph.open(f"fat:{folder}") as node:
        data, zero = node.extents()
        assert (data.status, zero.status) == (Status.DATA | Status.ALLOCATED, Status.ZERO | Status.ALLOCATED)
        assert data.length + zero.length == node.length
        assert not any(node.read(zero.offset, 1 << 20))
        assert not any(node.read(node.length - (1 << 20), 1 << 20))


def test_the_same_directory_is_the_same_disk(folder: Path) -> None:
    found = []
    for _ in range(2):
        with graph.open(f"fat:floppy:{folder}") as node:
            found.append(node.read(0, node.length))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fat:dir", {}),
        ("fat:floppy:dir", {"floppy": True}),
        ("fat:floppy:12:rw:dir", {"floppy": True, "fat-type": 12, "rw": True}),
        ("fat:32:floppy:dir", {"floppy": True, "fat-type": 32}),
        ("fat:dir:with:colons", {"dir": "dir:with:colons"}),
        ("fat:./12:dir", {"dir": "./12:dir"}),
    ],
)
def test_names_are_taken_apart(name: str, options: dict[str, object]) -> None:
    from hostel.block.protocols.vvfat.driver import VvfatDriver

    expected = {"fat-type": 0, "dir": "dir", "floppy": False, "rw": False} | options
    assert VvfatDriver.parse_filename(name) == expected


def test_a_label_can_be_chosen(folder: Path) -> None:
    options = f'{{"driver": "vvfat", "dir": "{folder}", "floppy": true, "label": "MINE"}}'
    with graph.open(f"json:{options}") as node:
        assert node.read(43, 11) == b"MINE       "
        assert Reader(node).root[:12] == b"MINE       \x28"


def test_a_large_directory_gets_a_large_disk_of_fat32(tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate((4 << 30) - 1)
            stream.seek(3 << 30)
            stream.write(name.encode())
    with graph.open(f"fat:32:{tmp_path}") as node:
        assert node.length > 12 << 30
        reader = Reader(node)
        assert reader.bits == 32
        cluster = (
            struct.unpack_from("<H", reader.root, 64 + 26)[0] | struct.unpack_from("<H", reader.root, 64 + 20)[0] << 16
        )
        assert node.read(reader.data + (cluster - 2) * reader.unit * 512 + (3 << 30), 1) == b"B"
    with pytest.raises(InvalidImage, match=r"Directory does not fit in FAT16 \(capacity 516\.06 MB\)"):
        graph.open(f"fat:{tmp_path}")


# ---- files that change


def test_a_file_that_changes_is_an_error_and_no_mixture(folder: Path) -> None:
    path = folder / "README.TXT"
    for change in ("grown", "shrunk", "rewritten", "replaced", "a link", "a pipe", "gone"):
        path.unlink(missing_ok=True)
        path.write_bytes(b"hello\n")
        with graph.open(f"fat:floppy:{folder}") as node:
            used = next(node.extents()).length
            assert b"hello\n" in node.read(0, used)
            node.driver.close()  # forget the descriptor, or keep it: both must notice
            if change in ("replaced", "a link", "a pipe", "gone"):
                path.unlink()
            if change == "a link":
                path.symlink_to("/etc/passwd")
            elif change == "a pipe":
                os.mkfifo(path)
            elif change != "gone":
                path.write_bytes({"grown": b"hello\nmore", "shrunk": b"he"}.get(change, b"HELLO\n"))
                os.utime(path, ns=(1, 1))
            with pytest.raises(BlockError, match=r"README\.TXT' was changed while it is shown"):
                node.read(0, used)


def test_an_open_file_that_changes_is_an_error_too(folder: Path) -> None:
    with graph.open(f"fat:floppy:{folder}") as node:
        used = next(node.extents()).length
        node.read(0, used)
        for path in folder.rglob("*"):
            if path.is_file():
                os.utime(path, ns=(1, 1))
        with pytest.raises(BlockError, match="was changed while it is shown"):
            node.read(0, used)


def test_few_descriptors_are_held_whatever_is_read(folder: Path) -> None:
    before = descriptors()
    with graph.open(f"fat:floppy:{folder}") as node:
        node.read(0, node.length)
        assert len(descriptors() - before) <= 17
    assert descriptors() <= before


# ---- what is refused


def test_writing_is_refused_unless_it_is_asked_for(folder: Path) -> None:
    with pytest.raises(ReadOnly, match=r"^Image is read-only$"):
        graph.open(f"fat:{folder}", "raw", read_only=False)
    with pytest.raises(BlockError, match="Unable to set VVFAT to 'rw' when drive is read-only"):
        graph.open(f"fat:rw:{folder}", "raw")


def test_options_that_make_no_sense_are_refused(folder: Path) -> None:
    for options, message in (
        ('"dir": "x", "nosuch": 1', "Block protocol 'vvfat' doesn't support the option 'nosuch'"),
        ('"floppy": true', "vvfat block driver requires a 'dir' option"),
        (f'"dir": "{folder}", "fat-type": 13', "Valid FAT types are only 12, 16 and 32"),
        (f'"dir": "{folder}", "fat-type": 32, "floppy": true', "A floppy is too small for FAT32"),
        (f'"dir": "{folder}", "label": "TWELVE CHARS"', "vvfat label cannot be longer than 11 bytes"),
        ('"dir": "/nowhere"', "Could not read directory /nowhere: No such file or directory"),
        (f'"dir": "{folder}/empty"', "Could not read directory .*/empty: Not a directory"),
        ('"dir": ""', "Could not read directory : No such file"),
    ):
        with pytest.raises(HostelError, match=message):
            graph.open(f'json:{{"driver": "vvfat", {options}}}')


HOSTILE_NAMES = {
    b"a:b": "holds ':'",
    b"a\\b": r"holds '\\\\'",
    b"new\nline": r"holds '\\n'",
    b"star*": r"holds '\*'",
    b"\xff\xfe": "is no UTF-8",
    b"dot.": "ends with a dot or a blank",
    b"blank ": "ends with a dot or a blank",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_fat_has_not_are_refused(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "sub").mkdir()
    with open(os.fsencode(tmp_path / "sub") + b"/" + name, "wb"):
        pass
    with pytest.raises(InvalidImage, match=HOSTILE_NAMES[name]):
        graph.open(f"fat:{tmp_path}")


def test_names_that_are_one_for_fat_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Straße").touch()
    (tmp_path / "STRAßE").touch()
    with pytest.raises(InvalidImage, match="are one name for FAT"):
        graph.open(f"fat:{tmp_path}")


def test_a_name_too_long_is_refused() -> None:
    names.check("x" * 255, "x")
    with pytest.raises(InvalidImage, match="has 256 characters; FAT has 255 at most"):
        names.check("\U0001f600" * 128, "x")


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "..", ".", "nowhere", "file"])
def test_links_are_not_followed_wherever_they_lead(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(InvalidImage, match="link' is a symbolic link"):
        graph.open(f"fat:{tmp_path}")


def test_the_directory_itself_may_be_named_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with graph.open(f"fat:floppy:{tmp_path / 'link'}") as node:
        assert Reader(node).bits == 12


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidImage, match="pipe' is neither a file nor a directory"):
        graph.open(f"fat:{tmp_path}")


def test_a_file_of_four_gigabytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(4 << 30)
    with pytest.raises(InvalidImage, match="a file on FAT has 4 GiB less one at most"):
        graph.open(f"fat:32:{tmp_path}")


def test_directories_in_each_other_have_an_end(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(101):
        path /= "d"
        path.mkdir()
    with pytest.raises(InvalidImage, match="lies below more than 100 directories"):
        graph.open(f"fat:{tmp_path}")


def test_more_entries_than_the_first_directory_has_are_refused(tmp_path: Path) -> None:
    for number in range(511):
        (tmp_path / f"F{number}").touch()
    with graph.open(f"fat:{tmp_path}") as node:
        assert len(dict(Reader(node).walk(Reader(node).root))) == 511
    (tmp_path / "ONE").touch()
    with pytest.raises(InvalidImage, match="Too many entries in root directory: 513, and FAT16 has 512"):
        graph.open(f"fat:{tmp_path}")
    with graph.open(f"fat:32:{tmp_path}") as node:
        assert len(dict(Reader(node).walk(Reader(node).root))) == 512


def test_more_files_than_memory_should_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(11):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(tree, "MAX_FILES", 10)
    with pytest.raises(InvalidImage, match="holds more than 10 files"):
        graph.open(f"fat:{tmp_path}")
    monkeypatch.undo()
    monkeypatch.setattr(tree, "MAX_DIRECTORY", 10)
    with pytest.raises(InvalidImage, match="needs more than the 10 entries of a directory"):
        graph.open(f"fat:{tmp_path}")


# ---- names, times, sizes


def test_short_names_are_their_own_or_numbered() -> None:
    short = names.ShortNames()
    assert short.add("README.TXT") == b"README  TXT"
    assert short.add("readme.txt2") == b"README~1TXT"
    assert short.add("readme.txt3") == b"README~2TXT"
    assert short.add("a.tar.gz") == b"ATAR~1  GZ "
    assert short.add(".profile") == b"PROFIL~1   "
    assert short.add("日本") == b"~1         "
    assert short.add("README~1.TXT") == b"README~3TXT"
    assert names.long_entries("README.TXT", b"README  TXT") == b""
    assert len(names.long_entries("x" * 26, b"XXXXXX~1   ")) == 64
    assert len(names.long_entries("x" * 27, b"XXXXXX~1   ")) == 96


@pytest.mark.parametrize("moment", [-(1 << 40), 0, 315532800, 1 << 31, 1 << 33, 1 << 50])
def test_times_that_fat_has_not_become_some_that_it_has(moment: int) -> None:
    date, clock = tree._date(moment)
    assert 0 <= date >> 9 <= 127 and 1 <= date >> 5 & 15 <= 12 and 1 <= date & 31 <= 31
    assert clock >> 11 < 24 and clock >> 5 & 63 < 60 and clock & 31 < 30


def test_there_is_no_larger_disk_than_sectors_can_count() -> None:
    with pytest.raises(InvalidImage, match="does not fit a disk of 2 TiB"):
        geometry(32, floppy=False, needed=1 << 41)
    layout = geometry(32, floppy=False, needed=2000 << 30)
    assert layout.unit == 64 and layout.clusters * 64 * 512 > 2000 << 30
    assert layout.table * 512 >= (layout.clusters + 2) * 4
