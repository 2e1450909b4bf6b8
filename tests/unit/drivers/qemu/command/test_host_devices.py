"""Devices of the host on a command line, and how they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu.command.host import Sysfs
from hostel.errors import VirtError
from support.arguments import CONTEXT, said, spec


@pytest.fixture
def host(tmp_path: Path) -> Sysfs:
    for name, words in (("1-1", ("1234", "abcd", "1", "7")), ("1-2", ("5678", "0001", "1", "8")),
                        ("2-1", ("5678", "0001", "2", "3"))):  # fmt: skip
        folder = tmp_path / "bus/usb/devices" / name
        folder.mkdir(parents=True)
        for file, word in zip(("idVendor", "idProduct", "busnum", "devnum"), words, strict=True):
            (folder / file).write_text(f"{word}\n")
    (tmp_path / "bus/scsi/devices/4:0:1:2/scsi_generic/sg5").mkdir(parents=True)
    return Sysfs(tmp_path)


def usb(source: str, *, more: str = "") -> str:
    return f"<hostdev mode='subsystem' type='usb'><source{more}>{source}</source></hostdev>"


def test_a_usb_device_is_found_by_who_made_it(host: Sysfs) -> None:
    argv = said(usb("<vendor id='0x1234'/><product id='0xabcd'/>"), context=CONTEXT._replace(host=host))
    assert spec(argv, "-device", driver="usb-host")["hostdevice"] == "/dev/bus/usb/001/007"


@pytest.mark.parametrize(("vendor", "why"), [("0x9999", "Did not find"), ("0x5678", "Multiple USB devices")])
def test_a_usb_device_that_is_not_one_is_refused(host: Sysfs, vendor: str, why: str) -> None:
    with pytest.raises(VirtError, match=why):
        said(usb(f"<vendor id='{vendor}'/><product id='0x0001'/>"), context=CONTEXT._replace(host=host))


def test_a_usb_device_at_its_place_with_its_resets() -> None:
    argv = said(usb("<address bus='14' device='6'/>", more=" guestReset='uninitialized'"))
    found = spec(argv, "-device", driver="usb-host")
    assert found["hostdevice"] == "/dev/bus/usb/014/006"
    assert (found["guest-reset"], found["guest-resets-all"]) == (True, False)


def test_a_scsi_device_is_a_node_that_speaks_scsi(host: Sysfs) -> None:
    source = "<adapter name='scsi_host4'/><address bus='0' target='1' unit='2'/>"
    text = f"<hostdev mode='subsystem' type='scsi'><source>{source}</source><readonly/></hostdev>"
    argv = said("<controller type='scsi' model='virtio-scsi'/>" + text, context=CONTEXT._replace(host=host))
    node = spec(argv, "-blockdev", driver="host_device")
    assert (node["filename"], node["read-only"]) == ("/dev/sg5", True)
    assert spec(argv, "-device", driver="scsi-generic")["drive"] == node["node-name"]


@pytest.mark.parametrize("adapter", ["scsi_host9", "scsi_hostx"])
def test_a_scsi_device_that_is_not_there_is_refused(host: Sysfs, adapter: str) -> None:
    with pytest.raises(VirtError, match=r"there is no SCSI device|write scsi_host and its number"):
        host.scsi_generic(adapter, 0, 1, 2)


def test_a_pci_device_with_its_rom_and_its_stand_in() -> None:
    source = "<source><address domain='0' bus='0x06' slot='0x12' function='0x5'/></source>"
    more = "<boot order='2'/><rom bar='off' file='/r.bin'/>"
    argv = said(f"<hostdev mode='subsystem' type='pci' managed='yes'>{source}{more}</hostdev>")
    found = spec(argv, "-device", driver="vfio-pci")
    assert (found["host"], found["id"]) == ("0000:06:12.5", "hostdev0")
    assert (found["rombar"], found["romfile"], found["bootindex"]) == (0, "/r.bin", 2)


def test_a_card_of_the_host_is_numbered_among_its_devices() -> None:
    address = "<address type='pci' domain='0' bus='3' slot='7' function='1'/>"
    card = f"<interface type='hostdev' managed='yes'><source>{address}</source></interface>"
    source = "<source><address domain='0' bus='0x06' slot='0x12' function='0x5'/></source>"
    argv = said(card + f"<hostdev mode='subsystem' type='pci' managed='yes'>{source}</hostdev>")
    assert spec(argv, "-device", id="hostdev0")["host"] == "0000:03:07.1"
    assert spec(argv, "-device", id="hostdev1")["host"] == "0000:06:12.5"
