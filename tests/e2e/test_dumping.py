"""Dumps of running machines, and what follows when their guests end by themselves."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState, ShutoffReason, StateInfo
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import ACTIONS, LIFECYCLES, DumpFlag, DumpFormat
from hostel.drivers.qemu import keeper
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import VirtError
from hostel.objects import Connection
from support.session import disk, domain_xml, session, wait_for_report

pytestmark = pytest.mark.qemu
MIB = 1 << 20
PANIC = "o /b 0x505 1"  # to the port of the panic device
POWER_OFF = "o /w 0x604 0x2000"  # to the board's power management


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="dump", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with session(tmp_path) as opened:
        yield opened


def start(driver: QemuDriver, home: Path, actions: str = "") -> DomainRef:
    xml = domain_xml(home, disk(home / "disk.img"), "<panic model='isa'/>")
    ref = driver.domain_create(driver.domain_define_xml(xml.replace("<devices>", f"{actions}<devices>")))
    wait_for_report(home, 1)
    return ref


def until(driver: QemuDriver, ref: DomainRef, wanted: Callable[[StateInfo], bool]) -> StateInfo:
    deadline = time.monotonic() + 60
    while not wanted(found := driver.domain_get_state(ref)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def is_off(state: StateInfo) -> bool:
    return state.state == DomainState.SHUTOFF


def test_dumps_have_the_memory_and_the_machine_goes_on_as_is_said(driver: QemuDriver, tmp_path: Path) -> None:
    ref = start(driver, tmp_path)
    told: list[tuple[int, int]] = []
    elf, moved, kdump = (tmp_path / name for name in ("elf", "moved", "kdump"))
    driver.domain_core_dump_with_format(ref, str(elf), DumpFormat.RAW, DumpFlag.MEMORY_ONLY | DumpFlag.LIVE)
    assert elf.read_bytes()[:5] == b"\x7fELF\x02"
    assert elf.stat().st_size > 32 * MIB
    assert elf.stat().st_mode & 0o777 == 0o600
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    flags = DumpFlag.MEMORY_ONLY | DumpFlag.BYPASS_CACHE | DumpFlag.RESET
    driver.domain_core_dump_with_format(ref, str(kdump), DumpFormat.KDUMP_ZLIB, flags)
    assert kdump.read_bytes()[:12] == b"makedumpfile"
    wait_for_report(tmp_path, 2)
    driver.domain_core_dump_with_format(
        ref, str(moved), DumpFormat.RAW, progress=lambda done, total: told.append((done, total))
    )
    assert struct.unpack(">II", moved.read_bytes()[:8]) == (0x5145564D, 3)  # QEMU's own stream
    assert told
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    driver.domain_suspend(ref)
    driver.domain_core_dump_with_format(ref, str(elf), DumpFormat.RAW, DumpFlag.MEMORY_ONLY)
    assert driver.domain_get_state(ref).state == DomainState.PAUSED
    driver.domain_core_dump_with_format(ref, str(elf), DumpFormat.RAW, DumpFlag.MEMORY_ONLY | DumpFlag.CRASH)
    assert driver.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.CRASHED)


def test_a_dump_that_cannot_be_made_changes_nothing(driver: QemuDriver, tmp_path: Path) -> None:
    ref = start(driver, tmp_path)
    for to, format, flags, reason in (
        (tmp_path, DumpFormat.RAW, DumpFlag.MEMORY_ONLY, "Failed to create file"),
        (Path("/dev/full"), DumpFormat.RAW, DumpFlag.MEMORY_ONLY, "No space left"),
        (tmp_path / "x", DumpFormat.KDUMP_ZLIB, DumpFlag.NONE, "only supported with memory-only"),
        (tmp_path / "x", DumpFormat.WIN_DMP, DumpFlag.MEMORY_ONLY, "win-dump: "),
        (tmp_path / "x", DumpFormat.RAW, DumpFlag.LIVE | DumpFlag.CRASH, "mutually exclusive"),
        (Path("x"), DumpFormat.RAW, DumpFlag.NONE, "absolute path"),
    ):
        with pytest.raises(VirtError, match=reason):
            driver.domain_core_dump_with_format(ref, str(to), format, flags)
        assert driver.domain_get_state(ref).state == DomainState.RUNNING
    assert not (tmp_path / "x").exists()
    # One that was killed while it dumped.
    (tmp_path / "part").write_bytes(b"some of it")
    with driver._running(ref) as machine:
        machine.save(dump=str(tmp_path / "part"), resumes=True)
        machine.ask("stop")
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    assert not (tmp_path / "part").exists()


def test_guests_that_end_are_restarted_dumped_or_kept(driver: QemuDriver, tmp_path: Path) -> None:
    ref = start(driver, tmp_path, "<on_poweroff>restart</on_poweroff><on_crash>coredump-restart</on_crash>")
    driver.domain_qemu_monitor_command(ref, POWER_OFF, human=True)
    wait_for_report(tmp_path, 2)  # nobody looked but the keeper
    driver.domain_qemu_monitor_command(ref, PANIC, human=True)
    wait_for_report(tmp_path, 3)
    (dump,) = (tmp_path / "config").rglob("dump/*")
    assert dump.read_bytes()[:4] == b"\x7fELF"
    set_action(driver, ref, "crash", "preserve")
    driver.domain_qemu_monitor_command(ref, PANIC, human=True)
    until(driver, ref, lambda state: state.state == DomainState.CRASHED)
    driver.domain_reset(ref)
    set_action(driver, ref, "crash", "destroy")
    set_action(driver, ref, "poweroff", "destroy")
    driver.domain_resume(ref)
    wait_for_report(tmp_path, 4)
    driver.domain_qemu_monitor_command(ref, PANIC, human=True)
    assert until(driver, ref, is_off).reason == ShutoffReason.CRASHED
    with pytest.raises(VirtError, match="'preserve' action for 'on_reboot'"):
        set_action(driver, ref, "poweroff", "preserve", Affect.CONFIG)
    with pytest.raises(VirtError, match="doesn't support 'coredump-destroy'"):
        set_action(driver, ref, "reboot", "coredump-destroy", Affect.CONFIG)


def test_whoever_asks_does_what_a_keeper_that_is_gone_would_have_done(
    driver: QemuDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "start", lambda *given: None)
    ref = start(driver, tmp_path, "<on_poweroff>restart</on_poweroff><on_crash>coredump-destroy</on_crash>")
    driver.domain_qemu_monitor_command(ref, POWER_OFF, human=True)
    until(driver, ref, lambda state: state.state == DomainState.RUNNING)
    wait_for_report(tmp_path, 2)
    driver.domain_qemu_monitor_command(ref, PANIC, human=True)
    assert until(driver, ref, is_off).reason == ShutoffReason.CRASHED
    assert len(list((tmp_path / "config").rglob("dump/*"))) == 1


def set_action(
    driver: QemuDriver, ref: DomainRef, what: str, action: str, affect: Affect = Affect.LIVE | Affect.CONFIG
) -> None:
    driver.domain_set_lifecycle_action(ref, LIFECYCLES.index(what), ACTIONS.index(action), affect)


def test_how_fast_memory_changes_is_measured(driver: QemuDriver, tmp_path: Path) -> None:
    ref = start(driver, tmp_path)
    driver.domain_start_dirty_rate_calc(ref, 1)
    deadline = time.monotonic() + 60
    # QEMU's thread begins a moment after the answer.
    while '"unstarted"' in (told := driver.domain_qemu_monitor_command(ref, '{"execute": "query-dirty-rate"}')):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert '"status":"measur' in told
    with pytest.raises(VirtError, match=r"within \[1, 60\]"):
        driver.domain_start_dirty_rate_calc(ref, 61)
