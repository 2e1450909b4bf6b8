"""The devices that libvirt's test driver invents: a machine with Fibre Channel adapters, to which one can be added."""

from __future__ import annotations

import contextlib
from typing import Final, NoReturn

from hostel.drivers.base.nodedev import NodeDeviceRef, is_listed
from hostel.drivers.document import reading
from hostel.drivers.events import Event, EventBus, Subject
from hostel.drivers.fault import fault
from hostel.drivers.nodedev import vport
from hostel.drivers.nodedev.driver import COMPUTER, capabilities_of
from hostel.drivers.test.host import Host
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.node_device import NodeDevice, read_node_device
from hostel.model.node_device_capability import (
    DeviceParent,
    FibreChannelHost,
    ScsiHostCapability,
    SystemCapability,
    SystemFirmware,
    SystemHardware,
    VirtualPorts,
)


def _adapter(number: int, parent: str, digits: str, fabric: str, *, has_ports: bool) -> NodeDevice:
    channel = FibreChannelHost(wwnn=f"20000000{digits}", wwpn=f"10000000{digits}", fabric_wwn=f"20000000{fabric}")
    host = ScsiHostCapability(host=number, unique_id=number - 1, capabilities=[channel])
    if has_ports:
        host.capabilities.append(VirtualPorts())
    return NodeDevice(name=f"scsi_host{number}", parent=DeviceParent(name=parent), capabilities=[host])


_MACHINE: Final = SystemCapability(
    hardware=SystemHardware(
        vendor="Libvirt", version="Test driver", serial="123456", uuid="11111111-2222-3333-4444-555555555555"
    ),
    firmware=SystemFirmware(vendor="Libvirt", version="Test Driver", release_date="01/22/2007"),
)
_MODEL: Final = "scsi_host11"  # of which a new adapter is a copy
_MADE: Final = "scsi_host12"  # the name of every new one
_NESTED: Final = ("fc_host", "vports", "mdev_types")
_CREATED, _DELETED = 0, 1  # virNodeDeviceEventLifecycleType


def default_devices() -> dict[str, NodeDevice]:
    """What the host has at first, by name."""
    devices = (
        NodeDevice(name=COMPUTER, capabilities=[_MACHINE]),
        _adapter(1, COMPUTER, "12341234", "43214321", has_ports=True),
        _adapter(2, COMPUTER, "56785678", "87658765", has_ports=True),
        _adapter(11, "scsi_host1", "34563456", "43214321", has_ports=False),
    )
    return {str(device.name): device for device in devices}


def node_device_driver(host: Host) -> TestNodeDeviceDriver:
    """The driver of a host's devices, which the default host has from now on."""
    with host.lock:
        if host.node_devices is None:
            host.node_devices = default_devices()
        return TestNodeDeviceDriver(host.node_devices, host.lock, host.bus)


