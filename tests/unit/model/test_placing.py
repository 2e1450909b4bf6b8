"""Where devices go: no two are at one place, what is placed stays, and what does not fit is refused by its path."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostel.errors import ModelError
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.character import Console
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.domain import Domain
from hostel.model.domain.validate import validate
from support.domain import QEMU, defined
from support.refused import document

DEVICES = {
    "virtio disk": "<disk type='file'><source file='/d'/><target dev='vd{n}' bus='virtio'/></disk>",
    "scsi disk": "<disk type='file'><source file='/d'/><target dev='sd{n}' bus='scsi'/></disk>",
    "usb disk": "<disk type='file'><source file='/d'/><target dev='ud{n}' bus='usb'/></disk>",
    "virtio card": "<interface type='user'><model type='virtio'/></interface>",
    "e1000": "<interface type='user'><model type='e1000'/></interface>",
    "screen": "<video><model type='virtio'/></video>",
    "sound": "<sound model='ich6'/>",
    "tablet": "<input type='tablet' bus='usb'/>",
    "hub": "<hub type='usb'/>",
    "channel": "<channel type='unix'><target type='virtio' name='c{n}'/></channel>",
    "rng": "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
    "watchdog": "<watchdog model='i6300esb'/>",
    "scsi": "<controller type='scsi' model='virtio-scsi'/>",
    "usb": "<controller type='usb' model='ich9-ehci1'/>",
}


def letters(number: int) -> str:
    return ("" if number < 26 else letters(number // 26 - 1)) + chr(ord("a") + number % 26)


def places(domain: Domain) -> list[str]:
    """Every device's address in its own space; a console that is a serial port is that port."""
    return [
        device.address.format()
        + (str(getattr(getattr(device, "target", None), "bus", "")) if device.TAG == "disk" else "")
        for device in domain.devices.all()
        if device.address is not None and not isinstance(device, Console)
    ]


@settings(max_examples=60)
@given(st.sampled_from(["pc", "q35"]), st.lists(st.sampled_from(sorted(DEVICES)), max_size=40))
def test_no_two_devices_are_at_one_place(machine: str, names: list[str]) -> None:
    devices = "".join(DEVICES[name].format(n=letters(number)) for number, name in enumerate(names))
    domain = defined(document(devices.replace("dev='ud", "dev='sdx"), machine=machine))
    validate(domain, QEMU)
    assert [place for place, count in Counter(places(domain)).items() if count > 1] == []
    assert Counter(places(defined(domain.format()))) == Counter(places(domain))
    indexes = [item.index for item in domain.devices.controllers if item.type == ControllerType.PCI]
    assert sorted(index for index in indexes if index is not None) == list(range(len(indexes)))


def test_devices_beyond_a_bus_get_bridges() -> None:
    disks = "".join(DEVICES["virtio disk"].format(n=letters(number)) for number in range(60))
    domain = defined(document(disks))
    bridges = [item for item in domain.devices.controllers if item.model == "pci-bridge"]
    assert [item.index for item in bridges] == [1, 2]
    assert all(isinstance(item.address, PciAddress) and item.address.bus == 0 for item in bridges)


@pytest.mark.parametrize(
    ("devices", "machine", "words"),
    [
        (
            "<memballoon model='virtio'><address type='pci' domain='1' slot='5'/></memballoon>",
            "pc",
            "Only PCI domain 0",
        ),
        (
            "<memballoon model='virtio'><address type='pci' slot='1' function='0'/></memballoon>",
            "pc",
            "double use of PCI",
        ),
        ("<controller type='pci' index='1' model='pcie-root-port'/>", "pc", "a PCI slot is needed to connect"),
        (
            "<controller type='pci' index='1' model='pcie-root-port'/>"
            "<memballoon model='virtio'><address type='pci' bus='1' slot='2'/></memballoon>",
            "q35",
            "slot must be <= 0",
        ),
    ],
)
def test_place_that_cannot_be_is_refused(devices: str, machine: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        defined(document(devices, machine=machine))
    assert caught.value.path.startswith(("/domain/devices/", "/domain/os/type/@machine"))
