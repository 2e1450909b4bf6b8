"""Devices of the host: references, and the calls of who knows them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple, Protocol

# Libvirt's names of what a device can be; the place of a name is that of its bit in the flags of lists.
CAPABILITIES: Final = (
    "system", "pci", "usb_device", "usb", "net", "scsi_host", "scsi_target", "scsi", "storage", "fc_host", "vports",
    "scsi_generic", "drm", "mdev_types", "mdev", "ccw", "css", "vdpa", "ap_card", "ap_queue", "ap_matrix", "vpd",
)  # fmt: skip
INACTIVE: Final = 1 << 30
ACTIVE: Final = 1 << 31
LIST_FLAGS: Final = (1 << len(CAPABILITIES)) - 1 | INACTIVE | ACTIVE


def is_listed(capabilities: Collection[str], *, active: bool, flags: int) -> bool:
    """Whether a device is in a list: it is one of what the flags name, and there or not as they say."""
    wanted = {name for place, name in enumerate(CAPABILITIES) if flags >> place & 1}
    if wanted and wanted.isdisjoint(capabilities):
        return False
    states = flags & (ACTIVE | INACTIVE)
    return not states or bool(states & (ACTIVE if active else INACTIVE))


class NodeDeviceRef(NamedTuple):
    """Names a device of the host."""

    name: str


class NodeDeviceDriver(Protocol):
    """Devices of the host. Lookups raise ``NO_NODE_DEVICE``."""

    def connect_list_all_node_devices(self, flags: int = 0) -> list[NodeDeviceRef]:
        """Every device, or those that the flags name, which are bits of :data:`LIST_FLAGS`."""

    def node_device_lookup_by_name(self, name: str) -> NodeDeviceRef:
        """Find by name."""

    def node_device_lookup_scsi_host_by_wwn(self, wwnn: str, wwpn: str) -> NodeDeviceRef:
        """Find a Fibre Channel adapter by the world-wide names of its node and of its port."""

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

    def node_device_set_autostart(self, device: NodeDeviceRef, autostart: bool) -> None:
        """Let a defined device be made when the host starts, or not."""

    def node_device_create_xml(self, xml_desc: str) -> NodeDeviceRef:
        """Make a device that is gone when it is destroyed, or when the host ends."""

    def node_device_define_xml(self, xml_desc: str) -> NodeDeviceRef:
        """Define a device, to be made later."""

    def node_device_undefine(self, device: NodeDeviceRef) -> None:
        """Forget a definition; a device that is there stays."""

    def node_device_create(self, device: NodeDeviceRef) -> None:
        """Make a defined device."""

    def node_device_destroy(self, device: NodeDeviceRef) -> None:
        """Take a device away that was made."""

    def node_device_detach_flags(self, device: NodeDeviceRef, driver: str | None = None) -> None:
        """Take a PCI device from the host's driver, for a guest."""

    def node_device_re_attach(self, device: NodeDeviceRef) -> None:
        """Give a PCI device back to the host's driver."""

    def node_device_reset(self, device: NodeDeviceRef) -> None:
        """Reset a PCI device."""

    def close(self) -> None:
        """Release what the driver holds."""
