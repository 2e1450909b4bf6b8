"""Domains that get other names, with all that belongs to them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import CheckpointCreateFlag, CheckpointDeleteFlag, CheckpointRef
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotRef
from hostel.drivers.qemu import rename
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support import image
from support.kill_step import MAX_STEPS, killed_at
from support.session import disk, domain_xml, session, wait_for_report
from support.virsh import Ours

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
STEPS = (Path(rename.__file__),)


def make(home: Path, driver: QemuDriver) -> DomainRef:
    """A domain that starts by itself, with a snapshot and a checkpoint."""
    path = home / "vda.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    image.write(path, "qcow2", (0, guest.image(label="name", mode=guest.Mode.WAIT)))
    ref = driver.domain_define_xml(domain_xml(home, disk(path, "qcow2")))
    driver.domain_snapshot_create_xml(ref, "<domainsnapshot><name>one</name></domainsnapshot>", SnapshotCreateFlag.NONE)
    xml = f"<name>c</name><creationTime>1</creationTime>{driver.domain_get_xml_desc(ref)}"
    redefine = CheckpointCreateFlag.REDEFINE
    driver.domain_checkpoint_create_xml(ref, f"<domaincheckpoint>{xml}</domaincheckpoint>", redefine)
    driver.domain_set_autostart(ref, True)
    return ref


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[QemuDriver]:
    with session(tmp_path) as connection:
        assert isinstance(connection.hypervisor, QemuDriver)
        yield connection.hypervisor


def check(driver: QemuDriver, name: str, uuid: str) -> DomainRef:
    """The domain is there by one name, with all that it had."""
    refs = driver.connect_list_all_domains()
    assert [(ref.name, ref.uuid) for ref in refs] == [(name, uuid)]
    (ref,) = refs
    assert f"<name>{name}</name>" in driver.domain_get_xml_desc(ref)
    assert driver.domain_get_autostart(ref)
    assert driver.domain_list_all_snapshots(ref) == [SnapshotRef("one", ref)]
    assert f"<name>{name}</name>" in driver.domain_snapshot_get_xml_desc(SnapshotRef("one", ref))
    assert f"<name>{name}</name>" in driver.domain_checkpoint_get_xml_desc(CheckpointRef("c", ref))
    return ref


def test_all_that_belongs_to_a_domain_goes_with_it(tmp_path: Path, driver: QemuDriver) -> None:
    ref = make(tmp_path, driver)
    assert Ours(tmp_path).run("domrename guest other") == (0, "Domain successfully renamed\n\n", "")
    ref = check(driver, "other", ref.uuid)
    driver.domain_checkpoint_delete(CheckpointRef("c", ref), CheckpointDeleteFlag.METADATA_ONLY)
    driver.domain_create(ref)
    wait_for_report(tmp_path, 1)
    with pytest.raises(VirtError, match="cannot rename active domain"):
        driver.domain_rename(ref, "third")
    driver.domain_revert_to_snapshot(SnapshotRef("one", ref))
    assert [item.name for item in driver.connect_list_all_domains()] == ["other"]


def test_name_that_is_taken_or_no_name_is_refused(tmp_path: Path, driver: QemuDriver) -> None:
    ref = make(tmp_path, driver)
    driver.domain_define_xml(domain_xml(tmp_path, name="taken"))
    for name, words in (("taken", "'taken' already exists"), ("guest", "to itself"), ("a/b", "cannot contain")):
        with pytest.raises(VirtError, match=words):
            driver.domain_rename(ref, name)
    with pytest.raises(VirtError) as caught:
        driver.domain_rename(DomainRef("none", ref.uuid), "new")
    assert caught.value.code is ErrorCode.NO_DOMAIN


def do_rename(home: Path, ref: DomainRef) -> None:
    """Do it as another process does."""
    QemuDriver(Directories.under(home)).domain_rename(ref, "other")


def test_killed_at_any_step_it_has_one_name(tmp_path: Path) -> None:
    names, step = set(), 1
    while step < MAX_STEPS:
        home = tmp_path / str(step)
        home.mkdir()
        with session(home) as connection:
            own = connection.hypervisor
            assert isinstance(own, QemuDriver)
            ref = make(home, own)
            killed = killed_at(step, STEPS, functools.partial(do_rename, home, ref))
            names.add(name := own.connect_list_all_domains()[0].name)
            check(own, name, ref.uuid)
        if not killed:
            break
        step += 1
    assert names == {"guest", "other"}
