"""Chains of images that are changed while a machine is away: it comes back to what its images say then."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, StartFlag
from hostel.drivers.base.snapshot import SnapshotRef
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.driver import QemuDriver
from hostel.model.domain.domain import Domain
from support import image
from support.session import disk, domain_xml

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
SIZE = 1 << 20
MOVED = ("over", "moved")


@pytest.fixture
def ref(tmp_path: Path, driver: QemuDriver) -> DomainRef:
    """A machine that is paused, on ``over`` on ``base``."""
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "base", SIZE)
    image.qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "base", "-F", "qcow2", tmp_path / "over")
    xml = domain_xml(tmp_path, disk(tmp_path / "over", "qcow2"))
    return driver.domain_create(driver.domain_define_xml(xml), StartFlag.PAUSED)


def move_base(home: Path) -> None:
    """Give the base another name, and its own to another image."""
    (home / "base").rename(home / "moved")
    image.real_qemu_img("rebase", "-u", "-f", "qcow2", "-b", str(home / "moved"), "-F", "qcow2", str(home / "over"))
    image.qemu_img("create", "-q", "-f", "qcow2", home / "base", SIZE)


def chain(driver: QemuDriver, ref: DomainRef) -> tuple[str, ...]:
    """The files of the chain, top first."""
    (found,) = Domain.parse(driver.domain_get_xml_desc(ref)).devices.disks
    return tuple(Path(item.path).name for item in images(found))


def test_saved_machine_is_restored_to_the_chain_that_its_images_name(
    tmp_path: Path, driver: QemuDriver, ref: DomainRef
) -> None:
    driver.domain_save_flags(ref, str(tmp_path / "saved"))
    move_base(tmp_path)
    assert chain(driver, driver.domain_restore_flags(str(tmp_path / "saved"))) == MOVED


def test_snapshot_is_gone_back_to_on_the_chain_that_its_images_name(
    tmp_path: Path, driver: QemuDriver, ref: DomainRef
) -> None:
    driver.domain_snapshot_create_xml(ref, "<domainsnapshot><name>one</name></domainsnapshot>")
    driver.domain_destroy(ref)
    move_base(tmp_path)
    driver.domain_revert_to_snapshot(SnapshotRef("one", ref))
    assert chain(driver, driver.domain_lookup_by_name("guest")) == MOVED


def test_chain_that_only_the_document_says_is_kept(tmp_path: Path, driver: QemuDriver) -> None:
    for name in ("base", "other"):
        image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / name, SIZE)
    image.qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "base", "-F", "qcow2", tmp_path / "over")
    below = (
        f"<backingStore type='file'><format type='qcow2'/><source file='{tmp_path}/other'/><backingStore/>"
        "</backingStore>"
    )
    xml = domain_xml(tmp_path, disk(tmp_path / "over", "qcow2", more=below))
    ref = driver.domain_create(driver.domain_define_xml(xml), StartFlag.PAUSED)
    driver.domain_save_flags(ref, str(tmp_path / "saved"))
    assert chain(driver, driver.domain_restore_flags(str(tmp_path / "saved"))) == ("over", "other")
