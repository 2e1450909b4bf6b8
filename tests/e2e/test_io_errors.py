"""Guests whose disks find no room: they are stopped, all hear why, and with room they go on as if nothing was."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from hostel import guest
from hostel.drivers.base import DomainState, PausedReason, RunningReason
from hostel.drivers.base.block import BlockCommitFlag, BlockJobAbortFlag, DiskError
from hostel.drivers.base.dumping import DumpFlag, DumpFormat
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.events import BlockJobStatus, Lifecycle, Suspended
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.objects import Connection, Domain
from hostel.objects.event import EventStream
from support import image
from support.moving import PLACE, WORK, eventually, state_of, two
from support.session import disk, domain_xml, reports, wait_for_report
from support.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
KIB: Final = 1 << 10
MIB: Final = 1 << 20
STOPPED: Final = (DomainState.PAUSED, PausedReason.IOERROR)
MOVE: Final = MigrateFlag.LIVE | MigrateFlag.UNSAFE
SUSPENDED: Final = ("lifecycle", {"event": Lifecycle.SUSPENDED, "detail": Suspended.IOERROR})


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 4 * MIB, is_free=False) as mounted:
        yield mounted


@contextlib.contextmanager
def full(small: SmallDisk) -> Iterator[None]:
    """Have no room on a small disk."""
    path = small.folder / "rest"
    path.write_bytes(b"x")
    with small.full_at(path, 0):
        yield


@contextlib.contextmanager
def nearly_full(small: SmallDisk, left: int) -> Iterator[None]:
    """Have room for a few bytes only on a small disk that is empty."""
    path = small.folder / "most"
    path.write_bytes(bytes(4 * MIB - left))
    yield
    path.unlink()


def started(home: Path, connection: Connection) -> Domain:
    """A guest that reboots for ever, on a disk elsewhere that has data."""
    data = guest.image(label="full", mode=guest.Mode.REBOOT).ljust(64 * KIB, b"\0") + b"x" * (2 * MIB - 64 * KIB)
    (home / "disk").write_bytes(data)
    domain = connection.define_domain(domain_xml(home, disk(home / "disk")))
    domain.start()
    wait_for_report(home, 1)
    return domain


def define(small: SmallDisk, connection: Connection, fmt: str = "raw", words: str = "") -> Domain:
    """A guest whose disk has nothing yet at the place that it writes to; then it switches itself off."""
    path = small.folder / "disk"
    image.qemu_img("create", "-q", "-f", fmt, path, MIB)
    image.write(path, fmt, (0, guest.image(label="full", operations=WORK)))
    return connection.define_domain(domain_xml(small.folder.parent, disk(path, fmt, words=words)))


def is_stopped(domain: Domain) -> bool:
    """Whether an I/O error has stopped it."""
    return domain.state_info()[:2] == STOPPED


def goes_on(small: SmallDisk, domain: Domain, fmt: str = "raw") -> None:
    """Let it go on: it writes what it was stopped at, and knows nothing of that."""
    domain.resume()
    domain.wait(DomainState.SHUTOFF, 30)
    (said,) = reports(small.folder.parent)
    assert (said.ok, said.boot) == (True, 1)
    image.assert_clean(small.folder / "disk", fmt)


def until(events: EventStream, last: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What is told, with what it ends with."""
    told: list[tuple[str, dict[str, Any]]] = []
    while not told or told[-1] != last:
        event = events.wait(20)
        assert event is not None, told
        told.append((event.kind, dict(event.detail)))
    return told


