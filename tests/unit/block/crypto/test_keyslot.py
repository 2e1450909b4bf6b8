"""Key slots: who can open a volume, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostel.block.formats.luks import LuksDriver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.errors import BlockError
from support import luks
from support.memory import MemoryDriver

pytestmark = pytest.mark.usefixtures("secrets")


@pytest.fixture
def secrets() -> Iterator[None]:
    """The passphrases."""
    with luks.secrets():
        yield


@pytest.fixture
def disk() -> MemoryDriver:
    """A volume that the first passphrase opens."""
    driver = MemoryDriver()
    luks.new_volume(driver)
    return driver


def amend(disk: MemoryDriver, *, secret: str = "first", force: bool = False, **options: Value) -> None:
    """Change key slots; underscores in the options' names are dashes."""
    given = {name.replace("_", "-"): value for name, value in options.items()}
    if given.get("state") == "active":
        given.setdefault("iter-time", 1)
    with luks.opened(disk, secret) as node:
        amendable(node).amend(given, force=force, report=lambda done, total: None)


def amendable(node: BlockNode) -> LuksDriver:
    """The node's driver."""
    assert isinstance(node.driver, LuksDriver)
    return node.driver


def opening(disk: MemoryDriver) -> list[str]:
    """The passphrases that open the volume."""
    return [name for name in luks.SECRETS if luks.opens(bytes(disk.data), name)]


def slots(disk: MemoryDriver) -> list[int]:
    """The active slots."""
    with luks.opened(disk, opening(disk)[0]) as node:
        specific = amendable(node).info().specific
    assert specific is not None
    return [index for index, slot in enumerate(specific["slots"]) if slot["active"]]


def test_a_second_passphrase_opens_the_same_data(disk: MemoryDriver) -> None:
    with luks.opened(disk) as node:
        node.pwrite(4096, b"secret")
    amend(disk, state="active", new_secret="second")
    assert opening(disk) == ["first", "second"]
    assert slots(disk) == [0, 1]
    with luks.opened(disk, "second") as node:
        assert node.read(4096, 6) == b"secret"


def test_a_passphrase_is_taken_away_by_itself_or_by_its_slot(disk: MemoryDriver) -> None:
    amend(disk, state="active", new_secret="second", keyslot=5)
    amend(disk, state="active", new_secret="third", keyslot=7)
    assert slots(disk) == [0, 5, 7]
    amend(disk, state="inactive", old_secret="first", secret="second")
    assert opening(disk) == ["second", "third"]
    amend(disk, state="inactive", keyslot=5, secret="third")
    assert (opening(disk), slots(disk)) == (["third"], [7])


def test_what_a_slot_held_is_overwritten(disk: MemoryDriver) -> None:
    amend(disk, state="active", new_secret="second")
    place = (8 + 504) * 512
    before = bytes(disk.data[place : place + 256_000])
    amend(disk, state="inactive", keyslot=1)
    after = disk.data[place : place + 256_000]
    assert sum(one == other for one, other in zip(before, after, strict=True)) < 2000
    assert bytes(disk.data[208 + 48 : 208 + 96])[8:40] == bytes(32)


def test_all_slots_of_a_passphrase_go(disk: MemoryDriver) -> None:
    for _ in range(2):
        amend(disk, state="active", new_secret="second")
    amend(disk, state="inactive", old_secret="second")
    assert slots(disk) == [0]


def test_an_active_slot_is_replaced_only_by_force(disk: MemoryDriver) -> None:
    with pytest.raises(BlockError, match="Refusing to overwrite active keyslot 0 - please erase it first"):
        amend(disk, state="active", new_secret="second", keyslot=0)
    amend(disk, state="active", new_secret="second", keyslot=0, force=True)
    assert (opening(disk), slots(disk)) == (["second"], [0])


def test_the_last_key_goes_only_by_force(disk: MemoryDriver) -> None:
    with pytest.raises(BlockError, match="Attempt to erase the only active keyslot 0"):
        amend(disk, state="inactive", keyslot=0)
    with pytest.raises(BlockError, match="All the active keyslots match"):
        amend(disk, state="inactive", old_secret="first")
    assert opening(disk) == ["first"]
    amend(disk, state="inactive", keyslot=0, force=True)
    assert opening(disk) == []
    with pytest.raises(BlockError, match="Invalid password, cannot unlock any keyslot"):
        luks.opened(disk)


def test_a_full_volume_takes_no_more(disk: MemoryDriver) -> None:
    for _ in range(7):
        amend(disk, state="active", new_secret="second")
    with pytest.raises(BlockError, match="Can't add a keyslot - all keyslots are in use"):
        amend(disk, state="active", new_secret="third")
    amend(disk, state="active", new_secret="third", keyslot=0, force=True)
    assert opening(disk) == ["second", "third"]


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"new_secret": "second"}, "Parameter 'state' is missing"),
        ({"state": "lost"}, "Parameter 'state' does not accept value 'lost'"),
        ({"state": "active"}, "'new-secret' is required to activate a keyslot"),
        (
            {"state": "active", "new_secret": "second", "old_secret": "first"},
            "'old-secret' must not be given when activating keyslots",
        ),
        (
            {"state": "active", "new_secret": "second", "keyslot": 8},
            "Invalid keyslot 8 specified, must be between 0 and 7",
        ),
        ({"state": "active", "new_secret": "nobody"}, "No secret with id 'nobody'"),
        ({"state": "inactive"}, "To erase keyslot"),
        (
            {"state": "inactive", "keyslot": 0, "new_secret": "second"},
            "'new-secret' must not be given when erasing keyslots",
        ),
        (
            {"state": "inactive", "keyslot": 0, "iter_time": 3},
            "'iter-time' must not be given when erasing keyslots",
        ),
        ({"state": "inactive", "keyslot": 8}, "Invalid keyslot 8 specified, must be between 0 and 7"),
        ({"state": "inactive", "keyslot": 2**64 - 1}, "Invalid keyslot -1 specified, must be between 0 and 7"),
        (
            {"state": "active", "new_secret": "second", "keyslot": 2**64 - 1},
            "Invalid keyslot 4294967295 specified, must be between 0 and 7",
        ),
        ({"state": "inactive", "keyslot": 3}, "Given keyslot 3 is already erased"),
        ({"state": "inactive", "old_secret": "second"}, "No keyslots match given"),
        (
            {"state": "inactive", "keyslot": 0, "old_secret": "second"},
            "Given keyslot 0 doesn't contain the given old password for erase operation",
        ),
        ({"state": "active", "new_secret": "second", "iter_time": 0}, "expects a number of milliseconds above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    disk: MemoryDriver, options: dict[str, Value], refusal: str
) -> None:
    before = bytes(disk.data)
    with pytest.raises(BlockError, match=refusal):
        amend(disk, secret="first", force=False, **options)
    assert disk.data == before
