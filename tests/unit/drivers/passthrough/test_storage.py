"""What the host does with the disks of a PCI function."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.passthrough.pci import PciFunctions
from hostel.drivers.passthrough.storage import use_of

NAME, OTHER = "0000:03:00.0", "0000:04:00.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with an NVMe disk of a subsystem, which has a partition, and another disk below its function itself."""
    subsystem = tmp_path / "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    controller = tmp_path / f"sys/devices/pci0000:00/{NAME}/nvme/nvme0"
    disks = {
        "nvme0n1": (subsystem / "nvme0n1", "259:0"),
        "nvme0n1p1": (subsystem / "nvme0n1/nvme0n1p1", "259:1"),
        "sda": (tmp_path / f"sys/devices/pci0000:00/{OTHER}/ata1/host0/target0:0:0/0:0:0:0/block/sda", "8:0"),
    }
    controller.mkdir(parents=True)
    classes = tmp_path / "sys/class/block"
    classes.mkdir(parents=True)
    for disk, (path, number) in disks.items():
        (path / "holders").mkdir(parents=True)
        (path / "dev").write_text(f"{number}\n")
        (classes / disk).symlink_to(path)
    (subsystem / "nvme0").symlink_to(controller)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("22 1 253:0 / / rw - ext4 /dev/vda rw\n")
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n")
    return tmp_path


def test_a_disk_that_nobody_uses_is_free(root: Path) -> None:
    assert use_of(NAME, PciFunctions(root)) is None
    assert use_of("0000:09:00.0", PciFunctions(root / "none")) is None


def test_what_is_mounted_is_used(root: Path) -> None:
    (root / "proc/self/mountinfo").write_text("36 35 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n")
    assert use_of(NAME, PciFunctions(root)) == "nvme0n1p1 is mounted at /data; unmount it"
    assert use_of(OTHER, PciFunctions(root)) is None


def test_what_is_swapped_to_is_used(root: Path) -> None:
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sda partition 4092 0 -2\n")
    assert use_of(OTHER, PciFunctions(root)) == "it swaps to sda; swapoff /dev/sda"
    assert use_of(NAME, PciFunctions(root)) is None


def test_a_part_of_something_is_used(root: Path) -> None:
    (root / "sys/class/block/nvme0n1/holders/dm-0").mkdir()
    found = use_of(NAME, PciFunctions(root))
    assert found is not None and found.startswith("nvme0n1 is a part of dm-0; end that")
