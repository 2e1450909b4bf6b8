"""Devices of the host: what there is is looked up anew with each call, so that nothing told is old.

Two kinds can be made: mediated devices, by ``mdevctl``, which keeps those that are defined; and virtual adapters of
Fibre Channel, by the kernel.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.codec.xml import Element
from hostel.drivers import tool
from hostel.drivers.base.nodedev import NodeDeviceRef, is_listed
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.nodedev import bus, net, pci, storage, vport
from hostel.drivers.nodedev.mdevctl import Kept, Mdevctl, mediated, mediated_name
from hostel.drivers.nodedev.names import PciNames
from hostel.drivers.nodedev.sysfs import SysDevice, Sysfs
from hostel.drivers.nodedev.watch import Seen
from hostel.drivers.passthrough.pci import PciFunctions
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.node_device import NodeDevice, read_node_device
from hostel.model.node_device_capability import (
    CAPABILITIES,
    DeviceDriver,
    DeviceNode,
    DeviceParent,
    FibreChannelHost,
    MediatedCapability,
    MediatedTypes,
    PciCapability,
    ScsiHostCapability,
    VirtualPorts,
)

COMPUTER: Final = "computer"
_ROOT: Final = Path("/")
_MEDIATED_DRIVER: Final = "vfio_mdev"
_APPEARS: Final = 60.0  # seconds in which the kernel, and then udev, make a device of one that was asked for
_VANISHES: Final = 5.0  # seconds in which it takes one away
_LOOKS: Final = 0.1  # seconds between two looks for it
_TYPES: Final[Mapping[type[Element], str]] = {
    # libvirt's name of a capability, by its class
    kind: str(kind.WHEN["type"])
    for kind in CAPABILITIES
}


class _Found(NamedTuple):
    """A device.

    Attributes:
        device: what it is.
        place: where it is; None where it is only defined, and for the machine itself.
        kept: its definition, where it has one.
    """

    device: NodeDevice
    place: SysDevice | None = None
    kept: Kept | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is there."""
        return self.place is not None or self.device.name == COMPUTER


