"""What agents say of guests, also what they should not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hostel.drivers.qemu import guestinfo
from hostel.drivers.qemu.guestinfo import GuestCpu
from hostel.errors import ErrorCode, VirtError
from support.domain import defined

DOMAIN = defined(
    "<domain type='qemu'><name>g</name><memory>65536</memory><os><type machine='pc'>hvm</type></os><devices>"
    "<disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/>"
    "<address type='pci' domain='0' bus='0' slot='5' function='0'/></disk>"
    "<disk type='file' device='disk'><source file='/b'/><target dev='sdb' bus='scsi'/></disk>"
    "<controller type='scsi' index='0' model='virtio-scsi'>"
    "<address type='pci' domain='0' bus='0' slot='6' function='0'/></controller></devices></domain>"
)


def at(slot: int, unit: int = 0, **more: object) -> dict[str, object]:
    pci = {"domain": 0, "bus": 0, "slot": slot, "function": 0}
    return {"bus-type": "scsi", "bus": 0, "target": 0, "unit": unit, "pci-controller": pci, **more}


ROOT = {"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [at(5, dev="/dev/vda1")], "total-bytes": 9}
DATA = {"name": "dm-0", "mountpoint": "/data", "type": "xfs", "disk": [at(6, 1, serial="abc"), at(9)]}


def test_file_systems_come_as_they_were_mounted_with_the_disks_of_the_document() -> None:
    assert guestinfo.filesystems([DATA, ROOT], DOMAIN) == {
        "fs.count": 2,
        "fs.0.name": "vda1",
        "fs.0.mountpoint": "/",
        "fs.0.fstype": "ext4",
        "fs.0.total-bytes": 9,
        "fs.0.disk.count": 1,
        "fs.0.disk.0.alias": "vda",
        "fs.0.disk.0.device": "/dev/vda1",
        "fs.1.name": "dm-0",
        "fs.1.mountpoint": "/data",
        "fs.1.fstype": "xfs",
        "fs.1.disk.count": 2,
        "fs.1.disk.0.alias": "sdb",
        "fs.1.disk.0.serial": "abc",
    }
    assert guestinfo.mounted([DATA, ROOT], DOMAIN) == [
        ("/", "vda1", "ext4", ["vda"]),
        ("/data", "dm-0", "xfs", ["sdb"]),
    ]


def test_disks_users_and_interfaces() -> None:
    disks = [
        {"name": "/dev/dm-0", "partition": False, "dependencies": ["/dev/vda"], "alias": "root"},
        {"name": "/dev/sdb", "partition": True, "address": at(6, 1)},
    ]
    assert guestinfo.disks(disks, DOMAIN) == {
        "disk.count": 2,
        "disk.0.name": "/dev/dm-0",
        "disk.0.partition": False,
        "disk.0.dependency.count": 1,
        "disk.0.dependency.0.name": "/dev/vda",
        "disk.0.guest_alias": "root",
        "disk.1.name": "/dev/sdb",
        "disk.1.partition": True,
        "disk.1.alias": "sdb",
    }
    assert guestinfo.users([{"user": "a", "login-time": 1.5, "domain": "D"}]) == {
        "user.count": 1,
        "user.0.name": "a",
        "user.0.domain": "D",
        "user.0.login-time": 1500,
    }
    address = {"ip-address-type": "ipv4", "ip-address": "10.0.0.2", "prefix": 24}
    other = {"ip-address-type": "ipv6", "ip-address": "fe80::1", "prefix": 64}
    said = [
        {"name": "eth0", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [address]},
        {"name": "eth0:1", "ip-addresses": [other]},
        {"name": "dummy"},
    ]
    assert guestinfo.interfaces(said) == {
        "if.count": 2,
        "if.0.name": "eth0",
        "if.0.hwaddr": "52:54:00:00:00:01",
        "if.0.addr.count": 2,
        "if.0.addr.0.type": "ipv4",
        "if.0.addr.0.addr": "10.0.0.2",
        "if.0.addr.0.prefix": 24,
        "if.0.addr.1.type": "ipv6",
        "if.0.addr.1.addr": "fe80::1",
        "if.0.addr.1.prefix": 64,
        "if.1.name": "dummy",
        "if.1.addr.count": 0,
    }


@pytest.mark.parametrize(
    ("convert", "answer", "what"),
    [
        (guestinfo.hostname, {}, "'host-name' missing"),
        (guestinfo.hostname, [], "missing return data"),
        (guestinfo.users, [{"user": "a"}], "'login-time' missing"),
        (guestinfo.users, [{"user": "a", "login-time": float("inf")}], "'login-time' missing"),
        (guestinfo.users, [{"user": "a", "login-time": float("nan")}], "'login-time' missing"),
        (guestinfo.timezone, {"offset": 1 << 40}, "'offset' missing"),
        (lambda answer: guestinfo.filesystems(answer, DOMAIN), [{**ROOT, "total-bytes": -1}], "'total-bytes' missing"),
        (guestinfo.users, {"user": "a"}, "Malformed guest-get-users"),
        (guestinfo.timezone, {"zone": "UTC"}, "'offset' missing"),
        (lambda answer: guestinfo.mounted(answer, DOMAIN), [{"name": "a", "mountpoint": "/"}], "'type' missing"),
        (lambda answer: guestinfo.mounted(answer, DOMAIN), [{**ROOT, "disk": "x"}], "Malformed guest-get-fsinfo"),
        (lambda answer: guestinfo.disks(answer, DOMAIN), [3], "Malformed guest-get-disks"),
        (
            guestinfo.interfaces,
            [{"name": "a", "ip-addresses": [{"ip-address-type": "x"}]}],
            "didn't provide",
        ),
        (guestinfo.cpus, [{"logical-id": 0, "online": 1, "can-offline": True}], "'online' missing"),
        (guestinfo.cpus, [{"logical-id": 1 << 40, "online": True, "can-offline": True}], "out of range"),
    ],
)
def test_what_is_not_of_the_protocols_shape_is_refused(
    convert: Callable[[Any], object], answer: Any, what: str
) -> None:
    with pytest.raises(VirtError, match=what) as caught:
        convert(answer)
    assert caught.value.code is ErrorCode.INTERNAL_ERROR


def test_needed_disks_that_are_no_list_are_none() -> None:
    assert guestinfo.disks([{"name": "a", "dependencies": 7}], DOMAIN) == {
        "disk.count": 1, "disk.0.name": "a", "disk.0.partition": False,
    }  # fmt: skip


def test_processors_are_chosen_and_the_first_one_stays() -> None:
    all_on = [GuestCpu(number, online=True, can_offline=True) for number in range(3)]
    assert guestinfo.chosen(all_on, 1) == {1: False, 2: False}
    assert guestinfo.chosen(all_on, 3) == {}
    some = [GuestCpu(0, online=True, can_offline=False), GuestCpu(1, online=False, can_offline=True)]
    assert guestinfo.chosen(some, 2) == {1: True}
    with pytest.raises(VirtError, match="reports less cpu than requested"):
        guestinfo.chosen(some, 3)
    with pytest.raises(VirtError, match="Cannot offline enough CPUs"):
        guestinfo.chosen(all_on, 0)
