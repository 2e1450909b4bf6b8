"""Incremental backups of disks that have gone on in other images: every byte is there, and only changes are kept."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from hostel.drivers.base.block import BlockCommitFlag, BlockCopyFlag, BlockJobAbortFlag
from hostel.drivers.base.domain import StartFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, VirtError
from support import image
from support.session import disk, domain_xml, session

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB: Final = 1 << 20
SIZE: Final = 4 * MIB
CLUSTER: Final = 1 << 16
FIXED: Final = slice(3 * MIB, 4 * MIB)  # where nobody writes after the first backup: no incremental one has it
SHALLOW, PIVOT = BlockCopyFlag.SHALLOW | BlockCopyFlag.TRANSIENT_JOB, BlockJobAbortFlag.PIVOT


class Machine:
    """A machine whose guest does nothing; what is written is written through its devices, and kept beside."""

    def __init__(self, home: Path, driver: QemuDriver, names: tuple[str, ...]) -> None:
        self.home, self.driver, self.random = home, driver, random.Random(5)
        disks = []
        for name in names:
            image.qemu_img("create", "-q", "-f", "qcow2", home / f"{name}.qcow2", SIZE)
            disks.append(disk(home / f"{name}.qcow2", "qcow2", dev=name))
        self.content = {name: bytearray(SIZE) for name in names}
        self.alias = {name: f"virtio-disk{ord(name[2]) - ord('a')}" for name in names}
        self.ref = driver.domain_create(driver.domain_define_xml(domain_xml(home, *disks)), StartFlag.PAUSED)

    def write(self, name: str, offset: int | None = None, length: int = 4096) -> None:
        """Write something somewhere as the guest would."""
        if offset is None:
            offset = self.random.randrange(FIXED.start // 512) * 512
            length = min(self.random.choice((512, 4096, 70_000)) // 512 * 512, FIXED.start - offset)
        byte = self.random.randrange(1, 256)
        where = f"/machine/peripheral/{self.alias[name]}/virtio-backend"
        said = self.driver.domain_qemu_monitor_command(
            self.ref, f'qemu-io -d {where} "write -P {byte} {offset} {length}"', human=True
        )
        assert said == ""  # that it has written goes to the log
        self.content[name][offset : offset + length] = bytes([byte]) * length

    def checkpoint(self, name: str) -> None:
        self.driver.domain_checkpoint_create_xml(self.ref, f"<domaincheckpoint><name>{name}</name></domaincheckpoint>")

    def overlay(self, name: str, *disks: str) -> None:
        """Put disks on overlays, and leave the others."""
        rows = "".join(
            f"<disk name='{dev}' snapshot='{'external' if dev in disks else 'no'}'/>" for dev in self.content
        )
        self.driver.domain_snapshot_create_xml(
            self.ref,
            f"<domainsnapshot><name>{name}</name><disks>{rows}</disks></domainsnapshot>",
            SnapshotCreateFlag.DISK_ONLY | SnapshotCreateFlag.NO_METADATA,
        )

    def bring(self, name: str) -> None:
        """Wait until the disk's job is ready, write something, and go over."""
        eventually(lambda: "ready='yes'" in self.driver.domain_get_xml_desc(self.ref).split(f"dev='{name}'")[0][-900:])
        self.write(name)
        self.driver.domain_block_job_abort(self.ref, name, PIVOT)

    def settle(self, name: str) -> None:
        eventually(lambda: self.driver.domain_get_block_job_info(self.ref, name) is None)

    def back_up(self, label: str, since: str | None = None) -> dict[str, Path]:
        """Write a backup of all disks, which is a checkpoint of that name too."""
        targets = {name: self.home / f"{label}-{name}.qcow2" for name in self.content}
        rows = "".join(
            f"<disk name='{name}' type='file'><target file='{path}'/><driver type='qcow2'/></disk>"
            for name, path in targets.items()
        )
        more = f"<incremental>{since}</incremental>" if since else ""
        xml = f"<domainbackup>{more}<disks>{rows}</disks></domainbackup>"
        self.driver.domain_backup_begin(self.ref, xml, f"<domaincheckpoint><name>{label}</name></domaincheckpoint>")
        eventually(self.is_backed_up)
        return targets

    def is_backed_up(self) -> bool:
        try:
            self.driver.domain_backup_get_xml_desc(self.ref)
        except VirtError as error:
            assert error.code is ErrorCode.NO_DOMAIN_BACKUP
            return True
        return False


