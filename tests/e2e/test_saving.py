"""Machines whose memory is kept in a file: the guest goes on as if nothing had been."""

from __future__ import annotations

import fcntl
import functools
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState, ShutoffReason, StartFlag, UndefineFlag
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.qemu import savefile
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories, Store
from hostel.errors import VirtError
from hostel.objects import Connection
from support.kill_step import MAX_STEPS, killed_at
from support.session import disk, domain_xml, reports, session, wait_for_report

pytestmark = pytest.mark.qemu
MIB = 1 << 20
DRIVER = Path(__file__).parents[2] / "src/hostel/drivers/qemu"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="saved", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with session(tmp_path) as opened:
        yield opened


def start(driver: QemuDriver, home: Path) -> DomainRef:
    ref = driver.domain_create(driver.domain_define_xml(domain_xml(home, disk(home / "disk.img"))))
    wait_for_report(home, 1)
    return ref


def goes_on(driver: QemuDriver, ref: DomainRef, home: Path) -> None:
    """The guest has not booted again, and still answers the power button."""
    assert len(reports(home)) == 1
    driver.domain_shutdown(ref)
    deadline = time.monotonic() + 30
    while driver.domain_get_state(ref).state != DomainState.SHUTOFF:
        assert time.monotonic() < deadline, "the guest does not go on"
        time.sleep(0.05)
    assert driver.domain_get_state(ref).reason == ShutoffReason.SHUTDOWN
    assert len(reports(home)) == 1


def test_saved_machine_is_restored_and_goes_on(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    file = tmp_path / "memory"
    moved: list[int] = []
    driver.domain_save_flags(ref, str(file), progress=lambda done, total: moved.append(done))
    assert driver.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.SAVED)
    assert moved
    assert "<name>guest</name>" in driver.domain_save_image_get_xml_desc(str(file))
    ref = driver.domain_restore_flags(str(file))
    assert driver.domain_get_state(ref)[:2] == (DomainState.RUNNING, 3)
    goes_on(driver, ref, tmp_path)


