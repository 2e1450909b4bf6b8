"""Devices of the host: references, and the calls of who knows them."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class NodeDeviceRef(NamedTuple):
    """Names a device of the host."""

    name: str


class NodeDeviceDriver(Protocol):
    """Devices of the host. Lookups raise ``NO_NODE_DEVICE``."""

    def connect_list_all_node_devices(self) -> list[NodeDeviceRef]:
        """Every device."""

    def node_device_lookup_by_name(self, name: str) -> NodeDeviceRef:
        """Find by name."""

    def node_device_get_xml_desc(self, device: NodeDeviceRef) -> str:
        """The document."""

    def node_device_get_parent(self, device: NodeDeviceRef) -> str | None:
        """The name of the device above; None for the machine itself."""

    def node_device_list_caps(self, device: NodeDeviceRef) -> list[str]:
        """What it is: libvirt's names of capabilities."""

    def node_device_is_active(self, device: NodeDeviceRef) -> bool:
        """Whether it is there, and not only defined."""

    def node_device_is_persistent(self, device: NodeDeviceRef) -> bool:
        """Whether it is defined; libvirt says so of the machine itself."""

    def node_device_get_autostart(self, device: NodeDeviceRef) -> bool:
        """Whether it is made when the host starts; libvirt says so of the machine itself."""

    def node_device_detach_flags(self, device: NodeDeviceRef, driver: str | None = None) -> None:
        """Take a PCI device from the host's driver, for a guest."""

    def node_device_re_attach(self, device: NodeDeviceRef) -> None:
        """Give a PCI device back to the host's driver."""

    def node_device_reset(self, device: NodeDeviceRef) -> None:
        """Reset a PCI device."""

    def close(self) -> None:
        """Release what the driver holds."""
