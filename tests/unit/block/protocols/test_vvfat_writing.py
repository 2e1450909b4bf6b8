"""The protocol vvfat, written: what the guest may do to the directory, and what nobody may."""

from __future__ import annotations

import os
import random
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import graph, notice
from hostel.block.node import BlockNode
from hostel.block.protocols.vvfat import writing
from hostel.errors import BlockError, ImageLocked
from support.descriptors import descriptors
from support.fat import DIRECTORY, SLOT, Guest

SECTOR = 512
KINDS = ["floppy:", "12:", "16:", "32:"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with files; what is kept of broken disks lies beside it."""
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "README.TXT").write_bytes(b"hello\n")
    (top / "sub/a long name").write_bytes(bytes(range(256)) * 100)
    return top


def opened(folder: Path, kind: str = "floppy:") -> BlockNode:
    """The directory as a disk that may be written."""
    return graph.open(f"fat:{kind}rw:{folder}", "raw", read_only=False)


@pytest.fixture
def disk(folder: Path) -> Iterator[tuple[BlockNode, Guest]]:
    """The disk, and who writes it."""
    with opened(folder) as node:
        yield node, Guest(node, random.Random(1))


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Everything that lies in a directory: files, directories and where links lead."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


# ---- when it lands


@pytest.mark.parametrize("kind", KINDS)
def test_a_flush_brings_files_into_the_directory(folder: Path, kind: str) -> None:
    with opened(folder, kind) as node:
        guest = Guest(node, random.Random(1))
        guest.mkdir("new")
        guest.create("new/some file.dat", b"data" * 5000)
        guest.write_back()
        assert (folder / "new/some file.dat").read_bytes() == b"data" * 5000


def test_without_a_flush_it_lands_after_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_PATIENCE", 0.0)
    monkeypatch.setattr(writing, "_SHARE", 0)
    with opened(folder) as node:
        guest = Guest(node, random.Random(1))
        guest.create("file", b"x")
        for number, sector in guest.staged.items():
            node.pwrite(number * SECTOR, sector)
        assert (folder / "file").read_bytes() == b"x"


def test_files_of_an_unfinished_change_wait_for_its_end(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    node, guest = disk
    guest.create("file", b"x" * 20_000)
    sectors = guest.staged
    tables = {number: data for number, data in sectors.items() if number < guest.root}
    before = contents(folder)
    for number, data in sectors.items():
        if number not in tables:
            node.pwrite(number * SECTOR, data)
    node.flush()
    assert contents(folder) == before  # its entry leads to clusters that the table calls free
    for number, data in tables.items():
        node.pwrite(number * SECTOR, data)
    node.flush()
    assert (folder / "file").read_bytes() == b"x" * 20_000


def test_the_time_of_an_entry_is_the_files(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    guest = disk[1]
    guest.create("file", b"x")
    guest.write_back()
    assert time.localtime((folder / "file").stat().st_mtime)[:6] == (2025, 1, 1, 12, 0, 0)


def test_any_bytes_can_be_written_and_are_read_again(disk: tuple[BlockNode, Guest]) -> None:
    node, guest = disk
    rng = random.Random(2)
    start, length = guest.place(20), 40 * guest.cluster_size
    shadow = bytearray(node.read(start, length))
    for _ in range(100):
        at = rng.randrange(length - 3000)
        data = rng.randbytes(rng.randrange(1, 3000))
        node.pwrite(start + at, data)
        shadow[at : at + len(data)] = data
        low = rng.randrange(length)
        assert node.read(start + low, length - low) == shadow[low:]
    assert sum(extent.length for extent in node.extents()) == node.length


# ---- which file it is


def test_a_file_that_is_changed_stays_the_file_it_is(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    path, guest = folder / "sub/a long name", disk[1]
    path.chmod(0o640)
    before = path.stat()
    guest.modify("sub/a long name", 100, b"changed")
    guest.modify("sub/a long name", 30_000, b"longer")
    guest.write_back()
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, 30_006)
    guest.rename("sub/a long name", "elsewhere")
    guest.write_back()
    assert (folder / "elsewhere").stat().st_ino == before.st_ino


def test_a_file_that_only_gets_another_time_stays_the_file_it_is(folder: Path) -> None:
    (folder / "empty").touch()
    outside = folder.parent / "outside"
    outside.hardlink_to(folder / "README.TXT")
    before = [(folder / name).stat() for name in ("empty", "README.TXT")]
    with opened(folder) as node:
        guest = Guest(node, random.Random(1))
        for name in ("empty", "README.TXT"):
            directory, _, at = guest.find(name)
            slots = guest.slots(directory)
            slots[at + 22 : at + 26] = (0x6000 | 0x5A21 << 16).to_bytes(4, "little")
            guest.store(directory, slots)
        guest.write_back()
    after = [(folder / name).stat() for name in ("empty", "README.TXT")]
    assert [found.st_ino for found in after] == [found.st_ino for found in before]
    assert {time.localtime(found.st_mtime)[:6] for found in after} == {(2025, 1, 1, 12, 0, 0)}


def test_a_file_whose_content_is_new_keeps_its_mode(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    guest = disk[1]
    (folder / "README.TXT").chmod(0o600)
    guest.free(guest.erase("README.TXT")[1])
    guest.create("README.TXT", b"all of it is new")
    guest.write_back()
    assert (folder / "README.TXT").read_bytes() == b"all of it is new"
    assert stat.S_IMODE((folder / "README.TXT").stat().st_mode) == 0o600


def test_another_name_of_a_file_outside_keeps_its_content(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.hardlink_to(folder / "README.TXT")
    with opened(folder) as node:
        guest = Guest(node, random.Random(1))
        guest.modify("README.TXT", 0, b"HELLO")
        guest.write_back()
        assert (folder / "README.TXT").read_bytes() == b"HELLO\n"
    assert outside.read_bytes() == b"hello\n"


def test_a_large_file_that_is_removed_can_still_be_read_from_the_disk(folder: Path) -> None:
    data = random.Random(3).randbytes(3 << 20)
    (folder / "large").write_bytes(data)
    with opened(folder, "16:") as node:
        guest = Guest(node, random.Random(1))
        cluster = guest.entry(*guest.find("large"))[1]
        guest.remove("large")
        guest.write_back()
        assert not (folder / "large").exists()
        assert node.read(guest.place(cluster), len(data)) == data


def test_a_file_without_write_permission_is_shown_as_one(folder: Path) -> None:
    (folder / "README.TXT").chmod(0o444)
    with opened(folder) as node:
        guest = Guest(node, random.Random(1))
        assert guest.entry(*guest.find("README.TXT"))[0] == 0x21


def test_one_process_writes_a_directory_at_a_time(folder: Path) -> None:
    with opened(folder), pytest.raises(ImageLocked, match="is written by somebody else"):
        opened(folder)
    opened(folder).close()


# ---- what others do in the directory meanwhile


def fails(node: BlockNode, guest: Guest, message: str) -> None:
    """Write back; that the directory cannot follow is told by the flush."""
    for number, sector in guest.staged.items():
        node.pwrite(number * SECTOR, sector)
    guest.staged.clear()
    with pytest.raises(BlockError, match=message):
        node.flush()


def test_a_file_that_somebody_else_changed_is_left_alone_and_no_other_is_kept_waiting(folder: Path) -> None:
    node = opened(folder)
    guest = Guest(node, random.Random(1))
    guest.modify("README.TXT", 0, b"HELLO")
    guest.create("another", b"gets through")
    (folder / "README.TXT").write_bytes(b"written on the host")
    fails(node, guest, r"README\.TXT' was changed while it is shown")
    assert (folder / "README.TXT").read_bytes() == b"written on the host"
    assert (folder / "another").read_bytes() == b"gets through"
    with pytest.raises(BlockError, match="does not have all that was written") as refusal:
        node.close()
    kept = Path(str(refusal.value.hint).split("'")[1])
    with graph.open(str(kept), "raw") as disk:
        reader = Guest(disk, random.Random(1))
        found = reader.get(reader.place(reader.entry(*reader.find("README.TXT"))[1]), 6)
    assert found == b"HELLO\n"


@pytest.mark.parametrize("what", ["removed", "renamed", "replaced"])
def test_a_file_that_somebody_else_changed_is_not_taken_away(folder: Path, what: str) -> None:
    node = opened(folder)
    guest = Guest(node, random.Random(1))
    (folder / "README.TXT").write_bytes(b"written on the host")
    if what == "removed":
        guest.remove("README.TXT")
    elif what == "renamed":
        guest.rename("README.TXT", "new name")
    else:
        guest.create("new", b"new content")
        guest.remove("README.TXT")
        guest.rename("new", "README.TXT")
    fails(node, guest, "was changed while it is shown")
    assert (folder / "README.TXT").read_bytes() == b"written on the host"
    with pytest.raises(BlockError):
        node.close()


def test_a_file_that_somebody_else_put_there_is_not_written_over(folder: Path) -> None:
    node = opened(folder)
    guest = Guest(node, random.Random(1))
    (folder / "new").write_bytes(b"of the host")
    guest.create("new", b"of the guest")
    guest.mkdir("other")
    (folder / "other").write_bytes(b"a file")
    fails(node, guest, "Could not write .*: File exists")
    assert (folder / "new").read_bytes() == b"of the host"
    (folder / "new").unlink()
    (folder / "other").unlink()
    node.flush()  # once there is room for them, they get there
    assert (folder / "new").read_bytes() == b"of the guest"
    assert (folder / "other").is_dir()
    node.close()


def test_a_directory_with_files_that_the_guest_has_not_seen_is_not_removed(folder: Path) -> None:
    node = opened(folder)
    guest = Guest(node, random.Random(1))
    (folder / "sub/unseen").write_bytes(b"of the host")
    guest.remove("sub/a long name")
    guest.remove("sub")
    fails(node, guest, "Directory not empty")
    assert (folder / "sub/unseen").read_bytes() == b"of the host"
    with pytest.raises(BlockError):
        node.close()


@pytest.mark.parametrize("where", ["file", "directory"])
def test_links_that_appear_lead_nowhere(folder: Path, where: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "a long name").write_bytes(b"not the guest's")
    node = opened(folder)
    guest = Guest(node, random.Random(1))
    guest.modify("sub/a long name", 0, b"attack")
    guest.create("sub/new", b"attack")
    if where == "file":
        (folder / "sub/a long name").unlink()
        (folder / "sub/a long name").symlink_to(outside / "a long name")
    else:
        (folder / "sub").rename(folder.parent / "sub")
        (folder / "sub").symlink_to(outside)
    fails(node, guest, "was changed while it is shown|Not a directory|Too many levels")
    assert contents(outside) == {"a long name": b"not the guest's"}
    with pytest.raises(BlockError):
        node.close()
    assert contents(outside) == {"a long name": b"not the guest's"}


def test_what_the_host_has_no_name_for_is_told(folder: Path) -> None:
    node = opened(folder)
    guest = Guest(node, random.Random(1))
    guest.create("☃" * 100, b"x")
    fails(node, guest, "File name too long")
    guest.rename("☃" * 100, "snowmen")
    guest.write_back()
    assert (folder / "snowmen").read_bytes() == b"x"
    node.close()


# ---- guests that mean no good


def name_slots(name: str, short: bytes = b"HOSTILE    ") -> bytes:
    """The entries of a long name of up to 13 characters, which is not looked at."""
    total = 0
    for byte in short:
        total = ((total >> 1 | (total & 1) << 7) + byte) & 0xFF
    units = (name.encode("utf-16-le", "surrogatepass") + b"\0\0").ljust(26, b"\xff")[:26]
    return bytes([0x41]) + units[:10] + bytes([15, 0, total]) + units[10:22] + b"\0\0" + units[22:]


def entry(name: bytes = b"HOSTILE    ", attributes: int = 0x20, cluster: int = 0, size: int = 0) -> bytes:
    """A short entry."""
    return struct.pack("<11sB8xHHHHI", name, attributes, cluster >> 16, 0x6000, 0x5A21, cluster & 0xFFFF, size)


def append(guest: Guest, slots: bytes) -> None:
    """Put entries at the end of the first directory."""
    found = guest.slots(0)
    at = next(at for at in range(0, len(found), SLOT) if not found[at])
    found[at : at + len(slots)] = slots
    guest.store(0, found)


def circle(guest: Guest) -> None:
    first, second = guest.allocate(2)
    guest.link(second, first)
    append(guest, entry(cluster=first, size=10))


def directory_in_itself(guest: Guest) -> None:
    _, cluster, _ = guest.entry(*guest.find("sub"))
    slots = guest.slots(cluster)
    at = next(at for at in range(0, len(slots), SLOT) if not slots[at])
    slots[at : at + SLOT] = entry(attributes=DIRECTORY, cluster=cluster)
    guest.store(cluster, bytes(slots))


def crossed(guest: Guest) -> None:
    _, cluster, size = guest.entry(*guest.find("sub/a long name"))
    append(guest, entry(cluster=cluster, size=size))


def crossed_behind_the_end(guest: Guest) -> None:
    _, cluster, _ = guest.entry(*guest.find("sub/a long name"))
    (own,) = guest.allocate(1)
    guest.link(own, cluster)
    append(guest, entry(cluster=own, size=1))


def stale_directory(guest: Guest) -> None:
    (cluster,) = guest.allocate(1)
    guest.put(guest.place(cluster), b"what was written there before".ljust(guest.cluster_size, b"!"))
    append(guest, entry(attributes=DIRECTORY, cluster=cluster))


def deep(guest: Guest) -> None:
    above = 0
    for _ in range(101):
        (cluster,) = guest.allocate(1)
        dots = entry(b".".ljust(11), DIRECTORY, cluster) + entry(b"..".ljust(11), DIRECTORY, above)
        guest.put(guest.place(cluster), dots.ljust(guest.cluster_size, b"\0"))
        slot = entry(attributes=DIRECTORY, cluster=cluster)
        if above:
            guest.put(guest.place(above) + 2 * SLOT, slot)
        else:
            append(guest, slot)
        above = cluster


HOSTILE: dict[str, tuple[Callable[[Guest], None], str]] = {
    "a chain in a circle": (circle, "has a cluster that is a part of something else as well, or comes twice"),
    "a directory in itself": (directory_in_itself, "is a part of something else as well"),
    "two files with one chain": (crossed, "is a part of something else as well"),
    "chains that meet behind the end": (crossed_behind_the_end, "is a part of something else as well"),
    "a cluster beyond the disk": (lambda guest: append(guest, entry(cluster=0xFEF, size=1)), "which the disk has not"),
    "the cluster before the first": (lambda guest: append(guest, entry(cluster=1, size=1)), "which the disk has not"),
    "no cluster": (lambda guest: append(guest, entry(size=1)), "which the disk has not"),
    "a free cluster": (lambda guest: append(guest, entry(cluster=300, size=1)), "which the disk has not"),
    "a size beyond the chain": (
        lambda guest: append(guest, entry(cluster=guest.allocate(1)[0], size=0xFFFFFFFF)),
        "has 4294967295 bytes, and fewer clusters",
    ),
    "a directory without a place": (lambda guest: append(guest, entry(attributes=DIRECTORY)), "which the disk has not"),
    "a directory that was not laid out": (stale_directory, "does not begin as a directory does"),
    "directories without end": (deep, "lies below more than 100 directories"),
    "..": (lambda guest: append(guest, name_slots("..") + entry()), "ends with a dot"),
    ".": (lambda guest: append(guest, name_slots(".") + entry()), "ends with a dot"),
    "../outside": (lambda guest: append(guest, name_slots("../outside") + entry()), "holds '/'"),
    "a/b": (lambda guest: append(guest, name_slots("a/b") + entry()), "holds '/'"),
    "a\\b": (lambda guest: append(guest, name_slots("a\\b") + entry()), "holds"),
    "a control character": (lambda guest: append(guest, name_slots("a\nb") + entry()), "holds"),
    "half a character": (lambda guest: append(guest, name_slots("\ud800") + entry()), "makes no sense"),
    "dots that are short": (lambda guest: append(guest, entry(b"..         ")), "ends with a dot"),
    "a short name with a slash": (lambda guest: append(guest, entry(b"A/B        ")), "holds '/'"),
    "a short name of nothing": (lambda guest: append(guest, entry(b"        TXT")), "nothing before its dot"),
    "one name twice": (lambda guest: append(guest, entry() + entry()), "are one name"),
    "one name in other letters": (
        lambda guest: append(guest, name_slots("hostile") + entry(b"HOSTILE    ") + entry(b"HOSTILE    ")),
        "are one name",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_disks_change_nothing_and_are_kept(folder: Path, name: str) -> None:
    attack, reason = HOSTILE[name]
    before = contents(folder.parent)
    node = opened(folder)
    guest = Guest(node, random.Random(4))
    guest.modify("README.TXT", 0, b"HELLO")
    attack(guest)
    guest.write_back()
    with pytest.raises(BlockError, match=reason) as refusal:
        node.close()
    kept = Path(str(refusal.value.hint).split("'")[1])
    assert b"HELLO\n" in kept.read_bytes()
    kept.unlink()
    assert contents(folder.parent) == before


def test_a_disk_that_makes_sense_again_lands(folder: Path) -> None:
    with opened(folder) as node:
        guest = Guest(node, random.Random(5))
        guest.create("file", b"x")
        crossed(guest)
        guest.write_back()
        assert not (folder / "file").exists()
        guest.erase("HOSTILE")
        guest.write_back()
        assert (folder / "file").read_bytes() == b"x"


def test_space_that_no_file_has_does_not_matter(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    guest = disk[1]
    guest.allocate(5)
    cluster = guest.entry(*guest.find("README.TXT"))[1]
    guest.link(cluster, guest.allocate(1)[0])  # more than the file's size asks for
    guest.create("file", b"x")
    guest.write_back()
    assert (folder / "file").read_bytes() == b"x"
    assert (folder / "README.TXT").read_bytes() == b"hello\n"


def test_long_names_without_their_short_one_are_nobodys(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    guest = disk[1]
    append(guest, name_slots("stranger", b"OTHER      ") + entry(b"MINE       "))
    append(guest, name_slots("left over"))
    guest.write_back()
    assert set(contents(folder)) == {"README.TXT", "sub", "sub/a long name", "MINE"}


def test_small_letters_of_short_names_are_read(folder: Path, disk: tuple[BlockNode, Guest]) -> None:
    guest = disk[1]
    for flags, name in ((0x18, b"BOTH    TXT"), (0x08, b"BASE    TXT"), (0x10, b"SUFFIX  TXT")):
        slot = bytearray(entry(name))
        slot[12] = flags
        append(guest, bytes(slot))
    append(guest, entry(b"\x05\x9aX     TXT"))
    guest.write_back()
    assert {"both.txt", "base.TXT", "SUFFIX.txt", "\u03c3ÜX.TXT"} <= set(contents(folder))


def test_a_disk_that_makes_no_sense_for_long_is_told_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_DOUBT", -1.0)
    heard: list[str] = []
    with notice.listening(heard.append), opened(folder) as node:
        guest = Guest(node, random.Random(5))
        crossed(guest)
        guest.write_back()
        node.flush()
        assert len(heard) == 1
        assert "does not get what is written to its disk" in heard[0]
        guest.erase("HOSTILE")
        guest.write_back()
        assert "has all that was written" in heard[1]


# ---- what no file lies in


@pytest.mark.parametrize("kind", KINDS)
def test_what_makes_the_disk_one_cannot_be_changed(folder: Path, kind: str) -> None:
    with opened(folder, kind) as node:
        guest = Guest(node, random.Random(1))
        boot = guest.start * SECTOR
        same = bytes(node.read(0, boot + SECTOR))
        node.pwrite(0, same)
        node.pwrite(boot + (0x41 if guest.bits == 32 else 0x25), b"\1")  # "not unmounted"
        places = {boot, boot + 13, boot + 510, guest.place(guest.clusters + 2)} | ({0, 446, 1000} if boot else set())
        for place in places:
            if place < node.length:
                with pytest.raises(BlockError, match="cannot be changed"):
                    node.pwrite(place, bytes([node.read(place, 1)[0] ^ 0xFF]))
        if guest.bits == 32:
            node.pwrite(boot + SECTOR + 488, b"\1\2\3\4")  # how many clusters are free
        node.flush()
    assert set(contents(folder)) == {"README.TXT", "sub", "sub/a long name"}


def test_a_new_file_system_is_refused(folder: Path) -> None:
    with opened(folder) as node, pytest.raises(BlockError, match="cannot be changed"):
        node.pwrite(0, random.Random(1).randbytes(SECTOR))
    assert (folder / "README.TXT").read_bytes() == b"hello\n"


def test_nothing_is_left_open(folder: Path) -> None:
    before = descriptors()
    (folder / "large").write_bytes(bytes(2 << 20))
    for _ in range(2):
        with opened(folder) as node:
            guest = Guest(node, random.Random(1))
            for path in ("large", "sub/a long name", "sub"):
                if (folder / path).exists():
                    guest.remove(path)
            guest.write_back()
    assert descriptors() <= before
    assert not list((folder.parent / "kept").iterdir())
