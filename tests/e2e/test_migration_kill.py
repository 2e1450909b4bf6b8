"""Kill -9 at the steps of a migration: the source runs the guest or the destination does, never both, never none."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu.driver import QemuDriver
from support.kill_step import killed_at
from support.moving import MIB, Two, state_of, two
from support.session import reports, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
SOURCE = Path(__file__).parents[2] / "src/hostel/drivers"
STEPS = ("source", "destination", "calls", "settling", "copying")
FILES = (
    *(SOURCE / "qemu/migration" / f"{name}.py" for name in STEPS), SOURCE / "migrating.py", SOURCE / "qemu/launch.py"
)  # fmt: skip
LINES = {"shared": 660, "copied": 1000}  # that are run of them, about
KILLS = int(os.environ.get("HOSTEL_TEST_KILLS", "8"))


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


def machines_of(home: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in command[0] and any(str(home).encode() in part for part in command):
                found.append(entry.name)
    return found


@pytest.mark.parametrize("how", ["shared", "copied"])
def test_kill_of_all_who_have_a_part_leaves_the_guest_in_one_place(both: Two, chance: random.Random, how: str) -> None:
    ref = both.start(size=4 * MIB)
    where, killed, step = both.one, 0, 0
    for _ in range(KILLS):
        step = chance.randrange(1, LINES[how])
        there = both.other if where is both.one else both.one
        held = where.domain_lookup_by_uuid(ref.uuid)
        flags, params = MigrateFlag.LIVE | MigrateFlag.UNSAFE, {}
        if how == "copied":
            names = ("disk.qcow2", "copy.qcow2")
            old, new = names if names[0] in where.domain_get_xml_desc(held) else names[::-1]
            (both.home / new).unlink(missing_ok=True)
            params = {"destination_xml": where.domain_get_xml_desc(held).replace(old, new)}
            flags |= MigrateFlag.NON_SHARED_DISK

        def action(where=where, there=there, held=held, params=params, flags=flags) -> None:  # type: ignore[no-untyped-def]
            migrate(where, there, held, params, flags)

        killed += killed_at(step, FILES, action)
        where = runs(both, chance)
        nothing_is_left(both, where)
        if how == "copied" and killed:
            xml = where.domain_get_xml_desc(where.domain_lookup_by_uuid(ref.uuid))
            name = "disk.qcow2" if "disk.qcow2" in xml else "copy.qcow2"
            stale = both.home / ("copy.qcow2" if name == "disk.qcow2" else "disk.qcow2")
            stale.unlink(missing_ok=True)
    assert killed, "no kill came before the end: the test shows nothing"
    xml = where.domain_get_xml_desc(where.domain_lookup_by_uuid(ref.uuid))
    both.goes_on(where, "disk.qcow2" if "disk.qcow2" in xml else "copy.qcow2")
