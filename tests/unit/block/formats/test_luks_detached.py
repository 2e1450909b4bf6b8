"""The format ``luks`` with a header in a file of its own: the payload's file shows no header, and no data either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from hostel.block import blockdev, graph, objects
from hostel.block.formats.luks import LuksDriver
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Value, given_options
from hostel.errors import BlockError, InvalidImage, ReadOnly
from hostel.img import convert, create
from hostel.img.inspect import inspect
from hostel.img.inspection import Level
from support import luks
from support.memory import MemoryDriver, memory_node

AREA = 2068480  # bytes of a header and the places of eight keys of 64 bytes: what cryptsetup makes as well
SIZE = 64 * 1024
FAST = list(given_options("key-secret=first,iter-time=1,detached-header=on"))

pytestmark = pytest.mark.usefixtures("secrets")


@pytest.fixture
def secrets() -> Iterator[None]:
    """The passphrases."""
    with luks.secrets():
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where we run: with a header, and a payload that holds nothing yet."""
    monkeypatch.chdir(tmp_path)
    create.create(create.plan("header", "luks", given=FAST))
    (tmp_path / "payload").write_bytes(bytes(SIZE))
    return tmp_path


def described(**more: str) -> blockdev.Described:
    """The two files as one image."""
    given = {"driver": "luks", "file.filename": "payload", "header.filename": "header", "key-secret": "first"}
    return blockdev.from_options(given | more)


def opened(more: Mapping[str, str] = MappingProxyType({}), *, read_only: bool = False) -> BlockNode:
    """The image, open."""
    return graph.open(described(**more), read_only=read_only)


def test_header_has_room_for_all_keys_and_nothing_else(folder: Path) -> None:
    header = (folder / "header").read_bytes()
    assert len(header) == AREA
    assert header[104:108] == bytes(4)  # the payload begins with its file


def test_data_is_read_again_and_the_payload_shows_neither_it_nor_a_header(folder: Path) -> None:
    before = (folder / "header").read_bytes()
    with opened() as node:
        assert node.length == SIZE
        node.pwrite(1000, b"plain text " * 1000)
    with opened(read_only=True) as node:
        assert node.read(1000, 11000) == b"plain text " * 1000
    payload = (folder / "payload").read_bytes()
    assert len(payload) == SIZE
    assert b"plain text" not in payload
    assert b"LUKS" not in payload
    assert (folder / "header").read_bytes() == before


def test_resize_is_of_the_payload(folder: Path) -> None:
    with opened() as node:
        node.resize(3 * SIZE)
        assert node.length == 3 * SIZE
    assert (folder / "payload").stat().st_size == 3 * SIZE
    assert (folder / "header").stat().st_size == AREA


def test_key_slots_are_changed_in_the_header(folder: Path) -> None:
    payload = (folder / "payload").read_bytes()
    with opened() as node:
        assert isinstance(node.driver, LuksDriver)
        change: dict[str, Value] = {"state": "active", "new-secret": "second", "iter-time": 1, "keyslot": 7}
        node.driver.amend(change, force=False, report=lambda done, total: None)
    assert (folder / "payload").read_bytes() == payload
    assert (folder / "header").stat().st_size == AREA
    opened({"key-secret": "second"}).close()


def test_header_that_is_open_for_reading_only_keeps_its_keys(folder: Path) -> None:
    with opened({"header.read-only": "on"}) as node:
        node.pwrite(0, b"data is written nevertheless")
        assert isinstance(node.driver, LuksDriver)
        change: dict[str, Value] = {"state": "active", "new-secret": "second", "iter-time": 1}
        with pytest.raises(ReadOnly):
            node.driver.amend(change, force=False, report=lambda done, total: None)
    with pytest.raises(BlockError, match="cannot unlock any keyslot"):
        opened({"key-secret": "second"})


def test_payload_may_begin_where_a_copied_header_says(folder: Path) -> None:
    """The header of a whole volume, saved in time, opens the volume whose own is lost."""
    whole = MemoryDriver()
    luks.new_volume(whole, SIZE)
    with luks.opened(whole) as node:
        node.pwrite(0, b"what must not be lost")
    (folder / "header").write_bytes(bytes(whole.data[:AREA]))
    (folder / "payload").write_bytes(bytes(AREA) + bytes(whole.data[AREA:]))
    with opened(read_only=True) as node:
        assert node.length == SIZE
        assert node.read(0, 21) == b"what must not be lost"
        assert "detached-header" not in (node.driver.info().specific or {})