@pytest.mark.parametrize(("fmt", "words"), [("raw", ""), ("qcow2", " error_policy='stop'")])
def test_guest_that_finds_no_room_is_stopped_and_goes_on_once_there_is(
    connection: Connection, small: SmallDisk, fmt: str, words: str
) -> None:
    domain = define(small, connection, fmt, words)
    error = {"srcPath": str(small.folder / "disk"), "devAlias": "virtio-disk0", "action": 1}
    errors = [("io-error", error), ("io-error-reason", {**error, "reason": "enospc"})]
    with connection.listen(kinds=["lifecycle", "io-error", "io-error-reason"]) as events, full(small):
        domain.start()
        assert until(events, SUSPENDED)[-3:] == [*errors, SUSPENDED]
        again = QemuDriver(Directories.under(small.folder.parent))  # as a daemon that is started again
        ref = again.domain_lookup_by_name("guest")
        assert again.domain_get_state(ref)[:2] == STOPPED
        assert again.domain_get_disk_errors(ref) == [DiskError("vda", 2)]
        domain.resume()
        assert until(events, SUSPENDED)[-3:] == [*errors, SUSPENDED]
    goes_on(small, domain, fmt)


def test_guest_that_is_stopped_as_soon_as_it_runs_is_told_to_be(
    tmp_path: Path, connection: Connection, driver: QemuDriver, small: SmallDisk
) -> None:
    """Nobody listens to QEMU yet when it tries again what it was stopped at before its memory was saved."""
    domain = define(small, connection)
    with full(small):
        domain.start()
        assert eventually(lambda: is_stopped(domain))
        driver.domain_save_flags(domain._ref, str(tmp_path / "save"))
        with connection.listen(kinds=["lifecycle"]) as events:
            driver.domain_restore_flags(str(tmp_path / "save"), None, SaveFlag.RUNNING)
            until(events, SUSPENDED)
            while (event := events.wait(1)) is not None:
                assert (event.kind, dict(event.detail)) != SUSPENDED
        assert is_stopped(domain)
    goes_on(small, domain)


def test_guest_whose_server_answers_with_an_error_once_is_stopped_and_goes_on(
    tmp_path: Path, connection: Connection, driver: QemuDriver
) -> None:
    path, socket = tmp_path / "disk", tmp_path / "socket"
    path.write_bytes(guest.image(label="full", operations=WORK, size=MIB))
    rule = {"event": "pwritev", "errno": 5, "sector": PLACE[0], "once": "on"}
    error = ",".join(f"inject-error.0.{name}={value}" for name, value in rule.items())
    options = f"driver=blkdebug,image.driver=file,image.filename={path},{error}"
    words = ["qemu-nbd", "--persistent", "--socket", str(socket), "--export-name", "e", "--image-opts", options]
    source = f"<source protocol='nbd' name='e'><host transport='unix' socket='{socket}'/></source>"
    xml = f"<disk type='network'><driver error_policy='stop'/>{source}<target dev='vda' bus='virtio'/></disk>"
    domain = connection.define_domain(domain_xml(tmp_path, xml))
    server = subprocess.Popen([sys.executable, "-m", "hostel", *words])
    try:
        assert eventually(socket.exists)
        with connection.listen(kinds=["lifecycle", "io-error-reason"]) as events:
            domain.start()
            told = {"srcPath": "e", "devAlias": "virtio-disk0", "action": 1, "reason": ""}
            assert until(events, SUSPENDED)[-2:] == [("io-error-reason", told), SUSPENDED]
        assert driver.domain_get_disk_errors(domain._ref) == [DiskError("vda", 1)]
        domain.resume()
        domain.wait(DomainState.SHUTOFF, 30)
    finally:
        server.terminate()
        server.wait(20)
    (said,) = reports(tmp_path)
    assert (said.ok, said.boot) == (True, 1)


def test_it_is_told_that_a_guest_writes_beyond_a_mark(
    connection: Connection, driver: QemuDriver, small: SmallDisk
) -> None:
    """Whoever makes a disk larger in time hears of it before there is no room."""
    domain = define(small, connection)
    with connection.listen(kinds=["block-threshold"]) as events:
        domain.start(paused=True)
        driver.domain_set_block_threshold(domain._ref, "vda", 256 * KIB)
        end = (PLACE[0] + PLACE[1]) * guest.SECTOR
        told = {"path": str(small.folder / "disk"), "threshold": 256 * KIB, "excess": end - 256 * KIB}
        goes_on(small, domain)
        for dev in ("vda", "vda[1]"):
            event = events.wait(20)
            assert event is not None
            assert event.detail == {"dev": dev, **told}


