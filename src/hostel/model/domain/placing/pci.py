"""PCI addresses for a domain's devices, and the controllers that these need (libvirt's ``qemu_domain_address.c``).

Two passes, as libvirt does it: the first finds out how many buses it takes, the second gives the addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import PciAddress, ZpciAddress
from hostel.model.domain.devices.character import CharacterBackend
from hostel.model.domain.devices.controller import Controller, ControllerTarget, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.hostdev import PciHostAddress, PciHostdev
from hostel.model.domain.devices.interface import HostdevAddress, Interface, InterfaceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import CONTROLLER_NEEDS, PCI, PCIE, Bus, Buses, Connect, spoken
from hostel.model.domain.placing.chipset import place_chipset
from hostel.model.domain.placing.connection import Slots, check_fits, is_wanted
from hostel.model.domain.placing.virtio import in_libvirt_order
from hostel.model.domain.platform import Board, Platform, board_of, has_pci_root, has_pcie_root, supports_pci

_COMPANIONS: Final = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}
_HOST_BRIDGES: Final = 32
_LAST_BUS: Final = 255  # a rule refuses a controller beyond it; until then there need not be all before that one
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


def assign_pci(domain: Domain, platform: Platform) -> None:
    """Give every PCI device of a document an address, and add the controllers that it takes.

    Raises:
        ModelError: an address that is written is taken, or cannot be.
    """
    layout = _Layout(domain, platform)
    layout.plan()
    if not supports_pci(domain, platform):
        return
    layout.place()
    _share_slots(domain)
    for controller in _pci_controllers(domain):
        _complete_controller(domain, controller, platform)


def _pci_controllers(domain: Domain) -> list[Controller]:
    return [item for item in domain.devices.controllers if item.type == ControllerType.PCI]


class _Layout:
    """How a machine's PCI buses come to be: first how many there are, then what is where."""

    def __init__(self, domain: Domain, platform: Platform) -> None:
        self._domain = domain
        self._platform = platform
        self._slots = Slots(domain, platform)
        self._groups = isolation_groups(domain, platform)
        self._added: list[Controller] = []
        last = max((item.index or 0 for item in _pci_controllers(domain)), default=-1)
        self._count = 1 + min(last, _LAST_BUS)

    def plan(self) -> None:
        """Add the controllers that will be needed."""
        if not self._count:
            return
        domain, count = self._domain, self._count
        buses = self._collect(can_grow=True)
        place_chipset(domain, buses, self._slots, keep=False)
        if has_pci_root(domain) and any(not bus.is_full() for bus in buses.buses):
            # One slot is kept free for a device that comes later, while there is one.
            buses.reserve_next(PCI, "")
        self._place_all(buses, keep=False)
        if count <= 1 and len(buses.buses) > count and has_pcie_root(domain):
            buses.reserve_next(PCIE, "")
        known = {item.index for item in _pci_controllers(domain)}
        index = 1
        while index < len(buses.buses):
            if index not in known:
                model = buses.buses[index].model
                added = Controller(type=ControllerType.PCI, index=index, model=model)
                domain.devices.controllers.append(added)
                self._added.append(added)
                if model in CONTROLLER_NEEDS:
                    buses.reserve_next(CONTROLLER_NEEDS[model], f"/domain/devices/controller[@index='{index}']")
            index += 1
        self._count = len(buses.buses)

    def place(self) -> None:
        """Give the addresses."""
        buses = self._collect(can_grow=False)
        place_chipset(self._domain, buses, self._slots, keep=True)
        self._place_all(buses, keep=True)
        if self._platform.has("zpci"):
            # Controllers that came just now get theirs when the document is read again.
            number_zpci(self._domain, {id(item) for item in self._added})

    def _collect(self, *, can_grow: bool) -> Buses:
        """The buses that the document has, with the addresses that it gives."""
        domain, board = self._domain, self._slots.board
        filler = "pcie-root-port" if has_pcie_root(domain) else "pci-bridge"
        if board == Board.PSERIES:
            filler = "pci-root"
        models: dict[int, Controller] = {item.index or 0: item for item in _pci_controllers(domain)}
        buses = Buses(
            can_grow=can_grow,
            has_many_roots=board == Board.PSERIES,
            has_express_bridge=self._platform.has("pcie-pci-bridge"),
        )
        for index in range(self._count):
            controller = models.get(index)
            if controller is None:
                buses.buses.append(Bus("pci-root" if index == 0 else filler))
                continue
            if controller.model not in (*CONTROLLER_NEEDS, "pci-root", "pcie-root"):
                path = domain.devices.path(controller)
                reason = "PCI controller model was not set correctly; write <controller type='pci' model='…'/>"
                raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
            hotplug = controller.target.hotplug if controller.target is not None else None
            bus = Bus(controller.model, allow_hotplug=hotplug is not False)
            # Devices of the host are kept off the bus that every machine has.
            bus.keeps_group = board == Board.PSERIES and index == 0
            buses.buses.append(bus)
        for device in in_libvirt_order(domain):
            address = device.address
            if not isinstance(address, PciAddress) or not address.is_chosen or _is_built_in(device, address):
                continue
            needs = self._slots.connection(device) or Connect.PCI_DEVICE
            group = self._groups.get(id(device), 0)
            buses.reserve(address, needs, f"{domain.devices.path(device)}/address", group=group)
        return buses

    def _place_all(self, buses: Buses, *, keep: bool) -> None:
        """Give addresses in turn; without ``keep`` they are taken and not written."""
        domain = self._domain
        placed: dict[int, PciAddress] = {}
        for device in _in_turn(domain):
            needs = self._slots.connection(device)
            if needs == Connect.NOTHING or not is_wanted(device):
                check_fits(domain, device)
                continue
            if isinstance(device, Controller) and device.type == ControllerType.IDE and device.index == 0:
                continue
            path = domain.devices.path(device)
            if isinstance(device, Controller) and device.model in _COMPANIONS:
                address = _place_companion(domain, device, buses, needs, path, placed)
            else:
                address = buses.reserve_next(needs, path, group=self._groups.get(id(device), 0))
            placed[id(device)] = address
            if keep:
                zpci = device.address.zpci if isinstance(device.address, PciAddress) else None
                address.zpci = zpci
                device.address = address


