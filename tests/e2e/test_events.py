"""Events of running guests, told to every listener of the user's."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainState, ShutoffReason
from hostel.drivers.events import BlockJobStatus, Event, Lifecycle, Stopped, Subject
from hostel.drivers.qemu import watch
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.qemu.status import Status
from hostel.objects import Connection
from hostel.objects.event import EventStream
from support import image
from support.session import cdrom, copy_disk, disk, domain_xml, session, wait_for_report

pytestmark = pytest.mark.qemu
MIB = 1 << 20


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="told", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with session(tmp_path) as opened:
        yield opened


def until(stream: EventStream, kind: str, seconds: float = 20) -> Event:
    """The next event of a kind."""
    deadline = time.monotonic() + seconds
    while (event := stream.wait(max(0.0, deadline - time.monotonic()))) is not None:
        if event.kind == kind:
            return event
    raise AssertionError(f"no {kind} within {seconds} s")


def connections(run: str) -> set[str]:
    """Those to QEMU's second monitor, by their inodes; one that was hung up is there until QEMU closes it, too."""
    connected = "03"  # their state, in Linux's include/uapi/linux/net.h
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines() if f"{run}/events" in line]
    return {inode for *_, state, inode, _ in lines if state == connected}


def wait_for_watcher(run: str, before: set[str]) -> None:
    """Wait until somebody else is connected to QEMU's second monitor than before, and has greeted it."""
    deadline = time.monotonic() + 30
    while not connections(run) - before:
        assert time.monotonic() < deadline, "nobody watches"
        time.sleep(0.05)
    time.sleep(1)


def test_listeners_hear_a_guest_that_switches_itself_off(tmp_path: Path, connection: Connection) -> None:
    with session(tmp_path) as other, other.listen() as far, connection.listen(kinds=["lifecycle"]) as near:
        domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
        domain.start()
        wait_for_report(tmp_path, 1)
        domain.shutdown()
        for stream in (near, far):
            seen: list[int] = []
            while not seen or seen[-1] != Lifecycle.STOPPED:
                event = until(stream, "lifecycle")
                assert event.uuid == domain.uuid
                seen.append(event.detail["event"])
            words = [Lifecycle.DEFINED, Lifecycle.RESUMED, Lifecycle.STARTED, Lifecycle.SHUTDOWN, Lifecycle.STOPPED]
            assert [word for word in seen if word in words] == words