def test_guest_that_is_told_of_an_error_runs_on(connection: Connection, small: SmallDisk) -> None:
    domain = define(small, connection, words=" error_policy='report'")
    with full(small):
        domain.start()
        domain.wait(DomainState.SHUTOFF, 30)
    (said,) = reports(small.folder.parent)
    assert [outcome.result for outcome in said.outcomes] != ["ok", "ok"]
    assert said.failures


def test_why_a_guest_is_stopped_is_known_after_its_memory_was_written(
    connection: Connection, driver: QemuDriver, small: SmallDisk
) -> None:
    domain = define(small, connection)
    to = small.folder.parent / "dump"
    with full(small):
        domain.start()
        assert eventually(lambda: is_stopped(domain))
        with pytest.raises(VirtError, match="No space left on device"):
            driver.domain_save_flags(domain._ref, str(small.folder / "save"))
        assert not (small.folder / "save").exists()
        assert is_stopped(domain)
        driver.domain_core_dump_with_format(domain._ref, str(to), DumpFormat.RAW, DumpFlag.NONE)
        assert is_stopped(domain)
    goes_on(small, domain)


def test_guest_whose_memory_finds_no_room_runs_on(
    tmp_path: Path, connection: Connection, driver: QemuDriver, small: SmallDisk
) -> None:
    """It is said why it runs, and nothing is left of the file."""
    domain = started(tmp_path, connection)
    with nearly_full(small, 256 * KIB):
        with pytest.raises(VirtError, match=r"No space left on device; .* of which 0 B are free"):
            driver.domain_save_flags(domain._ref, str(small.folder / "save"))
        assert not (small.folder / "save").exists()
    assert domain.state_info()[:2] == (DomainState.RUNNING, RunningReason.SAVE_CANCELED)
    wait_for_report(tmp_path, len(reports(tmp_path)) + 2)


def test_backup_that_finds_no_room_fails_and_leaves_nothing(
    tmp_path: Path, connection: Connection, driver: QemuDriver, small: SmallDisk
) -> None:
    domain = started(tmp_path, connection)
    target = small.folder / "backup"
    xml = f"<domainbackup><disks><disk name='vda' type='file'><target file='{target}'/></disk></disks></domainbackup>"
    with connection.listen(kinds=["job-completed"]) as events:
        with nearly_full(small, 448 * KIB):
            driver.domain_backup_begin(domain._ref, xml)
            event = events.wait(20)
        assert event is not None
        assert (event.detail["success"], event.detail["errmsg"]) == (0, "No space left on device")
        assert event.detail["disk_total"] == 2 * MIB > event.detail["disk_processed"]
        assert not target.exists()
        with nearly_full(small, 64 * KIB), pytest.raises(VirtError, match="No space left on device"):
            driver.domain_backup_begin(domain._ref, xml)
        assert not target.exists()
        driver.domain_backup_begin(domain._ref, xml)
        event = events.wait(20)
    assert event is not None, "only of what has begun is it told that it is over"
    assert (event.detail["success"], event.detail["disk_processed"]) == (1, 2 * MIB)
    wait_for_report(tmp_path, len(reports(tmp_path)) + 2)


