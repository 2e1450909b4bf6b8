"""Disks whose writes are thrown away: the image stays as it was, whatever ends the machine or us."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import pytest

from hostel import guest
from hostel.block import graph
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag
from hostel.drivers.base.block import BlockCopyFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from support import image
from support.guest import Oracle
from support.kill_step import MAX_STEPS, killed_at
from support.session import disk, domain_xml, held, session, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB: Final = 1 << 20
SIZE: Final = 2 * MIB
QEMU: Final = Path(__file__).parents[2] / "src/hostel/drivers/qemu"
SCSI: Final = "<controller type='scsi' index='0' model='virtio-scsi'/>"


class Base:
    """An image that guests only read, and what they find on it each time."""

    def __init__(self, home: Path, *, share: str = "", fmt: str = "raw") -> None:
        self.home, self.fmt, self.path = home, fmt, home / f"base.{fmt}"
        oracle = Oracle(SIZE)
        before = oracle.image("transient", guest.Mode.WAIT)
        self.path.write_bytes(before)
        if fmt != "raw":
            self.path.unlink()
            image.qemu_img("create", "-q", "-f", fmt, self.path, SIZE)
            image.write(self.path, fmt, (0, before))
        self.bytes, self.written = self.path.read_bytes(), oracle.after(before, 1)
        self.disk = disk(self.path, fmt, more=f"<transient{share}/>")

    def overlay(self, name: str = "guest") -> Path:
        return self.home / f"{self.path.name}.TRANSIENT-{name}"

    def check(self, *, names: tuple[str, ...] = ("guest",)) -> None:
        """Nothing is left of any run."""
        assert self.path.read_bytes() == self.bytes
        assert [name for name in names if self.overlay(name).exists()] == []


def define(driver: QemuDriver, home: Path, *devices: str, name: str = "guest") -> DomainRef:
    return driver.domain_define_xml(domain_xml(home, *devices, name=name))


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_every_boot_is_the_first(tmp_path: Path, driver: QemuDriver, fmt: str) -> None:
    base = Base(tmp_path, fmt=fmt)
    ref = define(driver, tmp_path, base.disk)
    for boot in (1, 2):
        driver.domain_create(ref)
        assert wait_for_report(tmp_path, boot).boot == 1
        live = Domain.parse(driver.domain_get_xml_desc(ref)).devices.disks[0]
        assert (live.source and live.source.file, live.image_format) == (str(base.overlay()), "qcow2")
        driver.domain_suspend(ref)  # QEMU writes all down then
        with graph.open(str(base.overlay()), "qcow2", force_share=True) as node:
            assert bytes(node.read(0, node.length)) == base.written
        assert "TRANSIENT" not in driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)
        driver.domain_destroy(ref)
        base.check()


def test_restart_in_place_keeps_the_run(tmp_path: Path, driver: QemuDriver) -> None:
    base = Base(tmp_path)
    ref = driver.domain_create(define(driver, tmp_path, base.disk))
    wait_for_report(tmp_path, 1)
    driver.domain_reset(ref)
    assert wait_for_report(tmp_path, 2).boot == 2


def test_machines_share_what_they_stand_on(tmp_path: Path, driver: QemuDriver) -> None:
    base = Base(tmp_path, share=" shareBacking='yes'")
    names = ("one", "two")
    for name in names:
        driver.domain_create(define(driver, tmp_path, base.disk, name=name))
    for name in names:
        assert wait_for_report(tmp_path, 1, name).boot == 1
        assert base.overlay(name).exists()
    for ref in driver.connect_list_all_domains():
        driver.domain_destroy(ref)
    base.check(names=names)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_overlay_goes_with_a_machine_that_is_killed(tmp_path: Path, driver: QemuDriver, number: int) -> None:
    base = Base(tmp_path)
    ref = driver.domain_create(define(driver, tmp_path, base.disk))
    wait_for_report(tmp_path, 1)
    with held(tmp_path) as machine:
        os.kill(machine.status.pid, number)
    while driver.domain_get_state(ref).state == DomainState.RUNNING:
        pass
    base.check()


def test_file_in_the_overlays_place_is_left_alone(tmp_path: Path, driver: QemuDriver) -> None:
    base = Base(tmp_path)
    base.overlay().write_text("mine")
    ref = define(driver, tmp_path, base.disk)
    for _ in range(2):
        with pytest.raises(VirtError, match=r"Overlay file .* for transient disk 'vda' already exists") as caught:
            driver.domain_create(ref)
        assert caught.value.code == ErrorCode.OPERATION_UNSUPPORTED
    assert base.overlay().read_text() == "mine"


def test_machine_that_does_not_start_leaves_no_overlay(tmp_path: Path, driver: QemuDriver) -> None:
    base = Base(tmp_path)
    (tmp_path / "bad").write_bytes(b"QFI\xfb" + bytes(4096))
    with pytest.raises(VirtError):
        driver.domain_create(define(driver, tmp_path, base.disk, disk(tmp_path / "bad", "qcow2", dev="vdb")))
    base.check()


def test_what_would_outlive_the_disk_is_refused(tmp_path: Path, driver: QemuDriver) -> None:
    base = Base(tmp_path)
    ref = driver.domain_create(define(driver, tmp_path, base.disk))
    wait_for_report(tmp_path, 1)
    copy = f"<disk type='file'><driver type='raw'/><source file='{tmp_path}/copy'/></disk>"
    one = "<domainsnapshot><name>one</name></domainsnapshot>"
    memory = f"<domainsnapshot><memory snapshot='external' file='{tmp_path}/m'/></domainsnapshot>"
    backup = "<domainbackup/>"
    refused = "block jobs are not supported on transient disk 'vda'"
    for action in (
        lambda: driver.domain_block_rebase(ref, "vda"),
        lambda: driver.domain_block_copy(ref, "vda", copy, flags=BlockCopyFlag.TRANSIENT_JOB),
        lambda: driver.domain_snapshot_create_xml(ref, one, SnapshotCreateFlag.DISK_ONLY),
        lambda: driver.domain_snapshot_create_xml(ref, one),
        lambda: driver.domain_backup_begin(ref, backup),
    ):
        with pytest.raises(VirtError, match=refused) as caught:
            action()
        assert caught.value.code == ErrorCode.OPERATION_UNSUPPORTED
    for action in (
        lambda: driver.domain_managed_save(ref),
        lambda: driver.domain_save_flags(ref, str(tmp_path / "saved")),
        lambda: driver.domain_snapshot_create_xml(ref, memory),
    ):
        with pytest.raises(VirtError, match="migration with transient disk is not supported") as caught:
            action()
        assert caught.value.code == ErrorCode.OPERATION_INVALID
    assert driver.domain_get_state(ref).state == DomainState.RUNNING


def test_transient_disk_comes_and_goes(tmp_path: Path, driver: QemuDriver) -> None:
    base = Base(tmp_path)
    ref = driver.domain_create(define(driver, tmp_path, base.disk, SCSI))
    wait_for_report(tmp_path, 1)
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "b.qcow2", MIB)
    xml = disk(tmp_path / "b.qcow2", "qcow2", dev="sda", bus="scsi", more="<transient/>")
    overlay = tmp_path / "b.qcow2.TRANSIENT-guest"
    for _ in range(2):
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
        assert overlay.exists()
        driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
        assert not overlay.exists()
    overlay.write_text("mine")
    with pytest.raises(VirtError, match="already exists"):
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    driver.domain_destroy(ref)
    assert overlay.read_text() == "mine"
    base.check()


def test_killed_at_any_step_of_the_start_nothing_is_left(tmp_path: Path) -> None:
    files = (QEMU / "transient.py", QEMU / "launch.py", QEMU / "block/create.py")
    step, seen = 1, set()
    while step < MAX_STEPS:
        home = tmp_path / str(step)
        home.mkdir()
        base = Base(home)
        with session(home) as connection:
            driver = connection.hypervisor
            assert isinstance(driver, QemuDriver)
            ref = define(driver, home, base.disk)

            def start(home: Path = home, ref: DomainRef = ref) -> None:
                QemuDriver(Directories.under(home)).domain_create(ref)

            killed = killed_at(step, files, start)
            seen.add(base.overlay().exists())
            if driver.domain_get_state(ref).state != DomainState.SHUTOFF:
                driver.domain_destroy(ref)
            base.check()
            driver.domain_create(ref)
            assert wait_for_report(home, 1).boot == 1
            driver.domain_destroy(ref)
            base.check()
        if not killed:
            break
        step += 29
    assert seen == {True, False}


def test_killed_at_any_step_of_plugging_in_the_overlay_is_the_disks_or_gone(tmp_path: Path) -> None:
    files = (QEMU / "transient.py", QEMU / "plug/inward.py", QEMU / "block/create.py")
    base = Base(tmp_path)
    (tmp_path / "b.raw").write_bytes(bytes(MIB))
    xml, overlay = (
        disk(tmp_path / "b.raw", dev="sda", bus="scsi", more="<transient/>"),
        tmp_path / "b.raw.TRANSIENT-guest",
    )
    with session(tmp_path) as connection:
        driver = connection.hypervisor
        assert isinstance(driver, QemuDriver)
        ref = driver.domain_create(define(driver, tmp_path, base.disk, SCSI))
        wait_for_report(tmp_path, 1)
        child = QemuDriver(Directories.under(tmp_path))
        step, seen = 1, set()
        while step < MAX_STEPS:
            killed = killed_at(
                step, files, lambda: child.domain_attach_device_flags(ref, xml, Affect.LIVE)
            )  # fmt: skip
            seen.add(overlay.exists())
            driver.domain_get_block_info(ref, "vda")  # which settles what is left
            document = driver.domain_get_xml_desc(ref)
            assert overlay.exists() == ("target dev='sda'" in document), f"step {step}"
            if overlay.exists():
                driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
            assert not overlay.exists()
            if not killed:
                break
            step += 7
        assert seen == {True, False}
    base.check()
