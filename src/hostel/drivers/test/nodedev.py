"""The devices that libvirt's test driver invents: a machine with Fibre Channel adapters."""

from __future__ import annotations

from typing import Final, NoReturn

from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.drivers.fault import fault
from hostel.drivers.nodedev.driver import COMPUTER, capabilities_of
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.node_device import NodeDevice
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
_DEVICES: Final = {
    str(device.name): device
    for device in (
        NodeDevice(name=COMPUTER, capabilities=[_MACHINE]),
        _adapter(1, COMPUTER, "12341234", "43214321", has_ports=True),
        _adapter(2, COMPUTER, "56785678", "87658765", has_ports=True),
        _adapter(11, "scsi_host1", "34563456", "43214321", has_ports=False),
    )
}


class TestNodeDeviceDriver:
    """Implements :class:`hostel.drivers.base.nodedev.NodeDeviceDriver`; nothing can be changed."""

    __test__ = False  # not a test case, whatever its name says

    def connect_list_all_node_devices(self) -> list[NodeDeviceRef]:
        """Every device."""
        return [NodeDeviceRef(name) for name in _DEVICES]

    def node_device_lookup_by_name(self, name: str) -> NodeDeviceRef:
        """Find by name."""
        self._find(NodeDeviceRef(name))
        return NodeDeviceRef(name)

    def node_device_get_xml_desc(self, device: NodeDeviceRef) -> str:
        """The document."""
        return self._find(device).format()

    def node_device_get_parent(self, device: NodeDeviceRef) -> str | None:
        """The name of the device above."""
        parent = self._find(device).parent
        return None if parent is None else parent.name

    def node_device_list_caps(self, device: NodeDeviceRef) -> list[str]:
        """What it is."""
        return capabilities_of(self._find(device))

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

    @staticmethod
    def _find(ref: NodeDeviceRef) -> NodeDevice:
        device = _DEVICES.get(ref.name)
        if device is None:
            reason = f"no node device with matching name '{ref.name}'"
            raise fault(ErrorCode.NO_NODE_DEVICE, reason, ErrorDomain.NODEDEV)
        return device

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise fault(ErrorCode.NO_SUPPORT, what, ErrorDomain.NODEDEV)
