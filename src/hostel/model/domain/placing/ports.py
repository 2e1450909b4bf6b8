"""Places that are not on PCI: USB ports, ports of virtio serial controllers, slots for memory and smartcards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import CcidAddress, DimmAddress, UsbAddress, VirtioSerialAddress
from hostel.model.domain.devices.character import Channel
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.devices.hostdev import UsbHostdev
from hostel.model.domain.devices.input import Hub
from hostel.model.domain.domain import Domain

_HUB_PORTS: Final = 8
_MAX_DEPTH: Final = 4
_SERIAL_PORTS: Final = 31
_USB_PORTS: Final = {
    None: 2, "piix3-uhci": 2, "piix4-uhci": 2, "vt82c686b-uhci": 2, "ehci": 6, "ich9-ehci1": 6, "ich9-uhci1": 0,
    "ich9-uhci2": 0, "ich9-uhci3": 0, "pci-ohci": 3, "nec-xhci": 4, "qemu-xhci": 4, "qusb1": 8, "qusb2": 8,
}  # fmt: skip


class _HubPorts:
    """The ports of a controller or hub; a port may have a hub in it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.used: set[int] = set()
        self.hubs: dict[int, _HubPorts] = {}

    def free(self, depth: int = 1) -> tuple[int, ...] | None:
        """The way to a free port, nearest first."""
        for port in range(1, self.count + 1):
            if port not in self.used:
                return (port,)
        if depth < _MAX_DEPTH:
            for port in sorted(self.hubs):
                found = self.hubs[port].free(depth + 1)
                if found is not None:
                    return (port, *found)
        return None


