"""Which model a controller is where its document does not say (``qemuDomainControllerDefPostParse``)."""

from __future__ import annotations

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import PPC64, S390, Board, Platform, arch_of, board_of, has_built_in_scsi


def complete_controller(domain: Domain, controller: Controller, platform: Platform, *, is_new: bool) -> None:
    """Choose QEMU's model for a controller that names none.

    Raises:
        ModelError: this QEMU has no SCSI controller, or the machine's first PCI bus is not the first by its number.
    """
    _drop_other_kinds(controller)
    if not platform.is_qemu:
        return
    if controller.model in ("pci-root", "pcie-root") and controller.index and board_of(domain) != Board.PSERIES:
        path = f"{domain.devices.path(controller)}/@index"
        raise ModelError(path, "pci-root and pcie-root controllers should have index 0")
    if controller.type == ControllerType.SCSI and controller.model in (None, "auto"):
        controller.model = _scsi_model(domain, controller, platform)
    if controller.type == ControllerType.USB and controller.model is None:
        controller.model = _usb_model(domain, controller, platform, is_new=is_new)


def _drop_other_kinds(controller: Controller) -> None:
    """Leave out what controllers of another type have (``virDomainControllerDefParseXML``)."""
    if controller.type == ControllerType.USB and controller.model == "none":
        controller.address = None
    for name, types in _OF_TYPES.items():
        if controller.type not in types:
            setattr(controller, name, None)


def _scsi_model(domain: Domain, controller: Controller, platform: Platform) -> str:
    if board_of(domain) == Board.PSERIES:
        return "ibmvscsi"
    if arch_of(domain) in S390:
        return "virtio-scsi"
    if platform.has("lsi"):
        return "lsilogic"
    if platform.has("virtio-scsi-pci"):
        return "virtio-scsi"
    if has_built_in_scsi(domain):
        return "ncr53c90"
    path = f"{domain.devices.path(controller)}/@model"
    reason = f"Unable to determine model for SCSI controller idx={controller.index}"
    raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)


def _usb_model(domain: Domain, controller: Controller, platform: Platform, *, is_new: bool) -> str | None:
    arch = arch_of(domain)
    model = "piix3-uhci" if platform.has("piix3-usb-uhci") else None
    modern = next((name for flag, name in _MODERN.items() if platform.has(flag)), None)
    if arch in S390:
        return "none" if controller.address is None else model
    if arch in PPC64:
        # A machine that is there already keeps the old kind.
        return (modern if is_new else None) or ("pci-ohci" if platform.has("pci-ohci") else None)
    return modern or model if arch == "aarch64" else model


_OF_TYPES = {
    "ports": (ControllerType.VIRTIO_SERIAL, ControllerType.USB),
    "vectors": (ControllerType.VIRTIO_SERIAL,),
    "max_grant_frames": (ControllerType.XENBUS,),
    "max_event_channels": (ControllerType.XENBUS,),
    "model_name": (ControllerType.PCI,),
    "target": (ControllerType.PCI,),
    "pci_hole": (ControllerType.PCI,),
}
_MODERN = {"qemu-xhci": "qemu-xhci", "nec-usb-xhci": "nec-xhci"}
