"""A QEMU that hangs: its machine is ended all the same, and those who only look keep nobody from it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from hostel.drivers.base import DestroyFlag, DomainRef, DomainState, DomainXmlFlag, ShutoffReason
from hostel.drivers.base.backup import JobType
from hostel.drivers.base.block import BlockJobAbortFlag
from hostel.drivers.base.counting import ControlState
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DumpFlag, DumpFormat
from hostel.drivers.events import BlockJobStatus, Lifecycle
from hostel.drivers.qemu import calls, dumping, launch, monitor, process, running
from hostel.drivers.qemu.block import jobs, sizes
from hostel.drivers.qemu.destroying import HELD_SECONDS
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import GLANCE
from hostel.drivers.qemu.monitor import Monitor, connect
from hostel.drivers.qemu.status import Plug, Status
from hostel.errors import ErrorCode, QmpError, VirtError
from hostel.model.domain.metadata import MetadataType
from hostel.objects import Connection
from hostel.objects.event import EventStream
from support.chains import wait_for_job
from support.daemon import daemon
from support.guest_exports import exported
from support.session import copy_disk, disk, domain_xml, held

pytestmark = pytest.mark.qemu
MIB = 1 << 20
ANSWER_SECONDS = 3.0  # that QEMU has to answer here
GRACE_SECONDS = 0.5  # and to end by itself: one that hangs lets all of it pass


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", GRACE_SECONDS)
    for module in (calls, running):
        monkeypatch.setattr(module, "ANSWER_SECONDS", ANSWER_SECONDS)
    monkeypatch.setattr(monitor, "ACT_SECONDS", ANSWER_SECONDS)


class Machine(NamedTuple):
    """A machine of the session under a test's directory."""

    driver: QemuDriver
    ref: DomainRef
    home: Path

    @property
    def status(self) -> Status:
        """What is written down of it."""
        return Status.parse((self.home / "run/qemu/guest.xml").read_text())

    def copy(self) -> None:
        """Begin to copy its disk."""
        copy_disk(self.driver, self.home)

    def pivot(self) -> None:
        """Have QEMU go over to the copy, which nobody has written down then."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(jobs, "wait", lambda *_: None)
            self.driver.domain_block_job_abort(self.ref, "vda", BlockJobAbortFlag.PIVOT | BlockJobAbortFlag.ASYNC)
        with connect(Path(self.status.run) / "monitor") as qmp:
            await_pivot(qmp)

    def pause_job(self) -> None:
        """Have QEMU say something of its job that is to be followed."""
        with connect(Path(self.status.run) / "monitor") as qmp:
            qmp.execute("job-pause", id=qmp.execute("query-jobs")[0]["id"])

    def await_lock(self, *, is_held: bool) -> None:
        """Wait until somebody holds its lock, or nobody does."""
        deadline = time.monotonic() + 20
        while self.driver._machines.is_held("guest") != is_held:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[int]:
        """Have QEMU hang meanwhile; gives its process id."""
        pid = self.status.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def machine(tmp_path: Path, connection: Connection, driver: QemuDriver) -> Machine:
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.img"))).start(paused=True)
    return Machine(driver, driver.domain_lookup_by_name("guest"), tmp_path)


def await_ready(stream: EventStream) -> None:
    """Wait until it is told that a copy is as new as its disk."""
    while (event := stream.wait(20)) is not None:
        if event.detail.get("status") == BlockJobStatus.READY:
            return
    pytest.fail("no copy is ready")


def await_pivot(qmp: Monitor) -> None:
    """Wait until QEMU has gone over to another image."""
    deadline = time.monotonic() + 20
    while qmp.execute("query-jobs")[0]["status"] != "concluded":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def told(stream: EventStream, seconds: float) -> list[tuple[str, int]]:
    """What is told until nothing comes any more: kinds, with what they say."""
    found = []
    while (event := stream.wait(seconds)) is not None:
        found.append((event.kind, event.detail.get("event", event.detail.get("status"))))
    return found


def test_a_qemu_that_hangs_and_has_a_job_is_destroyed(machine: Machine, connection: Connection) -> None:
    with connection.listen(kinds=["lifecycle", "block-job-2"]) as events:
        machine.copy()
        await_ready(events)
        with machine.hanging() as pid:
            begun = time.monotonic()
            machine.driver.domain_destroy(machine.ref)
            assert time.monotonic() - begun < 2 * GLANCE + GRACE_SECONDS + 5
            assert not Path(f"/proc/{pid}").exists()
        assert told(events, 0.5) == [("lifecycle", Lifecycle.SHUTDOWN), ("lifecycle", Lifecycle.STOPPED)]
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)
    machine.driver.domain_create(machine.ref)
    assert machine.status.jobs == ()
    assert f"{machine.home}/disk.img" in machine.driver.domain_get_xml_desc(machine.ref)


def test_a_qemu_that_hangs_as_what_was_left_of_it_is_put_right_is_destroyed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "ACT_SECONDS", 60.0)
    execute = Monitor.execute

    def execute_and_hang(self: Monitor, command: str, *files: Any, **arguments: Any) -> Any:
        if command == "job-dismiss":
            os.kill(machine.status.pid, signal.SIGSTOP)
        return execute(self, command, *files, **arguments)

    machine.copy()
    wait_for_job(machine.driver, machine.ref, ready=True)
    machine.pivot()
    monkeypatch.setattr(Monitor, "execute", execute_and_hang)
    begun = time.monotonic()
    machine.driver.domain_destroy(machine.ref)
    assert time.monotonic() - begun < ANSWER_SECONDS + GRACE_SECONDS + 5
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)
    assert f"{machine.home}/copy.img" in machine.driver.domain_get_xml_desc(machine.ref, DomainXmlFlag.INACTIVE)


def test_a_qemu_that_cannot_be_asked_is_destroyed_though_it_has_a_job(machine: Machine) -> None:
    machine.copy()
    pid = machine.status.pid
    (Path(machine.status.run) / "monitor").unlink()
    machine.driver.domain_destroy(machine.ref)
    assert not Path(f"/proc/{pid}").exists()
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)


def test_a_qemu_that_hangs_is_destroyed_at_once_though_other_calls_wait_for_it(
    machine: Machine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has the machine's lock, and waits for QEMU's answer; another one waits for the lock."""
    monkeypatch.setattr(calls, "ANSWER_SECONDS", 30.0)
    machine.copy()
    with connection.listen(kinds=["lifecycle"]) as events, ThreadPoolExecutor() as threads, machine.hanging() as pid:
        others = [threads.submit(machine.driver.domain_get_block_job_info, machine.ref, "vda") for _ in range(2)]
        machine.await_lock(is_held=True)
        begun = time.monotonic()
        machine.driver.domain_destroy(machine.ref)
        assert time.monotonic() - begun < HELD_SECONDS + GRACE_SECONDS + 5
        assert not Path(f"/proc/{pid}").exists()
        for other in others:
            with pytest.raises(VirtError, match="domain is not running") as refused:
                other.result(10)
            assert refused.value.code == ErrorCode.OPERATION_INVALID
        assert told(events, 0.5) == [("lifecycle", Lifecycle.SHUTDOWN), ("lifecycle", Lifecycle.STOPPED)]
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)
    machine.driver.domain_create(machine.ref)
    os.kill(machine.status.pid, signal.SIGKILL)  # what was said of the run before is not said of this one
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.CRASHED)