class _UsbBuses:
    """Every USB bus of a domain, by its controller's index."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._buses: dict[int, _HubPorts] = {}
        for controller in domain.devices.controllers:
            count = usb_ports(controller)
            if controller.type != ControllerType.USB or not count:
                continue
            if controller.index in self._buses:
                path = domain.devices.path(controller)
                reason = f"Duplicate USB controllers with index {controller.index}"
                raise ModelError(path, reason)
            self._buses[controller.index or 0] = _HubPorts(count)

    def _hub_at(self, address: UsbAddress, path: str) -> tuple[_HubPorts, int]:
        hub = self._buses.get(address.bus)
        if hub is None:
            raise ModelError(path, f"Missing USB bus {address.bus}")
        try:
            way = [int(port) for port in (address.port or "").split(".")]
        except ValueError:
            reason = f"Cannot parse <address> 'port' attribute '{address.port}'"
            raise ModelError(f"{path}/@port", reason, code=ErrorCode.INTERNAL_ERROR) from None
        if len(way) > _MAX_DEPTH:
            reason = f"Cannot parse <address> 'port' attribute: at most {_MAX_DEPTH} hubs deep, not '{address.port}'"
            raise ModelError(f"{path}/@port", reason, code=ErrorCode.INTERNAL_ERROR)
        for port in way[:-1]:
            if port not in hub.hubs:
                reason = f"there is no hub at port {port} in USB address bus: {address.bus} port: {address.port}"
                raise ModelError(path, reason)
            hub = hub.hubs[port]
        if not 1 <= way[-1] <= hub.count:
            raise ModelError(path, f"requested USB port {address.port} not present on USB bus {address.bus}")
        return hub, way[-1]

    def reserve(self, address: UsbAddress, path: str) -> None:
        """Take a port that the document names."""
        hub, port = self._hub_at(address, path)
        if port in hub.used:
            raise ModelError(path, f"Duplicate USB address bus {address.bus} port {address.port}")
        hub.used.add(port)

    def add_hub(self, hub: Hub) -> None:
        """Put a hub that has an address into its port."""
        path = self._domain.devices.path(hub)
        if not isinstance(hub.address, UsbAddress):
            raise ModelError(path, "Wrong address type for USB hub")
        above, port = self._hub_at(hub.address, path)
        if port in above.hubs:
            raise ModelError(path, f"Duplicate USB hub on bus {hub.address.bus} port {hub.address.port}")
        above.used.add(port)  # it may be there already, when the hub was given its port
        above.hubs[port] = _HubPorts(_HUB_PORTS)

    def assign(self, device: Device) -> None:
        """Give a device a port."""
        path = self._domain.devices.path(device)
        wanted = device.address
        if isinstance(wanted, UsbAddress) and wanted.bus not in self._buses:
            reason = f"USB bus {wanted.bus} requested but no controller with that index is present"
            raise ModelError(path, reason)
        choices = [wanted.bus] if isinstance(wanted, UsbAddress) else sorted(self._buses)
        for bus in choices:
            way = self._buses[bus].free()
            if way is not None:
                address = UsbAddress(bus=bus, port=".".join(map(str, way)))
                self.reserve(address, path)
                device.address = address
                return
        raise ModelError(path, "No free USB ports", code=ErrorCode.INTERNAL_ERROR)


def usb_ports(controller: Controller) -> int:
    """How many ports a USB controller has."""
    if controller.ports is not None and controller.model in ("nec-xhci", "qemu-xhci", "qusb1", "qusb2"):
        return controller.ports
    return _USB_PORTS.get(controller.model, 0)


def usb_devices(domain: Domain) -> Iterator[Device]:
    """Every device on USB but hubs, in the order in which they get their ports."""
    devices = domain.devices
    yield from (item for item in devices.hostdevs if isinstance(item, UsbHostdev))
    yield from (item for item in devices.disks if item.target.bus == DiskBus.USB)
    yield from (item for item in devices.controllers if item.type == ControllerType.CCID)
    yield from (item for item in devices.inputs if item.bus == "usb")
    yield from (item for item in devices.serials if item.target is not None and item.target.type == "usb-serial")
    yield from (item for item in devices.sounds if item.model == "usb")
    yield from devices.redirdevs


def check_usb(domain: Domain) -> None:
    """Refuse devices on a bus that is switched off, which libvirt finds when it reads the document.

    Raises:
        ModelError: there is one.
    """
    devices = domain.devices
    if not any(item.type == ControllerType.USB and item.model == "none" for item in devices.controllers):
        return
    for hostdev in devices.hostdevs:
        if hostdev.type == "usb":
            reason = "Can't add host USB device: USB is disabled in this host"
            raise ModelError(devices.path(hostdev), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    for item in devices.inputs:
        if item.bus == "usb":
            reason = "Can't add USB input device. USB bus is disabled"
            raise ModelError(f"{devices.path(item)}/@bus", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    for hub in devices.hubs:
        reason = "Can't add USB hub: USB is disabled for this domain"
        raise ModelError(devices.path(hub), reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def assign_usb(domain: Domain, *, is_new: bool) -> None:
    """Give every USB device a port, with hubs where there are too few.

    A domain that exists keeps devices without ports, if it has any: QEMU may have put them elsewhere.

    Raises:
        ModelError: a port that is written is taken or not there, or USB is switched off.
    """
    devices = domain.devices
    waiting = [*devices.hubs, *usb_devices(domain)]
    if not is_new and not all(_has_port(item) for item in waiting):
        return
    has_usb = any(item.type == ControllerType.USB and item.model != "none" for item in devices.controllers)
    if waiting and not has_usb:
        reason = "USB is disabled for this domain, but USB devices are present in the domain XML"
        raise ModelError(devices.path(waiting[0]), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    ports = sum(usb_ports(item) for item in devices.controllers if item.type == ControllerType.USB)
    missing = len(waiting) - ports - _HUB_PORTS * len(devices.hubs)
    if missing > 0:
        devices.hubs += [Hub(type="usb") for _ in range(-(-(missing + 1) // (_HUB_PORTS - 1)))]
    buses = _UsbBuses(domain)
    for hub in devices.hubs:
        if _has_port(hub):
            buses.add_hub(hub)
    for device in usb_devices(domain):
        if isinstance(device.address, UsbAddress) and device.address.port is not None:
            buses.reserve(device.address, f"{devices.path(device)}/address")
    for hub in devices.hubs:
        if not _has_port(hub):
            buses.assign(hub)
            buses.add_hub(hub)
    for device in usb_devices(domain):
        if device.address is None or (isinstance(device.address, UsbAddress) and device.address.port is None):
            buses.assign(device)


def _has_port(device: Device) -> bool:
    return isinstance(device.address, UsbAddress) and device.address.port is not None


def assign_virtio_serial(domain: Domain) -> None:
    """Give every virtio console and channel a port of a virtio serial controller; port 0 is a console's.

    Raises:
        ModelError: a port that is written is taken or not there.
    """
    devices = domain.devices
    controllers = {
        item.index or 0: item.ports if item.ports is not None else _SERIAL_PORTS
        for item in devices.controllers
        if item.type == ControllerType.VIRTIO_SERIAL
    }
    used: dict[int, set[int]] = {index: set() for index in controllers}
    consoles = [item for item in devices.consoles if item.target is not None and item.target.type == "virtio"]
    channels = [item for item in devices.channels if item.target is not None and item.target.type == "virtio"]
    for device in (*channels, *consoles):
        address = device.address
        if isinstance(address, VirtioSerialAddress) and address.port:
            path = f"{devices.path(device)}/address"
            if address.controller not in controllers:
                reason = f"virtio serial controller {address.controller} is missing"
                raise ModelError(path, reason)
            if address.port >= controllers[address.controller]:
                reason = f"virtio serial controller {address.controller} does not have port {address.port}"
                raise ModelError(path, reason)
            if address.port in used[address.controller]:
                reason = f"virtio serial port {address.port} on controller {address.controller} is already occupied"
                raise ModelError(path, reason)
            used[address.controller].add(address.port)
    # Consoles without an address go to port 0 of whichever controller QEMU takes, and nothing is written.
    for channel in channels:
        if not (isinstance(channel.address, VirtioSerialAddress) and channel.address.port):
            channel.address = _next_serial(domain, channel, controllers, used)
    for index in sorted(controllers):
        if not any(item.type == ControllerType.VIRTIO_SERIAL and item.index == index for item in devices.controllers):
            devices.controllers.append(Controller(type=ControllerType.VIRTIO_SERIAL, index=index))


def _next_serial(
    domain: Domain, device: Channel, controllers: dict[int, int], used: dict[int, set[int]]
) -> VirtioSerialAddress:
    wanted = device.address.controller if isinstance(device.address, VirtioSerialAddress) else None
    for index in [wanted] if wanted is not None else sorted(controllers):
        for port in range(1, controllers.get(index, 0)):
            if port not in used[index]:
                used[index].add(port)
                return VirtioSerialAddress(controller=index, port=port)
    if wanted is not None:
        reason = f"Unable to find a free port on virtio-serial controller {wanted}"
        raise ModelError(domain.devices.path(device), reason)
    index = next(index for index in range(len(controllers) + 1) if index not in controllers)
    controllers[index] = _SERIAL_PORTS
    used[index] = {1}
    return VirtioSerialAddress(controller=index, port=1)


def assign_ccid(domain: Domain) -> None:
    """Give every smartcard a slot."""
    cards = domain.devices.smartcards
    for card in cards:
        if card.address is None:
            slots = [
                other.address.slot
                for other in cards
                if isinstance(other.address, CcidAddress) and other.address.controller == 0
            ]
            card.address = CcidAddress(slot=max(slots, default=-1) + 1)


def assign_memory_slots(domain: Domain) -> None:
    """Give every added memory module a slot.

    Raises:
        ModelError: a slot is taken or there are too few.
    """
    if domain.max_memory is None:
        return
    modules = [item for item in domain.devices.memories if item.model in ("dimm", "nvdimm")]
    used: set[int] = set()
    for module in modules:
        if isinstance(module.address, DimmAddress):
            path = f"{domain.devices.path(module)}/address/@slot"
            if module.address.slot >= domain.max_memory.slots:
                reason = f"memory device slot '{module.address.slot}' exceeds slots count '{domain.max_memory.slots}'"
                raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
            if module.address.slot in used:
                reason = f"memory device slot '{module.address.slot}' is already being used by another memory device"
                raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
            used.add(module.address.slot)
    for module in modules:
        if not isinstance(module.address, DimmAddress):
            free = next((slot for slot in range(domain.max_memory.slots) if slot not in used), None)
            if free is None:
                reason = "no free memory device slots available"
                raise ModelError(domain.devices.path(module), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
            used.add(free)
            module.address = DimmAddress(slot=free)