def eventually(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[QemuDriver]:
    with session(tmp_path) as connection:
        assert isinstance(connection.hypervisor, QemuDriver)
        yield connection.hypervisor


def is_whole(path: Path) -> bool:
    """Whether a backup has what nobody has changed, too."""
    said = json.loads(image.real_qemu_img("map", "--output=json", "-f", "qcow2", str(path)))
    own = [item for item in said if item["data"] and item["depth"] == 0]
    return any(item["start"] + item["length"] > FIXED.start + CLUSTER for item in own)


def stacked(base: Path, *more: Path) -> bytes:
    """What a chain of backups holds, each on what was backed up before."""
    for below, above in zip((base, *more), more, strict=False):
        image.qemu_img("rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, above)
    return bytes(image.content((base, *more)[-1], "qcow2"))


def stay(machine: Machine, name: str) -> None:
    """Nothing."""


def put_over(machine: Machine, name: str) -> None:
    machine.overlay("over", name)


def commit(machine: Machine, name: str) -> None:
    machine.overlay("committed", name)
    machine.write(name)
    machine.checkpoint(f"on-the-overlay-of-{name}")
    machine.write(name)
    machine.driver.domain_block_commit(machine.ref, name, flags=BlockCommitFlag.ACTIVE)
    machine.bring(name)


def commit_the_middle(machine: Machine, name: str) -> None:
    machine.overlay("middle", name)
    machine.write(name)
    machine.overlay("top", name)
    machine.write(name)
    middle = str(machine.home / f"{name}.middle")
    machine.driver.domain_block_commit(machine.ref, name, str(machine.home / f"{name}.qcow2"), middle)
    machine.write(name)
    machine.settle(name)


def pull(machine: Machine, name: str) -> None:
    machine.overlay("pulled", name)
    machine.write(name)
    machine.driver.domain_block_rebase(machine.ref, name)
    machine.write(name)
    machine.settle(name)


def copy(machine: Machine, name: str, fmt: str = "qcow2", flags: BlockCopyFlag = BlockCopyFlag.TRANSIENT_JOB) -> None:
    xml = f"<disk type='file'><driver type='{fmt}'/><source file='{machine.home}/{name}.copy'/></disk>"
    machine.driver.domain_block_copy(machine.ref, name, xml, flags=flags)
    machine.bring(name)


def copy_the_top(machine: Machine, name: str) -> None:
    machine.overlay("copied", name)
    machine.write(name)
    copy(machine, name, flags=SHALLOW)


def copy_what_is_left(machine: Machine, name: str) -> None:
    """Into an overlay that says of another life that nothing has changed."""
    machine.overlay("left", name)
    machine.write(name)
    below, path = machine.home / f"{name}.qcow2", machine.home / f"{name}.copy"
    image.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, path, SIZE)
    for bitmap in ("one", "never"):
        image.qemu_img("bitmap", "--add", path, bitmap)
    copy(machine, name, flags=SHALLOW | BlockCopyFlag.REUSE_EXT)


WAYS: Final = {
    "vda": stay,
    "vdb": put_over,
    "vdc": commit,
    "vdd": commit_the_middle,
    "vde": pull,
    "vdf": copy,
    "vdg": copy_the_top,
    "vdh": copy_what_is_left,
}


def test_backups_since_a_checkpoint_are_right_and_small_whatever_jobs_have_done(
    tmp_path: Path, driver: QemuDriver
) -> None:
    machine = Machine(tmp_path, driver, tuple(WAYS))
    for name in WAYS:
        machine.write(name, FIXED.start, MIB)
        machine.write(name)
    backups = [machine.back_up("one")]
    for name, do in WAYS.items():
        machine.write(name)
        do(machine, name)
        machine.write(name)
    backups.append(machine.back_up("two", "one"))
    for name in WAYS:
        assert stacked(*(found[name] for found in backups)) == machine.content[name], name
        assert not is_whole(backups[1][name]), name
    driver.domain_destroy(machine.ref)  # QEMU ends in order, and starts from the definition
    machine.ref = driver.domain_create(machine.ref, StartFlag.PAUSED)
    for name in WAYS:
        machine.write(name)
    backups.append(machine.back_up("three", "two"))
    since_one = machine.back_up("four", "one")
    for name in WAYS:
        assert stacked(*(found[name] for found in backups)) == machine.content[name], name
        assert stacked(backups[0][name], since_one[name]) == machine.content[name], name
        assert not is_whole(backups[2][name]) and not is_whole(since_one[name]), name
    for checkpoint in driver.domain_list_all_checkpoints(machine.ref):
        driver.domain_checkpoint_delete(checkpoint)
    said = json.loads(driver.domain_qemu_monitor_command(machine.ref, '{"execute":"query-named-block-nodes"}'))
    assert not [item for node in said["return"] for item in node.get("dirty-bitmaps", [])]


def test_backup_of_a_disk_whose_image_keeps_no_bitmaps_is_a_whole_one(tmp_path: Path, driver: QemuDriver) -> None:
    machine = Machine(tmp_path, driver, ("vda",))
    machine.write("vda", FIXED.start, MIB)
    machine.back_up("one")
    copy(machine, "vda", "raw")
    xml = f"<disks><disk name='vda' type='file'><target file='{tmp_path}/two'/><driver type='qcow2'/></disk></disks>"
    driver.domain_backup_begin(machine.ref, f"<domainbackup><incremental>one</incremental>{xml}</domainbackup>")
    eventually(machine.is_backed_up)
    assert is_whole(tmp_path / "two")
    assert image.content(tmp_path / "two", "qcow2") == machine.content["vda"]


def test_chain_in_which_each_image_knows_only_its_own_time_is_understood_as_libvirt_makes_it(
    tmp_path: Path, driver: QemuDriver
) -> None:
    machine = Machine(tmp_path, driver, ("vda", "vdb", "vdc"))
    for name in machine.content:
        machine.write(name, FIXED.start, MIB)
    backups = [machine.back_up("one")]
    for number in (1, 2):
        for name in machine.content:
            machine.write(name)
        machine.overlay(f"over{number}", *machine.content)
        for node in json.loads(driver.domain_qemu_monitor_command(machine.ref, '{"execute":"query-block"}'))["return"]:
            clear = {"node": node["inserted"]["node-name"], "name": "one"}
            driver.domain_qemu_monitor_command(
                machine.ref, json.dumps({"execute": "block-dirty-bitmap-clear", "arguments": clear})
            )
    driver.domain_block_rebase(machine.ref, "vdb")
    machine.settle("vdb")
    below, middle = tmp_path / "vdc.qcow2", tmp_path / "vdc.over1"
    driver.domain_block_commit(machine.ref, "vdc", str(below), str(middle))
    machine.settle("vdc")
    backups.append(machine.back_up("two", "one"))
    for name in machine.content:
        assert stacked(*(found[name] for found in backups)) == machine.content[name], name
        assert not is_whole(backups[1][name]), name
