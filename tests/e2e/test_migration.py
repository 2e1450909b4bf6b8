"""Guests that move between two sessions on this host: nothing is lost, and never do two run it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag, PausedReason, RunningReason, ShutoffReason
from hostel.drivers.base.backup import JobType
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.events import EventBus
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu import lease
from hostel.drivers.qemu.running import Running
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.secret.vault import DiskVault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support import image, machines
from support.machines import machine
from support.moving import MIB, PLACE, Two, eventually, state_of, two
from support.pki import Authority, lock
from support.session import disk, domain_xml, held, reports, session, wait_for_report
from support.small_disk import small_disk

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
LIVE = MigrateFlag.LIVE | MigrateFlag.UNSAFE
SOCKET = re.compile(r"<source mode='bind' path='([^']*)'/>")


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Two]:
    with two(tmp_path) as opened:
        yield opened


def copied(both: Two, ref: DomainRef) -> dict[str, str]:
    """The parameters that bring the disk into another file."""
    return {"destination_xml": both.one.domain_get_xml_desc(ref).replace("disk.qcow2", "copy.qcow2")}


def test_guest_on_a_shared_disk_goes_there_and_back(both: Two) -> None:
    ref = both.start()
    there = migrate(both.one, both.other, ref, {}, LIVE)
    assert both.other.domain_get_state(there)[:2] == (DomainState.RUNNING, RunningReason.MIGRATED)
    assert both.one.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.MIGRATED)
    kind, stats = both.one.domain_get_job_stats(ref, 1)
    assert (kind, stats["operation"]) == (JobType.COMPLETED, 5)
    assert stats["memory_total"] >= stats["memory_processed"] > 0
    assert both.one.domain_get_job_stats(ref, 1) == (JobType.NONE, {})
    assert both.other.domain_get_job_stats(there, 1)[1]["operation"] == 4
    assert not both.other.domain_is_persistent(there)
    back = migrate(both.other, both.one, there, {}, LIVE | MigrateFlag.PERSIST_DEST)
    assert state_of(both.other) is None
    assert both.one.domain_is_persistent(back)
    both.goes_on(both.one)


@pytest.mark.parametrize("words", ["", " copy_on_read='on'"])
def test_guest_takes_its_disk_along(both: Two, words: str) -> None:
    ref = both.start(size=64 * MIB, words=words)
    where = {"disks_uri": f"unix://{both.home}/nbd", "migrate_uri": f"unix://{both.home}/memory"}
    flags = MigrateFlag.LIVE | MigrateFlag.NON_SHARED_DISK | MigrateFlag.UNDEFINE_SOURCE | MigrateFlag.PERSIST_DEST
    migrate(both.one, both.other, ref, {**copied(both, ref), **where, "migrate_disks": ("vda",)}, flags)
    assert state_of(both.one) is None
    both.goes_on(both.other, "copy.qcow2")


def test_overlay_moves_without_what_it_stands_on_and_a_raw_disk_whole(both: Two) -> None:
    for name in ("raw.img", "fixed.img"):
        (both.home / name).write_bytes(name.encode().ljust(MIB, b"x"))
    fixed = disk(both.home / "fixed.img", dev="vdc", more="<readonly/>")
    ref = both.start(disk(both.home / "raw.img", dev="vdb"), fixed, size=4 * MIB)
    both.one.domain_destroy(ref)
    path = both.home / "over.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", "-b", both.home / "disk.qcow2", "-F", "qcow2", path)
    xml = both.one.domain_get_xml_desc(DomainRef("guest", ref.uuid)).replace("disk.qcow2", "over.qcow2")
    (both.home / "guest.log").unlink()
    image.write(both.home / "disk.qcow2", "qcow2", (0, guest.image(label="moving", mode=guest.Mode.REBOOT)))
    ref = both.one.domain_create(both.one.domain_define_xml(xml))
    wait_for_report(both.home, 1)
    xml = both.one.domain_get_xml_desc(ref).replace("over.qcow2", "copy.qcow2").replace("raw.img", "copy.img")
    flags = MigrateFlag.LIVE | MigrateFlag.UNSAFE | MigrateFlag.NON_SHARED_INC
    migrate(both.one, both.other, ref, {"destination_xml": xml}, flags)
    both.goes_on(both.other, "copy.qcow2")
    assert (both.home / "copy.img").read_bytes() == b"raw.img".ljust(MIB, b"x")
    assert (both.home / "copy.qcow2").stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("name", ["pc", "q35 with bridges"])
def test_machine_with_nearly_every_device_moves_and_has_its_own_sockets_there(both: Two, name: str) -> None:
    xml = machine(name, both.home).replace("<sound model='usb'/>", "")  # which QEMU cannot
    # QEMU 7.2 reads from nowhere, and dies, where the firmware was reading from a USB disk when the guest came.
    xml = xml.replace(machines.disk(both.home / "d.img", "sdb", "usb"), "")
    ref = both.one.domain_create(both.one.domain_define_xml(xml))
    flags = LIVE | MigrateFlag.PERSIST_DEST
    (before,) = SOCKET.findall(both.one.domain_get_xml_desc(ref))
    there = migrate(both.one, both.other, ref, {}, flags)
    (after,) = SOCKET.findall(both.other.domain_get_xml_desc(there))
    assert after != before
    assert Path(after).is_socket()
    assert not SOCKET.search(both.other.domain_get_xml_desc(there, DomainXmlFlag.INACTIVE))
    migrate(both.other, both.one, there, {}, flags)
    assert (state_of(both.one, "g"), state_of(both.other, "g")) == (DomainState.RUNNING, DomainState.SHUTOFF)


def test_object_moves_to_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(guest.image(label="moving", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with session(tmp_path / "one") as one, session(tmp_path / "other") as other:
        domain = one.define_domain(domain_xml(tmp_path, disk(path)))
        domain.start()
        wait_for_report(tmp_path, 1)
        moved = domain.migrate(other, {"bandwidth": 100}, LIVE)
        assert (domain.state, moved.state) == (DomainState.SHUTOFF, DomainState.RUNNING)
        moved.shutdown()
        moved.wait(timeout=30)
    assert len(reports(tmp_path)) == 1


def test_paused_guest_stays_paused_until_it_is_resumed(both: Two) -> None:
    ref = both.start()
    both.one.domain_suspend(ref)
    there = migrate(both.one, both.other, ref, {}, MigrateFlag.UNSAFE)
    assert both.other.domain_get_state(there)[:2] == (DomainState.PAUSED, PausedReason.USER)
    both.other.domain_resume(there)
    both.goes_on(both.other)


def test_domain_that_does_not_run_moves_its_definition(both: Two) -> None:
    ref = both.start(mode=guest.Mode.WAIT)
    both.one.domain_destroy(ref)
    offline = MigrateFlag.OFFLINE | MigrateFlag.PERSIST_DEST | MigrateFlag.UNDEFINE_SOURCE
    there = migrate(both.one, both.other, DomainRef("guest", ref.uuid), {"destination_name": "renamed"}, offline)
    assert both.one.connect_list_all_domains() == []
    assert both.other.connect_list_all_domains() == [there] == [DomainRef("renamed", ref.uuid)]


def test_source_runs_on_when_the_destination_refuses_or_fails(both: Two) -> None:
    ref = both.start()
    flags = LIVE | MigrateFlag.NON_SHARED_DISK
    with pytest.raises(VirtError, match="Attempt to migrate guest to the same host"):
        migrate(both.one, both.one, ref, {}, LIVE)
    missing = {"destination_xml": both.one.domain_get_xml_desc(ref).replace("disk.qcow2", "none.qcow2")}
    with pytest.raises(VirtError, match=r"none\.qcow2.*No such file"):
        migrate(both.one, both.other, ref, missing, LIVE)
    nowhere = {"destination_xml": both.one.domain_get_xml_desc(ref).replace("disk.qcow2", "none/copy.qcow2")}
    with pytest.raises(VirtError, match="cannot create image"):
        migrate(both.one, both.other, ref, nowhere, flags)
    with pytest.raises(VirtError, match="which is in use by"):  # the very file that the source writes to
        migrate(both.one, both.other, ref, {}, flags)
    with pytest.raises(VirtError, match="unsupported scheme rdma"):
        migrate(both.one, both.other, ref, {"migrate_uri": "rdma://host"}, LIVE)
    assert both.other.connect_list_all_domains() == []
    assert not (both.home / "other" / "run" / "qemu" / "run").exists() or not [
        *(both.home / "other" / "run" / "qemu" / "run").iterdir()
    ]
    both.goes_on(both.one)


@pytest.mark.parametrize(
    ("params", "flags", "code", "words"),
    [
        ({}, MigrateFlag.LIVE, ErrorCode.MIGRATE_UNSAFE, "Migration without shared storage is unsafe"),
        (
            {},
            LIVE | MigrateFlag.TLS | MigrateFlag.PEER2PEER | MigrateFlag.TUNNELLED,
            ErrorCode.ARGUMENT_UNSUPPORTED,
            "TLS",
        ),
        ({}, LIVE | MigrateFlag.ZEROCOPY, ErrorCode.ARGUMENT_UNSUPPORTED, "zero-copy"),
        ({}, LIVE | MigrateFlag.TUNNELLED, ErrorCode.ARGUMENT_UNSUPPORTED, "without using peer2peer"),
        ({}, MigrateFlag.UNSAFE | MigrateFlag.POSTCOPY, ErrorCode.ARGUMENT_UNSUPPORTED, "non-live"),
        ({}, MigrateFlag.OFFLINE, ErrorCode.OPERATION_INVALID, "persistent flag"),
        ({"parallel.connections": 2}, LIVE, ErrorCode.INVALID_ARG, "Turn parallel migration on"),
        ({"compression": ("zip",)}, LIVE, ErrorCode.INVALID_ARG, "Unsupported compression method 'zip'"),
        ({"migrate_disks": ("vdz",)}, LIVE | MigrateFlag.NON_SHARED_DISK, ErrorCode.INVALID_ARG, "vdz not found"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_happens(
    tmp_path_factory: pytest.TempPathFactory,
    waiting: tuple[Two, DomainRef],
    params: dict[str, object],
    flags: MigrateFlag,
    code: ErrorCode,
    words: str,
) -> None:
    both, ref = waiting
    with pytest.raises(VirtError, match=words) as caught:
        migrate(both.one, both.other, ref, params, flags)  # type: ignore[arg-type]
    assert caught.value.code is code
    assert both.one.domain_get_state(ref).state is DomainState.RUNNING
    both.one.domain_send_key(ref, 0, 0, [28])  # nothing holds it any more


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Two, DomainRef]]:
    with two(tmp_path_factory.mktemp("waiting")) as opened:
        yield opened, opened.start(mode=guest.Mode.STAY)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+ssh://host/session?command=/bin/true", "'command' is not taken from the URI"),
        ("qemu+unix:///session?socket=/nosuch", "Failed to connect to remote libvirt URI"),
        ("test:///default", "does not support peer-to-peer migration"),
        (None, "needs the destination's URI"),
    ],
)
def test_peer_that_is_none_is_refused(waiting: tuple[Two, DomainRef], uri: str | None, words: str) -> None:
    both, ref = waiting
    with pytest.raises(VirtError, match=words):
        both.one.domain_migrate_perform3_params(ref, uri, {}, b"", LIVE | MigrateFlag.PEER2PEER)
    assert both.one.domain_get_state(ref).state is DomainState.RUNNING


def test_document_for_the_destination_must_be_the_same_machine(waiting: tuple[Two, DomainRef]) -> None:
    both, ref = waiting
    xml = both.one.domain_get_xml_desc(ref)
    for old, new, words in (
        ("<vcpu placement='static'>1<", "<vcpu placement='static'>2<", "vCPU max 2 does not match source 1"),
        ("dev='vda' bus='virtio'", "dev='vdb' bus='virtio'", "disk dev vdb does not match source vda"),
        (f"<uuid>{ref.uuid[:8]}", "<uuid>00000000", "uuid 00000000"),
    ):
        assert old in xml
        with pytest.raises(VirtError, match=words):
            migrate(both.one, both.other, ref, {"destination_xml": xml.replace(old, new)}, LIVE)


def move_slowly(
    both: Two, ref: DomainRef, flags: MigrateFlag, **params: object
) -> tuple[threading.Thread, list[object]]:
    """Begin to move a guest at 1 MiB a second; the thread that does, and what comes of it."""
    came: list[object] = []

    def work() -> None:
        try:
            came.append(migrate(both.one, both.other, ref, {"bandwidth": 1, **params}, flags))  # type: ignore[dict-item]
        except VirtError as error:
            came.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert eventually(lambda: both.one.domain_get_job_stats(ref)[1].get("memory_processed", 0) > 0)
    return thread, came


def test_guest_runs_there_before_all_is_sent(both: Two) -> None:
    ref = both.start()
    with pytest.raises(VirtError, match="while outgoing migration is in progress"):
        both.one.domain_migrate_start_post_copy(ref)
    thread, came = move_slowly(both, ref, LIVE | MigrateFlag.POSTCOPY)
    both.one.domain_migrate_start_post_copy(ref)
    thread.join(60)
    assert came == [both.other.domain_lookup_by_name("guest")]
    assert both.one.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.MIGRATED)
    both.goes_on(both.other)


def test_destination_whose_qemu_dies_leaves_the_guest_where_it_was(both: Two) -> None:
    ref = both.start(size=4 * MIB)
    flags = MigrateFlag.LIVE | MigrateFlag.NON_SHARED_DISK | MigrateFlag.PERSIST_DEST
    thread, came = move_slowly(both, ref, flags, **copied(both, ref))
    os.kill(pid_at(both.home / "other"), signal.SIGKILL)
    thread.join(60)
    assert isinstance(came[0], VirtError)
    assert both.other.connect_list_all_domains() == []
    assert not (both.home / "copy.qcow2").exists()
    both.goes_on(both.one)


def test_guest_that_runs_there_has_come_though_the_answer_was_lost(both: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has written to its disk by then: the source must not go on with what it knew before."""
    ref = both.start()
    ask = Running.ask

    def hard_of_hearing(machine: Running, command: str, **arguments: Any) -> Any:
        answer = ask(machine, command, **arguments)
        if command == "cont":
            raise VirtError(ErrorCode.OPERATION_TIMEOUT, "QEMU does not answer")
        return answer

    monkeypatch.setattr(Running, "ask", hard_of_hearing)
    there = migrate(both.one, both.other, ref, {}, LIVE)
    assert both.other.domain_get_state(there).state is DomainState.RUNNING
    assert state_of(both.one) is DomainState.SHUTOFF
    both.goes_on(both.other)