def test_what_a_machine_has_gone_over_to_is_written_down_before_it_is_destroyed_though_another_call_has_it(
    machine: Machine,
) -> None:
    machine.copy()
    wait_for_job(machine.driver, machine.ref, ready=True)
    with ThreadPoolExecutor() as threads, contextlib.ExitStack() as other:
        machine.pivot()
        other.enter_context(machine.driver._machines.locked("guest"))
        destroyed = threads.submit(machine.driver.domain_destroy, machine.ref)
        with pytest.raises(TimeoutError):
            destroyed.result(HELD_SECONDS + GRACE_SECONDS + 1)
        other.close()
        destroyed.result(20)
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)
    assert f"{machine.home}/copy.img" in machine.driver.domain_get_xml_desc(machine.ref, DomainXmlFlag.INACTIVE)


def test_a_machine_of_which_nobody_knows_what_it_has_gone_over_to_is_not_started_from_the_old_disk(
    machine: Machine,
) -> None:
    driver, ref = machine.driver, machine.ref
    machine.copy()
    wait_for_job(driver, ref, ready=True)
    machine.pivot()
    with machine.hanging():
        driver.domain_destroy(ref)
    note = machine.home / "config/qemu/switching/guest.json"
    asked = f"disk 'vda' was to go over from '{machine.home}/disk.img' to '{machine.home}/copy.img', and nobody knows"
    for begin in (
        lambda: driver.domain_create(ref),
        lambda: driver.domain_create_xml(driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)),
        lambda: driver.domain_rename(ref, "other"),
    ):
        with pytest.raises(VirtError, match=f"{re.escape(asked)}.*remove '{re.escape(str(note))}'") as refused:
            begin()
        assert refused.value.code == ErrorCode.OPERATION_INVALID
    assert asked in (machine.home / "cache/qemu/log/guest.log").read_text()
    definition = driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)
    driver.domain_define_xml(definition.replace("disk.img", "copy.img"))
    driver.domain_create(ref)
    driver.domain_destroy(ref)
    driver.domain_define_xml(definition)
    with pytest.raises(VirtError, match=re.escape(asked)):
        driver.domain_create(ref)
    for damaged in ("[", "{}x", "[1]", '[["one"]]', "3"):
        note.write_text(damaged)
        with pytest.raises(VirtError, match=f"'{re.escape(str(note))}' .* is damaged: .*, and remove it"):
            driver.domain_create(ref)
    note.unlink()
    driver.domain_create(ref)


