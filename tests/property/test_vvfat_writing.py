"""A guest's changes of files against a model of the tree: the directory is what the guest has made of the disk."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from hostel.block import graph
from support.fat import Guest
from support.tally import tried

__all__ = ["tried"]

KINDS = ["floppy:", "floppy:16:", "12:", "16:", "32:"]
LETTERS = "aBz 09.,;=[]+_-é☃"
STEPS = 25

Tree = dict[str, bytes | None]


def tree_of(folder: Path) -> Tree:
    """What lies in a directory: contents by their paths; None for a directory."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class Model:
    """What the guest believes that there is, and what it does next."""

    def __init__(self, guest: Guest, tree: Tree, rng: random.Random) -> None:
        self.guest = guest
        self.tree = tree
        self.rng = rng

    def directories(self) -> list[str]:
        """Where something can be put."""
        return ["", *(f"{path}/" for path, data in self.tree.items() if data is None)]

    def files(self) -> list[str]:
        """What can be written."""
        return [path for path, data in self.tree.items() if data is not None]

    def new_name(self) -> str:
        """A path that is not there, whatever its capitals."""
        taken = {path.upper() for path in self.tree}
        while True:
            name = "".join(self.rng.choices(LETTERS, k=self.rng.choice((1, 5, 14, 30)))).strip(" .") or "x"
            path = self.rng.choice(self.directories()) + name
            if path.upper() not in taken and path.count("/") < 4:
                return path

    def content(self) -> bytes:
        """Some bytes."""
        size = self.guest.cluster_size
        return self.rng.randbytes(self.rng.choice((0, 1, 511, size - 1, size, size + 1, 3 * size + 100)))

    def step(self) -> str:
        """Do one thing on the disk and in the model; returns what."""
        kinds = ["create", "create", "modify", "modify", "truncate", "rename", "mkdir", "remove", "replace", "swap"]
        what = self.rng.choice(kinds if self.files() else ["create", "mkdir"])
        getattr(self, f"_{what}")()
        return what

    def _create(self) -> None:
        path, data = self.new_name(), self.content()
        self.guest.create(path, data)
        self.tree[path] = data

    def _modify(self) -> None:
        path, data = self.rng.choice(self.files()), self.content()
        old = self.tree[path] or b""
        offset = self.rng.randrange(len(old) + 300)
        self.guest.modify(path, offset, data)
        end = offset + len(data)
        self.tree[path] = old[:offset].ljust(offset, b"\0") + data + old[end:] if data or offset <= len(old) else None
        if not data:
            self.tree[path] = old.ljust(offset, b"\0")

    def _truncate(self) -> None:
        path = self.rng.choice(self.files())
        old = self.tree[path] or b""
        size = self.rng.randrange(len(old) + 1)
        self.guest.truncate(path, size)
        self.tree[path] = old[:size]

    def _rename(self) -> None:
        path, new = self.rng.choice(list(self.tree)), self.new_name()
        if not new.startswith(f"{path}/"):
            self._move(path, new)

    def _move(self, path: str, new: str) -> None:
        self.guest.rename(path, new)
        for each in [each for each in self.tree if each == path or each.startswith(f"{path}/")]:
            self.tree[new + each.removeprefix(path)] = self.tree.pop(each)

    def _mkdir(self) -> None:
        path = self.new_name()
        self.guest.mkdir(path)
        self.tree[path] = None

    def _remove(self) -> None:
        path = self.rng.choice(list(self.tree))
        inside = sorted((each for each in self.tree if each.startswith(f"{path}/")), reverse=True)
        for each in [*inside, path]:
            self.guest.remove(each)
            del self.tree[each]

    def _replace(self) -> None:
        """As editors save: the new content has another name first."""
        path, new, data = self.rng.choice(self.files()), self.new_name(), self.content()
        self.guest.create(new, data)
        self.guest.remove(path)
        self.guest.rename(new, path)
        self.tree[path] = data

    def _swap(self) -> None:
        first, second = self.rng.choice(self.files()), self.rng.choice(self.files())
        if first == second:
            return
        spare = self.new_name()
        for old, new in ((first, spare), (second, first), (spare, second)):
            self._move(old, new)


def populate(folder: Path, rng: random.Random) -> Tree:
    """A directory to begin with."""
    (folder / "sub/below").mkdir(parents=True)
    for name in ("README.TXT", "sub/a long name of a file", "sub/below/x", "empty"):
        (folder / name).write_bytes(b"" if name == "empty" else rng.randbytes(rng.choice((5, 9000, 40_000))))
    return tree_of(folder)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_the_directory_follows_the_disk(tmp_path: Path, kind: str, seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"vvfat {kind} {seed}")
    tree = populate(tmp_path, rng)
    for _ in range(2):  # and the next time what it has become is shown
        node = graph.open(f"fat:{kind}rw:{tmp_path}", "raw", read_only=False)
        with node:
            model = Model(Guest(node, rng), tree, rng)
            for _ in range(STEPS):
                for _ in range(rng.choice((1, 1, 2, 5))):
                    tried[model.step()] += 1
                model.guest.write_back(flushes=rng.choice((0, 0, 0.2)))
                assert tree_of(tmp_path) == tree
        assert tree_of(tmp_path) == tree


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_never_flushed_is_there_in_the_end(tmp_path: Path, kind: str) -> None:
    rng = random.Random(f"vvfat without flushes {kind}")
    tree = populate(tmp_path, rng)
    with graph.open(f"fat:{kind}rw:{tmp_path}", "raw", read_only=False) as node:
        model = Model(Guest(node, rng), tree, rng)
        for _ in range(STEPS):
            model.step()
        for number, sector in model.guest.staged.items():
            node.pwrite(number * 512, sector)
    assert tree_of(tmp_path) == tree


@pytest.mark.parametrize("seed", range(5))
def test_the_disk_itself_never_changes_but_by_the_guests_writes(tmp_path: Path, seed: int) -> None:
    """What the directory becomes must not show on the disk: not even in clusters that belong to nothing any more."""
    rng = random.Random(f"vvfat disk {seed}")
    tree = populate(tmp_path, rng)
    with graph.open(f"fat:floppy:rw:{tmp_path}", "raw", read_only=False) as node:
        model = Model(Guest(node, rng), tree, rng)
        disk = bytearray(node.read(0, node.length))
        for _ in range(STEPS):
            model.step()
            for number, sector in model.guest.staged.items():
                disk[number * 512 : (number + 1) * 512] = sector
            model.guest.write_back(flushes=0.1)
            assert node.read(0, node.length) == disk
