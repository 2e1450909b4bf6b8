"""Disks given by pool and volume: which volume they are is kept through all that becomes of a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainXmlFlag, PoolRef
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support import image
from support.session import domain_xml, reports, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
VOLUME = (
    "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='p' volume='v.qcow2'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)
SOURCE = re.compile(r"<source [^>]*index[^>]*/>|(?<=<backingStore )type='\w+'|<source pool[^>]*/>")


class Host(NamedTuple):
    """A session with a pool in a directory of its own."""

    home: Path
    driver: QemuDriver
    storage: SessionStorageDriver
    pool: PoolRef

    @property
    def folder(self) -> Path:
        return self.home / "pool"

    def shown(self, ref: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> list[str]:
        """What the document says of where images are."""
        return SOURCE.findall(self.driver.domain_get_xml_desc(ref, flags))

    def again(self) -> Host:
        """The same session as a process finds it that has only what is on disk."""
        directories = Directories.under(self.home)
        storage = SessionStorageDriver(directories)
        return self._replace(driver=QemuDriver(directories, storage=storage), storage=storage)


def host(home: Path) -> Host:
    directories = Directories.under(home)
    storage = SessionStorageDriver(directories)
    (home / "pool").mkdir(parents=True)
    text = f"<pool type='dir'><name>p</name><target><path>{home}/pool</path></target></pool>"
    pool = storage.storage_pool_define_xml(text)
    storage.storage_pool_create(pool)
    return Host(home, QemuDriver(directories, storage=storage), storage, pool)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts, whose pools of the same name are in different places."""
    both = host(tmp_path / "one"), host(tmp_path / "other")
    path = both[0].folder / "v.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    image.write(path, "qcow2", (0, guest.image(label="volume", mode=guest.Mode.REBOOT)))
    yield both
    for each in both:
        for ref in each.driver.connect_list_all_domains():
            if ref.id >= 0:
                each.driver.domain_destroy(ref)


def boot(one: Host, home: Path) -> DomainRef:
    ref = one.driver.domain_create(one.driver.domain_define_xml(domain_xml(home, VOLUME)))
    wait_for_report(home, 1)
    return ref


def test_copied_disk_is_the_volume_of_the_same_name_in_the_other_hosts_pool(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    one, other = hosts
    ref = boot(one, tmp_path)
    flags = MigrateFlag.LIVE | MigrateFlag.UNSAFE | MigrateFlag.NON_SHARED_DISK
    with pytest.raises(VirtError, match=r"v\.qcow2"):  # nobody copies it
        migrate(one.driver, other.driver, ref, {}, MigrateFlag.LIVE | MigrateFlag.UNSAFE)
    with pytest.raises(VirtError, match="pre-creation of storage targets for incremental"):
        migrate(one.driver, other.driver, ref, {}, flags & ~MigrateFlag.NON_SHARED_DISK | MigrateFlag.NON_SHARED_INC)
    with pytest.raises(VirtError, match=r"No such file|Failed to|cannot"):
        migrate(one.driver, other.driver, ref, {"disks_uri": f"unix://{tmp_path}/none/nbd"}, flags)
    assert list(other.folder.iterdir()) == []
    there = migrate(one.driver, other.driver, ref, {}, flags | MigrateFlag.PERSIST_DEST | MigrateFlag.UNDEFINE_SOURCE)
    (source,) = other.shown(there)
    assert re.fullmatch(r"<source pool='p' volume='v\.qcow2' index='\d+'/>", source)
    assert other.shown(there, DomainXmlFlag.INACTIVE) == ["<source pool='p' volume='v.qcow2'/>"]
    wait_for_report(tmp_path, len(reports(tmp_path)) + 2)
    other.driver.domain_destroy(there)
    content = image.content(other.folder / "v.qcow2", "qcow2")
    state = guest.read_state(content[guest.state_offset() :][: guest.SECTOR])
    assert state.intact and state.boot_count >= len([report for report in reports(tmp_path) if report.complete])


def test_volume_below_an_overlay_is_named_whoever_looks_and_with_its_pool_stopped(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    one, _ = hosts
    ref = boot(one, tmp_path)
    one.storage.storage_pool_destroy(one.pool)
    snapshot = one.driver.domain_snapshot_create_xml(
        ref, "<domainsnapshot><name>s</name></domainsnapshot>", SnapshotCreateFlag.DISK_ONLY
    )
    two = one.again()
    assert f"<source file='{one.folder}/v.s'/>" in two.driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)
    assert two.shown(ref)[1:] == ["type='volume'", "<source pool='p' volume='v.qcow2'/>"]
    assert "<source pool='p' volume='v.qcow2'/>" in two.driver.domain_snapshot_get_xml_desc(snapshot)
    with pytest.raises(VirtError, match=r"pool 'p' containing volume 'v\.qcow2' is not active") as caught:
        two.driver.domain_revert_to_snapshot(snapshot)  # before the machine is stopped
    assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED
    wait_for_report(tmp_path, len(reports(tmp_path)) + 1)
    two.driver.domain_snapshot_delete(snapshot)
    (source,) = two.shown(ref)
    assert re.fullmatch(r"<source pool='p' volume='v\.qcow2' index='\d+'/>", source)
    assert two.shown(ref, DomainXmlFlag.INACTIVE) == ["<source pool='p' volume='v.qcow2'/>"]
    assert sorted(path.name for path in one.folder.iterdir()) == ["v.qcow2"]
    assert two.driver.domain_get_block_info(ref, "vda").capacity == MIB


def test_snapshot_of_a_domain_that_does_not_run_is_not_merged_into_what_cannot_be_found(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    one, _ = hosts
    ref = one.driver.domain_define_xml(domain_xml(tmp_path, VOLUME))
    made = [
        one.driver.domain_snapshot_create_xml(
            ref, f"<domainsnapshot><name>{name}</name></domainsnapshot>", SnapshotCreateFlag.DISK_ONLY
        )
        for name in ("s", "t")
    ]
    one.storage.storage_pool_destroy(one.pool)
    files = sorted(path.name for path in one.folder.iterdir())
    with pytest.raises(VirtError, match="start it with pool-start p"):
        one.driver.domain_snapshot_delete(made[1])
    assert sorted(path.name for path in one.folder.iterdir()) == files
    assert [item.name for item in one.driver.domain_list_all_snapshots(ref)] == ["s", "t"]
    one.storage.storage_pool_create(one.pool)
    for snapshot in reversed(made):
        one.driver.domain_snapshot_delete(snapshot)
    assert [path.name for path in one.folder.iterdir()] == ["v.qcow2"]
