"""Disks that keep what is read from below, under everything that is done to the images beneath their filter."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base.block import BlockCommitFlag, BlockCopyFlag, BlockJobAbortFlag, BlockRebaseFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotDeleteFlag, SnapshotRevertFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.plug.graph import images_inside
from hostel.errors import VirtError
from support import image
from support.chains import SIZE, Chain
from support.session import disk, domain_xml, held, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
WORDS = " copy_on_read='on'"
DISK_ONLY = SnapshotCreateFlag.DISK_ONLY | SnapshotCreateFlag.NO_METADATA


def nodes(home: Path) -> set[str]:
    with held(home) as machine:
        return {node["node-name"] for node in machine.ask("query-named-block-nodes", flat=True)}


def check_filter(home: Path, image_node: str) -> None:
    """The device is on the filter, and the filter on the image."""
    with held(home) as machine:
        on = {entry["qdev"]: entry["inserted"]["node-name"] for entry in machine.ask("query-block")}
        assert on == {"/machine/peripheral/virtio-disk0/virtio-backend": "libvirt-CoR-vda"}
        assert images_inside(machine) == {"virtio-disk0": image_node}


def test_what_the_guest_reads_is_in_the_top_image(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, words=WORDS)
    check_filter(tmp_path, "libvirt-1-format")
    assert driver.domain_block_stats_flags(chain.ref, "vda")["rd_bytes"] > 0
    driver.domain_destroy(chain.ref)
    said = json.loads(image.real_qemu_img("map", "--output=json", tmp_path / "over2.qcow2"))
    here = [(item["start"], item["start"] + item["length"]) for item in said if item["depth"] == 0]
    for lba, count, _ in chain.oracle.by_host:
        first, last = lba * guest.SECTOR, (lba + count) * guest.SECTOR
        assert any(start <= first and last <= end for start, end in here), (lba, count, here)


def test_pull_and_commits_leave_the_filter_on_top(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 3, words=WORDS)
    driver.domain_block_rebase(chain.ref, "vda", str(tmp_path / "over1.qcow2"), flags=BlockRebaseFlag.RELATIVE)
    chain.wait()
    driver.domain_block_commit(chain.ref, "vda", top=str(tmp_path / "over1.qcow2"))
    chain.wait()
    assert chain.chain() == ["over3.qcow2", "base.qcow2"]
    driver.domain_block_commit(chain.ref, "vda", flags=BlockCommitFlag.ACTIVE)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    check_filter(tmp_path, "libvirt-4-format")
    assert chain.defined() == "base.qcow2"
    assert nodes(tmp_path) == {"libvirt-CoR-vda", "libvirt-4-format", "libvirt-4-storage"}
    chain.check("base.qcow2", [])


def test_copy_is_pivoted_to_beneath_the_filter_and_grows(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, words=WORDS)
    xml = f"<disk type='file'><driver type='qcow2'/><source file='{tmp_path}/copy.qcow2'/></disk>"
    driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    check_filter(tmp_path, "libvirt-4-format")
    driver.domain_block_resize(chain.ref, "vda", 8192)
    driver.domain_reset(chain.ref)
    assert wait_for_report(tmp_path, 2).drive.size == 2 * SIZE  # the guest is told
    driver.domain_block_resize(chain.ref, "vda", 4096)
    driver.domain_destroy(chain.ref)
    assert image.content(tmp_path / "copy.qcow2", "qcow2") == chain.oracle.after(chain.before, 2)


def test_snapshots_put_overlays_beneath_the_filter(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 1, words=WORDS)
    source = f"<disk name='vda' snapshot='external'><source file='{tmp_path}/over2.qcow2'/></disk>"
    xml = f"<domainsnapshot><name>one</name><disks>{source}</disks></domainsnapshot>"
    one = driver.domain_snapshot_create_xml(chain.ref, xml, SnapshotCreateFlag.DISK_ONLY)
    check_filter(tmp_path, "libvirt-3-format")
    assert chain.chain() == ["over2.qcow2", "over1.qcow2", "base.qcow2"]
    driver.domain_snapshot_delete(one, SnapshotDeleteFlag.NONE)
    check_filter(tmp_path, "libvirt-1-format")
    chain.check("over1.qcow2", ["base.qcow2"])


def test_backup_is_of_what_is_beneath_the_filter(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 1, words=WORDS)
    target = f"<disk name='vda' type='file'><driver type='raw'/><target file='{tmp_path}/backup.raw'/></disk>"
    driver.domain_backup_begin(chain.ref, f"<domainbackup><disks>{target}</disks></domainbackup>")
    deadline = time.monotonic() + 60
    with pytest.raises(VirtError, match="no domain backup job present"):
        while driver.domain_backup_get_xml_desc(chain.ref):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (tmp_path / "backup.raw").read_bytes() == chain.oracle.after(chain.before, 1)
    check_filter(tmp_path, "libvirt-1-format")


def test_internal_snapshot_is_gone_back_to(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 0, words=WORDS)
    one = driver.domain_snapshot_create_xml(chain.ref, "<domainsnapshot><name>one</name></domainsnapshot>")
    driver.domain_reset(chain.ref)
    wait_for_report(tmp_path, 2)
    driver.domain_revert_to_snapshot(one, SnapshotRevertFlag.PAUSED)
    check_filter(tmp_path, "libvirt-1-format")
    chain.check("base.qcow2", [])


def test_disk_comes_and_goes_with_its_filter(tmp_path: Path, driver: QemuDriver) -> None:
    (tmp_path / "disk.img").write_bytes(guest.image(label="plug", mode=guest.Mode.WAIT).ljust(SIZE, b"\0"))
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", SIZE)
    scsi = "<controller type='scsi' index='0' model='virtio-scsi'/>"
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.img"), scsi)
    ref = driver.domain_create(driver.domain_define_xml(xml))
    wait_for_report(tmp_path, 1)
    plugged = disk(tmp_path / "a.qcow2", "qcow2", dev="sda", bus="scsi", words=WORDS)
    before = nodes(tmp_path)
    for _ in range(2):
        driver.domain_attach_device_flags(ref, plugged, Affect.LIVE)
        assert "libvirt-CoR-sda" in nodes(tmp_path)
        driver.domain_detach_device_flags(ref, plugged, Affect.LIVE)
        assert nodes(tmp_path) == before
