"""Power cuts and faults while passphrases change: at each write some passphrase that may open the volume still does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from hostel.block.crypto import keyslot
from hostel.block.crypto import luks as crypto
from hostel.block.formats.luks import LuksDriver
from hostel.block.options import Value
from hostel.errors import BlockError
from support import luks
from support.crash import crash_states
from support.fault import faults
from support.memory import FaultyDriver, LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

DATA = b"what must not be lost".ljust(512, b".")
# What is changed, and which of the passphrases opened the volume before.
CHANGES: dict[str, tuple[dict[str, Value], bool, tuple[str, ...]]] = {
    "add": ({"state": "active", "new-secret": "second"}, False, ("first",)),
    "add, its record across two sectors": (
        {"state": "active", "new-secret": "second", "keyslot": 6},
        False,
        ("first",),
    ),
    "replace the only one": ({"state": "active", "new-secret": "second", "keyslot": 0}, True, ("first",)),
    "replace one of two": ({"state": "active", "new-secret": "third", "keyslot": 0}, True, ("first", "second")),
    "remove by passphrase": ({"state": "inactive", "old-secret": "first"}, False, ("first", "second")),
    "remove by slot": ({"state": "inactive", "keyslot": 1}, False, ("first", "second")),
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The passphrases; what is wiped is written over twice, not forty times, and no time is measured."""
    monkeypatch.setattr(keyslot, "_WIPES", 2)
    monkeypatch.setattr(crypto, "count_iterations", lambda hash, length, iter_time: 1000)
    with luks.secrets():
        yield


def volume(passphrases: tuple[str, ...]) -> bytes:
    """A volume that the passphrases open."""
    driver = MemoryDriver()
    luks.new_volume(driver, 4096, cipher_alg="aes-128", cipher_mode="cbc", ivgen_alg="essiv")
    with luks.opened(driver) as node:
        node.pwrite(0, DATA)
    for name in passphrases[1:]:
        amend(driver, {"state": "active", "new-secret": name}, force=False)
    return bytes(driver.data)


def amend(driver: MemoryDriver, change: dict[str, Value], *, force: bool) -> None:
    """Change key slots."""
    given = change if change["state"] == "inactive" else {**change, "iter-time": 1}
    with luks.opened(driver, "first") as node:
        assert isinstance(node.driver, LuksDriver)
        node.driver.amend(given, force=force, report=lambda done, total: None)


def survivors(data: bytes) -> list[str]:
    """The passphrases that open the volume; each shows the same data."""
    found = [name for name in luks.SECRETS if luks.opens(data, name)]
    for name in found:
        with luks.opened(MemoryDriver(data), name, read_only=True) as node:
            assert node.read(0, len(DATA)) == DATA
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_a_power_cut_at_any_write_leaves_a_key(name: str, tried: Counter[str]) -> None:
    change, force, before = CHANGES[name]
    initial = volume(before)
    driver = LoggedDriver(initial)
    amend(driver, change, force=force)
    after = survivors(bytes(driver.data))
    assert after
    for state in crash_states(initial, driver.log, random.Random(5), samples=4):
        found = survivors(state.data)
        assert found, f"nothing opens the volume after {state.reached} entries of the log"
        assert set(found) <= {*before, *after}
        tried["power cuts"] += 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_fault_at_any_call_is_told_and_leaves_a_key(name: str, tried: Counter[str]) -> None:
    change, force, before = CHANGES[name]
    initial = volume(before)
    counting = FaultyDriver(initial)
    counting.arm()
    amend(counting, change, force=force)
    for fault in faults(list(counting.calls)):
        driver = FaultyDriver(initial)
        driver.arm(fault.at, fault.code, short=fault.short)
        told = is_told(driver, change, force=force)
        driver.armed = False
        assert told == fault.code, fault
        assert survivors(bytes(driver.data)), fault
        tried["faults"] += 1


def is_told(driver: MemoryDriver, change: dict[str, Value], *, force: bool) -> int | None:
    """The number of the error that a change ends with."""
    try:
        amend(driver, change, force=force)
    except BlockError as error:
        return error.errno
    except OSError as error:
        return error.errno
    return None


def test_faults_are_of_all_kinds() -> None:
    counting = FaultyDriver(volume(("first",)))
    counting.arm()
    amend(counting, CHANGES["add"][0], force=False)
    kinds = {kind.value for kind in counting.calls}
    assert kinds == {"read", "write", "flush"}
    assert len(list(faults(list(counting.calls)))) > len(counting.calls)
