"""PCI functions of a host, from files of our own making; their network settings, as iproute2 tells them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hostel.drivers.passthrough import network
from hostel.drivers.passthrough.pci import PciFunctions
from hostel.errors import ErrorCode, VirtError

PHYSICAL = "0000:03:00.0"


def virtual(number: int) -> str:
    return f"0000:03:{0x10 + number // 8:02x}.{number % 8}"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A card with eleven virtual functions, each in a group of its own, beside a bridge and a card in one group."""
    devices = tmp_path / "sys/bus/pci/devices"
    for name, group in ((PHYSICAL, 1), *((virtual(number), 10 + number) for number in range(11)),
                        ("0000:00:01.0", 2), ("0000:04:00.0", 2)):  # fmt: skip
        members = tmp_path / f"sys/kernel/iommu_groups/{group}/devices"
        (devices / name).mkdir(parents=True)
        (members / name).mkdir(parents=True)
        (devices / name / "iommu_group").symlink_to(members.parent)
    for number in range(11):
        (devices / PHYSICAL / f"virtfn{number}").symlink_to(devices / virtual(number))
        (devices / virtual(number) / "physfn").symlink_to(devices / PHYSICAL)
    (devices / "0000:00:01.0/config").write_bytes(bytes(14) + b"\x01")
    (devices / "0000:04:00.0/config").write_bytes(bytes(15))
    for name, driver in (("0000:00:01.0", "pcieport"), ("0000:04:00.0", "vfio-pci")):
        (tmp_path / "sys/bus/pci/drivers" / driver).mkdir(parents=True)
        (devices / name / "driver").symlink_to(tmp_path / "sys/bus/pci/drivers" / driver)
    return tmp_path


def test_virtual_functions_are_counted_as_their_physical_one_does(host: Path) -> None:
    found = PciFunctions(host)
    assert found.virtual(PHYSICAL) == [virtual(number) for number in range(11)]
    assert (found.physical(virtual(10)), found.physical(PHYSICAL)) == (PHYSICAL, None)


def test_a_bridge_in_a_group_is_in_nobodys_way(host: Path) -> None:
    found = PciFunctions(host)
    assert found.companions("0000:04:00.0") == ["0000:00:01.0", "0000:04:00.0"]
    assert not found.is_endpoint("0000:00:01.0") and found.is_endpoint("0000:04:00.0")
    assert found.in_group_of_others("0000:04:00.0") is None
    (host / "sys/bus/pci/devices/0000:00:01.0/config").write_bytes(bytes(15))
    assert found.in_group_of_others("0000:04:00.0") == "0000:00:01.0"


def test_a_driver_that_lets_go_by_itself_stands_in_nobodys_way(host: Path) -> None:
    """The kernel tries its drivers on a new function while somebody else takes it."""
    found, function = PciFunctions(host), virtual(1)
    (host / "sys/bus/pci/devices" / function / "driver").symlink_to(host / "sys/bus/pci/drivers/nvme")
    assert found.driver(function) == "nvme"
    found.give_back(function)
    assert (host / "sys/bus/pci/drivers_probe").read_text() == function


def test_a_function_is_taken_when_its_group_can_be_opened(host: Path) -> None:
    """The kernel shows the driver before that one has made the group's file, where it found it on its own."""
    vfio, function = host / "dev/vfio", "0000:04:00.0"
    PciFunctions(host).take(function)  # there is no VFIO to wait for
    vfio.mkdir(parents=True)
    (vfio / "vfio").touch()
    later = threading.Timer(0.2, (vfio / "2").touch)
    later.start()
    PciFunctions(host).take(function)
    assert (vfio / "2").exists()
    later.join()
    (vfio / "2").rename(vfio / "noiommu-2")
    began = time.monotonic()
    PciFunctions(host).take(function)
    assert time.monotonic() - began < 5


def test_settings_are_those_of_the_physical_function(host: Path) -> None:
    found = PciFunctions(host)
    with pytest.raises(VirtError, match=r"The PF device for VF .* has no network device name") as caught:
        network.locate(found, virtual(2))
    assert caught.value.code is ErrorCode.INTERNAL_ERROR
    with pytest.raises(VirtError, match="SR-IOV Virtual Functions only") as caught:
        network.locate(found, PHYSICAL)
    assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED
    (host / "sys/bus/pci/devices" / PHYSICAL / "net/eth0").mkdir(parents=True)
    assert network.locate(found, virtual(10)) == network.Place("eth0", 10)
    for link, port in (("eth0", "aa"), ("eth1", "bb")):
        folder = host / "sys/bus/pci/devices" / PHYSICAL / "net" / link
        folder.mkdir(exist_ok=True)
        (folder / "phys_port_id").write_text(f"{port}\n")
    own = host / "sys/bus/pci/devices" / virtual(3) / "net/eth9"
    own.mkdir(parents=True)
    (own / "phys_port_id").write_text("bb\n")
    assert network.locate(found, virtual(3)) == network.Place("eth1", 3), "the port that it is behind"


def test_settings_are_kept_as_text() -> None:
    settings = network.Settings(network.Place("eth0", 1), "52:54:00:00:00:01", 42)
    association = network.Association(network.Place("eth0", 1))
    for held in (settings, association):
        assert network.parse(held.format()) == held
    for text in ("{}", "[]", "x"):
        with pytest.raises(ValueError):
            network.parse(text)
