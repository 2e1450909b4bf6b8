"""Files of a session that are damaged, or another's: what needs them is refused and says which, and all else works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, StartFlag
from hostel.drivers.base.backup import CheckpointCreateFlag, CheckpointRef
from hostel.drivers.base.domain import UndefineFlag
from hostel.drivers.base.secret import SecretRef
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotRef, SnapshotRevertFlag
from hostel.drivers.events import EventBus
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.secret.vault import DiskVault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support import image
from support.process import machines_of
from support.session import disk, domain_xml

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda old: b"",
    "half": lambda old: old[: len(old) // 2],
    "zeroes": lambda old: bytes(len(old)),
    "not text": lambda old: b"\xff\xfe\0" + old,
}
SECRET = "<secret ephemeral='no' private='no'><usage type='volume'><volume>/{}</volume></usage></secret>"


def refused(act: Callable[[], object], path: Path) -> None:
    """What needs a file names it, and is refused by libvirt's errors."""
    with pytest.raises(VirtError) as caught:
        act()
    assert str(path) in caught.value.message, caught.value.message


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_definition_hides_no_other(tmp_path: Path, driver: QemuDriver, how: str) -> None:
    for name in ("one", "other"):
        driver.domain_define_xml(domain_xml(tmp_path, name=name))
    path = tmp_path / "config/qemu/one.xml"
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    assert [ref.name for ref in driver.connect_list_all_domains()] == ["other"]
    refused(lambda: driver.domain_lookup_by_name("one"), path)
    refused(lambda: driver.domain_create(DomainRef("one", "")), path)
    driver.domain_define_xml(domain_xml(tmp_path, name="another"))
    driver.domain_undefine(DomainRef("one", ""), UndefineFlag.MANAGED_SAVE)
    assert not path.exists()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_snapshot_or_checkpoint_hides_no_other(tmp_path: Path, driver: QemuDriver, how: str) -> None:
    ref = driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "disk", "qcow2")))
    for name in ("one", "other"):
        xml = f"<{{}}><name>{name}</name><state>shutoff</state><creationTime>1</creationTime></{{}}>"
        for element in ("domainsnapshot", "domaincheckpoint"):
            body = driver.domain_get_xml_desc(ref)
            document = xml.format(element, element).replace("</name>", f"</name>{body}")
            if element == "domainsnapshot":
                driver.domain_snapshot_create_xml(ref, document, SnapshotCreateFlag.REDEFINE)
            else:
                document = document.replace("<state>shutoff</state>", "")
                driver.domain_checkpoint_create_xml(ref, document, CheckpointCreateFlag.REDEFINE)
    for kind in ("snapshot", "checkpoint"):
        path = tmp_path / "config/qemu" / kind / "guest/one.xml"
        path.write_bytes(DAMAGES[how](path.read_bytes()))
    assert [it.name for it in driver.domain_list_all_snapshots(ref)] == ["other"]
    assert [it.name for it in driver.domain_list_all_checkpoints(ref)] == ["other"]
    folder = tmp_path / "config/qemu"
    refused(
        lambda: driver.domain_snapshot_get_xml_desc(SnapshotRef("one", ref)),
        folder / "snapshot/guest/one.xml",
    )
    refused(
        lambda: driver.domain_checkpoint_get_xml_desc(CheckpointRef("one", ref)),
        folder / "checkpoint/guest/one.xml",
    )


def test_marks_of_snapshots_that_are_damaged_are_named(tmp_path: Path, driver: QemuDriver) -> None:
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "disk", 1 << 20)
    ref = driver.domain_create(driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "disk", "qcow2"))))
    folder = tmp_path / "config/qemu/snapshot/guest"
    folder.mkdir(parents=True)
    (folder / "current.mark").write_bytes(bytes(3))
    assert not driver.domain_has_current_snapshot(ref)
    (folder / "own.mark").write_bytes(b"[")
    snapshot = "<domainsnapshot><name>one</name></domainsnapshot>"
    refused(lambda: driver.domain_snapshot_create_xml(ref, snapshot, SnapshotCreateFlag.DISK_ONLY), folder / "own.mark")


