"""Guests that write anything into tables and directories of a directory's disk: bounded, told, and never outside."""

from __future__ import annotations

import functools
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.protocols.vvfat import guest as vvfat
from hostel.block.protocols.vvfat.guest import GuestTree, Inconsistent
from hostel.errors import BlockError
from support.bounded import MIB, bounded
from support.fat import DIRECTORY, SLOT, Guest
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
KINDS = ("floppy:", "floppy:16:", "12:", "16:", "32:")
OUTSIDE = b"of nobody's business"


def prepare(folder: Path) -> None:
    """A directory to be shown, beside what the guest must not touch."""
    (folder / "top/sub/below").mkdir(parents=True)
    (folder / "kept").mkdir()
    for number in range(20):
        (folder / f"top/sub/a file with a long name {number}").write_bytes(bytes([number]) * 3000 * (number % 4))
    (folder / "top/sub/below/x").write_bytes(b"x" * 20_000)
    (folder / "outside").write_bytes(OUTSIDE)


def disturb(guest: Guest, rng: random.Random) -> None:
    """Change a few bytes of a table, or of a directory."""
    sub = guest.entry(*guest.find("sub"))[1]
    below = guest.entry(*guest.find("sub/below"))[1]
    root = (guest.root * 512, 512) if guest.root_length else (guest.place(2), 512)
    places = [root, (guest.place(sub), 2048), (guest.place(below), 128), ((guest.start + guest.reserved) * 512, 256)]
    for _ in range(rng.randint(1, 4)):
        start, length = rng.choice(places)
        at = start + rng.randrange(length)
        if rng.random() < 0.3:  # an entry of another place
            other, size = rng.choice(places[:3])
            data = guest.get(other + rng.randrange(size // SLOT) * SLOT, SLOT)
            at = start + rng.randrange(length // SLOT) * SLOT
        else:
            data = rng.choice((b"\0", b"\xff", b"/", b"..", b"\xe5", bytes([DIRECTORY]), rng.randbytes(4)))
        guest.put(at, data)


def attempt(folder: Path, kind: str, seed: int) -> str:
    """Disturb a disk a few times; returns what came of it."""
    tempfile.tempdir = str(folder / "kept")
    rng = random.Random(f"vvfat fuzz {kind} {seed}")
    node = graph.open(f"fat:{kind}rw:{folder / 'top'}", "raw", read_only=False)
    result = "landed"
    guest = Guest(node, rng)
    disturb(guest, rng)
    try:
        guest.write_back()
    except BlockError:
        result = "refused by the host"
    try:
        node.close()
    except BlockError as error:
        result = "made no sense" if result == "landed" else result
        assert "does not have all that was written" in str(error)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_disturbed_disks_are_dealt_with(tmp_path: Path, kind: str, tried: Counter[str]) -> None:
    for seed in range(25 * SOAK):
        folder = tmp_path / str(seed)
        prepare(folder)
        tried[bounded(functools.partial(attempt, folder, kind, seed), seconds=30)] += 1
        assert (folder / "outside").read_bytes() == OUTSIDE
        assert {path.name for path in folder.iterdir()} == {"top", "kept", "outside"}
        assert not any(path.is_symlink() for path in folder.rglob("*"))
        for path in (folder / "kept").iterdir():
            path.unlink()


def test_a_chain_through_the_whole_disk_in_disorder_takes_little(tmp_path: Path) -> None:
    """The longest chain, no two clusters of which follow each other, and a directory of nothing but names."""

    def look() -> int:
        node = graph.open(f"fat:32:rw:{tmp_path}", "raw", read_only=False)
        guest = Guest(node, random.Random(1))
        clusters = list(range(3, guest.clusters + 2))
        odd = clusters[::2] + clusters[1::2]
        entries = bytearray((guest.clusters + 2) * 4)
        for cluster, following in zip(odd, [*odd[1:], guest.last], strict=True):
            entries[cluster * 4 : cluster * 4 + 4] = following.to_bytes(4, "little")
        entries[8:12] = guest.last.to_bytes(4, "little")
        node.pwrite((guest.start + guest.reserved) * 512, bytes(entries))
        guest.add("file", 0x20, odd[0], 1)
        guest.write_back()
        count = (tmp_path / "file").stat().st_size
        node.close()
        return count

    assert bounded(look, seconds=60) == 1


def test_directories_of_names_without_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vvfat, "_MOST_SLOTS", 1000)
    with graph.open(f"fat:floppy:{tmp_path}") as node:
        from hostel.block.protocols.vvfat.volume import geometry

        layout = geometry(0, floppy=True, needed=0)
        assert GuestTree(layout, lambda offset, length: bytes(node.read(offset, length))).look().children == {}
        monkeypatch.setattr(vvfat, "_MOST_SLOTS", 100)
        with pytest.raises(Inconsistent, match="more than 100 entries"):
            GuestTree(layout, lambda offset, length: bytes(node.read(offset, length))).look()


def test_memory_does_not_grow_with_what_is_read(tmp_path: Path) -> None:
    """A file of a whole disk is copied piece by piece."""

    def copy() -> tuple[int, int]:
        node = graph.open(f"fat:16:rw:{tmp_path}", "raw", read_only=False)
        guest = Guest(node, random.Random(1))
        first = 3000
        for cluster in range(first, first + 12_000):
            guest.link(cluster, cluster + 1 if cluster < first + 11_999 else guest.last)
        guest.add("large", 0x20, first, 12_000 * guest.cluster_size)
        guest.write_back()
        node.close()
        found = (tmp_path / "large").stat()
        return found.st_size, found.st_blocks * 512

    size, allocated = bounded(copy, memory=64 * MIB, seconds=60)
    assert size == 12_000 * 8192
    assert allocated < MIB  # nobody has written any of it
