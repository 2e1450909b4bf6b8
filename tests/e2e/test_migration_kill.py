"""Kill -9 at the steps of a migration: the source runs the guest or the destination does, never both, never none."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from hostel.drivers.base import DomainRef
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu import lease
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from support.kill_step import killed_at
from support.moving import MIB, Two, state_of, two
from support.process import machines_of
from support.session import reports, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
SOURCE = Path(__file__).parents[2] / "src/hostel/drivers"
STEPS = ("source", "destination", "calls", "settling", "sweeping", "copying")
FILES = (
    *(SOURCE / "qemu/migration" / f"{name}.py" for name in STEPS), SOURCE / "migrating.py", SOURCE / "qemu/launch.py"
)  # fmt: skip
LINES = {"shared": 660, "copied": 1000}  # that are run of them, about
LIVE = MigrateFlag.LIVE | MigrateFlag.UNSAFE
KILLS = int(os.environ.get("HOSTEL_TEST_KILLS", "4"))


@pytest.fixture
def chance() -> random.Random:
    return random.Random(int(os.environ.get("HOSTEL_TEST_SEED", "1")))


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Two]:
    with two(tmp_path) as opened:
        yield opened


def runs(both: Two, chance: random.Random) -> QemuDriver:
    """Where the guest runs; one place only, whichever is looked at first."""
    sides = [both.one, both.other]
    chance.shuffle(sides)
    for side in (*sides, *sides):
        state_of(side)  # which settles what a killed process has left
    (where,) = both.running()
    before = len(reports(both.home))
    wait_for_report(both.home, before + 1)
    boots = [report.boot for report in reports(both.home) if report.complete]
    assert boots == list(range(1, len(boots) + 1))
    return where


def nothing_is_left(both: Two, where: QemuDriver) -> None:
    """No QEMU, no mark, no expectation beside the one machine."""
    away = both.other if where is both.one else both.one
    assert not [ref for ref in away.connect_list_all_domains() if ref.id >= 0]
    for side in ("one", "other"):
        state = both.home / side / "run" / "qemu"
        assert not [*(state / "incoming").glob("*.xml")]
        assert all("<migration" not in path.read_text() for path in state.glob("*.xml"))
    assert len(machines_of(both.home)) == 1


def disk_of(where: QemuDriver, ref: DomainRef) -> str:
    """The name of the file that the guest's disk is in now."""
    xml = where.domain_get_xml_desc(where.domain_lookup_by_uuid(ref.uuid))
    return "disk.qcow2" if "disk.qcow2" in xml else "copy.qcow2"


def copying(both: Two, where: QemuDriver, held: DomainRef) -> tuple[MigrateFlag, dict[str, str]]:
    """The flags and parameters that bring the disk into another file, which is not there."""
    old = disk_of(where, held)
    new = "copy.qcow2" if old == "disk.qcow2" else "disk.qcow2"
    (both.home / new).unlink(missing_ok=True)
    xml = where.domain_get_xml_desc(held).replace(old, new)
    return MigrateFlag.LIVE | MigrateFlag.NON_SHARED_DISK, {"destination_xml": xml}


@pytest.mark.parametrize("how", ["shared", "copied"])
def test_kill_of_all_who_have_a_part_leaves_the_guest_in_one_place(both: Two, chance: random.Random, how: str) -> None:
    ref = both.start(size=4 * MIB)
    where, killed = both.one, 0
    for _ in range(KILLS):
        step = chance.randrange(1, LINES[how])
        there = both.other if where is both.one else both.one
        held = where.domain_lookup_by_uuid(ref.uuid)
        flags = LIVE
        params: dict[str, str] = {}
        if how == "copied":
            flags, params = copying(both, where, held)
        killed += killed_at(step, FILES, functools.partial(migrate, where, there, held, params, flags))
        where = runs(both, chance)
        nothing_is_left(both, where)
    assert killed, "no kill came before the end: the test shows nothing"
    both.goes_on(where, disk_of(where, ref))


class Dying:
    """A side whose daemon dies somewhere in one call; whoever calls it only hears that nobody answers."""

    def __init__(self, driver: QemuDriver, call: str, step: int) -> None:
        self._driver = driver
        self._call = call
        self._step = step

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._driver, name)
        return functools.partial(self._die, method) if name == self._call else method

    def _die(self, method: Callable[..., Any], *given: Any) -> NoReturn:
        killed_at(self._step, FILES, functools.partial(method, *given), may_fail=True)
        lease.let_go(self._driver._machines.lease("guest"))  # which went with the daemon
        raise VirtError(ErrorCode.SYSTEM_ERROR, "End of file while reading data", domain=ErrorDomain.RPC)


CALLS = {"begin": (0, 60), "prepare": (1, 330), "perform": (0, 250), "finish": (1, 90), "confirm": (0, 60)}


@pytest.mark.parametrize("how", ["shared", "copied"])
def test_death_of_one_side_leaves_the_guest_in_one_place(both: Two, chance: random.Random, how: str) -> None:
    ref = both.start(size=4 * MIB)
    where = both.one
    for name in chance.sample([*CALLS, *CALLS], min(KILLS, 2 * len(CALLS))) * max(1, KILLS // 10):
        there = both.other if where is both.one else both.one
        held = where.domain_lookup_by_uuid(ref.uuid)
        flags = LIVE
        params: dict[str, str] = {}
        if how == "copied":
            flags, params = copying(both, where, held)
        sides: list[Any] = [where, there]
        place, lines = CALLS[name]
        call = f"domain_migrate_{name}3_params"
        sides[place] = Dying(sides[place], call, chance.randrange(1, lines))
        with contextlib.suppress(VirtError):
            migrate(sides[0], sides[1], held, params, flags)
        where = runs(both, chance)
        nothing_is_left(both, where)
    both.goes_on(where, disk_of(where, ref))
