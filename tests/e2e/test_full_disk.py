"""The disk with the documents is full: what cannot be written down is refused, and nothing is lost or stuck."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import DomainState, RunningReason, ShutoffReason
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu import lease
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, VirtError
from support.full_disk import Moment, full
from support.moving import Two, state_of, two
from support.process import machines_of
from support.session import domain_xml, reports, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MOVE = MigrateFlag.LIVE | MigrateFlag.UNSAFE | MigrateFlag.PERSIST_DEST


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Two]:
    with two(tmp_path) as opened:
        yield opened


def move(both: Two, full_home: Path, since: Moment) -> QemuDriver:
    """Move the guest to the other side as a disk fills up, which is loud; where it runs once there is room again."""
    with full(full_home, since), pytest.raises(VirtError, match="No space left on device"):
        migrate(both.one, both.other, both.one.domain_lookup_by_name("guest"), {}, MOVE)
    for side in (both.one, both.other):
        assert not lease.is_leased(side._machines.lease("guest"))
        state_of(side)
    (where,) = both.running()
    assert len(machines_of(both.home)) == 1
    wait_for_report(both.home, len(reports(both.home)) + 1)
    where.domain_suspend(where.domain_lookup_by_name("guest"))  # nothing keeps it from being used
    where.domain_resume(where.domain_lookup_by_name("guest"))
    return where


def test_a_guest_whose_destination_has_no_room_goes_on_at_its_source(both: Two) -> None:
    both.start()
    home = both.home / "other"
    for since in (
        lambda path, text: True,
        lambda path, text: "phase='finish'" in text,
        lambda path, text: path == home / "config/qemu/guest.xml",
    ):
        assert move(both, home, since) is both.one
        assert not (home / "config/qemu/guest.xml").exists()
    both.goes_on(both.one)


def test_a_guest_that_runs_at_its_destination_is_there_though_there_is_no_room_to_say_so(both: Two) -> None:
    both.start()
    home = both.home / "other"

    def has_come(path: Path, text: str) -> bool:
        is_here = path.parent == home / "run/qemu" and f"running='{RunningReason.MIGRATED:d}'" in text
        return is_here and "<migration" not in text

    assert move(both, home, has_come) is both.other
    both.goes_on(both.other)


def test_a_guest_whose_source_has_no_room_stays(both: Two) -> None:
    both.start()
    home = both.home / "one"
    for phase in ("begin", "perform", "performed"):
        assert move(both, home, lambda path, text, phase=phase: f"phase='{phase}'" in text) is both.one  # type: ignore[misc]
    both.goes_on(both.one)


def test_a_machine_can_be_ended_without_room(tmp_path: Path, driver: QemuDriver) -> None:
    ref = driver.domain_create(driver.domain_define_xml(domain_xml(tmp_path)))
    with full(tmp_path) as refused:
        driver.domain_destroy(ref)
        assert refused
        state = driver.domain_get_state(ref)
        assert [item.name for item in driver.connect_list_all_domains()] == ["guest"]
    assert (state.state, state.reason) == (DomainState.SHUTOFF, ShutoffReason.UNKNOWN)


def test_a_machine_whose_log_cannot_be_written_is_refused_or_goes_on(tmp_path: Path, driver: QemuDriver) -> None:
    ref = driver.domain_define_xml(domain_xml(tmp_path))
    log = driver._machines.log("guest")
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    with pytest.raises(VirtError, match=f"cannot write the log '{log}': No space left on device") as caught:
        driver.domain_create(ref)
    assert caught.value.code is ErrorCode.SYSTEM_ERROR
    assert driver.domain_get_state(ref).state is DomainState.SHUTOFF
    log.unlink()
    ref = driver.domain_create(ref)
    log.unlink()
    log.symlink_to("/dev/full")
    driver.domain_qemu_monitor_command(ref, '{"execute": "query-status"}')  # which taints it, and is noted
    driver.domain_destroy(ref)
