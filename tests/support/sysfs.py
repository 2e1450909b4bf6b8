"""A host's files of our own making: devices of every kind, as Linux shows them below ``/sys``."""

from __future__ import annotations

import os
import struct
from pathlib import Path


def put(folder: Path, files: dict[str, object]) -> None:
    """Write files, each of one line, and make the directories that they are in."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


class Host:
    """Files below a folder; paths are given without the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def device(self, path: str, listed: str, /, **attributes: str) -> str:
        """Make a device's directory with attributes (``a__b`` is ``a/b``), listed below ``sys/``; its path."""
        folder = self.root / "sys/devices" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in attributes.items():
            file = folder / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        entry = self.root / "sys" / listed
        entry.mkdir(parents=True, exist_ok=True)
        (entry / folder.name).symlink_to(os.path.relpath(folder, entry))
        return path

    def link(self, path: str, name: str, target: str) -> None:
        """Let a link in a device's directory lead to a path below ``sys``."""
        place = self.root / "sys/devices" / path / name
        there = self.root / "sys" / target
        there.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(there, place.parent))

    def udev(self, key: str, *lines: str) -> None:
        """What udev has written down."""
        folder = self.root / "run/udev/data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text("".join(f"{line}\n" for line in lines))

    def file(self, path: str, content: bytes) -> None:
        """Make a file."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def express_configuration() -> bytes:
    """The configuration of a bridge whose link could do 16 GT/s by 16 lanes, and does 8 by 4."""
    data = bytearray(256)
    data[0x06] = 0x10  # has capabilities
    data[0x0E] = 0x81  # a bridge, one of several functions
    data[0x34] = 0x40
    data[0x40:0x42] = bytes((0x05, 0x60))
    data[0x60:0x64] = bytes((0x10, 0, 0x42, 0))
    struct.pack_into("<I", data, 0x60 + 0x0C, 3 << 24 | 16 << 4 | 4)
    struct.pack_into("<H", data, 0x60 + 0x12, 4 << 4 | 3)
    return bytes(data)


def furnish(root: Path) -> Host:
    """A host with devices of every kind."""
    host = Host(root)
    _pci(host)
    _usb(host)
    _scsi(host)
    _others(host)
    host.file(
        "usr/share/misc/pci.ids", b"# names\n8086  Intel Corporation\n\t10fb  82599ES\n\t\t0 1  Sub\nC 00  Class\n"
    )
    dmi = {"product_name": "Box", "sys_vendor": "Maker", "product_uuid": "AAAAAAAA-2222-3333-4444-555555555555"}
    for name, text in dmi.items():
        host.file(f"sys/devices/virtual/dmi/id/{name}", f"{text}\n".encode())
    return host


def _pci(host: Host) -> None:
    listed = "bus/pci/devices"
    bridge = host.device(
        "pci0000:00/0000:00:01.0", listed, uevent="DRIVER=pcieport\nPCI_CLASS=60400", vendor="0x8086", device="0x1901",
        numa_node="-1",
    )  # fmt: skip
    host.file(f"sys/devices/{bridge}/config", express_configuration())
    card = host.device(
        f"{bridge}/0000:01:00.0", listed, uevent="DRIVER=ixgbe\nPCI_CLASS=20000", vendor="0x8086", device="0x10fb",
        numa_node="1", sriov_totalvfs="63", reset="", driver_override="",
    )  # fmt: skip
    virtual = host.device(
        f"{bridge}/0000:01:10.0", listed, uevent="PCI_CLASS=20000", vendor="0x8086", device="0x10ed", numa_node="1"
    )
    host.link(card, "virtfn0", f"devices/{virtual}")
    host.link(virtual, "physfn", f"devices/{card}")
    for path in (card, virtual):
        host.link(path, "iommu_group", "kernel/iommu_groups/7")
    for name in ("0000:01:00.0", "0000:01:10.0"):
        host.file(f"sys/kernel/iommu_groups/7/devices/{name}/x", b"")
    host.device(
        f"{card}/net/eth7",
        "class/net",
        uevent="INTERFACE=eth7\nIFINDEX=3",
        address="00:11:22:33:44:55",
        operstate="up",
        speed="10000",
    )
    kinds = f"{card}/mdev_supported_types/i915-V5"
    for name, text in (("name", "a kind"), ("device_api", "vfio-pci"), ("available_instances", "2")):
        host.file(f"sys/devices/{kinds}/{name}", f"{text}\n".encode())
    made = host.device(f"{card}/c60cc60c-c60c-c60c-c60c-c60cc60cc60c", "bus/mdev/devices", uevent="")
    host.link(made, "mdev_type", f"devices/{kinds}")
    host.link(made, "iommu_group", "kernel/iommu_groups/8")


def _usb(host: Host) -> None:
    listed = "bus/usb/devices"
    stick = host.device(
        "pci0000:00/0000:00:14.0/usb1/1-1", listed,
        uevent="DEVTYPE=usb_device\nMAJOR=189\nMINOR=1\nDEVNAME=bus/usb/001/002", busnum="1", devnum="2",
        idVendor="0781", idProduct="5567", manufacturer="SanDisk", product="Cruzer",
    )  # fmt: skip
    host.udev("c189:1", "E:ID_VENDOR_FROM_DATABASE=SanDisk Corp.")
    host.device(
        f"{stick}/1-1:1.0", listed, uevent="DEVTYPE=usb_interface\nINTERFACE=8/6/80", bInterfaceNumber="00",
        bInterfaceClass="08", bInterfaceSubClass="06", bInterfaceProtocol="50",
    )  # fmt: skip


def _scsi(host: Host) -> None:
    listed = "bus/scsi/devices"
    adapter = host.device(
        "pci0000:00/0000:00:1f.2/host4", listed, uevent="DEVTYPE=scsi_host", scsi_host__host4__unique_id="5",
        fc_host__host4__node_name="0x2001001b32a9da4e", fc_host__host4__port_name="0x2101001b32a9da4e",
        fc_host__host4__fabric_name="0x2001000dec9877c1", fc_host__host4__vport_create="",
        fc_host__host4__max_npiv_vports="164", fc_host__host4__npiv_vports_inuse="5",
    )  # fmt: skip
    target = host.device(f"{adapter}/rport-4:0-0/target4:0:0", listed, uevent="DEVTYPE=scsi_target")
    host.file("sys/class/fc_remote_ports/rport-4:0-0/port_name", b"0x9d73bc45f0e21a86\n")
    unit = host.device(
        f"{target}/4:0:0:0",
        listed,
        uevent="DEVTYPE=scsi_device\nDRIVER=sd",
        type="0",
        vendor="ATA     ",
        model="Disk  ",
    )
    disk = host.device(
        f"{unit}/block/sda", "class/block", uevent="DEVTYPE=disk\nMAJOR=8\nMINOR=0\nDEVNAME=sda", size="1000",
        queue__logical_block_size="512", removable="0",
    )  # fmt: skip
    host.link(disk, "device", f"devices/{unit}")
    host.udev("b8:0", "S:disk/by-id/ata-1", "E:ID_BUS=ata", "E:ID_TYPE=disk", "E:ID_SERIAL=Disk_9/1", "I:1")
    host.device(f"{disk}/sda1", "class/block", uevent="DEVTYPE=partition\nMAJOR=8\nMINOR=1\nDEVNAME=sda1", size="10")
    host.device(f"{unit}/scsi_generic/sg0", "class/scsi_generic", uevent="MAJOR=21\nMINOR=0\nDEVNAME=sg0")
    for name, medium in (("sr0", "1"), ("sr1", "0")):
        drive = host.device(
            f"virtual/block/{name}", "class/block",
            uevent=f"DEVTYPE=disk\nMAJOR=11\nMINOR={name[2]}\nDEVNAME={name}", size="200",
            queue__logical_block_size="2048", removable="1",
        )  # fmt: skip
        lines = [
            "E:ID_TYPE=cd",
            "E:ID_CDROM=1",
            *(["E:ID_CDROM_MEDIA=1", "E:ID_FS_LABEL=CDROM"] if medium == "1" else []),
        ]
        host.udev(f"b11:{drive[-1]}", *lines)
    host.device("virtual/block/loop0", "class/block", uevent="DEVTYPE=disk\nMAJOR=7\nMINOR=0\nDEVNAME=loop0", size="0")


def _others(host: Host) -> None:
    for name, minor in (("card0", 0), ("renderD128", 128)):
        uevent = f"DEVTYPE=drm_minor\nMAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}"
        host.device(f"pci0000:00/0000:00:02.0/drm/{name}", "class/drm", uevent=uevent)
    host.device("virtual/vdpa0", "bus/vdpa/devices", uevent="DRIVER=vhost_vdpa", **{"vhost-vdpa-0__dev": "1:1"})