def test_how_it_goes_on_can_be_said_when_it_is_saved_changed_or_restored(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    file = str(tmp_path / "memory")
    driver.domain_suspend(ref)
    driver.domain_save_flags(ref, file)
    ref = driver.domain_restore_flags(file)
    assert driver.domain_get_state(ref).state == DomainState.PAUSED
    driver.domain_save_flags(ref, file, flags=SaveFlag.RUNNING)
    xml = driver.domain_save_image_get_xml_desc(file).replace("</name>", "</name><title>changed</title>")
    driver.domain_save_image_define_xml(file, xml, SaveFlag.PAUSED)
    with pytest.raises(VirtError, match="does not match source 'guest'"):
        driver.domain_save_image_define_xml(file, xml.replace("<name>guest", "<name>other"))
    ref = driver.domain_restore_flags(file)
    assert driver.domain_get_state(ref).state == DomainState.PAUSED
    assert "<title>changed</title>" in driver.domain_get_xml_desc(ref)
    driver.domain_resume(ref)
    goes_on(driver, ref, tmp_path)


def test_managed_save_is_used_up_by_the_next_start(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    driver.domain_managed_save(ref)
    assert driver.domain_has_managed_save_image(ref)
    with pytest.raises(VirtError, match="managed save image exists"):
        driver.domain_undefine(ref)
    ref = driver.domain_create(ref)
    assert not driver.domain_has_managed_save_image(ref)
    driver.domain_managed_save(ref)
    driver.domain_create(ref, StartFlag.FORCE_BOOT)
    wait_for_report(tmp_path, 2)
    driver.domain_managed_save(ref)
    driver.domain_managed_save_remove(ref)
    driver.domain_create(ref)
    wait_for_report(tmp_path, 3)
    driver.domain_managed_save(ref)
    driver.domain_undefine(ref, UndefineFlag.MANAGED_SAVE)
    assert not driver.domain_has_managed_save_image(ref)


def test_save_that_fails_leaves_the_guest_running(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    with pytest.raises(VirtError, match="No such file or directory"):
        driver.domain_save_flags(ref, str(tmp_path / "none/memory"))
    with pytest.raises(VirtError):
        driver.domain_save_flags(ref, "/dev/full")
    assert Path("/dev/full").is_char_device()  # what is no file of ours is not removed
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    goes_on(driver, ref, tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "failed to read qemu header"),
        (b"x" * 200, "is no image"),
        (b"LibvirtQemudPart" + bytes(200), "is incomplete"),
        (b"LibvirtQemudSave" + b"\x03" + bytes(200), "version"),
        (b"LibvirtQemudSave\x02\0\0\0\xff\xff\xff\xff" + bytes(200), "invalid XML length"),
        (b"LibvirtQemudSave\x02\0\0\0\x10\0\0\0" + bytes(8) + bytes(60) + b"x" * 16, "does not end"),
    ],
)
def test_file_that_is_no_saved_machine_is_refused(
    tmp_path: Path, driver: QemuDriver, content: bytes, words: str
) -> None:
    (tmp_path / "memory").write_bytes(content)
    with pytest.raises(VirtError, match=words):
        driver.domain_restore_flags(str(tmp_path / "memory"))


def save(home: Path, ref: DomainRef) -> None:
    """Save as another process does."""
    QemuDriver(Directories.under(home)).domain_managed_save(ref)


def test_killed_at_any_step_it_is_saved_or_runs_and_never_both(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    path = driver._machines.saved("guest")
    step, outcomes = 1, set()
    files = (DRIVER / "saving.py", DRIVER / "savefile.py")
    while step < MAX_STEPS:
        killed = killed_at(step, files, functools.partial(save, tmp_path, ref))
        state = driver.domain_get_state(ref)
        is_saved = state.state == DomainState.SHUTOFF
        outcomes.add(is_saved)
        assert state.state in (DomainState.SHUTOFF, DomainState.RUNNING), f"step {step}"
        assert savefile.is_whole(path) == is_saved, f"step {step}"
        assert path.exists() == is_saved, f"step {step}"
        if is_saved:
            assert state.reason == ShutoffReason.SAVED
            ref = driver.domain_create(ref)
        if not killed:
            break
        step += 3
    assert outcomes == {True, False}
    goes_on(driver, ref, tmp_path)


def test_killed_while_it_is_saved_over_another_file_it_is_not_taken_for_saved(
    tmp_path: Path, driver: QemuDriver
) -> None:
    ref = start(driver, tmp_path)
    path = tmp_path / "memory"
    driver.domain_save_flags(ref, str(path))
    ref, old = driver.domain_restore_flags(str(path)), path.read_bytes()
    again = functools.partial(QemuDriver(Directories.under(tmp_path)).domain_save_flags, ref, str(path))
    step, is_saved = 1, False
    while not is_saved:
        killed_at(step, (DRIVER / "saving.py", DRIVER / "savefile.py"), again)
        is_saved = driver.domain_get_state(ref).state == DomainState.SHUTOFF
        if not is_saved:
            assert driver.domain_get_state(ref).state == DomainState.RUNNING, f"step {step}"
            path.write_bytes(old)
            step += 5
    assert step > 50
    assert savefile.is_whole(path)
    assert path.read_bytes() != old
    goes_on(driver, driver.domain_restore_flags(str(path)), tmp_path)


def test_save_that_cannot_begin_is_not_taken_for_the_one_before(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    path = tmp_path / "memory"
    driver.domain_save_flags(ref, str(path))
    ref, old = driver.domain_restore_flags(str(path)), path.read_bytes()
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(VirtError, match=f"the memory of another machine is being saved to '{path}'"):
            driver.domain_save_flags(ref, str(path))
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    assert path.read_bytes() == old
    goes_on(driver, ref, tmp_path)


OTHERS = [
    ("<memory unit='KiB'>32768", "<memory unit='KiB'>65536", "domain max memory 65536 does not match source 32768"),
    ("dev='vda'", "dev='vdb'", "disk dev vdb does not match source vda"),
    ("<uuid>", "<uuid>0", "malformed uuid element"),
]


@pytest.mark.parametrize(("old", "new", "words"), OTHERS)
def test_document_of_another_machine_is_refused(
    tmp_path: Path, driver: QemuDriver, old: str, new: str, words: str
) -> None:
    ref = start(driver, tmp_path)
    xml = driver.domain_get_xml_desc(ref)
    assert old in xml
    with pytest.raises(VirtError, match=words):
        driver.domain_save_flags(ref, str(tmp_path / "memory"), xml.replace(old, new))
    driver.domain_managed_save(ref)
    with pytest.raises(VirtError, match=words):
        driver.domain_managed_save_define_xml(ref, xml.replace(old, new))
    goes_on(driver, driver.domain_create(ref), tmp_path)


def test_document_given_anew_is_completed(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    uuid = f"<uuid>{ref.uuid}</uuid>"
    short = domain_xml(tmp_path, disk(tmp_path / "disk.img")).replace("<memory", "<title>again</title><memory")
    driver.domain_managed_save(ref)
    driver.domain_managed_save_define_xml(ref, short)
    kept = driver.domain_managed_save_get_xml_desc(ref)
    assert "<title>again</title>" in kept and uuid in kept and "<alias" not in kept and "<domain type='qemu'>" in kept
    goes_on(driver, driver.domain_create(ref), tmp_path)


@pytest.mark.parametrize(("kind", "tool"), [(1, "gzip"), (2, "bzip2"), (3, "xz")])
def test_file_that_libvirt_has_compressed_is_restored(tmp_path: Path, driver: QemuDriver, kind: int, tool: str) -> None:
    ref = start(driver, tmp_path)
    file = tmp_path / "memory"
    driver.domain_save_flags(ref, str(file))
    data, begin = file.read_bytes(), savefile.read(file).start
    packed = subprocess.run([tool, "-c"], input=data[begin:], capture_output=True, check=True, timeout=60).stdout
    file.write_bytes(data[:28] + struct.pack("=I", kind) + data[32:begin] + packed)
    driver.domain_save_image_define_xml(str(file), driver.domain_save_image_get_xml_desc(str(file)))
    goes_on(driver, driver.domain_restore_flags(str(file)), tmp_path)


def test_killed_while_it_is_restored_saved_memory_is_not_used_twice(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    for step in range(1, MAX_STEPS):
        driver.domain_managed_save(ref)
        steps = (DRIVER / "driver.py", DRIVER / "saving.py")
        killed = killed_at(
            step, steps, lambda: QemuDriver(Directories.under(tmp_path)).domain_create(ref), may_fail=False
        )
        if driver.domain_get_state(ref).state == DomainState.SHUTOFF:
            assert driver.domain_has_managed_save_image(ref), step
            driver.domain_create(ref)
        elif driver.domain_get_state(ref).state == DomainState.PAUSED:
            driver.domain_resume(ref)
        assert not driver.domain_has_managed_save_image(ref), step
        if not killed:
            break
    goes_on(driver, ref, tmp_path)


def test_saved_memory_is_kept_where_its_machine_cannot_go_on(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    driver.domain_managed_save(ref)
    with (tmp_path / "disk.img").open("rb") as other:  # who shares no writing, in QEMU's way
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 201, 1, 0))
        with pytest.raises(VirtError, match="lock"):
            driver.domain_create(ref)
    assert driver.domain_has_managed_save_image(ref)
    goes_on(driver, driver.domain_create(ref), tmp_path)
    assert not list(tmp_path.rglob("*.used"))


def configure(home: Path, text: str) -> None:
    (home / "config").mkdir(exist_ok=True)
    (home / "config/qemu.conf").write_text(text)


@pytest.mark.parametrize(("name", "magic"), [("gzip", b"\x1f\x8b"), ("xz", b"\xfd7zXZ")])
def test_memory_is_packed_as_the_host_wants_it(tmp_path: Path, driver: QemuDriver, name: str, magic: bytes) -> None:
    configure(tmp_path, f'save_image_format = "{name}"\n')
    ref = start(driver, tmp_path)
    driver.domain_managed_save(ref)
    (path,) = (tmp_path / "config").glob("**/guest.save")
    saved = savefile.read(path)
    assert saved.unpack[0] == name
    assert path.read_bytes()[saved.start :].startswith(magic)
    goes_on(driver, driver.domain_create(ref), tmp_path)


def test_what_cannot_be_packed_is_not_saved_and_goes_on(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    program = tmp_path / "bin/lzop"
    for format, message in (
        ("frob", "Invalid save image format specified in configuration file: 'frob'; write one of raw, gzip"),
        ("lzop", "lzop failed: no more room"),
    ):
        configure(tmp_path, f'save_image_format = "{format}"\n')
        with pytest.MonkeyPatch.context() as patched:
            program.parent.mkdir(exist_ok=True)
            program.write_text("#!/bin/sh\ncat >/dev/null; echo 'no more room' >&2; exit 1\n")
            program.chmod(0o755)
            patched.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
            with pytest.raises(VirtError, match=message):
                driver.domain_save_flags(ref, str(tmp_path / "memory"))
        assert not (tmp_path / "memory").exists()
        assert driver.domain_get_state(ref).state == DomainState.RUNNING
    goes_on(driver, ref, tmp_path)


def test_qemu_has_the_name_and_the_limits_that_the_host_wants(tmp_path: Path, driver: QemuDriver) -> None:
    configure(tmp_path, "set_process_name = 1\nmax_files = 777\nmax_core = 0\n")
    ref = start(driver, tmp_path)
    pid = Status.parse(Store(driver._machines.directories.state / "qemu").read("guest") or "").pid
    assert Path(f"/proc/{pid}/comm").read_text() == "qemu:guest\n"
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    told = {line[:26].strip(): line[26:].split()[:2] for line in limits}
    assert told["Max open files"] == ["777", "777"] and told["Max core file size"] == ["0", "0"]
    goes_on(driver, ref, tmp_path)


def test_memory_is_not_written_over_the_image_of_a_disk(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    path = tmp_path / "disk.img"
    (tmp_path / "link").symlink_to(path)
    before = path.read_bytes()
    for name in ("disk.img", "link"):
        for call in (driver.domain_save_flags, lambda ref, to: driver.domain_core_dump_with_format(ref, to, 0)):
            with pytest.raises(VirtError, match=f"{name}' is the image of a disk, in use by .*name another file"):
                call(ref, str(tmp_path / name))
            assert driver.domain_get_state(ref).state == DomainState.RUNNING
    assert path.read_bytes()[: guest.state_offset()] == before[: guest.state_offset()]
    goes_on(driver, ref, tmp_path)