def test_job_that_finds_no_room_fails_and_is_done_again_once_there_is(
    tmp_path: Path, connection: Connection, driver: QemuDriver, small: SmallDisk
) -> None:
    """What a guest wrote since a snapshot is merged into the image below, and then pulled from there."""
    below, above = small.folder / "below", tmp_path / "above"
    image.qemu_img("create", "-q", "-f", "qcow2", below, MIB)
    image.write(below, "qcow2", (0, guest.image(label="full", mode=guest.Mode.REBOOT)))
    image.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, above)
    image.write(above, "qcow2", (MIB // 2, b"kept" * 64 * KIB))
    domain = connection.define_domain(domain_xml(tmp_path, disk(above, "qcow2")))
    domain.start()
    wait_for_report(tmp_path, 1)
    with connection.listen(kinds=["block-job-2"]) as events:

        def ended() -> BlockJobStatus:
            event = events.wait(20)
            assert event is not None
            return BlockJobStatus(event.detail["status"])

        def merge() -> BlockJobStatus:
            driver.domain_block_commit(domain._ref, "vda", flags=BlockCommitFlag.ACTIVE)
            return ended()

        def pull() -> BlockJobStatus:
            driver.domain_block_rebase(domain._ref, "vda")
            return ended()

        with full(small):
            assert merge() is BlockJobStatus.FAILED
            assert f"<source file='{above}'" in domain.xml()
            wait_for_report(tmp_path, len(reports(tmp_path)) + 2)
        assert merge() is BlockJobStatus.READY
        driver.domain_block_job_abort(domain._ref, "vda", BlockJobAbortFlag.PIVOT)
        assert ended() is BlockJobStatus.COMPLETED
        image.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, small.folder / "over")
        overlay = f"<disk name='vda'><source file='{small.folder}/over'/></disk>"
        flags = SnapshotCreateFlag.DISK_ONLY | SnapshotCreateFlag.NO_METADATA | SnapshotCreateFlag.REUSE_EXT
        made = f"<domainsnapshot><disks>{overlay}</disks></domainsnapshot>"
        driver.domain_snapshot_create_xml(domain._ref, made, flags)
        wait_for_report(tmp_path, len(reports(tmp_path)) + 2)  # it has the cluster now that it writes to
        with full(small):
            assert pull() is BlockJobStatus.FAILED
            wait_for_report(tmp_path, len(reports(tmp_path)) + 2)
        assert pull() is BlockJobStatus.COMPLETED
    domain.destroy()
    said = [report.boot for report in reports(tmp_path) if report.complete]
    assert said == list(range(1, len(said) + 1))
    assert image.content(small.folder / "over", "qcow2")[MIB // 2 :][: 256 * KIB] == b"kept" * 64 * KIB
    image.qemu_img("check", "-q", "-r", "leaks", "-f", "qcow2", small.folder / "over")


def test_guest_that_an_error_stops_moves_only_where_that_is_no_reason_to_stay(tmp_path: Path, small: SmallDisk) -> None:
    path = small.folder / "disk"
    with two(tmp_path) as both, ThreadPoolExecutor(1) as pool:
        ref = both.start_writing(path)
        both.one.domain_migrate_set_max_speed(ref, 1)  # MiB/s, of which there are more
        moved = pool.submit(migrate, both.one, both.other, ref, {}, MOVE | MigrateFlag.ABORT_ON_ERROR)
        assert eventually(lambda: both.one.domain_get_job_stats(ref)[1].get("memory_processed", 0) > 0)
        with small.full_at(path, PLACE[0] * guest.SECTOR):
            assert isinstance(moved.exception(30), VirtError)
            assert both.one.domain_get_state(ref)[:2] == STOPPED
            assert state_of(both.other) in (None, DomainState.SHUTOFF)
            with pytest.raises(VirtError, match="cannot migrate domain with I/O error"):
                migrate(both.one, both.other, ref, {}, MOVE | MigrateFlag.ABORT_ON_ERROR)
            both.one.domain_migrate_set_max_speed(ref, 1000)
            migrate(both.one, both.other, ref, {}, MOVE)
            there = both.other.domain_lookup_by_name("guest")
            assert both.other.domain_get_state(there)[:2] == STOPPED
        both.other.domain_resume(there)
        wait_for_report(tmp_path, len(reports(tmp_path)) + 2)
        assert both.running() == [both.other]
        said = [report for report in reports(tmp_path) if report.complete]
        assert all(report.ok for report in said)
        assert [report.boot for report in said] == list(range(1, len(said) + 1))
