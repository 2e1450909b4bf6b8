"""Disks that are a part of a file: what is around them stays, and overlays on them find them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockCopyFlag, BlockJobAbortFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotDeleteFlag
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from support import image
from support.chains import wait_for_job
from support.guest import Oracle
from support.session import domain_xml, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB: Final = 1 << 20
SIZE: Final = 2 * MIB
START: Final = MIB
AROUND: Final = b"\xa5"


def part(path: Path, *, offset: int = START, size: int = SIZE, fmt: str = "raw") -> str:
    source = f"<source file='{path}'><slices><slice type='storage' offset='{offset}' size='{size}'/></slices></source>"
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/>{source}"
        "<target dev='vda' bus='virtio'/></disk>"
    )


class Box:
    """A guest on a part of a file."""

    def __init__(self, home: Path, driver: QemuDriver) -> None:
        self.path, self.driver, self.oracle = home / "box.img", driver, Oracle(SIZE)
        self.before = self.oracle.image("part", guest.Mode.WAIT)
        self.path.write_bytes(AROUND * START + self.before + AROUND * MIB)
        self.ref: DomainRef = driver.domain_create(driver.domain_define_xml(domain_xml(home, part(self.path))))
        assert wait_for_report(home, 1).drive.size == SIZE

    def check(self, boots: int) -> None:
        """The part is what the guest has made of it, and nothing else was written to."""
        assert self.path.read_bytes() == AROUND * START + self.oracle.after(self.before, boots) + AROUND * MIB

    def chain(self) -> list[str]:
        document = Domain.parse(self.driver.domain_get_xml_desc(self.ref))
        return [Path(item.path).name for item in images(document.devices.disks[0])]


def test_nothing_is_written_around_the_part(tmp_path: Path, driver: QemuDriver) -> None:
    box = Box(tmp_path, driver)
    assert driver.domain_get_block_info(box.ref, "vda").capacity == SIZE
    driver.domain_destroy(box.ref)
    box.check(1)


def test_snapshot_of_a_part_is_found_again_and_merged_into_it(tmp_path: Path, driver: QemuDriver) -> None:
    box = Box(tmp_path, driver)
    xml = "<domainsnapshot><name>one</name></domainsnapshot>"
    one = driver.domain_snapshot_create_xml(box.ref, xml, SnapshotCreateFlag.DISK_ONLY)
    driver.domain_destroy(box.ref)
    box.check(1)
    said = json.loads(image.real_qemu_img("info", "--output=json", tmp_path / "box.one"))
    assert said["backing-filename"].startswith('json:{"file":{"driver":"raw","offset":1048576,"size":2097152')
    driver.domain_create(box.ref)
    wait_for_report(tmp_path, 2)
    assert box.chain() == ["box.one", "box.img"]
    box.check(1)
    driver.domain_snapshot_delete(one, SnapshotDeleteFlag.NONE)
    assert box.chain() == ["box.img"]
    driver.domain_destroy(box.ref)
    box.check(2)


def test_snapshot_of_a_part_is_made_while_nothing_runs(tmp_path: Path, driver: QemuDriver) -> None:
    box = Box(tmp_path, driver)
    driver.domain_destroy(box.ref)
    xml = "<domainsnapshot><name>off</name></domainsnapshot>"
    driver.domain_snapshot_create_xml(box.ref, xml, SnapshotCreateFlag.DISK_ONLY)
    driver.domain_create(box.ref)
    assert wait_for_report(tmp_path, 2).drive.size == SIZE
    assert box.chain() == ["box.off", "box.img"]
    driver.domain_destroy(box.ref)
    box.check(1)
    assert image.content(tmp_path / "box.off", "qcow2") == box.oracle.after(box.before, 2)


def test_overlay_of_the_document_stands_on_a_part(tmp_path: Path, driver: QemuDriver) -> None:
    oracle = Oracle(SIZE)
    before = oracle.image("below", guest.Mode.WAIT)
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "inner.qcow2", SIZE)
    image.write(tmp_path / "inner.qcow2", "qcow2", (0, before))
    inner = (tmp_path / "inner.qcow2").read_bytes()
    (tmp_path / "box.img").write_bytes(AROUND * START + inner + AROUND * MIB)
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "top.qcow2", SIZE)
    window = f"<slices><slice type='storage' offset='{START}' size='{len(inner)}'/></slices>"
    below = f"<format type='qcow2'/><source file='{tmp_path}/box.img'>{window}</source><backingStore/>"
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{tmp_path}/top.qcow2'/>"
        f"<backingStore type='file'>{below}</backingStore><target dev='vda' bus='virtio'/></disk>"
    )
    driver.domain_create(driver.domain_define_xml(domain_xml(tmp_path, disk)))
    assert wait_for_report(tmp_path, 1).ok
    assert (tmp_path / "box.img").read_bytes() == AROUND * START + inner + AROUND * MIB


def test_copies_go_into_parts_that_are_there(tmp_path: Path, driver: QemuDriver) -> None:
    box = Box(tmp_path, driver)
    other = tmp_path / "other.img"
    xml = part(other, offset=512)
    with pytest.raises(VirtError, match="creation of images with slice type='storage' is not supported") as caught:
        driver.domain_block_copy(box.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    assert caught.value.code == ErrorCode.OPERATION_UNSUPPORTED
    assert not other.exists()
    other.write_bytes(AROUND * 512 + bytes(SIZE) + AROUND * 512)
    flags = BlockCopyFlag.TRANSIENT_JOB | BlockCopyFlag.REUSE_EXT
    driver.domain_block_copy(box.ref, "vda", xml, flags=flags)
    wait_for_job(driver, box.ref, ready=True)
    driver.domain_block_job_abort(box.ref, "vda", BlockJobAbortFlag.PIVOT)
    driver.domain_destroy(box.ref)
    assert other.read_bytes() == AROUND * 512 + box.oracle.after(box.before, 1) + AROUND * 512
    box.check(1)


def test_part_beyond_the_file_does_not_start(tmp_path: Path, driver: QemuDriver) -> None:
    (tmp_path / "box.img").write_bytes(bytes(SIZE))
    with pytest.raises(VirtError, match=r"has to be smaller or equal to the *actual size"):
        driver.domain_create_xml(domain_xml(tmp_path, part(tmp_path / "box.img", offset=512)))