def test_guest_is_paused_at_its_source_where_qemu_dies_as_it_lets_it_run(
    both: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = both.start()
    ask = Running.ask

    def short_lived(machine: Running, command: str, **arguments: Any) -> Any:
        answer = ask(machine, command, **arguments)
        if command == "cont":
            os.kill(machine.status.pid, signal.SIGKILL)
            return ask(machine, "query-status")
        return answer

    monkeypatch.setattr(Running, "ask", short_lived)
    with pytest.raises(VirtError):
        migrate(both.one, both.other, ref, {}, LIVE)
    assert state_of(both.other) is None
    assert both.one.domain_get_state(ref)[:2] == (DomainState.PAUSED, PausedReason.MIGRATION)


def test_what_was_expected_and_ended_keeps_nothing_out(both: Two) -> None:
    ref = both.start()
    cookie, xml = both.one.domain_migrate_begin3_params(ref, {}, LIVE)
    for _ in range(2):
        both.other.domain_migrate_prepare3_params({"destination_xml": xml}, cookie, LIVE)
        with pytest.raises(VirtError, match="already active"):
            both.other.domain_migrate_prepare3_params({"destination_xml": xml}, cookie, LIVE)
        os.kill(pid_at(both.home / "other"), signal.SIGKILL)
        assert eventually(lambda: state_of(both.other) is None)
    both.other.domain_migrate_prepare3_params({"destination_xml": xml}, cookie, LIVE)
    both.other.domain_migrate_forsake("guest")  # as the daemon does when its client is gone
    assert state_of(both.other) is None
    there = migrate(both.one, both.other, ref, {}, LIVE)
    assert both.other.domain_get_state(there).state is DomainState.RUNNING
    both.goes_on(both.other)


def prepare(both: Two, ref: DomainRef, flags: MigrateFlag, **params: str) -> tuple[dict[str, str], bytes]:
    """Have a guest expected at the other side; the parameters and the cookie of the next steps."""
    params = {**params, "migrate_uri": f"unix://{both.home}/memory", "destination_name": "guest"}
    cookie, xml = both.one.domain_migrate_begin3_params(ref, params, flags)
    params = {**params, "destination_xml": xml}
    return params, both.other.domain_migrate_prepare3_params(params, cookie, flags)[0]


def send_copied(both: Two, ref: DomainRef) -> tuple[dict[str, str], bytes, MigrateFlag]:
    """Send a guest, with its disk copied into ``copy.qcow2``, as far as Finish; what Finish is to be given."""
    flags = LIVE | MigrateFlag.NON_SHARED_DISK | MigrateFlag.CHANGE_PROTECTION
    params, cookie = prepare(both, ref, flags, disks_uri=f"unix://{both.home}/nbd", **copied(both, ref))
    cookie = both.one.domain_migrate_perform3_params(ref, None, params, cookie, flags)
    return params, cookie, flags


@pytest.mark.parametrize("is_defined", [False, True])
@pytest.mark.parametrize("end", ["destroyed before", "destroyed", "killed"])
def test_what_ends_as_it_comes_is_taken_back_unless_it_may_have_run(both: Two, end: str, is_defined: bool) -> None:
    ref = both.start()
    if is_defined:
        both.other.domain_define_xml(copied(both, ref)["destination_xml"])
    params, _, flags = send_copied(both, ref)
    copy = both.home / "copy.qcow2"
    assert copy.exists()
    with held(both.home / "other") as coming:
        mark = coming.status.migration
        assert mark is not None
        mark.phase = "prepare" if end == "destroyed before" else "finish"
        coming.save(migration=mark)
    if end == "killed":
        os.kill(pid_at(both.home / "other"), signal.SIGKILL)
        assert eventually(lambda: not both.running())
    else:
        both.other.domain_destroy(both.other.domain_lookup_by_name("guest"))
    assert state_of(both.other) is (DomainState.SHUTOFF if is_defined else None)
    if end == "destroyed before":
        assert not copy.exists()
        both.one.domain_migrate_confirm3_params(ref, params, b"", flags, True)
        both.goes_on(both.one)
    else:
        assert copy.exists()
        with pytest.raises(VirtError, match="nobody knows whether the guest runs at the destination"):
            both.one.domain_migrate_confirm3_params(ref, params, b"", flags, True)
        assert both.one.domain_get_state(ref)[:2] == (DomainState.PAUSED, PausedReason.MIGRATION)


def test_guest_that_an_error_stopped_at_its_destination_is_not_dropped_with_the_process_that_let_it_run(
    tmp_path: Path, both: Two
) -> None:
    with small_disk(tmp_path / "small", 2 * MIB, is_free=False) as small:
        path = small.folder / "disk"
        ref = both.start_writing(path)
        params, cookie = prepare(both, ref, LIVE)
        both.one.domain_migrate_perform3_params(ref, None, params, cookie, LIVE)
        with small.full_at(path, PLACE[0] * guest.SECTOR), held(both.home / "other") as coming:
            mark = coming.status.migration
            assert mark is not None
            mark.phase = "finish"
            coming.save(migration=mark)
            assert eventually(lambda: coming.ask("query-migrate")["status"] == "completed")
            coming.ask("cont")
            assert eventually(lambda: coming.ask("query-status")["status"] == "io-error")
        lease.let_go(both.other._machines.lease("guest"))  # as if its daemon was killed
        both.one.domain_migrate_confirm3_params(ref, params, b"", LIVE, True)
        there = both.other.domain_lookup_by_name("guest")
        assert both.other.domain_get_state(there)[:2] == (DomainState.PAUSED, PausedReason.IOERROR)
        assert state_of(both.one) is DomainState.SHUTOFF
        both.other.domain_resume(there)
        wait_for_report(both.home, len(reports(both.home)) + 2)


def test_guest_that_an_error_stopped_at_its_source_goes_on_there_where_it_cannot_run_at_its_destination(
    tmp_path: Path, both: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Running.ask

    def refuse(machine: Running, command: str, **arguments: Any) -> Any:
        if command == "cont" and machine.machines is both.other._machines:
            raise VirtError(ErrorCode.OPERATION_FAILED, "it cannot run")
        return ask(machine, command, **arguments)

    with small_disk(tmp_path / "small", 2 * MIB, is_free=False) as small:
        path = small.folder / "disk"
        ref = both.start_writing(path)
        params, cookie = prepare(both, ref, LIVE)
        with small.full_at(path, PLACE[0] * guest.SECTOR):
            assert eventually(lambda: both.one.domain_get_state(ref).reason == PausedReason.IOERROR)
            cookie = both.one.domain_migrate_perform3_params(ref, None, params, cookie, LIVE)
            monkeypatch.setattr(Running, "ask", refuse)
            with pytest.raises(VirtError, match="it cannot run"):
                both.other.domain_migrate_finish3_params(params, cookie, LIVE, False)
        assert state_of(both.other) is None
        both.one.domain_migrate_confirm3_params(ref, params, b"", LIVE, True)
        assert state_of(both.one) is DomainState.PAUSED
        both.one.domain_resume(ref)
        wait_for_report(both.home, len(reports(both.home)) + 2)


@pytest.mark.parametrize("is_defined", [False, True])
def test_guest_goes_on_at_its_source_where_it_is_destroyed_while_finish_waits_for_qemu(
    both: Two, is_defined: bool
) -> None:
    ref = both.start()
    if is_defined:
        both.other.domain_define_xml(copied(both, ref)["destination_xml"])
    params, cookie, flags = send_copied(both, ref)
    os.kill(pid_at(both.home / "other"), signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(both.other.domain_migrate_finish3_params, params, cookie, flags, False)
        assert eventually(lambda: both.other._machines.is_held("guest"))
        both.other.domain_destroy(both.other.domain_lookup_by_name("guest"))
        assert isinstance(finished.exception(30), VirtError)
    both.one.domain_migrate_confirm3_params(ref, params, b"", flags, True)
    assert not (both.home / "copy.qcow2").exists()
    both.goes_on(both.one)


def test_list_settles_what_was_left(both: Two) -> None:
    ref = both.start()
    cookie, xml = both.one.domain_migrate_begin3_params(ref, {}, LIVE | MigrateFlag.CHANGE_PROTECTION)
    both.other.domain_migrate_prepare3_params({"destination_xml": xml}, cookie, LIVE)
    assert both.other.connect_list_all_domains() == [DomainRef("guest", ref.uuid, 1)]
    for driver in (both.one, both.other):  # as if their daemons were killed
        lease.let_go(driver._machines.lease("guest"))
    assert both.other.connect_list_all_domains() == []
    assert both.one.connect_list_all_domains() == [ref]
    status = (both.home / "one" / "run" / "qemu" / "guest.xml").read_text()
    assert "<migration" not in status
    both.goes_on(both.one)


def pid_at(home: Path) -> int:
    """The process id of the one QEMU of a session."""
    (status,) = (home / "run" / "qemu").glob("*.xml")
    found = re.search(r"pid='([0-9]+)'", status.read_text())
    assert found is not None
    return int(found[1])


def test_migration_is_watched_tuned_and_aborted(both: Two) -> None:
    ref = both.start(size=64 * MIB)
    both.one.domain_migrate_set_max_speed(ref, 1)
    both.one.domain_migrate_set_max_downtime(ref, 1)
    assert both.one.domain_migrate_get_max_speed(ref) == 1
    assert both.one.domain_migrate_get_max_downtime(ref) == 1
    thread, came = move_slowly(both, ref, MigrateFlag.LIVE | MigrateFlag.NON_SHARED_DISK, **copied(both, ref))
    with pytest.raises(VirtError, match="cannot acquire state change lock"):
        both.one.domain_save_flags(ref, str(both.home / "saved"))
    assert both.one.domain_memory_stats(ref)["actual"]
    there = both.other.domain_lookup_by_name("guest")
    assert both.other.domain_get_state(there)[:2] == (DomainState.PAUSED, PausedReason.MIGRATION)
    for refused in (both.other.domain_resume, both.other.domain_abort_job):
        with pytest.raises(VirtError, match=r"cannot acquire state change lock|cannot abort incoming migration"):
            refused(there)
    both.one.domain_abort_job(ref)
    thread.join(60)
    assert isinstance(came[0], VirtError)
    assert came[0].code is ErrorCode.OPERATION_ABORTED
    assert state_of(both.other) is None
    assert not (both.home / "copy.qcow2").exists()
    both.goes_on(both.one)


def give_certificates(both: Two, passphrase: str = "") -> None:
    """Certificates of one authority at both sides, each for either end, and what names their keys' passphrase."""
    authority = Authority()
    for name in ("one", "other"):
        folder = authority.server(both.home / name / "config/pki/qemu")
        authority.peer(folder)
        if passphrase:
            for key in folder.glob("*-key.pem"):
                lock(key, passphrase)
            directories = Directories.under(both.home / name)
            secrets = VaultSecretDriver(DiskVault(directories), EventBus(directories.state / "events"))
            secret = secrets.secret_define_xml("<secret><usage type='tls'><name>keys</name></usage></secret>")
            secrets.secret_set_value(secret, passphrase.encode())
            (both.home / name / "config/qemu.conf").write_text(f'migrate_tls_x509_secret_uuid = "{secret.uuid}"\n')


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_guest_and_its_disk_move_by_tls(both: Two, passphrase: str) -> None:
    give_certificates(both, passphrase)
    ref = both.start(size=4 * MIB)
    flags = MigrateFlag.LIVE | MigrateFlag.NON_SHARED_DISK | MigrateFlag.UNDEFINE_SOURCE | MigrateFlag.PERSIST_DEST
    where = {"migrate_uri": "tcp:127.0.0.1", "tls.destination": "localhost"}
    migrate(both.one, both.other, ref, {**copied(both, ref), **where}, flags | MigrateFlag.TLS)
    with held(both.home / "other") as machine:
        assert not [item for item in machine.ask("qom-list", path="/objects") if "tls" in str(item["name"])]
        assert machine.ask("query-migrate-parameters")["tls-creds"] == ""
    assert state_of(both.one) is None
    both.goes_on(both.other, "copy.qcow2")


def test_guest_stays_where_the_other_side_has_no_certificate_of_its_own(both: Two) -> None:
    ref = both.start()
    where = {"migrate_uri": "tcp:127.0.0.1"}
    with pytest.raises(VirtError, match="host migration TLS directory not configured: there is no"):
        migrate(both.one, both.other, ref, where, LIVE | MigrateFlag.TLS)
    give_certificates(both)
    stranger = Authority("stranger").server(both.home / "stranger")
    shutil.rmtree(both.home / "other/config/pki/qemu")
    stranger.rename(both.home / "other/config/pki/qemu")
    with pytest.raises(VirtError, match="operation failed"):
        migrate(both.one, both.other, ref, where, LIVE | MigrateFlag.TLS)
    assert state_of(both.other) is None
    with held(both.home / "one") as machine:
        assert not [item for item in machine.ask("qom-list", path="/objects") if "tls" in str(item["name"])]
    migrate(both.one, both.other, ref, where, LIVE)  # nothing of it is left
    both.goes_on(both.other)


def test_nothing_moves_without_tls_where_the_host_wants_it(both: Two) -> None:
    ref = both.start()
    give_certificates(both)
    for name in ("one", "other"):
        (both.home / name / "config/qemu.conf").write_text("migrate_tls_force = 1\n")
    where = {"migrate_uri": "tcp:127.0.0.1"}
    with pytest.raises(VirtError, match="allows migration only with VIR_MIGRATE_TLS flag"):
        migrate(both.one, both.other, ref, where, LIVE)
    with pytest.raises(VirtError, match="Explicit destination hostname is required for TLS migration over UNIX socket"):
        migrate(both.one, both.other, ref, {"migrate_uri": f"unix://{both.home}/m"}, LIVE | MigrateFlag.TLS)
    migrate(both.one, both.other, ref, where, LIVE | MigrateFlag.TLS)
    both.goes_on(both.other)