class TestNodeDeviceDriver:
    """Implements :class:`hostel.drivers.base.nodedev.NodeDeviceDriver`.

    Args:
        devices: by name; changed.
        lock: held for every look and every change.
        bus: told of what was made or taken away.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(
        self, devices: dict[str, NodeDevice], lock: contextlib.AbstractContextManager[object], bus: EventBus
    ) -> None:
        self._devices = devices
        self._lock = lock
        self._bus = bus

    def connect_list_all_node_devices(self, flags: int = 0) -> list[NodeDeviceRef]:
        """Every device, or those that the flags name."""
        with self._lock:
            return [
                NodeDeviceRef(name)
                for name, device in self._devices.items()
                if is_listed(capabilities_of(device), active=True, flags=flags)
            ]

    def node_device_lookup_by_name(self, name: str) -> NodeDeviceRef:
        """Find by name."""
        self._find(NodeDeviceRef(name))
        return NodeDeviceRef(name)

    def node_device_lookup_scsi_host_by_wwn(self, wwnn: str, wwpn: str) -> NodeDeviceRef:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceLookupSCSIHostByWWN")

    def node_device_get_xml_desc(self, device: NodeDeviceRef) -> str:
        """The document."""
        return self._find(device).format()

    def node_device_get_parent(self, device: NodeDeviceRef) -> str | None:
        """The name of the device above."""
        parent = self._find(device).parent
        return None if parent is None else parent.name

    def node_device_list_caps(self, device: NodeDeviceRef) -> list[str]:
        """What it is; not what its adapter has besides, of which libvirt's test driver does not tell here."""
        return [name for name in capabilities_of(self._find(device)) if name not in _NESTED]

    def node_device_is_active(self, device: NodeDeviceRef) -> bool:
        """All that is listed is there."""
        self._find(device)
        return True

    def node_device_is_persistent(self, device: NodeDeviceRef) -> bool:
        """The machine itself is."""
        self._find(device)
        return device.name == COMPUTER

    def node_device_get_autostart(self, device: NodeDeviceRef) -> bool:
        """The machine itself has it."""
        return self.node_device_is_persistent(device)

    def node_device_set_autostart(self, device: NodeDeviceRef, autostart: bool) -> None:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceSetAutostart")

    def node_device_create_xml(self, xml_desc: str) -> NodeDeviceRef:
        """Make a virtual adapter of Fibre Channel.

        Raises:
            VirtError: the document breaks a rule, is of something else, or names no parent that there is.
        """
        with reading(ErrorDomain.NODEDEV):
            device = read_node_device(xml_desc, is_new=True)
        names = vport.names_of(device)
        with self._lock:
            vport.parent_host(self._devices.values(), device)
        return self.add_adapter(names)

    def add_adapter(self, names: vport.WorldWideNames) -> NodeDeviceRef:
        """Add a virtual adapter with these names, as pools on one do too.

        Raises:
            VirtError: ``NO_NODE_DEVICE``: the one that it is to be a copy of is gone.
        """
        with self._lock:
            model = self._devices.get(_MODEL)
            if model is None:
                raise fault(ErrorCode.NO_NODE_DEVICE, f"no node device '{_MODEL}' to be copied", ErrorDomain.NODEDEV)
            with reading(ErrorDomain.NODEDEV):
                made = read_node_device(model.format())
            made.name = _MADE
            vport.rename(made, names)
            self._devices[_MADE] = made
        self._tell(_MADE, _CREATED)
        return NodeDeviceRef(_MADE)

    def remove_adapter(self) -> None:
        """Take the virtual adapter away that was added, where it is there."""
        with self._lock:
            if self._devices.pop(_MADE, None) is None:
                return
        self._tell(_MADE, _DELETED)

    def node_device_define_xml(self, xml_desc: str) -> NodeDeviceRef:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceDefineXML")

    def node_device_undefine(self, device: NodeDeviceRef) -> None:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceUndefine")

    def node_device_create(self, device: NodeDeviceRef) -> None:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceCreate")

    def node_device_destroy(self, device: NodeDeviceRef) -> None:
        """Take an adapter away.

        Raises:
            VirtError: ``INTERNAL_ERROR``: it is none, or its parent is gone.
        """
        with self._lock:
            found = self._find(device)
            vport.names_of(found)
            parent = None if found.parent is None else found.parent.name
            if parent not in self._devices:
                reason = f"cannot find parent '{parent}' definition"
                raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.TEST)
            del self._devices[device.name]
        self._tell(device.name, _DELETED)

    def node_device_detach_flags(self, device: NodeDeviceRef, driver: str | None = None) -> None:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceDetachFlags")

    def node_device_re_attach(self, device: NodeDeviceRef) -> None:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceReAttach")

    def node_device_reset(self, device: NodeDeviceRef) -> None:
        """Refused, as by libvirt's test driver."""
        self._refuse("virNodeDeviceReset")

    def close(self) -> None:
        """Nothing is held."""

    def _find(self, ref: NodeDeviceRef) -> NodeDevice:
        with self._lock:
            device = self._devices.get(ref.name)
        if device is None:
            reason = f"no node device with matching name '{ref.name}'"
            raise fault(ErrorCode.NO_NODE_DEVICE, reason, ErrorDomain.TEST)
        return device

    def _tell(self, name: str, number: int) -> None:
        self._bus.publish(Event(Subject.NODE_DEVICE, "lifecycle", name, detail={"event": number, "detail": 0}))

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise fault(ErrorCode.NO_SUPPORT, what, ErrorDomain.NODEDEV)
