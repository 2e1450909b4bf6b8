"""Guests on chains of images, which know their disk to the last byte."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from hostel import guest
from hostel.drivers.base import DomainRef, DomainXmlFlag, StartFlag
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.driver import QemuDriver
from hostel.model.domain.domain import Domain
from support import image
from support.guest import Oracle
from support.session import disk, domain_xml, wait_for_report

SIZE: Final = 4 << 20


def wait_for_job(driver: QemuDriver, ref: DomainRef, *, ready: bool = False) -> None:
    """Wait until the job of disk ``vda`` has ended, or is ready."""
    deadline = time.monotonic() + 60
    while (info := driver.domain_get_block_job_info(ref, "vda")) is not None:
        if ready and info.cur == info.end:
            return
        assert time.monotonic() < deadline, info
        time.sleep(0.02)
    assert not ready


class Chain:
    """A guest on a chain of images: base, then ``depth`` overlays; what the guest writes is known.

    Args:
        home: where the images are made.
        driver: of the machine.
        depth: overlays.
        words: attributes of the disk's driver, with a blank before each.
        boots: whether the guest runs; otherwise the machine stands still, with what the guest writes on its disk.
    """

    def __init__(self, home: Path, driver: QemuDriver, depth: int = 2, *, words: str = "", boots: bool = True) -> None:
        self.home, self.driver = home, driver
        self.oracle = Oracle(SIZE)
        self.before = self.oracle.image("chain", guest.Mode.WAIT)
        self.paths = [home / "base.qcow2", *(home / f"over{index}.qcow2" for index in range(1, depth + 1))]
        image.qemu_img("create", "-q", "-f", "qcow2", self.paths[0], SIZE)
        image.write(self.paths[0], "qcow2", (0, self.before))
        for below, path in zip(self.paths, self.paths[1:], strict=False):
            image.qemu_img("create", "-q", "-f", "qcow2", "-b", below.name, "-F", "qcow2", path)
        xml = domain_xml(home, disk(self.paths[-1], "qcow2", words=words))
        self.ref: DomainRef = driver.domain_define_xml(xml)
        if boots:
            self.ref = driver.domain_create(self.ref)
            assert wait_for_report(home, 1).failures == 0
        else:
            image.write(self.paths[-1], "qcow2", *self.oracle.written(1))
            self.ref = driver.domain_create(self.ref, StartFlag.PAUSED)

    def chain(self) -> list[str]:
        """The files of the chain by the live document, top first."""
        document = Domain.parse(self.driver.domain_get_xml_desc(self.ref))
        return [Path(item.path).name for item in images(document.devices.disks[0])]

    def defined(self) -> str:
        """The file that the definition starts from."""
        document = Domain.parse(self.driver.domain_get_xml_desc(self.ref, DomainXmlFlag.INACTIVE))
        return Path(next(images(document.devices.disks[0])).path).name

    def wait(self, *, ready: bool = False) -> None:
        """Wait until the job has ended, or is ready."""
        wait_for_job(self.driver, self.ref, ready=ready)

    def check(self, top: str, below: list[str]) -> None:
        """After a restart the guest finds what it wrote, in a chain of just these files."""
        assert self.chain() == [top, *below]
        self.driver.domain_destroy(self.ref)
        path = self.home / top
        fmt = top.rpartition(".")[2]
        said = json.loads(image.real_qemu_img("info", "--backing-chain", "--output=json", "-f", fmt, path))
        assert [Path(item["filename"]).name for item in said] == [top, *below]
        assert image.content(path, fmt) == self.oracle.after(self.before, 1)
        if fmt != "raw":
            image.assert_clean(path, fmt)
