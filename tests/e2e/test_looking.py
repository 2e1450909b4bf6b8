"""Who only looks at a machine waits for nobody: neither for an operation that takes long, nor for a QEMU that hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState, PausedReason
from hostel.drivers.base.backup import JobType
from hostel.drivers.qemu import saving
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection
from support.session import disk, domain_xml, session, wait_for_report

pytestmark = pytest.mark.qemu
PATIENCE = 20.0  # seconds: an operation's own lock is waited for three times as long


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="seen", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    with session(tmp_path) as opened:
        yield opened


@pytest.fixture
def ref(driver: QemuDriver, tmp_path: Path) -> DomainRef:
    found = driver.domain_create(driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "disk.img"))))
    wait_for_report(tmp_path, 1)
    return found


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def look(driver: QemuDriver, ref: DomainRef) -> DomainState:
    """Everything that a list of machines and a page about one of them ask; it must not take long."""
    begun = time.monotonic()
    assert [(found.name, found.id) for found in driver.connect_list_all_domains()] == [(ref.name, ref.id)]
    state = driver.domain_get_state(ref)
    info = driver.domain_get_info(ref)
    assert info.state == state.state and info.max_memory > 0
    assert driver.domain_get_os_type(ref) == "hvm"
    driver.domain_get_messages(ref)
    assert f"<name>{ref.name}</name>" in driver.domain_get_xml_desc(ref)
    ((_, numbers),) = driver.connect_get_all_domain_stats([ref])
    assert numbers["state.state"] == int(state.state) and int(numbers["cpu.time"]) > 0
    assert time.monotonic() - begun < PATIENCE
    return state.state


def test_save_is_watched_and_ended(
    driver: QemuDriver, ref: DomainRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "_UNLIMITED", 8192)  # bytes a second: it would take minutes
    failures: list[VirtError] = []
    file = tmp_path / "memory"

    def save() -> None:
        try:
            QemuDriver(Directories.under(tmp_path)).domain_save_flags(ref, str(file))
        except VirtError as error:
            failures.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    try:
        until(lambda: driver.domain_get_job_stats(ref)[0] != JobType.NONE)
        kind, numbers = driver.domain_get_job_stats(ref)
        assert kind == JobType.UNBOUNDED and numbers["operation"] == saving.SAVE
        before = numbers.get("memory_processed", 0)  # nothing yet, where it has only just begun
        until(lambda: driver.domain_get_job_stats(ref)[1].get("memory_processed", 0) > before)
        assert look(driver, ref) == DomainState.PAUSED
        assert driver.domain_get_state(ref).reason == PausedReason.SAVE
    finally:
        driver.domain_abort_job(ref)
        thread.join(60)
    assert [(error.code, error.message) for error in failures] == [
        (ErrorCode.OPERATION_ABORTED, "operation aborted: domain save: canceled by client")
    ]
    assert not file.exists()
    assert driver.domain_get_job_stats(ref)[0] == JobType.NONE
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    with pytest.raises(VirtError, match="no job is active"):
        driver.domain_abort_job(ref)


def test_machine_whose_qemu_hangs_is_listed(driver: QemuDriver, ref: DomainRef, tmp_path: Path) -> None:
    pid = Status.parse((tmp_path / f"run/qemu/{ref.name}.xml").read_text()).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert look(driver, ref) == DomainState.RUNNING
    finally:
        os.kill(pid, signal.SIGCONT)
    driver.domain_suspend(ref)
    until(lambda: driver.domain_get_state(ref).state == DomainState.PAUSED)
