"""Power cuts and faults while passphrases change: each that is to open the volume does, and one at least at any moment.

``HOSTEL_SOAK=20`` tries twenty times as many disks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from hostel.block.crypto.header import HEADER_LENGTH
from hostel.block.crypto.luks import LuksVolume
from hostel.block.options import Value
from hostel.errors import BlockError
from hostel.units import SECTOR
from support import luks
from support.crash import crash_states, sample
from support.fault import faults
from support.luks import CONTAINERS, SECRETS, Container
from support.memory import FaultyDriver, Kind, LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
DATA = b"what must not be lost".ljust(SECTOR, b".")


class Change(NamedTuple):
    """What is changed.

    Attributes:
        options: that change it.
        before: the passphrases that open the volume, in its first slots.
        after: those that shall open it.
        gone: the slots whose keys shall be destroyed.
    """

    options: dict[str, Value]
    before: tuple[str, ...]
    after: tuple[str, ...]
    gone: tuple[int, ...] = ()
    force: bool = False


CHANGES = {
    "add": Change({"state": "active", "new-secret": "second"}, ("first",), ("first", "second")),
    "add, its record across two sectors": Change(
        {"state": "active", "new-secret": "second", "keyslot": 6}, ("first",), ("first", "second")
    ),
    "replace the only one": Change(
        {"state": "active", "new-secret": "second", "keyslot": 0}, ("first",), ("second",), (0,), True
    ),
    "replace one of two": Change(
        {"state": "active", "new-secret": "third", "keyslot": 0}, ("first", "second"), ("second", "third"), (0,), True
    ),
    "remove by passphrase": Change(
        {"state": "inactive", "old-secret": "first"}, ("first", "second", "first"), ("second",), (0, 2)
    ),
    "remove by slot": Change({"state": "inactive", "keyslot": 1}, ("first", "second"), ("first",), (1,)),
}
CASES = [(place, name) for place in CONTAINERS for name in CHANGES]


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    """The passphrases, and what makes them quick."""
    with luks.many_volumes():
        yield


def volume(container: Container, passphrases: tuple[str, ...]) -> bytes:
    """A volume that the passphrases open."""
    driver = MemoryDriver()
    container.create(driver, 4096)
    with container.open(driver) as node:
        node.pwrite(0, DATA)
    for name in passphrases[1:]:
        container.amend(driver, {"state": "active", "new-secret": name})
    return bytes(driver.data)


def survivors(container: Container, data: bytes | bytearray, *, empty: bool = False) -> set[str]:
    """The passphrases that open the volume; each shows the same data, unless the volume is empty."""
    found = set()
    for name in SECRETS:
        try:
            with container.open(MemoryDriver(data), name, read_only=True) as node:
                assert empty or node.read(0, len(DATA)) == DATA
        except BlockError as error:
            assert error.errno == errno.EPERM
            continue
        found.add(name)
    return found


def judge(container: Container, data: bytes | bytearray, change: Change) -> None:
    """What opens the volume before and after a change does so meanwhile; a passphrase of either does in any case."""
    found = survivors(container, data)
    assert found, "nothing opens the volume"
    assert {*change.before} & {*change.after} <= found <= {*change.before, *change.after}


@pytest.mark.parametrize(("place", "name"), CASES)
def test_a_power_cut_at_any_write_leaves_a_key(place: str, name: str, tried: Counter[str]) -> None:
    container, change, rng = CONTAINERS[place](), CHANGES[name], random.Random(f"cut {name}")
    initial = volume(container, change.before)
    driver = LoggedDriver(initial)
    container.amend(driver, change.options, force=change.force)
    assert survivors(container, driver.data) == {*change.after}
    states = crash_states(initial, driver.log, rng, samples=4)
    for state in sample(states, rng, 30 * SOAK):
        judge(container, state.data, change)
        tried["power cuts"] += 1


@pytest.mark.parametrize(("place", "name"), CASES)
def test_a_fault_at_any_call_is_told_and_leaves_a_key(place: str, name: str, tried: Counter[str]) -> None:
    container, change, rng = CONTAINERS[place](), CHANGES[name], random.Random(f"fault {name}")
    initial = volume(container, change.before)
    counting = FaultyDriver(initial)
    counting.arm()
    container.amend(counting, change.options, force=change.force)
    every = list(faults(list(counting.calls)))
    for fault in rng.sample(every, min(len(every), 20 * SOAK)):
        driver = FaultyDriver(initial)
        driver.arm(fault.at, fault.code, short=fault.short)
        with pytest.raises(OSError) as caught:
            container.amend(driver, change.options, force=change.force)
        assert caught.value.errno == fault.code, fault
        judge(container, driver.data, change)
        tried["faults"] += 1


@pytest.mark.parametrize("place", CONTAINERS)
def test_after_a_fault_the_last_key_is_not_taken_for_one_of_two(place: str, tried: Counter[str]) -> None:
    """Whoever has the volume open may try on: what is on the disk is not known then."""
    container = CONTAINERS[place]()
    initial = volume(container, ("first", "second"))
    removals: list[dict[str, Value]] = [{"state": "inactive", "keyslot": slot} for slot in (0, 1)]
    counting = FaultyDriver(initial)
    with container.open(counting) as node:
        counting.arm()
        container.change(node, removals[0])
        kinds = list(counting.calls)
    assert Kind.READ not in kinds  # after which one may go on
    for fault in faults(kinds):
        driver = FaultyDriver(initial)
        # Closing an image whose sync has failed tells of it, too.
        with contextlib.suppress(OSError), container.open(driver) as node:
            driver.arm(fault.at, fault.code, short=fault.short)
            with pytest.raises(OSError, match="injected"):
                container.change(node, removals[0])
            with pytest.raises(OSError, match=r"injected|are not written any more|the only active keyslot"):
                container.change(node, removals[1])
        assert survivors(container, driver.data), fault
        tried["faults"] += 1


def forgotten(container: Container, before: bytes, after: bytes | bytearray, change: Change) -> bool:
    """Whether nothing is left of keys that were taken away, not even for who has an old header."""
    driver = MemoryDriver(after)
    area, old = container.area(driver), container.area(MemoryDriver(before))
    with container.open(MemoryDriver(after), change.after[0], read_only=True) as node:
        assert node.read(0, len(DATA)) == DATA
    area.write(0, old.read(0, HEADER_LENGTH))
    is_detached = isinstance(container, luks.DetachedContainer)
    volume, sound = (LuksVolume.open(each, detached=is_detached) for each in (area, old))
    for index in change.gone:
        password = SECRETS[change.before[index]]
        assert sound.key_in(index, password) is not None
        if volume.key_in(index, password) is not None:
            return False
        material = old.read(sound.header.slots[index].key_offset * SECTOR, sound.header.material_length)
        if any(material[at : at + SECTOR] in after for at in range(0, len(material) // SECTOR * SECTOR, SECTOR)):
            return False
    return True


@pytest.mark.parametrize(("place", "name"), [each for each in CASES if CHANGES[each[1]].gone])
def test_a_key_that_is_taken_away_is_destroyed(place: str, name: str, tried: Counter[str]) -> None:
    container, change, rng = CONTAINERS[place](), CHANGES[name], random.Random(f"gone {name}")
    initial = volume(container, change.before)
    driver = LoggedDriver(initial)
    container.amend(driver, change.options, force=change.force)
    assert forgotten(container, initial, driver.data, change)
    # Cut off, it is done again: by the slots, since a passphrase no longer finds one that is inactive.
    for state in sample(crash_states(initial, driver.log, rng, samples=1), rng, 4 * SOAK):
        again = MemoryDriver(state.data)
        for index in change.gone:
            options: dict[str, Value] = {"state": "inactive", "keyslot": index}
            if change.options["state"] == "active":
                options = change.options
            with container.open(again, min(survivors(container, again.data))) as node:
                container.change(node, options, force=True)
        assert forgotten(container, initial, again.data, change)
        tried["power cuts"] += 1


@pytest.mark.parametrize("place", CONTAINERS)
def test_a_volume_whose_making_is_cut_off_is_none_or_a_whole_one(place: str, tried: Counter[str]) -> None:
    """Nothing half made can be opened, as far as it could be written to."""
    container, rng = CONTAINERS[place](), random.Random(f"making {place}")
    driver = LoggedDriver()
    container.create(driver, 4096)
    assert driver.log[-1].kind is Kind.FLUSH
    assert survivors(container, driver.data, empty=True) == {"first"}
    for state in sample(crash_states(b"", driver.log, rng, samples=4), rng, 60 * SOAK):
        tried["power cuts"] += 1
        disk = MemoryDriver(state.data)
        with contextlib.suppress(BlockError), container.open(disk) as node:
            if node.length:
                node.pwrite(0, DATA)
                node.flush()
                tried["volumes that were whole"] += 1
                assert survivors(container, disk.data) == {"first"}
        assert DATA not in disk.data


@pytest.mark.parametrize("place", CONTAINERS)
def test_a_fault_while_a_volume_is_made_is_told(place: str, tried: Counter[str]) -> None:
    container, rng = CONTAINERS[place](), random.Random(f"making {place}")
    counting = FaultyDriver()
    counting.arm()
    container.create(counting, 4096)
    every = list(faults(list(counting.calls)))
    for fault in rng.sample(every, min(len(every), 40 * SOAK)):
        driver = FaultyDriver()
        driver.arm(fault.at, fault.code, short=fault.short)
        with pytest.raises(OSError) as caught:
            container.create(driver, 4096)
        assert caught.value.errno == fault.code, fault
        tried["faults"] += 1


def test_faults_are_of_all_kinds() -> None:
    container = Container()
    counting = FaultyDriver(volume(container, ("first",)))
    counting.arm()
    container.amend(counting, CHANGES["add"].options)
    kinds = {kind.value for kind in counting.calls}
    assert kinds == {"read", "write", "flush"}
    assert len(list(faults(list(counting.calls)))) > len(counting.calls)