def test_info_tells_that_the_header_is_detached(folder: Path) -> None:
    with opened(read_only=True) as node:
        specific = node.driver.info().specific
        assert specific is not None
        assert (specific["detached-header"], specific["payload-offset"]) == (True, 0)
        # The payload's name alone would say nothing.
        assert '"header": {"driver": "file", "filename": "header"}' in node.filename
        assert graph.open(node.filename, read_only=True).read(0, 1) == node.read(0, 1)


def test_header_alone_is_refused_and_says_what_it_lacks(folder: Path) -> None:
    with pytest.raises(InvalidImage, match="LUKS payload is overlapping with the header") as refusal:
        graph.open("header", options={"key-secret": "first"})
    assert "header.filename=HEADER" in str(refusal.value.hint)


def test_inspect_says_that_the_data_is_elsewhere(folder: Path) -> None:
    found = inspect("header")
    assert (found.format, found.encrypted) == ("luks", True)
    assert {(each.level, each.code) for each in found.findings} == {
        (Level.UNSAFE, "detached-header"),
        (Level.WARNING, "encrypted"),
    }
    with (folder / "header").open("r+b") as file:
        file.seek(208 + 40)
        file.write(bytes(4))  # where the first key lies
    assert [each.code for each in inspect("header").findings] == ["malformed"]


def test_header_is_no_payload_of_its_own(folder: Path) -> None:
    before = (folder / "header").read_bytes()
    (folder / "link").hardlink_to(folder / "header")
    for name in ("header", "link"):
        with pytest.raises(OptionError, match="'header' and 'file' are the same"):
            opened({"file.filename": name})
    assert (folder / "header").read_bytes() == before


def test_header_with_a_slot_in_its_own_record_is_refused(folder: Path) -> None:
    header = bytearray((folder / "header").read_bytes())
    header[208 + 40 : 208 + 44] = (7).to_bytes(4, "big")
    (folder / "header").write_bytes(bytes(header))
    with pytest.raises(InvalidImage, match="Keyslot 0 is overlapping with the LUKS header"):
        opened()


def test_header_that_ends_with_its_first_key_is_opened_and_gets_another(folder: Path) -> None:
    """QEMU 9.0 makes no longer ones."""
    with (folder / "header").open("r+b") as file:
        file.truncate(4096 + 64 * 4000)
    with opened() as node:
        assert isinstance(node.driver, LuksDriver)
        change: dict[str, Value] = {"state": "active", "new-secret": "third", "iter-time": 1}
        node.driver.amend(change, force=False, report=lambda done, total: None)
    opened({"key-secret": "third"}).close()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_other_formats_have_no_header_elsewhere(folder: Path, format: str) -> None:
    with pytest.raises(OptionError, match=rf"'{format}' does not support the option 'header.filename'"):
        described(driver=format)


def test_header_may_be_an_open_node(folder: Path) -> None:
    header = memory_node(MemoryDriver((folder / "header").read_bytes()))
    given = {"driver": "luks", "file.filename": "payload", "header": "keys", "key-secret": "first"}
    with (
        header,
        graph.open_node(blockdev.from_options(given, {"keys": header}), {"keys": header}, read_only=False) as node,
    ):
        node.pwrite(0, b"data")
        assert node.driver.children["header"] is header
    with opened(read_only=True) as node:
        assert node.read(0, 4) == b"data"


def test_nothing_can_be_converted_into_a_header(folder: Path) -> None:
    (folder / "disk.raw").write_bytes(bytes(SIZE))
    with (
        graph.open("disk.raw", "raw") as source,
        pytest.raises(OptionError, match="A detached header has no room for data") as refusal,
    ):
        convert.plan_target([source], "new", "luks", given=FAST)
    assert "--target-image-opts" in str(refusal.value.hint)
    assert not (folder / "new").exists()


def test_size_is_wanted_of_all_but_a_detached_header(folder: Path) -> None:
    assert create.plan("new", "luks", given=FAST).describe() == "key-secret=first iter-time=1 detached-header=on"
    with pytest.raises(OptionError, match="Image creation needs a size parameter"):
        create.plan("new", "luks", given=FAST[:2])


def test_a_header_is_measured_without_its_payload() -> None:
    measured = LuksDriver.measure(1 << 30, {**luks.FAST, "detached-header": True}, None)
    assert measured == (AREA, AREA)


def test_failed_opening_leaves_the_files_unlocked(folder: Path) -> None:
    objects.add("wrong", objects.Secret(b"wrong"))
    with pytest.raises(BlockError, match="cannot unlock any keyslot"):
        opened({"key-secret": "wrong"})
    with graph.open("header", "raw", read_only=False, exclusive=True), graph.open("payload", "raw", exclusive=True):
        pass