@pytest.mark.parametrize("how", ["zeroes", "not text", "half", "another's"])
def test_saved_memory_that_is_damaged_is_not_passed_over(tmp_path: Path, driver: QemuDriver, how: str) -> None:
    refs = {name: driver.domain_define_xml(domain_xml(tmp_path, name=name)) for name in ("guest", "other")}
    for ref in refs.values():
        driver.domain_create(ref)
        driver.domain_managed_save(ref)
    path = tmp_path / "config/qemu/save/guest.save"
    whole = path.read_bytes()
    damaged = path.with_name("other.save").read_bytes() if how == "another's" else DAMAGES[how](whole)
    path.write_bytes(damaged)
    assert driver.domain_has_managed_save_image(refs["guest"])
    with pytest.raises(VirtError):
        driver.domain_create(refs["guest"])
    assert not machines_of(tmp_path)
    assert path.read_bytes() == damaged
    with pytest.raises(VirtError, match="managed save image exists"):
        driver.domain_undefine(refs["guest"])
    path.write_bytes(whole)
    driver.domain_create(refs["guest"])
    driver.domain_destroy(refs["guest"])
    path.write_bytes(damaged)
    driver.domain_create(refs["guest"], StartFlag.FORCE_BOOT)
    assert not path.exists()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_key_of_secrets_is_named(tmp_path: Path, how: str) -> None:
    directories = Directories.under(tmp_path)
    driver = VaultSecretDriver(DiskVault(directories), EventBus(directories.state / "events"))
    ref: SecretRef = driver.secret_define_xml(SECRET.format("a"))
    driver.secret_set_value(ref, b"said")
    key = tmp_path / "data/secrets/key"
    whole = key.read_bytes()
    key.write_bytes(DAMAGES[how](whole))
    refused(lambda: driver.secret_get_value(ref), key)
    refused(lambda: driver.secret_set_value(ref, b"said anew"), key)
    key.write_bytes(whole)
    assert driver.secret_get_value(ref) == b"said"
    value = tmp_path / f"config/secrets/{ref.uuid}.value"
    value.write_bytes(DAMAGES[how](value.read_bytes()))
    with pytest.raises(VirtError) as caught:
        driver.secret_get_value(ref)
    assert caught.value.code is ErrorCode.INTERNAL_ERROR
    driver.secret_set_value(ref, b"said anew")
    assert driver.secret_get_value(ref) == b"said anew"


@pytest.mark.parametrize("how", ["half", "another's"])
def test_a_snapshot_whose_memory_is_damaged_takes_nothing_from_the_domain(
    tmp_path: Path, driver: QemuDriver, how: str
) -> None:
    refs = {}
    for name in ("guest", "other"):
        image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / f"{name}.qcow2", 1 << 20)
        xml = domain_xml(tmp_path, disk(tmp_path / f"{name}.qcow2", "qcow2"), name=name)
        refs[name] = driver.domain_create(driver.domain_define_xml(xml))
        memory = f"<memory snapshot='external' file='{tmp_path}/{name}.memory'/>"
        driver.domain_snapshot_create_xml(
            refs[name], f"<domainsnapshot><name>kept</name>{memory}</domainsnapshot>", SnapshotCreateFlag.NONE
        )
        driver.domain_managed_save(refs[name])
    path = tmp_path / "guest.memory"
    whole = path.read_bytes()
    path.write_bytes((tmp_path / "other.memory").read_bytes() if how == "another's" else DAMAGES[how](whole))

    def files() -> dict[Path, bytes]:
        found = [*tmp_path.iterdir(), *(tmp_path / "config/qemu/save").iterdir()]
        return {item: item.read_bytes() for item in found if item.is_file() and item.suffix != ".log"}

    before, document = files(), driver.domain_get_xml_desc(refs["guest"])
    kept = SnapshotRef("kept", refs["guest"])
    with pytest.raises(VirtError):
        driver.domain_revert_to_snapshot(kept, SnapshotRevertFlag.FORCE)
    assert not machines_of(tmp_path)
    assert files() == before
    assert driver.domain_get_xml_desc(refs["guest"]) == document
    driver.domain_destroy(driver.domain_create(refs["guest"]))
    path.write_bytes(whole)
    driver.domain_revert_to_snapshot(kept)
    assert len(machines_of(tmp_path)) == 1
