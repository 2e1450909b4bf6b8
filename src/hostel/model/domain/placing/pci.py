"""PCI addresses for a domain's devices, and the controllers that these need (libvirt's ``qemu_domain_address.c``).

Two passes, as libvirt does it: the first finds out how many buses it takes, the second gives the addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.character import Console
from hostel.model.domain.devices.controller import Controller, ControllerTarget, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import CONTROLLER_NEEDS, PCI, PCIE, Bus, Buses, Connect
from hostel.model.domain.placing.chipset import place_chipset
from hostel.model.domain.placing.connection import connection, is_wanted
from hostel.model.domain.platform import Board, board_of

_COMPANIONS: Final = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}
_MODEL_NAMES: Final = {
    "pci-bridge": "pci-bridge",
    "dmi-to-pci-bridge": "i82801b11-bridge",
    "pcie-to-pci-bridge": "pcie-pci-bridge",
    "pcie-root-port": "pcie-root-port",
    "pcie-switch-upstream-port": "x3130-upstream",
    "pcie-switch-downstream-port": "xio3130-downstream",
    "pci-expander-bus": "pxb",
    "pcie-expander-bus": "pxb-pcie",
}


def assign_pci(domain: Domain) -> None:
    """Give every PCI device of a document an address, and add the controllers that it takes.

    Raises:
        ModelError: an address that is written is taken, or cannot be.
    """
    board = board_of(domain)
    if board not in (Board.I440FX, Board.Q35):
        return
    count = 1 + max((item.index or 0 for item in _pci_controllers(domain)), default=-1)
    planned = _plan(domain, board, count)
    final = _collect(domain, board, planned, can_grow=False)
    place_chipset(domain, final, board, keep=True)
    _place_all(domain, final, board, keep=True)
    _share_slots(domain)
    for controller in _pci_controllers(domain):
        _complete_controller(domain, controller)


def _pci_controllers(domain: Domain) -> list[Controller]:
    return [item for item in domain.devices.controllers if item.type == ControllerType.PCI]


def _plan(domain: Domain, board: Board, count: int) -> int:
    """Add the controllers that will be needed; returns how many buses there are."""
    buses = _collect(domain, board, count, can_grow=True)
    place_chipset(domain, buses, board, keep=False)
    if board == Board.I440FX and any(not bus.is_full() for bus in buses.buses):
        # One slot is kept free for a device that comes later, while there is one.
        buses.reserve_next(PCI, "")
    _place_all(domain, buses, board, keep=False)
    if count <= 1 and len(buses.buses) > count and board == Board.Q35:
        buses.reserve_next(PCIE, "")
    known = {item.index for item in _pci_controllers(domain)}
    index = 1
    while index < len(buses.buses):
        if index not in known:
            model = buses.buses[index].model
            domain.devices.controllers.append(Controller(type=ControllerType.PCI, index=index, model=model))
            buses.reserve_next(CONTROLLER_NEEDS[model], f"/domain/devices/controller[@index='{index}']")
        index += 1
    return len(buses.buses)


def _collect(domain: Domain, board: Board, count: int, *, can_grow: bool) -> Buses:
    """The buses that the document has, with the addresses that it gives."""
    root, filler = ("pcie-root", "pcie-root-port") if board == Board.Q35 else ("pci-root", "pci-bridge")
    models: dict[int, Controller] = {item.index or 0: item for item in _pci_controllers(domain)}
    buses = Buses(can_grow=can_grow)
    for index in range(count):
        controller = models.get(index)
        if controller is None:
            buses.buses.append(Bus(root if index == 0 else filler))
            continue
        if controller.model not in (*CONTROLLER_NEEDS, "pci-root", "pcie-root"):
            path = domain.devices.path(controller)
            reason = "PCI controller model was not set correctly; write <controller type='pci' model='…'/>"
            raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
        hotplug = controller.target.hotplug if controller.target is not None else None
        buses.buses.append(Bus(controller.model, allow_hotplug=hotplug is not False))
    for device in domain.devices.all():
        address = None if isinstance(device, Console) else device.address  # a console that has one is a serial port
        if not isinstance(address, PciAddress) or not address.is_chosen or _is_built_in(device, address):
            continue
        needs = connection(device, board) or Connect.PCI_DEVICE
        buses.reserve(address, needs, f"{domain.devices.path(device)}/address")
    return buses


def _is_built_in(device: Device, address: PciAddress) -> bool:
    """Whether it is the IDE or the USB controller of the PIIX3, which :func:`place_chipset` takes care of."""
    if not isinstance(device, Controller) or device.index != 0 or address.place[:3] != (0, 0, 1):
        return False
    if device.type == ControllerType.IDE:
        return address.function == 1
    is_piix3 = device.type == ControllerType.USB and device.model in (None, "piix3-uhci")
    return is_piix3 and address.function == 2


def _in_turn(domain: Domain) -> Iterator[Device]:
    """Devices in the order in which they get their addresses."""
    devices = domain.devices
    yield from _pci_controllers(domain)
    yield from devices.filesystems
    yield from (item for item in devices.interfaces if item.type != InterfaceType.HOSTDEV)
    yield from devices.sounds
    yield from (item for item in devices.controllers if item.type != ControllerType.PCI)
    yield from devices.disks
    yield from (item for item in devices.interfaces if item.type == InterfaceType.HOSTDEV)
    yield from devices.hostdevs
    if devices.memballoon is not None:
        yield devices.memballoon
    yield from devices.rngs
    yield from devices.watchdogs
    yield from devices.videos
    yield from devices.shmems
    yield from devices.inputs
    yield from devices.serials
    yield from (item for item in (devices.iommu, devices.vsock) if item is not None)
    yield from devices.memories


def _place_all(domain: Domain, buses: Buses, board: Board, *, keep: bool) -> None:
    """Give addresses in turn; without ``keep`` they are taken and not written."""
    placed: dict[int, PciAddress] = {}
    for device in _in_turn(domain):
        needs = connection(device, board)
        if needs == Connect.NOTHING or not is_wanted(device):
            continue
        if isinstance(device, Controller) and device.type == ControllerType.IDE and device.index == 0:
            continue
        path = domain.devices.path(device)
        if isinstance(device, Controller) and device.model in _COMPANIONS:
            address = _place_companion(domain, device, buses, needs, path, placed)
        else:
            address = buses.reserve_next(needs, path)
        placed[id(device)] = address
        if keep:
            device.address = address


def _place_companion(
    domain: Domain, controller: Controller, buses: Buses, needs: Connect, path: str, placed: dict[int, PciAddress]
) -> PciAddress:
    """The parts of a USB 2 controller share a slot."""
    function = _COMPANIONS[controller.model or ""]
    multifunction = True if function == 0 else None
    for other in domain.devices.controllers:
        if other.model in _COMPANIONS and other.index == controller.index:
            address = other.address if isinstance(other.address, PciAddress) else placed.get(id(other))
            if address is not None and address.is_chosen:
                found = PciAddress(bus=address.bus, slot=address.slot, function=function, multifunction=multifunction)
                buses.reserve(found, needs, path)
                return found
    found = buses.reserve_next(needs, path, function)
    found.multifunction = multifunction
    return found


def _share_slots(domain: Domain) -> None:
    """Say that function 0 of a slot is not alone where it is not."""
    addresses = [item.address for item in domain.devices.all() if isinstance(item.address, PciAddress)]
    shared = {address.place[:3] for address in addresses if address.function}
    for address in addresses:
        if (
            address.function == 0
            and address.place[:3] in shared
            and address.multifunction is None
            and address.is_chosen
        ):
            address.multifunction = True


def _complete_controller(domain: Domain, controller: Controller) -> None:
    """Name the device that a PCI controller is, and number it."""
    model, index = controller.model, controller.index or 0
    if model not in _MODEL_NAMES:
        return
    if controller.model_name is None:
        controller.model_name = _MODEL_NAMES[model]
    target = controller.target = controller.target or ControllerTarget()
    address = controller.address if isinstance(controller.address, PciAddress) else PciAddress()
    if model == "pci-bridge" and target.chassis_nr is None:
        target.chassis_nr = index
    elif model in ("pcie-root-port", "pcie-switch-downstream-port"):
        if target.chassis is None:
            target.chassis = index
        if target.port is None:
            is_root = model == "pcie-root-port"
            target.port = (address.slot << 3) + address.function if is_root else address.slot
    elif model in ("pci-expander-bus", "pcie-expander-bus") and target.bus_nr is None:
        target.bus_nr = _free_bus_number(domain)
    if model == "pci-bridge" and index <= address.bus:
        reason = (
            f"PCI controller at index {index} (0x{index:02x}) has bus='0x{address.bus:02x}', "
            "but index must be larger than bus"
        )
        raise ModelError(domain.devices.path(controller), reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _free_bus_number(domain: Domain) -> int:
    """A number for an expander's bus, below all others, with room for one bus behind it."""
    used = [item.target.bus_nr for item in _pci_controllers(domain) if item.target is not None]
    lowest = min((number for number in used if number is not None), default=256)
    if lowest <= 2:
        reason = "No free busNr lower than current lowest busNr is available; write <target busNr='…'/>"
        raise ModelError("/domain/devices/controller", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return lowest - 2
