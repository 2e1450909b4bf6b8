"""Devices of the host: what there is is looked up anew with each call, so that nothing told is old."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.nodedev import bus, net, pci, storage
from hostel.drivers.nodedev.names import PciNames
from hostel.drivers.nodedev.sysfs import SysDevice, Sysfs
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.node_device import NodeDevice
from hostel.model.node_device_capability import (
    CAPABILITIES,
    DeviceDriver,
    DeviceNode,
    DeviceParent,
    FibreChannelHost,
    MediatedTypes,
    PciCapability,
    ScsiHostCapability,
    VirtualPorts,
)

COMPUTER: Final = "computer"
_ROOT: Final = Path("/")
_DEVICE_DRIVER: Final = "vfio-pci"
_TYPES: Final[Mapping[type[Element], str]] = {
    # libvirt's name of a capability, by its class
    kind: str(kind.WHEN["type"])
    for kind in CAPABILITIES
}


class SysfsNodeDeviceDriver:
    """Implements :class:`hostel.drivers.base.nodedev.NodeDeviceDriver`.

    Args:
        root: where the host's files lie.
        privileged: tell what only root can find out, too; None: as we are.
    """

    def __init__(self, root: Path = _ROOT, *, privileged: bool | None = None) -> None:
        self._tree = Sysfs(root)
        self._names = PciNames(root)
        self._asks_kernel = root == _ROOT
        self._privileged = os.geteuid() == 0 if privileged is None else privileged

    def connect_list_all_node_devices(self) -> list[NodeDeviceRef]:
        """Every device, by name."""
        return sorted(NodeDeviceRef(name) for name in self._all())

    def node_device_lookup_by_name(self, name: str) -> NodeDeviceRef:
        """Find by name."""
        self._find(NodeDeviceRef(name))
        return NodeDeviceRef(name)

    def node_device_get_xml_desc(self, device: NodeDeviceRef) -> str:
        """The document."""
        return self._find(device)[0].format()

    def node_device_get_parent(self, device: NodeDeviceRef) -> str | None:
        """The name of the device above."""
        parent = self._find(device)[0].parent
        return None if parent is None else parent.name

    def node_device_list_caps(self, device: NodeDeviceRef) -> list[str]:
        """What it is."""
        return capabilities_of(self._find(device)[0])

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
        """Take a PCI device from the host's driver, for a guest.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED`` for another driver than VFIO, ``SYSTEM_ERROR`` where the host refuses.
        """
        if driver not in (None, "vfio"):
            raise _fault(
                ErrorCode.CONFIG_UNSUPPORTED, f"driver type '{driver}' not supported; write 'vfio', or nothing"
            )
        path = self._function(device)
        if not (self._tree.root / "sys/bus/pci/drivers" / _DEVICE_DRIVER).is_dir():
            raise _fault(
                ErrorCode.CONFIG_UNSUPPORTED,
                "VFIO PCI device assignment is not supported by this version of Linux: load its module by "
                f"'modprobe {_DEVICE_DRIVER}'",
            )
        self._rebind(path, _DEVICE_DRIVER)

    def node_device_re_attach(self, device: NodeDeviceRef) -> None:
        """Give a PCI device back to the host's driver."""
        self._rebind(self._function(device), "\n")

    def node_device_reset(self, device: NodeDeviceRef) -> None:
        """Reset a PCI device."""
        path = self._function(device)
        if not (path / "reset").exists():
            raise _fault(ErrorCode.INTERNAL_ERROR, f"Unable to reset PCI device {path.name}: it has no way to be reset")
        self._write(path / "reset", "1")

    def close(self) -> None:
        """Nothing is held."""

    # Looking.

    def _all(self) -> dict[str, tuple[NodeDevice, SysDevice | None]]:
        """Every device by name, with its place."""
        found: dict[str, tuple[NodeDevice, SysDevice | None]] = {
            COMPUTER: (NodeDevice(name=COMPUTER, capabilities=[bus.system(self._tree)]), None)
        }
        names: dict[Path, str] = {}
        for device in self._tree.devices():
            described = self._describe(device)
            if described is not None and described.name is not None:
                names[device.path] = described.name
                found[described.name] = (described, device)
        for described, place in found.values():
            if place is not None:
                above = next((names[path] for path in place.path.parents if path in names), COMPUTER)
                described.parent = DeviceParent(name=above)
        return found

    def _find(self, ref: NodeDeviceRef) -> tuple[NodeDevice, SysDevice | None]:
        found = self._all().get(ref.name)
        if found is None:
            raise _fault(ErrorCode.NO_NODE_DEVICE, f"no node device with matching name '{ref.name}'")
        return found

    def _describe(self, device: SysDevice) -> NodeDevice | None:
        capability, suffix = self._capability(device)
        if capability is None:
            return None
        driver, node = device.fact("DRIVER"), device.node
        nodes = [] if node is None else [DeviceNode(type="dev", path=node)]
        _ = device.udev
        nodes += [DeviceNode(type="link", path=link) for link in device.links]
        return NodeDevice(
            name=_name(device, suffix),
            path=self._tree.shown(device.path),
            nodes=nodes,
            driver=None if driver is None else DeviceDriver(names=[driver]),
            capabilities=[capability],
        )

    def _capability(self, device: SysDevice) -> tuple[Element | None, str | None]:
        """What a device is, and what its name ends with."""
        kind = device.fact("DEVTYPE")
        subsystem = device.subsystem
        if subsystem == "pci":
            return pci.describe(device, self._names, privileged=self._privileged), None
        if subsystem == "net":
            interface = net.describe(device, ask_kernel=self._asks_kernel)
            return interface, None if interface is None else interface.address
        if subsystem == "block":
            drive = storage.describe(device) if kind == "disk" else None
            return drive, None if drive is None else drive.serial
        if subsystem == "mdev":
            mediated = bus.mediated(device)
            return mediated, None if mediated is None else mediated.parent_address
        return self._on_bus(device, kind or subsystem), None

    @staticmethod
    def _on_bus(device: SysDevice, kind: str) -> Element | None:
        match kind:
            case "usb_device":
                return bus.usb_device(device)
            case "usb_interface":
                return bus.usb_interface(device)
            case "scsi_host":
                return bus.scsi_host(device)
            case "scsi_target":
                return bus.scsi_target(device)
            case "scsi_device":
                return bus.scsi(device)
            case "scsi_generic":
                return bus.scsi_generic(device)
            case "drm_minor":
                return bus.drm(device)
            case "vdpa":
                return bus.vdpa(device)
        return None

    # Changing.

    def _function(self, ref: NodeDeviceRef) -> Path:
        described, place = self._find(ref)
        if place is None or not isinstance(described.capabilities[0], PciCapability):
            raise _fault(ErrorCode.INVALID_ARG, f"device {ref.name} is not a PCI device")
        return place.path

    def _rebind(self, path: Path, driver: str) -> None:
        """Let another driver have a function: say which one, take it from the present one, and let it be found."""
        self._write(path / "driver_override", driver)
        if (path / "driver").is_symlink():
            self._write(path / "driver" / "unbind", path.name)
        self._write(self._tree.root / "sys/bus/pci/drivers_probe", path.name)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        try:
            path.write_text(text)
        except OSError as error:
            raise system_fault(error, f"cannot write '{text.strip()}' to '{path}'", ErrorDomain.NODEDEV) from error


def capabilities_of(device: NodeDevice) -> list[str]:
    """What a device is, by libvirt's names."""
    found = []
    for capability in device.capabilities:
        found.append(_TYPES[type(capability)])
        if isinstance(capability, ScsiHostCapability):
            found += [
                "fc_host" if isinstance(each, FibreChannelHost) else "vports"
                for each in capability.capabilities
                if isinstance(each, FibreChannelHost | VirtualPorts)
            ]
        elif isinstance(capability, PciCapability):
            found += ["mdev_types" for each in capability.capabilities if isinstance(each, MediatedTypes)]
    return found


def _name(device: SysDevice, suffix: str | None) -> str:
    text = f"{device.subsystem}_{device.name}" + ("" if suffix is None else f"_{suffix}")
    return re.sub("[^0-9A-Za-z]", "_", text)


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NODEDEV)
