"""Snapshots that stand on each other: inside images below overlays, on branches, with disks left out.

What a snapshot keeps stays, whatever is done to others: gone back to, dropped, in any order.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.drivers.base import DomainRef, DomainState, UndefineFlag
from hostel.drivers.base.block import BlockCommitFlag, BlockCopyFlag, BlockJobAbortFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotDeleteFlag, SnapshotRef, SnapshotRevertFlag
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from support import image
from support.chains import wait_for_job
from support.kill_step import MAX_STEPS, killed_at
from support.session import cdrom, disk, domain_xml

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
DRIVER = Path(__file__).parents[2] / "src/hostel/drivers/qemu"
REVERT = DRIVER / "snapshot/revert.py"
UNDEFINING = tuple(DRIVER / name for name in ("driver.py", "machines.py", "savefile.py", "snapshot/catalog.py"))
QCOW2 = tuple(DRIVER.parents[1] / f"block/formats/qcow2/{name}.py" for name in ("create", "resize"))
DISK_ONLY = SnapshotCreateFlag.DISK_ONLY
WITHOUT_VDB = "<disks><disk name='vdb' snapshot='no'/></disks>"


class Still:
    """A machine whose guest does nothing: the test writes into its disks while it is off."""

    def __init__(self, home: Path, driver: QemuDriver) -> None:
        self.home, self.driver = home, driver
        for name in ("vda", "vdb"):
            image.qemu_img("create", "-q", "-f", "qcow2", home / f"{name}.qcow2", MIB)
        disks = [disk(home / f"{name}.qcow2", "qcow2", dev=name) for name in ("vda", "vdb")]
        self.ref: DomainRef = driver.domain_define_xml(domain_xml(home, *disks))

    def file(self, dev: str = "vda") -> Path:
        document = Domain.parse(self.driver.domain_get_xml_desc(self.ref))
        found = next(item for item in document.devices.disks if item.target.dev == dev)
        return Path(next(images(found)).path)

    def write(self, byte: int, dev: str = "vda") -> None:
        image.write(self.file(dev), "qcow2", (0, bytes([byte]) * 4096))

    def read(self, dev: str = "vda") -> int:
        return image.content(self.file(dev), "qcow2")[0]

    def start(self) -> None:
        self.ref = self.driver.domain_create(self.ref)

    def stop(self) -> None:
        if self.driver.domain_get_state(self.ref).state != DomainState.SHUTOFF:
            self.driver.domain_destroy(self.ref)

    def create(self, name: str, flags: SnapshotCreateFlag = SnapshotCreateFlag.NONE, more: str = "") -> SnapshotRef:
        xml = f"<domainsnapshot><name>{name}</name>{more}</domainsnapshot>"
        return self.driver.domain_snapshot_create_xml(self.ref, xml, flags)

    def revert(self, snapshot: SnapshotRef) -> None:
        """Go back to it, and switch off what runs then."""
        self.driver.domain_revert_to_snapshot(snapshot)
        self.stop()

    def delete(self, snapshot: SnapshotRef, flags: SnapshotDeleteFlag = SnapshotDeleteFlag.NONE) -> None:
        self.driver.domain_snapshot_delete(snapshot, flags)

    def names(self) -> list[str]:
        return [snapshot.name for snapshot in self.driver.domain_list_all_snapshots(self.ref)]

    def check(self) -> None:
        """No image is broken, and none lies about that the domain is not on."""
        chains = [
            json.loads(image.real_qemu_img("info", "--backing-chain", "--output=json", self.file(dev)))
            for dev in ("vda", "vdb")
        ]
        known = {Path(item["filename"]).name for chain in chains for item in chain}
        assert {path.name for path in self.home.iterdir() if path.name.startswith(("vda", "vdb"))} == known
        for dev in ("vda", "vdb"):
            image.assert_clean(self.file(dev), "qcow2")


@pytest.fixture
def machine(tmp_path: Path, driver: QemuDriver) -> Still:
    return Still(tmp_path, driver)


@pytest.mark.parametrize("live", [True, False])
def test_going_back_inside_an_image_leaves_what_stands_on_it(machine: Still, live: bool) -> None:
    machine.write(1)
    if live:
        machine.start()
    inner = machine.create("inner")
    machine.stop()
    machine.write(2)
    outer = machine.create("outer", DISK_ONLY)
    machine.write(3)
    last = machine.create("last")  # inside the overlay, with all that is below it
    for _ in range(2):
        for snapshot, byte in ((inner, 1), (last, 3), (outer, 2)):
            machine.revert(snapshot)
            assert machine.read() == byte, snapshot.name
            machine.write(9)
    for snapshot in (last, outer, inner):
        machine.delete(snapshot)
    assert machine.read() == 9
    machine.check()


def test_disk_that_a_snapshot_leaves_out_is_not_touched_by_going_back(machine: Still) -> None:
    machine.write(1, "vda")
    machine.write(1, "vdb")
    part = machine.create("part", DISK_ONLY, WITHOUT_VDB)
    machine.write(2, "vdb")
    whole = machine.create("whole", DISK_ONLY)
    machine.write(3, "vda")
    machine.write(3, "vdb")
    machine.revert(part)
    assert (machine.read("vda"), machine.read("vdb")) == (1, 3)
    machine.write(4, "vdb")
    machine.revert(whole)
    assert (machine.read("vda"), machine.read("vdb")) == (1, 2)
    machine.delete(whole)
    machine.delete(part)
    machine.check()


def test_guest_waits_for_whoever_keeps_a_disk_by_hand(machine: Still) -> None:
    by_hand = "<disk name='vdb' snapshot='manual'/>"
    machine.start()
    nowhere = f"<disk name='vda' snapshot='external'><source file='{machine.home}/none/vda'/></disk>"
    with pytest.raises(VirtError, match="No such file"):
        machine.create("none", DISK_ONLY, f"<disks>{nowhere}{by_hand}</disks>")
    assert machine.driver.domain_get_state(machine.ref).state == DomainState.RUNNING
    machine.create("part", DISK_ONLY, f"<disks>{by_hand}</disks>")
    assert machine.driver.domain_get_state(machine.ref).state == DomainState.PAUSED
    machine.driver.domain_resume(machine.ref)
    memory = f"<memory snapshot='external' file='{machine.home}/memory'/>"
    machine.create("whole", SnapshotCreateFlag.LIVE, f"{memory}<disks>{by_hand}</disks>")
    assert machine.driver.domain_get_state(machine.ref).state == DomainState.RUNNING
    machine.create("halted", more=f"<memory snapshot='external' file='{machine.home}/more'/><disks>{by_hand}</disks>")
    assert machine.driver.domain_get_state(machine.ref).state == DomainState.PAUSED
    assert Path(machine.file("vdb")).name == "vdb.qcow2"
    assert Path(machine.file("vda")).name == "vda.halted"


def test_disk_that_other_guests_write_is_put_on_no_overlay(tmp_path: Path, driver: QemuDriver) -> None:
    (tmp_path / "shared.raw").write_bytes(bytes(MIB))
    shared = disk(tmp_path / "shared.raw", more="<shareable/>")
    ref = driver.domain_define_xml(domain_xml(tmp_path, shared))
    xml = "<domainsnapshot><name>s</name></domainsnapshot>"
    for is_running in (False, True):
        if is_running:
            ref = driver.domain_create(ref)
        with pytest.raises(VirtError, match="shared access for disk 'vda' requires") as caught:
            driver.domain_snapshot_create_xml(ref, xml, DISK_ONLY)
        assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED
    assert sorted(path.name for path in tmp_path.glob("shared*")) == ["shared.raw"]


def test_disk_that_is_only_read_may_be_named_as_left_out(tmp_path: Path, driver: QemuDriver) -> None:
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "vda.qcow2", MIB)
    (tmp_path / "vdb.raw").write_bytes(bytes(MIB))
    read = disk(tmp_path / "vdb.raw", dev="vdb", more="<readonly/>")
    ref = driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "vda.qcow2", "qcow2"), read, cdrom(None)))
    names = "".join(f"<disk name='{name}' snapshot='no'/>" for name in ("vdb", "hdc"))
    driver.domain_snapshot_create_xml(ref, f"<domainsnapshot><name>s</name><disks>{names}</disks></domainsnapshot>")
    said = json.loads(image.real_qemu_img("info", "--output=json", tmp_path / "vda.qcow2"))
    assert [item["name"] for item in said["snapshots"]] == ["s"]


def test_guest_that_is_off_needs_no_quiescing(machine: Still) -> None:
    machine.create("s", DISK_ONLY | SnapshotCreateFlag.QUIESCE)
    files = "".join(f"<disk name='{dev}'><source file='{machine.home}/{dev}.again'/></disk>" for dev in ("vda", "vdb"))
    machine.create("s", DISK_ONLY | SnapshotCreateFlag.NO_METADATA, f"<disks>{files}</disks>")
    assert machine.names() == ["s"] and machine.file().name == "vda.again"
    with pytest.raises(VirtError, match="domain moment s already exists"):
        machine.create("s", SnapshotCreateFlag.NO_METADATA)


def test_memory_is_not_kept_while_a_disk_is_copied(machine: Still) -> None:
    machine.start()
    copy = f"<disk type='file'><source file='{machine.home}/copy'/><driver type='qcow2'/></disk>"
    machine.driver.domain_block_copy(machine.ref, "vdb", copy, flags=BlockCopyFlag.TRANSIENT_JOB)
    with pytest.raises(VirtError, match="disk 'vdb' already in active block job") as caught:
        machine.create("s", DISK_ONLY)
    assert caught.value.code is ErrorCode.BLOCK_COPY_ACTIVE
    memory = f"<memory snapshot='external' file='{machine.home}/memory'/>"
    with pytest.raises(VirtError, match="domain has active block job"):
        machine.create("s", more=f"{memory}{WITHOUT_VDB}")
    machine.create("s", DISK_ONLY, WITHOUT_VDB)
    machine.driver.domain_block_job_abort(machine.ref, "vdb")


def test_overlay_that_keeps_a_snapshot_inside_is_not_merged(machine: Still) -> None:
    outer = machine.create("outer", DISK_ONLY)
    machine.write(1)
    inner = machine.create("inner")
    machine.write(2)
    machine.delete(outer)
    assert machine.names() == ["inner"] and machine.read() == 2
    machine.revert(inner)
    assert machine.read() == 1
    machine.delete(inner)
    machine.check()


@pytest.mark.parametrize("order", [("one", "two", "three"), ("three", "two", "one"), ("two", "three", "one")])
def test_branches_are_dropped_in_any_order(machine: Still, order: tuple[str, ...]) -> None:
    machine.write(1)
    kept = {"one": machine.create("one", DISK_ONLY)}
    machine.write(2)
    kept["two"] = machine.create("two", DISK_ONLY)
    machine.write(3)
    machine.revert(kept["one"])
    machine.write(4)
    kept["three"] = machine.create("three", DISK_ONLY)
    machine.write(5)
    bytes_of = {"one": 1, "two": 2, "three": 4}
    for name in order[:-1]:
        machine.delete(kept.pop(name))
        assert machine.read() == 5
        machine.create("mark")
        for other, snapshot in kept.items():
            machine.revert(snapshot)
            assert machine.read() == bytes_of[other], f"{other} after {name}"
        machine.revert(SnapshotRef("mark", machine.ref))
        machine.delete(SnapshotRef("mark", machine.ref))
        assert machine.read() == 5
    machine.delete(kept[order[-1]])
    assert machine.read() == 5 and machine.names() == []
    machine.check()


@pytest.mark.parametrize("live", [True, False])
def test_overlay_below_others_is_merged_and_they_stand_on_what_is_left(machine: Still, live: bool) -> None:
    kept = []
    for byte in range(1, 5):
        if live:
            machine.start()
        kept.append(machine.create(f"s{byte}", DISK_ONLY))
        machine.stop()
        machine.write(byte)
    machine.delete(kept[1])
    machine.delete(kept[0])
    machine.revert(kept[3])
    assert machine.read() == 3
    machine.revert(kept[2])
    assert machine.read() == 2
    machine.delete(kept[2])
    machine.delete(kept[3])
    machine.check()


def test_images_of_a_snapshot_whose_metadata_alone_is_dropped_stay(machine: Still) -> None:
    one = machine.create("one", DISK_ONLY)
    machine.write(1)
    two = machine.create("two", DISK_ONLY)
    kept = machine.home / "vda.one"
    machine.revert(one)
    machine.delete(two, SnapshotDeleteFlag.METADATA_ONLY)
    machine.delete(one)
    assert image.content(kept, "qcow2")[0] == 1


def test_names_that_are_numbers_are_not_taken_for_ids(machine: Still) -> None:
    machine.write(1)
    machine.create("2")
    machine.write(2)
    second = machine.create("1")
    machine.write(3)
    machine.revert(second)
    assert machine.read() == 2


def test_snapshot_that_is_gone_from_its_image_changes_nothing(machine: Still) -> None:
    inner = machine.create("inner")
    machine.write(1)
    image.qemu_img("snapshot", "-d", "inner", machine.file("vdb"))
    with pytest.raises(VirtError, match="has no snapshot 'inner'"):
        machine.driver.domain_revert_to_snapshot(inner)
    assert machine.read() == 1
    machine.delete(inner)
    assert machine.names() == []


def test_snapshot_inside_an_image_below_a_running_machine_is_dropped_when_it_ends(machine: Still) -> None:
    base = machine.file()
    inner = machine.create("inner")
    machine.create("outer", DISK_ONLY)
    machine.start()
    machine.delete(inner)
    assert machine.names() == ["outer"]
    machine.stop()
    assert machine.names() == ["outer"]
    assert "snapshots" not in json.loads(image.real_qemu_img("info", "--output=json", base))


def test_a_name_is_taken_once_and_live_needs_memory(machine: Still) -> None:
    machine.create("one")
    with pytest.raises(VirtError, match="domain moment one already exists") as caught:
        machine.create("one")
    assert caught.value.code == ErrorCode.OPERATION_FAILED
    machine.start()
    with pytest.raises(VirtError, match="only during full system snapshots") as caught:
        machine.create("two", DISK_ONLY | SnapshotCreateFlag.LIVE)
    assert caught.value.code == ErrorCode.OPERATION_UNSUPPORTED


@pytest.mark.parametrize("live", [True, False])
def test_saved_memory_does_not_outlive_the_disks_that_it_fits(machine: Still, live: bool) -> None:
    if live:
        machine.start()
    one = machine.create("one")
    if not live:
        machine.start()
    machine.driver.domain_managed_save(machine.ref)
    if not live:
        with pytest.raises(VirtError, match="existing managed saved state") as caught:
            machine.driver.domain_revert_to_snapshot(one)
        assert caught.value.code == ErrorCode.SNAPSHOT_REVERT_RISKY
        assert machine.driver.domain_has_managed_save_image(machine.ref)
    machine.driver.domain_revert_to_snapshot(one, SnapshotRevertFlag.FORCE)
    assert not machine.driver.domain_has_managed_save_image(machine.ref)


def test_disks_are_not_taken_from_saved_memory_that_goes_on_with_them(machine: Still) -> None:
    one = machine.create("one", DISK_ONLY)
    machine.start()
    machine.driver.domain_managed_save(machine.ref)
    for act in (lambda: machine.create("two", DISK_ONLY), lambda: machine.delete(one)):
        with pytest.raises(VirtError, match=r"managed save image, .* start it, or remove the image") as caught:
            act()
        assert caught.value.code == ErrorCode.OPERATION_INVALID
    assert machine.names() == ["one"]
    top = machine.file()
    machine.start()
    assert machine.file() == top
    machine.stop()
    machine.delete(one)
    machine.check()


def test_state_whose_overlay_was_committed_is_not_gone_back_to(machine: Still) -> None:
    machine.write(1)
    one = machine.create("one", DISK_ONLY)
    machine.write(2)
    machine.start()
    driver, vda = machine.driver, "vda"
    machine.create("two", DISK_ONLY, WITHOUT_VDB)
    driver.domain_block_commit(machine.ref, vda, flags=BlockCommitFlag.ACTIVE | BlockCommitFlag.SHALLOW)
    wait_for_job(driver, machine.ref, ready=True)
    driver.domain_block_job_abort(machine.ref, vda, BlockJobAbortFlag.PIVOT)
    with pytest.raises(VirtError, match="'two' is being deleted, or its overlays were committed") as caught:
        driver.domain_revert_to_snapshot(SnapshotRef("two", machine.ref), SnapshotRevertFlag.FORCE)
    assert caught.value.code == ErrorCode.OPERATION_INVALID
    machine.delete(SnapshotRef("two", machine.ref))
    machine.revert(one)  # which is not touched by it
    assert machine.read() == 1
    machine.delete(one)
    (machine.home / "vda.two").unlink()  # which who has it committed removes
    machine.check()


def test_overlay_below_one_that_keeps_a_snapshot_inside_is_merged(machine: Still) -> None:
    outer = machine.create("outer", DISK_ONLY)
    machine.write(1)
    middle = machine.create("middle", DISK_ONLY)
    inner = machine.create("inner")
    machine.write(2)
    machine.delete(outer)
    assert machine.names() == ["inner", "middle"] and machine.read() == 2
    assert not (machine.home / "vda.outer").exists()
    machine.revert(inner)
    assert machine.read() == 1
    machine.delete(inner)
    machine.delete(middle)
    assert machine.read() == 1
    machine.check()


def test_a_guest_paused_since_its_memory_was_saved_is_resumed_first(machine: Still) -> None:
    machine.start()
    driver = machine.driver
    driver.domain_suspend(machine.ref)
    memory = f"<memory snapshot='external' file='{machine.home}/memory'/>"
    one = machine.create("one", more=memory)
    for act in (
        lambda: machine.delete(one),
        lambda: machine.create("two", more=memory.replace("memory'", "more'")),
        lambda: driver.domain_managed_save(machine.ref),
    ):
        with pytest.raises(VirtError, match=r"paused since its memory was saved, .* resume it first") as caught:
            act()
        assert caught.value.code == ErrorCode.OPERATION_INVALID
    assert machine.names() == ["one"]
    machine.revert(one)
    machine.start()
    machine.delete(one)
    machine.stop()
    machine.check()


def test_killed_while_overlays_are_made_they_are_whole_or_gone(machine: Still) -> None:
    machine.write(1)
    step, outcomes = 1, set()
    while step < MAX_STEPS:

        def act() -> None:
            own = QemuDriver(Directories.under(machine.home))
            xml = f"<domainsnapshot><name>one</name>{WITHOUT_VDB}</domainsnapshot>"
            own.domain_snapshot_create_xml(machine.ref, xml, DISK_ONLY)

        killed = killed_at(step, QCOW2, act)
        names = machine.names()
        outcomes.add(len(names))
        assert machine.read() == 1, f"step {step}"
        if names:
            machine.delete(SnapshotRef("one", machine.ref))
        machine.check()
        if not killed:
            break
        step += 17
    assert outcomes == {0, 1}


def test_killed_while_disks_go_back_saved_memory_does_not_meet_them(machine: Still) -> None:
    machine.write(1)
    one = machine.create("one")
    step, outcomes = 1, set()
    while step < MAX_STEPS:
        machine.write(2)
        machine.start()
        machine.driver.domain_managed_save(machine.ref)

        def act() -> None:
            QemuDriver(Directories.under(machine.home)).domain_revert_to_snapshot(one, SnapshotRevertFlag.FORCE)

        killed = killed_at(step, (REVERT,), act)
        machine.names()  # what was begun is ended
        outcome = (machine.read(), machine.driver.domain_has_managed_save_image(machine.ref))
        assert outcome != (1, True), f"step {step}"
        outcomes.add(outcome)
        if outcome[1]:
            machine.driver.domain_managed_save_remove(machine.ref)
        if not killed:
            break
        step += 13
    assert {(1, False), (2, True)} <= outcomes


@pytest.mark.parametrize("how", ["start", "change"])
def test_killed_while_disks_go_back_they_have_before_anything_else_is_done(machine: Still, how: str) -> None:
    machine.write(1)
    one = machine.create("one")
    machine.write(2)
    intents = machine.home / "config/qemu/snapshot/guest"
    for step in itertools.count(60, 4):

        def act() -> None:
            QemuDriver(Directories.under(machine.home)).domain_revert_to_snapshot(one)

        assert killed_at(step, (REVERT,), act), "no kill left something to be done"
        if any('"apply"' in mark.read_text() for mark in intents.glob("*.mark")):
            break
    if how == "start":
        machine.start()
        machine.stop()
    else:
        machine.driver.domain_set_memory_flags(machine.ref, 16 << 10, Affect.CONFIG)
    assert machine.read() == 1
    machine.write(3)
    assert machine.names() == ["one"]
    assert machine.read() == 3
    assert how == "start" or "<currentMemory unit='KiB'>16384<" in machine.driver.domain_get_xml_desc(machine.ref)


def test_transient_machine_is_not_reverted_away(machine: Still) -> None:
    machine.write(1)
    machine.start()
    machine.driver.domain_undefine(machine.ref)
    one = machine.create("one", DISK_ONLY)
    with pytest.raises(VirtError, match="transient domain needs to request run or pause"):
        machine.driver.domain_revert_to_snapshot(one)
    assert machine.names() == ["one"]
    machine.driver.domain_revert_to_snapshot(one, SnapshotRevertFlag.PAUSED)
    assert machine.driver.domain_get_state(machine.ref).state == DomainState.PAUSED
    assert image.content(machine.home / "vda.qcow2", "qcow2")[0] == 1
    xml = machine.driver.domain_get_xml_desc(machine.ref)
    machine.driver.domain_destroy(machine.ref)
    machine.ref = machine.driver.domain_define_xml(xml)
    assert machine.names() == []  # they have ended with their machine


def test_killed_while_it_is_undefined_nothing_is_left_to_another_of_its_name(machine: Still) -> None:
    xml = machine.driver.domain_get_xml_desc(machine.ref)
    step, outcomes = 1, set()
    while step < MAX_STEPS:
        machine.create("one")
        machine.start()
        machine.driver.domain_managed_save(machine.ref)

        def act() -> None:
            flags = UndefineFlag.SNAPSHOTS_METADATA | UndefineFlag.MANAGED_SAVE
            QemuDriver(Directories.under(machine.home)).domain_undefine(machine.ref, flags)

        killed = killed_at(step, UNDEFINING, act)
        is_gone = machine.driver.connect_list_all_domains() == []
        machine.ref = machine.driver.domain_define_xml(xml)
        left = (len(machine.names()), machine.driver.domain_has_managed_save_image(machine.ref))
        assert not is_gone or left == (0, False), f"step {step}"
        outcomes.add((is_gone, *left))
        for name in machine.names():
            machine.delete(SnapshotRef(name, machine.ref), SnapshotDeleteFlag.METADATA_ONLY)
        image.qemu_img("snapshot", "-d", "one", machine.home / "vda.qcow2")
        image.qemu_img("snapshot", "-d", "one", machine.home / "vdb.qcow2")
        if left[1]:
            machine.driver.domain_managed_save_remove(machine.ref)
        if not killed:
            break
        step += 13
    assert {(True, 0, False), (False, 1, True), (False, 0, False)} <= outcomes


@pytest.mark.parametrize("how", ["gone", "no image", "another"])
def test_image_that_is_not_what_a_snapshot_kept_leaves_the_guest_where_it_is(
    tmp_path: Path, driver: QemuDriver, how: str
) -> None:
    still = Still(tmp_path, driver)
    still.write(1)
    still.start()
    one = still.create("one", DISK_ONLY)
    base = tmp_path / "vda.qcow2"
    base.rename(tmp_path / "aside")
    words = {"gone": "No such file", "no image": "not in qcow2 format", "another": "has 2097152 bytes, and had 1048576"}
    if how == "no image":
        base.write_bytes(bytes(MIB))
    elif how == "another":
        image.qemu_img("create", "-q", "-f", "qcow2", base, 2 * MIB)
    with pytest.raises(VirtError, match=words[how]) as caught:
        driver.domain_revert_to_snapshot(one)
    assert driver.domain_get_state(still.ref).state is DomainState.RUNNING
    assert caught.value.code is not ErrorCode.SNAPSHOT_REVERT_RISKY or how == "another"
    if how == "another":
        driver.domain_revert_to_snapshot(one, SnapshotRevertFlag.FORCE)
    (tmp_path / "aside").rename(base)
    still.revert(one)
    assert still.read() == 1


@pytest.mark.parametrize("how", ["broken", "in use"])
def test_snapshot_that_cannot_be_made_keeps_nobody_from_the_domain(
    tmp_path: Path, driver: QemuDriver, how: str
) -> None:
    still = Still(tmp_path, driver)
    path = tmp_path / "vdb.qcow2"
    with contextlib.ExitStack() as stack:
        if how == "broken":
            path.write_bytes(bytes(MIB))
        else:
            stack.enter_context(graph.open(str(path), "qcow2", read_only=False))
        with pytest.raises(VirtError, match="not in qcow2 format" if how == "broken" else 'Failed to get "write" lock'):
            still.create("one")
        assert still.names() == []
        image.assert_clean(tmp_path / "vda.qcow2", "qcow2")
        assert "snapshots" not in json.loads(image.real_qemu_img("info", "--output=json", tmp_path / "vda.qcow2"))
        driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "vda.qcow2", "qcow2")))
    driver.domain_undefine(still.ref)