class SysfsNodeDeviceDriver:
    """Implements :class:`hostel.drivers.base.nodedev.NodeDeviceDriver`.

    Args:
        root: where the host's files lie.
        privileged: tell what only root can find out, too; None: as we are.
        mdevctl: keeps and makes mediated devices.
        user_of: which running machine has a PCI function, by its name such as ``0000:01:00.0``.
    """

    def __init__(
        self,
        root: Path = _ROOT,
        *,
        privileged: bool | None = None,
        mdevctl: Mdevctl | None = None,
        user_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._tree = Sysfs(root)
        self._functions = PciFunctions(root, ErrorDomain.NODEDEV)
        self._user_of = user_of
        self._names = PciNames(root)
        self._asks_kernel = root == _ROOT
        self._privileged = os.geteuid() == 0 if privileged is None else privileged
        self._mdevctl = mdevctl or Mdevctl(root / "etc/mdevctl.d")

    def connect_list_all_node_devices(self, flags: int = 0) -> list[NodeDeviceRef]:
        """Every device, or those that the flags name, by name."""
        return sorted(
            NodeDeviceRef(name)
            for name, found in self._all().items()
            if is_listed(capabilities_of(found.device), active=found.is_active, flags=flags)
        )

    def node_device_lookup_by_name(self, name: str) -> NodeDeviceRef:
        """Find by name."""
        self._find(NodeDeviceRef(name))
        return NodeDeviceRef(name)

    def node_device_lookup_scsi_host_by_wwn(self, wwnn: str, wwpn: str) -> NodeDeviceRef:
        """Find a Fibre Channel adapter by its names."""
        found = vport.with_names(self._devices(), vport.WorldWideNames(wwnn, wwpn))
        if found is None:
            reason = f"no node device with matching wwnn '{wwnn}' and wwpn '{wwpn}'"
            raise _fault(ErrorCode.NO_NODE_DEVICE, reason)
        return NodeDeviceRef(str(found.name))

    def node_device_get_xml_desc(self, device: NodeDeviceRef) -> str:
        """The document."""
        return self._find(device).device.format()

    def node_device_get_parent(self, device: NodeDeviceRef) -> str | None:
        """The name of the device above."""
        parent = self._find(device).device.parent
        return None if parent is None else parent.name

    def node_device_list_caps(self, device: NodeDeviceRef) -> list[str]:
        """What it is."""
        return capabilities_of(self._find(device).device)

    def node_device_is_active(self, device: NodeDeviceRef) -> bool:
        """Whether it is there, and not only defined."""
        return self._find(device).is_active

    def node_device_is_persistent(self, device: NodeDeviceRef) -> bool:
        """Whether it is defined; the machine itself is."""
        return self._find(device).kept is not None or device.name == COMPUTER

    def node_device_get_autostart(self, device: NodeDeviceRef) -> bool:
        """Whether the host makes it when it starts; the machine itself has it."""
        kept = self._find(device).kept
        return device.name == COMPUTER if kept is None else kept.autostart

    def node_device_set_autostart(self, device: NodeDeviceRef, autostart: bool) -> None:
        """Let the host make a defined device when it starts, or not.

        Raises:
            VirtError: ``OPERATION_INVALID``: it is not defined; ``OPERATION_UNSUPPORTED``: it is not of a kind that is.
        """
        found = self._find(device)
        if not _is_mediated(found.device):
            raise _fault(ErrorCode.OPERATION_UNSUPPORTED, "Unsupported device type")
        if found.kept is None:
            raise _fault(ErrorCode.OPERATION_INVALID, "cannot set autostart for transient device")
        if found.kept.autostart != autostart:
            self._mdevctl.set_autostart(found.device, autostart)

    def node_device_create_xml(self, xml_desc: str) -> NodeDeviceRef:
        """Make a mediated device, or a virtual adapter of Fibre Channel, and wait until it is there.

        Raises:
            VirtError: the document breaks a rule; ``CONFIG_UNSUPPORTED``: it is of another kind; what the kernel or
                ``mdevctl`` say; ``NO_NODE_DEVICE``: it did not appear.
        """
        device = self._read(xml_desc)
        if vport.is_adapter(device):
            return self._create_port(device)
        if not _is_mediated(device):
            raise _fault(ErrorCode.CONFIG_UNSUPPORTED, "Unsupported device type")
        address = self._parent_address(device)
        name = mediated_name(self._mdevctl.start_new(device, address), address)
        return self._appearing(lambda: name if name in self._all() else None, f"no node device '{name}' appeared")

    def node_device_define_xml(self, xml_desc: str) -> NodeDeviceRef:
        """Define a mediated device."""
        device = self._read(xml_desc)
        if not _is_mediated(device):
            raise _fault(ErrorCode.CONFIG_UNSUPPORTED, "Unsupported device type")
        address = self._parent_address(device)
        return NodeDeviceRef(mediated_name(self._mdevctl.define(device, address), address))

    def node_device_undefine(self, device: NodeDeviceRef) -> None:
        """Forget a mediated device's definition; one that is there stays.

        Raises:
            VirtError: ``OPERATION_INVALID``: it is not defined.
        """
        found = self._find(device)
        if found.kept is None and device.name != COMPUTER:
            raise _fault(ErrorCode.OPERATION_INVALID, f"Node device '{device.name}' is not defined")
        self._check_mediated(found)
        self._mdevctl.undefine(found.device)

    def node_device_create(self, device: NodeDeviceRef) -> None:
        """Make a mediated device that is defined.

        Raises:
            VirtError: ``OPERATION_INVALID``: it is there.
        """
        found = self._find(device)
        if found.is_active:
            raise _fault(ErrorCode.OPERATION_INVALID, "Device is already active")
        self._mdevctl.start(found.device)
        self._appearing(
            lambda: device.name if self._find(device).is_active else None, f"'{device.name}' did not appear"
        )

    def node_device_destroy(self, device: NodeDeviceRef) -> None:
        """Take a mediated device, or a virtual adapter, away.

        Raises:
            VirtError: ``OPERATION_INVALID``: it is not there; ``INTERNAL_ERROR``: a guest has it;
                ``CONFIG_UNSUPPORTED``: it was not made.
        """
        found = self._find(device)
        if vport.is_adapter(found.device):
            names = vport.names_of(found.device)
            vport.manage(self._tree.root, _parent_number(found.device), names, "vport_delete")
        else:
            self._check_mediated(found)
            if not found.is_active:
                raise _fault(ErrorCode.OPERATION_INVALID, f"Device '{device.name}' is not active")
            self._check_unused(found.device)
            self._mdevctl.stop(found.device)
        self._wait_for_end(device)

    def node_device_detach_flags(self, device: NodeDeviceRef, driver: str | None = None) -> None:
        """Take a PCI device from the host's driver, for a guest.

        Raises:
            VirtError: ``INVALID_ARG`` for another driver than VFIO, ``ARGUMENT_UNSUPPORTED`` where the host has no
                VFIO, ``OPERATION_INVALID``: a machine has it; ``SYSTEM_ERROR`` where the host refuses.
        """
        if driver == "kvm":
            reason = "KVM device assignment is no longer supported on this system"
            raise _fault(ErrorCode.ARGUMENT_UNSUPPORTED, reason)
        if driver not in (None, "vfio"):
            raise _fault(ErrorCode.INVALID_ARG, f"unknown driver name '{driver}'; write 'vfio', or nothing")
        name = self._function(device)
        self._check_free(name)
        if not self._functions.has_iommu():
            reason = "VFIO device assignment is currently not supported on this system"
            raise _fault(
                ErrorCode.ARGUMENT_UNSUPPORTED, f"{reason}: it has no IOMMU; boot with intel_iommu=on or amd_iommu=on"
            )
        self._functions.take(name)

    def node_device_re_attach(self, device: NodeDeviceRef) -> None:
        """Give a PCI device back to the host's driver.

        Raises:
            VirtError: ``OPERATION_INVALID``: a machine has it; ``SYSTEM_ERROR`` where the host refuses.
        """
        name = self._function(device)
        self._check_free(name)
        self._functions.give_back(name)

    def node_device_reset(self, device: NodeDeviceRef) -> None:
        """Reset a PCI device.

        Raises:
            VirtError: ``INTERNAL_ERROR``: a machine has it, or it cannot be reset.
        """
        name = self._function(device)
        if self._user_of(name) is not None:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"Not resetting active device {name}")
        self._functions.reset(name)

    def close(self) -> None:
        """Nothing is held."""

    def look(self) -> dict[str, Seen]:
        """What there is, for who tells differences."""
        return {
            name: Seen(found.is_active, found.kept is not None, found.device.format())
            for name, found in self._all().items()
        }

    # Looking.

    def _all(self) -> dict[str, _Found]:
        """Every device by name."""
        found = {COMPUTER: _Found(NodeDevice(name=COMPUTER, capabilities=[bus.system(self._tree)]))}
        names: dict[Path, str] = {}
        addresses: dict[str, str] = {}
        devices = list(self._tree.devices())
        self._names.load(pair for device in devices if (pair := pci.numbers(device)) is not None)
        for device in devices:
            described = self._describe(device)
            if described is not None and described.name is not None:
                names[device.path] = described.name
                found[described.name] = _Found(described, device)
                if isinstance(described.capabilities[0], PciCapability):
                    addresses[device.name] = described.name
        for each in found.values():
            if each.place is not None:
                above = next((names[path] for path in each.place.path.parents if path in names), COMPUTER)
                each.device.parent = DeviceParent(name=above)
        for kept in self._mdevctl.defined(addresses.get):
            name = str(kept.device.name)
            there = found.get(name)
            if there is None or there.place is None:
                kept.device.driver = DeviceDriver(names=[_MEDIATED_DRIVER])
                found[name] = _Found(kept.device, None, kept)
            else:
                mediated(there.device).attributes = mediated(kept.device).attributes
                found[name] = there._replace(kept=kept)
        return found

    def _devices(self) -> list[NodeDevice]:
        return [found.device for found in self._all().values()]

    def _find(self, ref: NodeDeviceRef) -> _Found:
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

    # Making.

    @staticmethod
    def _read(xml: str) -> NodeDevice:
        with reading(ErrorDomain.NODEDEV):
            return read_node_device(xml, is_new=True)

    def _create_port(self, device: NodeDevice) -> NodeDeviceRef:
        names = vport.names_of(device, vport.make_name)
        vport.manage(self._tree.root, vport.parent_host(self._devices(), device), names, "vport_create")

        def look() -> str | None:
            made = vport.with_names(self._devices(), names)
            return None if made is None else made.name

        reason = f"no node device for '{device.name}' with matching wwnn '{names.node}' and wwpn '{names.port}'"
        return self._appearing(look, reason)

    def _appearing(self, look: Callable[[], str | None], otherwise: str) -> NodeDeviceRef:
        """Wait for a device that the kernel was asked for."""
        deadline = time.monotonic() + _APPEARS
        while True:
            if self._asks_kernel:
                tool.settle()
            name = look()
            if name is not None:
                return NodeDeviceRef(name)
            if time.monotonic() > deadline:
                raise _fault(ErrorCode.NO_NODE_DEVICE, f"{otherwise} within {_APPEARS:.0f} seconds")
            time.sleep(_LOOKS)

    def _wait_for_end(self, ref: NodeDeviceRef) -> None:
        """Give the kernel the time to take a device away; what takes longer is told by the next call."""
        deadline = time.monotonic() + _VANISHES
        while time.monotonic() < deadline:
            found = self._all().get(ref.name)
            if found is None or not found.is_active:
                return
            time.sleep(_LOOKS)

    def _parent_address(self, device: NodeDevice) -> str:
        """The address of the device on which a mediated one is made."""
        if device.parent is None or not device.parent.name:
            raise _fault(ErrorCode.CONFIG_UNSUPPORTED, "missing parent device")
        name = device.parent.name
        found = self._all().get(name)
        if found is None:
            raise _fault(ErrorCode.CONFIG_UNSUPPORTED, f"invalid parent device '{name}'")
        if found.place is None or not isinstance(found.device.capabilities[0], PciCapability):
            raise _fault(ErrorCode.PARSE_FAILED, f"Unable to find address for parent device '{name}'")
        return found.place.name

    @staticmethod
    def _check_mediated(found: _Found) -> None:
        if not _is_mediated(found.device):
            raise _fault(ErrorCode.CONFIG_UNSUPPORTED, "Unsupported device type")

    def _check_unused(self, device: NodeDevice) -> None:
        """VFIO lets one user at a time open a group; to wait for that one could take for ever."""
        group = mediated(device).iommu_group
        try:
            os.close(os.open(self._tree.root / f"dev/vfio/{group}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _fault(ErrorCode.INTERNAL_ERROR, f"Unable to destroy '{device.name}': device in use") from None

    # Changing.

    def _function(self, ref: NodeDeviceRef) -> str:
        """The name of a PCI function among its kind."""
        found = self._find(ref)
        if found.place is None or not isinstance(found.device.capabilities[0], PciCapability):
            raise _fault(ErrorCode.INVALID_ARG, f"device {ref.name} is not a PCI device")
        return found.place.name

    def _check_free(self, name: str) -> None:
        user = self._user_of(name)
        if user is not None:
            reason = f"PCI device {name} is in use by driver QEMU, domain {user}"
            raise _fault(ErrorCode.OPERATION_INVALID, reason)


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


def _is_mediated(device: NodeDevice) -> bool:
    return any(isinstance(each, MediatedCapability) for each in device.capabilities)


def _parent_number(device: NodeDevice) -> int:
    """The number of the adapter that a virtual one is on."""
    name = "" if device.parent is None else device.parent.name or ""
    number = name.removeprefix("scsi_host")
    if not number.isdecimal():
        raise _fault(ErrorCode.INTERNAL_ERROR, f"cannot find parent '{name}' definition")
    return int(number)


def _name(device: SysDevice, suffix: str | None) -> str:
    text = f"{device.subsystem}_{device.name}" + ("" if suffix is None else f"_{suffix}")
    return re.sub("[^0-9A-Za-z]", "_", text)


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NODEDEV)