def isolation_groups(domain: Domain, platform: Platform) -> dict[int, int]:
    """Which devices of the host may share a bus on POWER, by their ``id``: those of one IOMMU group."""
    groups: dict[int, int] = {}
    if board_of(domain) != Board.PSERIES:
        return groups
    for device in (*domain.devices.hostdevs, *domain.devices.interfaces):
        source: PciHostAddress | HostdevAddress | None = None
        if isinstance(device, PciHostdev):
            source = device.source.address
        elif isinstance(device, Interface) and device.type == InterfaceType.HOSTDEV and device.source is not None:
            source = device.source.host_address
        known = platform.host_devices.get(spoken(source)) if source is not None else None
        if known is not None and known.iommu_group is not None:
            groups[id(device)] = known.iommu_group + 1
    return groups


def number_zpci(domain: Domain, without: set[int]) -> None:
    """Give PCI devices of an s390x machine their two numbers, but those whose ``id`` is in ``without``.

    Raises:
        ModelError: a number is used twice.
    """
    addresses = [
        (device, device.address)
        for device in in_libvirt_order(domain)
        if isinstance(device.address, PciAddress)
        and not isinstance(device, CharacterBackend)
        and id(device) not in without
    ]
    addresses.sort(key=lambda item: item[1].zpci is None)
    for name, first in (("uid", 1), ("fid", 0)):
        used: set[int] = set()
        for device, address in addresses:
            number = getattr(address.zpci, name) if address.zpci is not None else None
            if number is not None and number in used:
                path = f"{domain.devices.path(device)}/address/zpci/@{name}"
                reason = f"zPCI {name} {number:#010x} is already reserved"
                raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
            used |= {number} if number is not None else set()
        for _, address in addresses:
            address.zpci = address.zpci or ZpciAddress()
            if getattr(address.zpci, name) is None:
                while first in used:
                    first += 1
                setattr(address.zpci, name, first)
                used.add(first)


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


def _complete_controller(domain: Domain, controller: Controller, platform: Platform) -> None:
    """Name the device that a PCI controller is, and number it."""
    model, index = controller.model, controller.index or 0
    name = _MODEL_NAMES.get(model or "")
    if model == "pcie-root-port" and not platform.has("pcie-root-port"):
        name = "ioh3420"
    if model == "pci-root" and board_of(domain) == Board.PSERIES:
        name = "spapr-pci-host-bridge"
    if name is None:
        return
    controller.model_name = controller.model_name or name
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
    elif model == "pci-root" and target.index is None:
        target.index = 0 if index == 0 else _free_target_index(domain)
    if model == "pci-bridge" and index <= address.bus:
        reason = (
            f"PCI controller at index {index} (0x{index:02x}) has bus='0x{address.bus:02x}', "
            "but index must be larger than bus"
        )
        raise ModelError(domain.devices.path(controller), reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _free_target_index(domain: Domain) -> int:
    """A number for another host bridge of POWER; 0 is for the one that every machine has."""
    used = {item.target.index for item in _pci_controllers(domain) if item.target is not None}
    free = next((index for index in range(1, _HOST_BRIDGES) if index not in used), None)
    if free is None:
        reason = f"No usable target index found; a machine has at most {_HOST_BRIDGES} host bridges"
        raise ModelError("/domain/devices/controller", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return free


def _free_bus_number(domain: Domain) -> int:
    """A number for an expander's bus, below all others, with room for one bus behind it."""
    used = [item.target.bus_nr for item in _pci_controllers(domain) if item.target is not None]
    lowest = min((number for number in used if number is not None), default=256)
    if lowest <= 2:
        reason = "No free busNr lower than current lowest busNr is available; write <target busNr='…'/>"
        raise ModelError("/domain/devices/controller", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return lowest - 2
