"""What the chipsets have soldered on: the PIIX3 of the i440FX, the ICH9 of the Q35 (``qemu_domain_address.c``)."""

from __future__ import annotations

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import PCI, Buses, Connect
from hostel.model.domain.placing.connection import Slots, is_wanted
from hostel.model.domain.platform import Board

_CHIPSET = "/domain/os/type/@machine"


def place_chipset(domain: Domain, buses: Buses, slots: Slots, *, keep: bool) -> None:
    """Take the places of what is built in, and put first devices where the real boards have them.

    Without ``keep``, places that anything might have are taken and not written.

    Raises:
        ModelError: a document puts something else there, or these somewhere else.
    """
    if slots.board == Board.I440FX:
        _place_piix3(domain, buses, slots, keep=keep)
    elif slots.board == Board.Q35:
        _place_ich9(domain, buses, slots, keep=keep)


def _chosen(controller: Controller) -> PciAddress | None:
    address = controller.address
    return address if isinstance(address, PciAddress) and address.is_chosen else None


def _fix(domain: Domain, controller: Controller, place: PciAddress, what: str, where: str) -> None:
    """Put a built-in controller where it is, or refuse a document that says otherwise."""
    address = _chosen(controller)
    if address is None:
        controller.address = place
    elif address.place != place.place:
        path = f"{domain.devices.path(controller)}/address"
        raise ModelError(path, f"{what} must have PCI address {where}", code=ErrorCode.INTERNAL_ERROR)


def _place_piix3(domain: Domain, buses: Buses, slots: Slots, *, keep: bool) -> None:
    for controller in domain.devices.controllers:
        if controller.index != 0:
            continue
        if controller.type == ControllerType.IDE:
            _fix(domain, controller, PciAddress(slot=1, function=1), "Primary IDE controller", "0:0:1.1")
        elif controller.type == ControllerType.USB and controller.model in (None, "piix3-uhci"):
            what = "PIIX3 USB controller at index 0"
            _fix(domain, controller, PciAddress(slot=1, function=2), what, "0:0:1.2")
        else:
            continue
        address = _chosen(controller)
        if address is not None:
            buses.reserve(address, PCI, domain.devices.path(controller))
    # The bridge to ISA, and power management.
    for function in (0, 3):
        buses.reserve(PciAddress(slot=1, function=function), PCI, _CHIPSET)
    _place_first_video(domain, buses, slots, keep=keep)


def _place_ich9(domain: Domain, buses: Buses, slots: Slots, *, keep: bool) -> None:
    needs = Connect.PCIE_DEVICE
    for controller in domain.devices.controllers:
        if controller.type == ControllerType.SATA and controller.index == 0:
            _fix(domain, controller, PciAddress(slot=0x1F, function=2), "Primary SATA controller", "0:0:1f.2")
            address = _chosen(controller)
            if address is not None and 2 not in buses.buses[0].functions(0x1F):
                buses.reserve(address, needs, domain.devices.path(controller))
        elif controller.type == ControllerType.USB and controller.model == "ich9-uhci1" and controller.address is None:
            slot = next((slot for slot in (0x1D, 0x1A) if not buses.is_slot_used(0, slot)), None)
            if slot is not None:
                buses.reserve(PciAddress(slot=slot), needs, domain.devices.path(controller))
                controller.address = PciAddress(slot=slot, multifunction=True)
        elif controller.model == "dmi-to-pci-bridge" and controller.address is None and not buses.is_slot_used(0, 0x1E):
            buses.reserve(PciAddress(slot=0x1E), needs, domain.devices.path(controller))
            controller.address = PciAddress(slot=0x1E)
    # The bridge to ISA, and SMBus.
    for function in (0, 3):
        buses.reserve(PciAddress(slot=0x1F, function=function), needs, _CHIPSET)
    _place_first_video(domain, buses, slots, keep=keep)
    if not buses.is_slot_used(0, 0x1B):
        _place_ich9_sound(domain, buses)


def _place_ich9_sound(domain: Domain, buses: Buses) -> None:
    for sound in domain.devices.sounds:
        if sound.model == "ich9" and is_wanted(sound):
            buses.reserve(PciAddress(slot=0x1B), Connect.PCIE_DEVICE, domain.devices.path(sound))
            sound.address = PciAddress(slot=0x1B)
            return


def _place_first_video(domain: Domain, buses: Buses, slots: Slots, *, keep: bool) -> None:
    videos = domain.devices.videos
    if not videos or slots.connection(videos[0]) == Connect.NOTHING or not is_wanted(videos[0]):
        return
    video, path = videos[0], domain.devices.path(videos[0])
    slot, needs = (2, PCI) if slots.board == Board.I440FX else (1, Connect.PCIE_DEVICE)
    if not buses.is_slot_used(0, slot):
        buses.reserve(PciAddress(slot=slot), needs, path)
        video.address = PciAddress(slot=slot)
        return
    found = buses.reserve_next(slots.connection(video), path)
    if keep:
        video.address = found
