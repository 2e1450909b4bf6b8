"""Devices of a host that has an IOMMU, given to guests and taken back: in a machine that is such a host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support import host_devices, linux_host, told
from support.qemu import PROGRAM

MIB = 1 << 20

pytestmark = [
    pytest.mark.requires_tool("qemu-system-x86_64"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("modprobe"),
    pytest.mark.requires_tool("qemu-pr-helper"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the machine's root is the host's: root only"),
]

_BRIDGES = [
    "-device", "pcie-root-port,id=port1,chassis=1,addr=6", "-device", "pcie-root-port,id=port2,chassis=2,addr=7",
    "-device", "pcie-pci-bridge,id=old,bus=port1",
]  # fmt: skip
_CARDS = [
    "-device", "e1000e,addr=0x10,romfile=", "-device", "e1000,bus=old,addr=1,romfile=",
    "-device", "e1000,bus=old,addr=2,romfile=",
]  # fmt: skip
_NVME = [
    "-device", "nvme-subsys,id=subsystem", "-device",
    "nvme,bus=port2,serial=1,subsys=subsystem,sriov_max_vfs=2,sriov_vi_flexible=4,sriov_vq_flexible=4,max_ioqpairs=6,"
    "msix_qsize=7",
    "-device", "nvme-ns,drive=disk0",
]  # fmt: skip
_USB = [
    "-device", "qemu-xhci,id=usb", "-device", "usb-storage,bus=usb.0,drive=disk1",
    "-device", "usb-storage,bus=usb.0,drive=disk2", "-device", "usb-mouse,bus=usb.0",
]  # fmt: skip
_SCSI = [
    "-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,bus=scsi.0,drive=disk3,lun=0",
    "-device", "scsi-hd,bus=scsi.0,drive=disk4,lun=1",
]  # fmt: skip
_NETWORK_CARD = ["-device", "pcie-root-port,id=port3,chassis=3,addr=8", "-device", "igb,bus=port3,romfile="]
_DRIVERS = ("virtio_scsi", "sd_mod", "sg", "xhci_pci", "usb_storage", "usbhid", "nvme", "e1000e", "e1000")


def test_devices_of_the_host_go_to_guests_and_come_back(tmp_path: Path) -> None:
    drives: list[str] = []
    for number in range(5):
        path = tmp_path / f"disk{number}"
        path.write_bytes(bytes(4 * MIB))
        drives += ["-drive", f"file={path},if=none,id=disk{number},format=raw"]
    devices = [*_BRIDGES, *_CARDS, *drives, *_NVME, *_USB, *_SCSI]
    drivers: tuple[str, ...] = _DRIVERS
    if (
        b"options"
        in subprocess.run([PROGRAM, "-device", "igb,help"], capture_output=True, timeout=60, check=False).stdout
    ):
        devices += _NETWORK_CARD
        drivers += ("igb", "igbvf")
    words = (str(told.tell(tmp_path / "home")), *drivers)
    said = linux_host.run(tmp_path, host_devices.__name__, words, devices, (*drivers, "vfio_pci", "vfio_iommu_type1"))
    assert said.count(" s\n") == len(host_devices.TRIALS), said
