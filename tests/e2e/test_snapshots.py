"""Snapshots of guests: inside images and as overlays, with memory and without, gone back to and merged."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState, RunningReason
from hostel.drivers.base.snapshot import (
    SnapshotCreateFlag,
    SnapshotDeleteFlag,
    SnapshotListFlag,
    SnapshotRef,
    SnapshotRevertFlag,
)
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support import image
from support.kill_step import MAX_STEPS, killed_at
from support.session import cdrom, disk, domain_xml, reports, session, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
DRIVER = Path(__file__).parents[2] / "src/hostel/drivers/qemu"
STEPS = tuple((DRIVER / "snapshot").glob("*.py"))
DISK_ONLY = SnapshotCreateFlag.DISK_ONLY


class Guest:
    """A guest that counts its boots on ``vda`` and has a second disk; how often it booted is the state of its disk."""

    def __init__(self, home: Path, driver: QemuDriver) -> None:
        self.home, self.driver = home, driver
        for name in ("vda", "vdb"):
            image.qemu_img("create", "-q", "-f", "qcow2", home / f"{name}.qcow2", MIB)
        image.write(home / "vda.qcow2", "qcow2", (0, guest.image(label="snap", mode=guest.Mode.WAIT)))
        disks = [disk(home / f"{name}.qcow2", "qcow2", dev=name) for name in ("vda", "vdb")]
        self.ref: DomainRef = driver.domain_define_xml(domain_xml(home, *disks))

    def boot(self) -> int:
        """Start or reset; returns how many boots the disk counts."""
        before = len(reports(self.home))
        if self.runs:
            self.driver.domain_reset(self.ref)
        else:
            self.ref = self.driver.domain_create(self.ref)
        boot = wait_for_report(self.home, before + 1).boot
        assert boot is not None
        return boot

    @property
    def runs(self) -> bool:
        return self.driver.domain_get_state(self.ref).state != DomainState.SHUTOFF

    def stop(self) -> None:
        if self.runs:
            self.driver.domain_destroy(self.ref)

    def create(self, name: str, flags: SnapshotCreateFlag = SnapshotCreateFlag.NONE, more: str = "") -> SnapshotRef:
        xml = f"<domainsnapshot><name>{name}</name>{more}</domainsnapshot>"
        return self.driver.domain_snapshot_create_xml(self.ref, xml, flags)

    def files(self, dev: str = "vda") -> list[str]:
        """The files of a disk, top first, by the document that counts."""
        document = Domain.parse(self.driver.domain_get_xml_desc(self.ref))
        found = next(item for item in document.devices.disks if item.target.dev == dev)
        if self.runs:
            return [Path(item.path).name for item in images(found)]
        said = image.real_qemu_img("info", "--backing-chain", "--output=json", str(next(images(found)).path))
        return [Path(item["filename"]).name for item in json.loads(said)]

    def names(self) -> list[str]:
        return [snapshot.name for snapshot in self.driver.domain_list_all_snapshots(self.ref)]

    def check(self) -> None:
        """Nothing is broken, and nothing lies about that no document knows."""
        self.stop()
        known = {path for dev in ("vda", "vdb") for path in self.files(dev)}
        there = {path.name for path in self.home.iterdir() if path.name.startswith(("vda", "vdb"))}
        assert there == known
        for dev in ("vda", "vdb"):
            image.assert_clean(self.home / self.files(dev)[0], "qcow2")


@pytest.mark.parametrize("live", [True, False])
def test_internal_snapshot_brings_disk_and_memory_back(tmp_path: Path, driver: QemuDriver, live: bool) -> None:
    machine = Guest(tmp_path, driver)
    assert machine.boot() == 1
    if not live:
        machine.stop()
    one = machine.create("one")
    assert driver.domain_snapshot_is_current(one)
    if live:
        assert driver.domain_get_state(machine.ref)[:2] == (DomainState.RUNNING, RunningReason.UNPAUSED)
    assert machine.boot() == 2
    two = machine.create("two")
    assert driver.domain_snapshot_get_parent(two).name == "one"
    assert machine.boot() == 3
    driver.domain_revert_to_snapshot(one)
    assert machine.runs == live
    assert machine.boot() == 2
    driver.domain_revert_to_snapshot(two)
    assert machine.runs
    assert machine.boot() == 3
    driver.domain_snapshot_delete(one)
    assert machine.names() == ["two"]
    driver.domain_snapshot_delete(two)
    machine.check()


@pytest.mark.parametrize("live", [True, False])
def test_disks_go_on_in_overlays_and_come_back(tmp_path: Path, driver: QemuDriver, live: bool) -> None:
    machine = Guest(tmp_path, driver)
    assert machine.boot() == 1
    if not live:
        machine.stop()
    one = machine.create("one", DISK_ONLY)
    assert machine.files() == ["vda.one", "vda.qcow2"]
    assert machine.files("vdb") == ["vdb.one", "vdb.qcow2"]
    assert machine.boot() == 2
    driver.domain_revert_to_snapshot(one)
    assert not machine.runs
    assert machine.boot() == 2
    assert machine.files()[1:] == ["vda.qcow2"]
    assert not (tmp_path / "vda.one").exists()
    driver.domain_snapshot_delete(one, SnapshotDeleteFlag.METADATA_ONLY)
    machine.check()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_dropping_a_snapshot_merges_it_and_keeps_the_others(
    tmp_path: Path, driver: QemuDriver, live: bool, order: tuple[str, str]
) -> None:
    machine = Guest(tmp_path, driver)
    assert machine.boot() == 1
    for number, name in enumerate(("one", "two"), 2):
        machine.create(name, DISK_ONLY)
        assert machine.boot() == number
    if not live:
        machine.stop()
    first, second = order
    driver.domain_snapshot_delete(SnapshotRef(first, machine.ref))
    assert machine.names() == [second]
    assert machine.runs == live
    assert len(machine.files()) == 2
    driver.domain_revert_to_snapshot(SnapshotRef(second, machine.ref))
    assert machine.boot() == (3 if second == "two" else 2)
    driver.domain_snapshot_delete(SnapshotRef(second, machine.ref))
    assert machine.files() == ["vda.qcow2"]
    assert machine.boot() == (4 if second == "two" else 3)
    machine.check()


def test_memory_in_a_file_of_its_own_comes_back(tmp_path: Path, driver: QemuDriver) -> None:
    machine = Guest(tmp_path, driver)
    machine.boot()
    memory = f"<memory snapshot='external' file='{tmp_path}/memory'/>"
    one = machine.create("one", more=memory)
    assert driver.domain_get_state(machine.ref).state == DomainState.RUNNING
    assert machine.boot() == 2
    driver.domain_revert_to_snapshot(one)
    assert driver.domain_get_state(machine.ref)[:2] == (DomainState.RUNNING, 4)
    assert len(reports(tmp_path)) == 2  # it has not booted: the memory is the old one
    assert machine.boot() == 2
    driver.domain_revert_to_snapshot(one, SnapshotRevertFlag.PAUSED)
    assert driver.domain_get_state(machine.ref).state == DomainState.PAUSED
    driver.domain_snapshot_delete(one)
    assert not (tmp_path / "memory").exists()
    machine.check()


def test_disk_of_a_pool_and_a_volume_is_kept_and_merged(
    tmp_path: Path, connection: Connection, driver: QemuDriver
) -> None:
    pool = connection.create_pool(f"<pool type='dir'><name>p</name><target><path>{tmp_path}</path></target></pool>")
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "v.qcow2", MIB)
    image.write(tmp_path / "v.qcow2", "qcow2", (0, guest.image(label="vol", mode=guest.Mode.WAIT)))
    pool.refresh()
    source = "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='p' volume='v.qcow2'/>"
    xml = domain_xml(tmp_path, f"{source}<target dev='vda' bus='virtio'/></disk>")
    ref = driver.domain_create(driver.domain_define_xml(xml))
    wait_for_report(tmp_path, 1)
    one = driver.domain_snapshot_create_xml(ref, "<domainsnapshot><name>one</name></domainsnapshot>", DISK_ONLY)
    driver.domain_reset(ref)
    assert wait_for_report(tmp_path, 2).boot == 2
    assert "v.one" in driver.domain_get_xml_desc(ref)
    driver.domain_snapshot_delete(one)
    driver.domain_destroy(ref)
    ref = driver.domain_create(ref)
    assert wait_for_report(tmp_path, 3).boot == 3
    assert not (tmp_path / "v.one").exists()


def test_snapshots_are_listed_by_what_they_are(tmp_path: Path, driver: QemuDriver) -> None:
    machine = Guest(tmp_path, driver)
    machine.create("off")
    machine.boot()
    machine.create("on")
    machine.create("disks", DISK_ONLY)

    def listed(flags: SnapshotListFlag) -> list[str]:
        return [item.name for item in driver.domain_list_all_snapshots(machine.ref, flags)]

    assert listed(SnapshotListFlag.NONE) == ["disks", "off", "on"]
    assert listed(SnapshotListFlag.TOPOLOGICAL) == ["off", "on", "disks"]
    assert listed(SnapshotListFlag.ROOTS) == listed(SnapshotListFlag.INACTIVE) == ["off"]
    assert listed(SnapshotListFlag.LEAVES) == listed(SnapshotListFlag.DISK_ONLY) == ["disks"]
    assert listed(SnapshotListFlag.EXTERNAL) == ["disks"]
    assert listed(SnapshotListFlag.INTERNAL) == ["off", "on"]
    assert listed(SnapshotListFlag.NO_METADATA) == []
    assert driver.domain_snapshot_num(machine.ref) == 3
    assert driver.domain_snapshot_has_metadata(SnapshotRef("off", machine.ref))
    root = driver.domain_snapshot_lookup_by_name(machine.ref, "off")
    children = driver.domain_snapshot_list_all_children(root, SnapshotListFlag.DESCENDANTS)
    assert [item.name for item in children] == ["on", "disks"]
    driver.domain_destroy(machine.ref)
    with pytest.raises(VirtError, match="cannot delete inactive domain with 3 snapshots"):
        driver.domain_undefine(machine.ref)


@pytest.mark.parametrize(
    ("flags", "more", "words"),
    [
        (SnapshotCreateFlag.QUIESCE, "", "SNAPSHOT_CREATE_DISK_ONLY' is required by flag"),
        (SnapshotCreateFlag.QUIESCE | DISK_ONLY, "", "guest agent"),
        (DISK_ONLY, "<disks><disk name='vdz'/></disks>", "no disk named 'vdz'"),
        (DISK_ONLY, "<disks><disk name='vda' snapshot='no'/><disk name='vdb' snapshot='no'/></disks>", "nothing"),
        (DISK_ONLY, "<disks><disk name='vda' snapshot='internal'/></disks>", "require external disk snapshots"),
        (SnapshotCreateFlag.NONE, "<memory snapshot='no'/>", "must include the memory state"),
        (DISK_ONLY | SnapshotCreateFlag.REUSE_EXT, "", "missing existing file"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(
    tmp_path: Path, driver: QemuDriver, flags: SnapshotCreateFlag, more: str, words: str
) -> None:
    machine = Guest(tmp_path, driver)
    machine.boot()
    with pytest.raises(VirtError, match=words):
        machine.create("one", flags, more)
    assert machine.names() == []
    assert machine.files() == ["vda.qcow2"]
    machine.check()


def test_overlays_are_made_for_all_disks_or_for_none(tmp_path: Path, driver: QemuDriver) -> None:
    machine = Guest(tmp_path, driver)
    machine.boot()
    (tmp_path / "sub").mkdir()
    more = f"<disks><disk name='vdb'><source file='{tmp_path}/none/overlay'/></disk></disks>"
    with pytest.raises(VirtError, match="No such file"):
        machine.create("one", DISK_ONLY, more)
    assert machine.files() == ["vda.qcow2"]
    assert machine.names() == []
    machine.check()


ACTIONS: dict[str, Callable[[QemuDriver, DomainRef], object]] = {
    "overlay": lambda driver, ref: driver.domain_snapshot_create_xml(
        ref, "<domainsnapshot><name>new</name></domainsnapshot>", DISK_ONLY
    ),
    "inside": lambda driver, ref: driver.domain_snapshot_create_xml(
        ref, "<domainsnapshot><name>new</name></domainsnapshot>"
    ),
    "drop": lambda driver, ref: driver.domain_snapshot_delete(SnapshotRef("old", ref)),
    "revert": lambda driver, ref: driver.domain_revert_to_snapshot(SnapshotRef("old", ref)),
}


def act(home: Path, name: str, ref: DomainRef) -> None:
    """Do it as another process does."""
    ACTIONS[name](QemuDriver(Directories.under(home)), ref)


def test_a_snapshot_whose_intent_cannot_be_written_leaves_no_document(tmp_path: Path, driver: QemuDriver) -> None:
    made = Guest(tmp_path, driver)
    known = tmp_path / "config/qemu/snapshot/guest"
    (known / f".intent.mark.{os.getpid()}.new").mkdir(parents=True)  # where it would be written first
    with pytest.raises(VirtError):
        driver.domain_snapshot_create_xml(made.ref, "<domainsnapshot><name>s</name></domainsnapshot>", DISK_ONLY)
    assert sorted(path.name for path in known.glob("[!.]*")) == ["own.mark"]
    assert sorted(path.name for path in tmp_path.glob("vd*")) == ["vda.qcow2", "vdb.qcow2"]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_any_step_a_snapshot_is_there_or_not(
    tmp_path: Path, driver: QemuDriver, name: str, live: bool
) -> None:
    step, outcomes = 1, set()
    while step < MAX_STEPS:
        home = tmp_path / str(step)
        home.mkdir()
        with session(home) as connection:
            own = connection.hypervisor
            assert isinstance(own, QemuDriver)
            machine = Guest(home, own)
            machine.boot()
            if name in ("drop", "revert"):
                machine.create("old", DISK_ONLY)
                machine.boot()
            if not live:
                machine.stop()
            killed = killed_at(step, STEPS, functools.partial(act, home, name, machine.ref))
            deadline = time.monotonic() + 30
            while own.domain_get_block_job_info(machine.ref, "vda") if machine.runs else None:
                assert time.monotonic() < deadline
                own.domain_block_job_abort(machine.ref, "vda")
            names = machine.names()
            if name == "drop" and names:  # what was begun can be ended
                own.domain_snapshot_delete(SnapshotRef("old", machine.ref))
            outcomes.add((tuple(names), len(machine.files())))
            boots = machine.boot()
            assert boots == (3 if name == "drop" else 2) or (name == "revert" and boots in (2, 3)), f"step {step}"
            if name in ("overlay", "inside") and names == ["new"]:
                own.domain_revert_to_snapshot(SnapshotRef("new", machine.ref))
                assert machine.boot() == 2, f"step {step}"
                own.domain_snapshot_delete(SnapshotRef("new", machine.ref))
            machine.check()
        if not killed:
            break
        step += 173 if name == "drop" else 113
    assert len(outcomes) >= (1 if name in ("revert", "drop") else 2)


@pytest.mark.parametrize("policy", ["mandatory", "optional"])
@pytest.mark.parametrize("flags", [DISK_ONLY, SnapshotCreateFlag.NONE], ids=["external", "internal"])
def test_medium_that_is_gone_does_not_end_a_guest_that_cannot_go_back(
    tmp_path: Path, driver: QemuDriver, policy: str, flags: SnapshotCreateFlag
) -> None:
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "vda.qcow2", MIB)
    (tmp_path / "medium").write_bytes(bytes(4096))
    drive = cdrom(tmp_path / "medium").replace("<source ", f"<source startupPolicy='{policy}' ")
    xml = domain_xml(tmp_path, disk(tmp_path / "vda.qcow2", "qcow2"), drive)
    ref = driver.domain_create(driver.domain_define_xml(xml))
    one = driver.domain_snapshot_create_xml(ref, "<domainsnapshot><name>one</name></domainsnapshot>", flags)
    (tmp_path / "medium").unlink()
    running = SnapshotRevertFlag.RUNNING
    if policy == "optional":
        driver.domain_revert_to_snapshot(one, running)
    else:
        before = driver.domain_get_xml_desc(ref)
        with pytest.raises(VirtError, match=f"Cannot access storage file '{tmp_path}/medium'"):
            driver.domain_revert_to_snapshot(one, running)
        assert driver.domain_get_xml_desc(ref) == before
    assert driver.domain_get_state(ref).state is DomainState.RUNNING