def test_what_a_machine_has_gone_over_to_is_written_down_though_nobody_waits_for_it(machine: Machine) -> None:
    machine.copy()
    wait_for_job(machine.driver, machine.ref, ready=True)
    status = machine.status
    machine.driver.domain_block_job_abort(machine.ref, "vda", BlockJobAbortFlag.PIVOT | BlockJobAbortFlag.ASYNC)
    os.kill(status.pid, signal.SIGKILL)
    assert process.ended(status.pid, status.started, 20)
    machine.driver.domain_create(machine.ref)
    assert f"{machine.home}/copy.img" in machine.driver.domain_get_xml_desc(machine.ref)


def test_a_machine_that_is_destroyed_while_it_goes_over_to_another_disk_starts_from_the_old_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU says that it has not gone over, and its guest writes nothing any more."""
    execute, is_told = Monitor.execute, []

    def execute_later(self: Monitor, command: str, *files: Any, **arguments: Any) -> Any:
        if command == "job-complete":
            return {}
        is_told.append(command)
        return execute(self, command, *files, **arguments)

    machine.copy()
    wait_for_job(machine.driver, machine.ref, ready=True)
    machine.driver.domain_resume(machine.ref)
    monkeypatch.setattr(Monitor, "execute", execute_later)
    machine.driver.domain_block_job_abort(machine.ref, "vda", BlockJobAbortFlag.PIVOT | BlockJobAbortFlag.ASYNC)
    machine.driver.domain_destroy(machine.ref)
    assert is_told.index("stop") < max(at for at, command in enumerate(is_told) if command == "query-jobs")
    machine.driver.domain_create(machine.ref)
    assert f"{machine.home}/disk.img" in machine.driver.domain_get_xml_desc(machine.ref)


def test_a_machine_whose_qemu_ends_as_it_is_told_to_go_over_is_not_started_from_the_old_disk(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Monitor.execute

    def execute_and_end(self: Monitor, command: str, *files: Any, **arguments: Any) -> Any:
        found = execute(self, command, *files, **arguments)
        if command == "job-complete":
            await_pivot(self)
            os.kill(machine.status.pid, signal.SIGKILL)
            raise QmpError("Disconnected", "QEMU hung up")
        return found

    machine.copy()
    wait_for_job(machine.driver, machine.ref, ready=True)
    with monkeypatch.context() as patched, pytest.raises(VirtError, match="domain is not running"):
        patched.setattr(Monitor, "execute", execute_and_end)
        machine.driver.domain_block_job_abort(machine.ref, "vda", BlockJobAbortFlag.PIVOT)
    with pytest.raises(VirtError, match="nobody knows which of them its guest wrote to last"):
        machine.driver.domain_create(machine.ref)


@pytest.mark.parametrize("is_held", [False, True])
def test_logs_are_removed_before_the_machine_can_be_started_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    machines, was_held = machine.driver._machines, []
    remove_logs = machines.remove_logs

    def look_and_remove(name: str) -> None:
        was_held.append(machines.is_held(name))
        remove_logs(name)

    monkeypatch.setattr(machines, "remove_logs", look_and_remove)
    log, status = machines.log("guest"), machine.status
    assert log.exists()
    with ThreadPoolExecutor() as threads, contextlib.ExitStack() as other:
        if is_held:
            other.enter_context(machines.locked("guest"))
        destroyed = threads.submit(machine.driver.domain_destroy, machine.ref, DestroyFlag.REMOVE_LOGS)
        assert process.ended(status.pid, status.started, 20)
        other.close()
        destroyed.result(20)
    assert was_held == [True]
    assert not log.exists()


def test_what_needs_no_qemu_is_done_at_once_while_one_hangs_and_has_a_job(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (calls, running):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 60.0)
    driver, ref, note = machine.driver, machine.ref, int(MetadataType.DESCRIPTION)
    before = driver.domain_get_block_info(ref, "vda")
    machine.copy()
    with machine.hanging():
        begun = time.monotonic()
        driver.domain_set_metadata(ref, note, "stored", None, None, Affect.CONFIG)
        driver.domain_set_metadata(ref, note, "live", None, None, Affect.LIVE)
        driver.domain_set_memory_flags(ref, 16 << 10, Affect.CONFIG)
        driver.domain_attach_device_flags(ref, disk(machine.home / "more.img", dev="vdb"), Affect.CONFIG)
        assert driver.domain_list_all_snapshots(ref) == [] and driver.domain_list_all_checkpoints(ref) == []
        with machine.driver._machines.locked("guest"):  # as one does who waits for it
            assert driver.domain_get_metadata(ref, note, None, Affect.CONFIG) == "stored"
            assert driver.domain_get_metadata(ref, note, None, Affect.CURRENT) == "live"
            assert driver.domain_get_vcpus_flags(ref, Affect.CURRENT) == 1
            assert driver.domain_get_numa_parameters(ref, Affect.LIVE)["numa_mode"] == 0
            assert driver.domain_get_vcpu_pin_info(ref, 1, 1, Affect.CURRENT).total == 1
            assert driver.domain_block_peek(ref, "vda", 0, 4) == bytes(4)
            assert len(driver.domain_get_cpu_stats(ref, 3, -1, 1).parameters) == 3
            assert driver.domain_migrate_get_max_speed(ref) > 0
            assert time.monotonic() - begun < 5
            assert driver.domain_get_control_info(ref).state == ControlState.OCCUPIED
        assert driver.domain_get_block_info(ref, "vda") == before
        assert driver.domain_get_control_info(ref).state == ControlState.ERROR
        assert driver.domain_get_job_stats(ref) == (JobType.NONE, {})
        assert time.monotonic() - begun < 15
    assert [job.disk for job in machine.status.jobs] == ["vda"]
    definition = driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)
    assert "vdb" in definition and "<currentMemory unit='KiB'>16384<" in definition


@pytest.mark.skipif(not os.path.exists("/dev/fuse") or os.geteuid() != 0, reason="needs /dev/fuse, and root")
def test_a_file_system_that_hangs_with_qemu_is_not_waited_for(
    tmp_path: Path, connection: Connection, driver: QemuDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_LOOK_SECONDS", 0.5)
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    arguments = exported("fuse", tmp_path, f"driver=file,node-name=disk,filename={tmp_path / 'disk.img'}")
    with daemon(tmp_path, *arguments) as server, ThreadPoolExecutor() as threads:
        connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "mount"))).start(paused=True)
        machine = Machine(driver, driver.domain_lookup_by_name("guest"), tmp_path)
        with machine.hanging():
            assert driver.domain_get_block_info(machine.ref, "vda").capacity == MIB
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                asked = threads.submit(driver.domain_get_block_info, machine.ref, "vda")
                with pytest.raises(VirtError, match="QEMU does not answer, and neither does the file system of") as why:
                    asked.result(10)
                assert why.value.code is ErrorCode.OPERATION_TIMEOUT
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert driver.domain_get_block_info(machine.ref, "vda").capacity == MIB
        driver.domain_destroy(machine.ref)


def test_a_save_by_a_qemu_that_hangs_is_given_up_when_its_machine_is_destroyed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, is_hanging = Monitor.execute, threading.Event()

    def execute_and_hang(self: Monitor, command: str, *files: Any, **arguments: Any) -> Any:
        if command == "migrate":
            os.kill(machine.status.pid, signal.SIGSTOP)
            is_hanging.set()
        return execute(self, command, *files, **arguments)

    monkeypatch.setattr(Monitor, "execute", execute_and_hang)
    monkeypatch.setattr(monitor, "ACT_SECONDS", 60.0)
    file = machine.home / "saved"
    with ThreadPoolExecutor() as threads:
        save = threads.submit(machine.driver.domain_save_flags, machine.ref, str(file))
        assert is_hanging.wait(20) and file.exists()
        machine.driver.domain_destroy(machine.ref)
        with pytest.raises(VirtError, match="domain is not running"):
            save.result(10)
    assert not file.exists()
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)


def test_a_qemu_that_hangs_as_it_is_started_is_destroyed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, ref = machine.driver, machine.ref
    driver.domain_destroy(ref)
    is_hanging = threading.Event()

    def spawn_and_hang(*given: Any, **named: Any) -> int:
        pid = process.spawn(*given, **named)
        os.kill(pid, signal.SIGSTOP)
        is_hanging.set()
        return pid

    monkeypatch.setattr(launch, "process", SimpleNamespace(**{**vars(process), "spawn": spawn_and_hang}))
    with ThreadPoolExecutor() as threads:
        start = threads.submit(driver.domain_create, ref)
        assert is_hanging.wait(20)
        begun = time.monotonic()
        driver.domain_destroy(ref)
        assert time.monotonic() - begun < HELD_SECONDS + GRACE_SECONDS + 5
        with pytest.raises(VirtError, match="could not be started: QEMU was killed by SIG"):
            start.result(10)
    assert driver.domain_get_state(ref).state == DomainState.SHUTOFF
    monkeypatch.undo()
    driver.domain_create(ref)


def test_a_qemu_that_hangs_and_has_a_job_is_not_killed_gracefully(machine: Machine) -> None:
    machine.copy()
    with machine.hanging():
        with pytest.raises(VirtError, match=r"QEMU, process \d+, does not end") as refused:
            machine.driver.domain_destroy(machine.ref, DestroyFlag.GRACEFUL)
        assert refused.value.code == ErrorCode.OPERATION_FAILED
        assert [job.disk for job in machine.status.jobs] == ["vda"] and machine.status.ending == ""
    deadline = time.monotonic() + 20  # it ends as it was told to, once it goes on
    while machine.driver.domain_get_state(machine.ref).state != DomainState.SHUTOFF:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert machine.driver.domain_get_state(machine.ref).reason == ShutoffReason.DESTROYED


@pytest.mark.parametrize("mark", ["dump", "ending"])
def test_what_others_were_about_with_a_qemu_that_hangs_ends_with_it(machine: Machine, mark: str) -> None:
    """They were killed while its memory was written, and a disk came or went."""
    file = machine.home / "memory"
    file.write_bytes(b"half")
    plugs = (Plug(way="out", alias="virtio-disk0"), Plug(way="in", alias="virtio-disk0"))
    with held(machine.home) as running:
        running.save(plugs=plugs, **{mark: f"saved:{file}" if mark == "ending" else str(file)})
    with machine.hanging():
        machine.driver.domain_destroy(machine.ref)
    assert not file.exists()
    assert machine.driver.domain_get_state(machine.ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)
    machine.driver.domain_create(machine.ref)
    assert machine.status.plugs == () and machine.status.dump == ""


def test_memory_is_not_written_to_a_pipe_that_nobody_may_read(machine: Machine) -> None:
    pipe = str(machine.home / "pipe")
    os.mkfifo(pipe)
    with pytest.raises(VirtError, match="It is a pipe, and no file"):
        machine.driver.domain_save_flags(machine.ref, pipe)
    with pytest.raises(VirtError, match="It is a pipe, and no file"):
        machine.driver.domain_core_dump_with_format(machine.ref, pipe, DumpFormat.RAW, DumpFlag.MEMORY_ONLY)
    assert machine.driver.domain_get_state(machine.ref).state == DomainState.PAUSED
    assert machine.status.ending == machine.status.dump == ""
    assert (machine.home / "pipe").is_fifo()


@pytest.mark.parametrize("ending", ["destroy", "go on"])
def test_a_dump_that_is_whole_stays_where_qemu_hangs_after_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    written = dumping.write_dump
    file = machine.home / "memory"

    def write_and_hang(*given: Any) -> None:
        written(*given)
        os.kill(machine.status.pid, signal.SIGSTOP)

    monkeypatch.setattr(dumping, "write_dump", write_and_hang)
    with machine.hanging() as pid:
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(VirtError) as refused:
            machine.driver.domain_core_dump_with_format(
                machine.ref, str(file), DumpFormat.RAW, DumpFlag.MEMORY_ONLY | DumpFlag.RESET
            )
        assert refused.value.code == ErrorCode.OPERATION_TIMEOUT
        size = file.stat().st_size
        if ending == "destroy":
            machine.driver.domain_destroy(machine.ref)
    state = DomainState.SHUTOFF if ending == "destroy" else DomainState.PAUSED
    assert machine.driver.domain_get_state(machine.ref).state == state
    assert size > 32 * MIB and file.stat().st_size == size
    assert ending == "destroy" or machine.status.dump == ""


def test_a_backup_by_a_qemu_that_hangs_is_given_up_with_it(machine: Machine) -> None:
    target = machine.home / "backup.img"
    disks = f"<disks><disk name='vda' type='file'><driver type='raw'/><target file='{target}'/></disk></disks>"
    machine.driver.domain_backup_begin(machine.ref, f"<domainbackup mode='push'>{disks}</domainbackup>", None)
    with machine.hanging():
        assert machine.status.backup is not None and target.exists()
        machine.driver.domain_destroy(machine.ref)
    assert not target.exists()
    machine.driver.domain_create(machine.ref)
    assert machine.status.backup is None and machine.status.jobs == ()


def test_who_watches_a_qemu_that_hangs_does_not_keep_others_from_it(machine: Machine, connection: Connection) -> None:
    with connection.listen(kinds=["block-job-2"]) as events:
        machine.copy()
        await_ready(events)
        with machine.driver._machines.locked("guest"), contextlib.ExitStack() as afterwards:
            machine.pause_job()
            afterwards.enter_context(machine.hanging())
            afterwards = afterwards.pop_all()
        with afterwards:
            machine.await_lock(is_held=True)
            begun = time.monotonic()
            machine.await_lock(is_held=False)
            assert time.monotonic() - begun < 5


def test_what_a_qemu_says_is_told_at_once_though_an_operation_has_its_domain(
    machine: Machine, connection: Connection
) -> None:
    """Something of what it has said is still to be followed."""
    late, is_running = [], False
    with connection.listen(kinds=["lifecycle", "block-job-2"]) as events:
        machine.copy()
        await_ready(events)
        with machine.driver._machines.locked("guest"):
            machine.pause_job()
            with connect(Path(machine.status.run) / "monitor") as qmp:
                until = time.monotonic() + 4
                while (begun := time.monotonic()) < until:
                    is_running = not is_running
                    qmp.execute("cont" if is_running else "stop")
                    assert events.wait(20) is not None
                    late.append(time.monotonic() - begun)
    assert sorted(late)[-2] < 0.5  # one may be so on a busy host
