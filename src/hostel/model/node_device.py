"""The document of a device of the host (``virNodeDeviceDefFormat``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import Element, child, children, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.node_device_capability import (
    CAPABILITIES,
    FEATURE_ORDER,
    DeviceDriver,
    DeviceNode,
    DeviceParent,
    HeaderType,
    MediatedCapability,
    MediatedTypes,
    NetCapability,
    PciCapability,
    PhysicalFunction,
    Removable,
    ScsiHostCapability,
    StorageCapability,
    VirtualFunctions,
    VirtualPorts,
    VitalProductData,
)

_PCI_ORDER: Final = (PhysicalFunction, VirtualFunctions, HeaderType, MediatedTypes, VitalProductData)
_HEADERS: Final = ("pci-bridge", "cardbus-bridge")


class NodeDevice(Element, tag="device"):
    """A device."""

    name: str | None = text(default=None)
    path: str | None = text(default=None)
    nodes: list[DeviceNode] = children(DeviceNode, factory=list)
    parent: DeviceParent | None = child(DeviceParent, default=None)
    driver: DeviceDriver | None = child(DeviceDriver, default=None)
    capabilities: list[Element] = children(*CAPABILITIES, factory=list)


def read_node_device(xml: str, *, is_new: bool = False) -> NodeDevice:
    """Read a device's document, and complete it; one that ``is_new`` has no name yet.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    device = NodeDevice.parse(xml, "node_device_definition")
    if is_new:
        device.name = "new device"
    for capability in device.capabilities:
        if isinstance(capability, MediatedCapability):
            capability.parent_address = None  # of a document it is not taken: it follows from the parent
    validate(device, is_new=is_new)
    complete(device)
    return device


def validate(device: NodeDevice, *, is_new: bool = False) -> None:
    """Hold a device against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if device.name is None:
        raise ModelError("/device/name", "missing name information", code=ErrorCode.NO_NAME)
    parent = device.parent
    if parent is not None and (parent.wwnn is None) != (parent.wwpn is None):
        given, missing = ("wwnn", "wwpn") if parent.wwpn is None else ("wwpn", "wwnn")
        reason = f"when providing parent {given}='{getattr(parent, given)}', the {missing} must also be provided"
        raise ModelError(f"/device/parent/@{missing}", reason)
    if not device.capabilities:
        path, reason = "/device/capability", f"no device capabilities for '{device.name}'"
        raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
    for number, capability in enumerate(device.capabilities, 1):
        _check_capability(capability, f"/device/capability[{number}]", device.name, is_new=is_new)


def _check_capability(capability: Element, path: str, name: str, *, is_new: bool) -> None:
    if isinstance(capability, StorageCapability):
        is_removable = any(isinstance(each, Removable) for each in capability.capabilities)
        if capability.size is None and not is_removable:
            raise ModelError(f"{path}/size", f"no size supplied for '{name}'", code=ErrorCode.INTERNAL_ERROR)
    elif isinstance(capability, ScsiHostCapability) and capability.host is None and not is_new:
        raise ModelError(f"{path}/host", f"no SCSI host ID supplied for '{name}'", code=ErrorCode.INTERNAL_ERROR)


def complete(device: NodeDevice) -> None:
    """Put what is said in libvirt's order, and leave out what only the host finds out."""
    device.driver = None
    device.nodes.sort(key=lambda node: node.type == "link")
    for capability in device.capabilities:
        if isinstance(capability, PciCapability):
            _complete_pci(capability)
        elif isinstance(capability, NetCapability):
            capability.features = [name for name in FEATURE_ORDER if name in capability.features]
        elif isinstance(capability, MediatedCapability):
            capability.iommu_group = capability.iommu_group or 0
        elif isinstance(capability, ScsiHostCapability):
            capability.capabilities.sort(key=lambda each: isinstance(each, VirtualPorts))
            for each in capability.capabilities:
                if isinstance(each, VirtualPorts):
                    each.max_vports = each.vports = 0
        elif isinstance(capability, StorageCapability):
            _complete_storage(capability)


def _complete_pci(pci: PciCapability) -> None:
    known = [each for each in pci.capabilities if not isinstance(each, HeaderType) or each.type in _HEADERS]
    pci.capabilities = sorted(known, key=lambda each: _PCI_ORDER.index(type(each)))
    if pci.iommu_group is not None and not pci.iommu_group.addresses:
        pci.iommu_group = None


def _complete_storage(storage: StorageCapability) -> None:
    storage.logical_block_size = storage.num_blocks = None
    storage.capabilities.sort(key=lambda each: not isinstance(each, Removable))
    for each in storage.capabilities:
        if isinstance(each, Removable):
            storage.size = None
            each.media_available = each.media_available or 0
            each.logical_block_size = each.num_blocks = None
