"""A LUKS volume in two files against a model: the payload has the data, and the header changes with the keys only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostel.block import blockdev, graph
from hostel.block.crypto import keyslot
from hostel.block.crypto import luks as crypto
from hostel.block.formats.luks import LuksDriver
from hostel.block.options import Value, given_options
from hostel.errors import BlockError
from hostel.img import create
from hostel.units import SECTOR
from support import luks

MOST = 40  # sectors
WRITES = st.tuples(st.just("write"), st.integers(0, MOST * SECTOR - 1), st.binary(min_size=1, max_size=3000))
RESIZES = st.tuples(st.just("resize"), st.integers(0, MOST), st.none())
ADDS = st.tuples(st.just("add"), st.sampled_from(["second", "third"]), st.integers(0, 7))
REMOVALS = st.tuples(st.just("remove"), st.sampled_from(["second", "third"]), st.none())


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The passphrases; what is wiped is written over once, and no time is measured."""
    monkeypatch.setattr(keyslot, "_WIPES", 1)
    monkeypatch.setattr(crypto, "count_iterations", lambda hash, length, iter_time: 1000)
    with luks.secrets():
        yield


@settings(max_examples=15)
@given(st.lists(st.one_of(WRITES, RESIZES, ADDS, REMOVALS), min_size=1, max_size=12))
def test_two_files_are_the_disk_of_the_model(steps: list[tuple[str, int | str, bytes | int | None]]) -> None:
    with TemporaryDirectory() as name:
        Volume(Path(name)).run(steps)


class Volume:
    """The files and what they must hold."""

    def __init__(self, folder: Path) -> None:
        self.header, self.payload = folder / "header", folder / "payload"
        given = given_options("key-secret=first,cipher-alg=aes-128,detached-header=on")
        create.create(create.plan(str(self.header), "luks", given=given))
        self.payload.write_bytes(bytes(MOST * SECTOR))
        self.data: list[int | None] = [None] * (MOST * SECTOR)  # None where nothing was written
        self.keys = {"first"}

    def run(self, steps: list[tuple[str, int | str, bytes | int | None]]) -> None:
        """Take the steps, each with the image opened anew by one of its keys."""
        for number, (kind, first, second) in enumerate(steps):
            before = self.header.read_bytes()
            secret = sorted(self.keys)[number % len(self.keys)]
            with graph.open(self.described(secret), read_only=False) as node:
                assert isinstance(node.driver, LuksDriver)
                if kind == "write":
                    assert isinstance(first, int)
                    assert isinstance(second, bytes)
                    part = second[: max(0, len(self.data) - first)]
                    if part:
                        node.pwrite(first, part)
                        self.data[first : first + len(part)] = part
                elif kind == "resize":
                    assert isinstance(first, int)
                    node.resize(first * SECTOR)
                    self.data = (self.data + [None] * (MOST * SECTOR))[: first * SECTOR]
                else:
                    assert isinstance(first, str)
                    self.amend(node.driver, kind, first, second)
            if kind in ("write", "resize"):
                assert self.header.read_bytes() == before
            self.compare()

    def amend(self, driver: LuksDriver, kind: str, name: str, slot: object) -> None:
        """Add a key, or take one away; what is refused changes nothing."""
        before = self.header.read_bytes(), self.payload.read_bytes()
        change: dict[str, Value] = {"state": "inactive", "old-secret": name}
        if kind == "add":
            assert isinstance(slot, int)
            change = {"state": "active", "new-secret": name, "keyslot": slot}
        try:
            driver.amend(change, force=False, report=lambda done, total: None)
        except BlockError:
            assert (self.header.read_bytes(), self.payload.read_bytes()) == before
        else:
            self.keys = self.keys | {name} if kind == "add" else self.keys - {name}
            assert self.payload.read_bytes() == before[1]

    def described(self, secret: str) -> blockdev.Described:
        """The two files as one image."""
        return blockdev.from_options(
            {
                "driver": "luks",
                "file.filename": str(self.payload),
                "header.filename": str(self.header),
                "key-secret": secret,
            }
        )

    def compare(self) -> None:
        """The data is there with each key, and with no other; the payload's file is no longer than the disk."""
        assert self.payload.stat().st_size == len(self.data)
        for secret in luks.SECRETS:
            if secret not in self.keys:
                with pytest.raises(BlockError, match="cannot unlock any keyslot"):
                    graph.open(self.described(secret))
                continue
            with graph.open(self.described(secret)) as node:
                found = node.read(0, node.length)
            assert len(found) == len(self.data)
            assert all(value in (None, found[at]) for at, value in enumerate(self.data))