def test_it_is_told_once_that_a_machine_runs_though_somebody_looks_for_machines_while_it_starts(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_run = Launcher._let_run

    def late(launcher: Launcher, status: Status) -> Status:
        time.sleep(1)  # as a lock manager may take
        return let_run(launcher, status)

    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(Launcher, "_let_run", late)
    with connection.listen(kinds=["lifecycle"]) as events:
        domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
        domain.start()
        told = [until(events, "lifecycle").detail["event"]]
        while told[-1] != Lifecycle.STARTED:
            told.append(until(events, "lifecycle").detail["event"])
    assert told == [Lifecycle.DEFINED, Lifecycle.RESUMED, Lifecycle.STARTED]


def test_another_listener_goes_on_where_the_one_that_watched_has_left(tmp_path: Path, connection: Connection) -> None:
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img"), cdrom(None)))
    domain.start()
    wait_for_report(tmp_path, 1)
    run = Status.parse((tmp_path / "run/qemu/guest.xml").read_text()).run
    first = connection.listen()
    wait_for_watcher(run, set())
    with connection.listen() as second:
        domain.suspend()
        assert until(first, "lifecycle").detail["event"] == Lifecycle.SUSPENDED
        before = connections(run)
        first.close()
        wait_for_watcher(run, before)  # the second looks each second for what nobody watches
        domain.resume()
        assert until(second, "lifecycle").detail["event"] == Lifecycle.SUSPENDED
        assert until(second, "lifecycle").detail["event"] == Lifecycle.RESUMED


def connect_late(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have those who watch machines take so long to connect to them."""

    def late(path: Path, *, timeout: float) -> Monitor:
        time.sleep(seconds)
        return Monitor(path, timeout=timeout)

    monkeypatch.setattr(watch, "Monitor", late)


def test_who_begins_to_listen_hears_what_happens_from_then_on(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
    domain.start()
    connect_late(monkeypatch, 0.5)
    with connection.listen() as events:
        domain.suspend()
        assert until(events, "lifecycle").detail["event"] == Lifecycle.SUSPENDED


def test_a_machine_that_goes_back_to_a_snapshot_is_heard_from_then_on(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = connection.hypervisor
    assert isinstance(driver, QemuDriver)
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    image.write(path, "qcow2", (0, guest.image(label="told", mode=guest.Mode.REBOOT)))
    domain = connection.define_domain(domain_xml(tmp_path, disk(path, "qcow2")))
    domain.start()
    kept = driver.domain_snapshot_create_xml(domain._ref, "<domainsnapshot/>")
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 600)  # who looks for machines now and then finds it later only
    with connection.listen(kinds=["lifecycle", "reboot"]) as events:
        until(events, "reboot")
        driver.domain_revert_to_snapshot(kept)
        while until(events, "lifecycle").detail["event"] != Lifecycle.STARTED:
            pass
        until(events, "reboot")


def test_a_job_that_is_ready_before_somebody_watches_is_told(
    tmp_path: Path, connection: Connection, driver: QemuDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
    domain.start(paused=True)
    connect_late(monkeypatch, 3)
    with connection.listen() as events:
        copy_disk(driver, tmp_path)
        assert until(events, "block-job-2").detail["status"] == BlockJobStatus.READY


def test_a_job_that_ends_while_an_operation_has_its_domain_is_told_after_it(
    tmp_path: Path, connection: Connection, driver: QemuDriver
) -> None:
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
    domain.start(paused=True)
    run = Path(Status.parse((tmp_path / "run/qemu/guest.xml").read_text()).run)
    with connection.listen(kinds=["block-job-2"]) as events, driver.events.listen() as monitored:
        copy_disk(driver, tmp_path)
        assert until(events, "block-job-2").detail["status"] == BlockJobStatus.READY
        with driver._machines.locked("guest"):
            with contextlib.closing(Monitor(run / "monitor")) as qmp:
                qmp.execute("job-cancel", id=qmp.execute("query-jobs")[0]["id"])
            while '"concluded"' not in str((event := monitored.get(20)) and event.detail.get("details")):
                assert event is not None
            time.sleep(3)
            assert events.wait(0) is None
        assert until(events, "block-job-2").detail["status"] == BlockJobStatus.CANCELED


def test_the_end_of_a_qemu_that_did_not_answer_is_told_at_once(
    tmp_path: Path, connection: Connection, driver: QemuDriver
) -> None:
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
    domain.start(paused=True)
    ref = driver.domain_lookup_by_name("guest")
    qemu = Status.parse((tmp_path / "run/qemu/guest.xml").read_text()).pid
    with connection.listen(kinds=["lifecycle"]) as events:
        os.kill(qemu, signal.SIGSTOP)
        assert driver.domain_get_state(ref).state == DomainState.PAUSED  # as was last known
        os.kill(qemu, signal.SIGKILL)
        assert until(events, "lifecycle", 8).detail == {"event": Lifecycle.STOPPED, "detail": Stopped.CRASHED}
        assert driver.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.CRASHED)


def test_pools_and_networks_tell_of_themselves(tmp_path: Path, connection: Connection) -> None:
    with connection.listen() as events:
        target = f"<target><path>{tmp_path}/p</path></target>"
        pool = connection.define_pool(f"<pool type='dir'><name>p</name>{target}</pool>")
        pool.start(build=True)
        for number in (0, 2):
            expected = Event(Subject.POOL, "lifecycle", "p", pool.uuid, -1, {"event": number, "detail": 0})
            assert events.wait(30) == expected
        network = connection.define_network("<network><name>n</name></network>")
        found = events.wait(30)
        assert found is not None
        assert (found.subject, found.name, found.uuid) == ("network", "n", network.uuid)
