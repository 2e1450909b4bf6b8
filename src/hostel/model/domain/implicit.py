"""Devices that a domain has though its document does not say so: consoles, controllers, what QEMU's machines have."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import CcidAddress, DriveAddress, VirtioSerialAddress
from hostel.model.domain.devices.character import Channel, Console, ConsoleTarget, Serial, SerialTarget
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.devices.graphics import GraphicsType
from hostel.model.domain.devices.hostdev import ScsiHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.paravirtual import MemoryBalloon
from hostel.model.domain.devices.platform import Panic
from hostel.model.domain.devices.sound import Audio
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import ARM, PPC64, RISCV, S390, X86, Board, HostAudio, Platform, arch_of, board_of

_COMPANIONS: Final = ("ich9-ehci1", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3")
_MASTER_PORTS: Final = {"ich9-uhci1": 0, "ich9-uhci2": 2, "ich9-uhci3": 4}
_MIRRORED: Final = ("isa-serial", "spapr-vio-serial", "system-serial", "sclp-serial", None)
_USB_MODELS: Final = {"qemu-xhci": "qemu-xhci", "nec-usb-xhci": "nec-xhci", "ich9-usb-ehci1": "ich9-ehci1"}
# A board holds far fewer; without a bound, a disk of a long name would ask for millions.
_MOST_CONTROLLERS: Final = 1024
_WITH_PCI: Final = ("alpha", "ppc", "ppcemb", "sh4", "sh4eb", "sparc64")


def number_controllers(domain: Domain) -> None:
    """Put controllers into libvirt's order and give every one an index; parts of one USB 2 controller share theirs.

    Raises:
        ModelError: two of a type have the same.
    """
    for controller in domain.devices.controllers:
        if controller.type == ControllerType.USB and controller.master_startport is None:
            controller.master_startport = _MASTER_PORTS.get(controller.model or "")
    controllers = domain.devices.controllers = sorted_controllers(domain.devices.controllers)
    for position, controller in enumerate(controllers):
        if controller.index is None:
            controller.index = _companion_index(controllers, position)
        if controller.index is None:
            controller.index = _free_index(domain, controller.type)
    seen: set[tuple[str, int | None]] = set()
    for controller in controllers:
        place = (controller.type, controller.index)
        if place in seen and controller.type != ControllerType.USB:
            reason = f"Multiple '{controller.type}' controllers with index '{controller.index}'"
            raise ModelError(f"{domain.devices.path(controller)}/@index", reason)
        seen.add(place)


def sorted_controllers(controllers: list[Controller]) -> list[Controller]:
    """Controllers of a type by index, a USB 2 controller before its companions (``virDomainControllerInsert``)."""
    result: list[Controller] = []
    for new in controllers:
        place: int | None = None
        for position in range(len(result) - 1, -1, -1):
            old = result[position]
            if old.type != new.type:
                continue
            if new.index is None:
                place = position + 1
                break
            is_before_companion = (
                new.master_startport is None and old.master_startport is not None and old.index == new.index
            )
            if (old.index if old.index is not None else -1) > new.index or is_before_companion:
                place = position
            elif place is None:
                place = position + 1
        result.insert(len(result) if place is None else place, new)
    return result


def _companion_index(controllers: list[Controller], position: int) -> int | None:
    controller = controllers[position]
    if controller.type != ControllerType.USB or controller.model not in _COMPANIONS:
        return None
    before = [item for item in controllers[:position] if item.type == ControllerType.USB]
    if not before or before[-1].model not in _COMPANIONS:
        return None
    index = before[-1].index
    models = [item.model for item in controllers if item.type == ControllerType.USB and item.index == index]
    return None if controller.model in models else index


def _free_index(domain: Domain, kind: ControllerType) -> int:
    used = {item.index for item in domain.devices.controllers if item.type == kind}
    return next(index for index in range(len(used) + 1) if index not in used)


def find_controller(domain: Domain, kind: ControllerType, index: int) -> Controller | None:
    """The controller of a kind with an index."""
    return next((item for item in domain.devices.controllers if item.type == kind and item.index == index), None)


def _ensure_controller(domain: Domain, kind: ControllerType, index: int, model: str | None = None) -> None:
    if find_controller(domain, kind, index) is None:
        domain.devices.controllers.append(Controller(type=kind, index=index, model=model))


def _ensure_controllers(domain: Domain, kind: ControllerType, last: int, model: str | None = None) -> None:
    """Add what there is not of the controllers up to the last that something hangs on; -1 where nothing does."""
    if last >= _MOST_CONTROLLERS:
        reason = f"controller {last} of type '{kind}' has too large an index: what hangs on it implies all before it"
        raise ModelError("/domain/devices", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    there = {item.index for item in domain.devices.controllers if item.type == kind}
    domain.devices.controllers += [
        Controller(type=kind, index=index, model=model) for index in range(last + 1) if index not in there
    ]


def add_qemu_devices(domain: Domain, platform: Platform) -> None:
    """Add what QEMU's machines always have (``qemuDomainDefAddDefaultDevices``).

    Raises:
        ModelError: the first PCI controller is of the other kind.
    """
    devices, board, arch = domain.devices, board_of(domain), arch_of(domain)
    if arch in X86:
        _ensure_input(domain, "mouse", "ps2")
        _ensure_input(domain, "keyboard", "ps2")
    _add_usb(domain, board, platform)
    if board == Board.Q35:
        _ensure_controller(domain, ControllerType.SATA, 0)
    _add_root(domain, _root(domain, platform))
    if devices.memballoon is None and arch not in (*ARM, "sparc"):
        devices.memballoon = MemoryBalloon(model="virtio")
    if arch in PPC64 and devices.graphics:
        _ensure_input(domain, "keyboard", "usb")
        if not any(item.type == "tablet" and item.bus == "usb" for item in devices.inputs):
            _ensure_input(domain, "mouse", "usb")
    if board == Board.PSERIES or arch in S390:
        own = "pseries" if arch in PPC64 else "s390"
        if not any(item.model in (None, "default", own) for item in devices.panics):
            devices.panics.append(Panic())
    audio = default_audio(domain, platform.audio)
    if audio is not None and not domain.devices.audios:
        domain.devices.audios.append(audio)


def _ensure_input(domain: Domain, kind: str, bus: str) -> None:
    if not any(item.type == kind and item.bus == bus for item in domain.devices.inputs):
        domain.devices.inputs.append(Input(type=kind, bus=bus))


def _add_usb(domain: Domain, board: Board, platform: Platform) -> None:
    """USB as a machine has it from the start; on PCI Express the newest kind that there is."""
    arch = arch_of(domain)
    if board == Board.ISA or arch in (*ARM, *RISCV, *S390, "sparc"):
        return
    if find_controller(domain, ControllerType.USB, 0) is not None:
        return
    model: str | None = None
    if board == Board.Q35:
        found = next((name for flag, name in _USB_MODELS.items() if platform.has(flag)), None)
        if found is None:
            return
        model = found
    domain.devices.controllers.append(Controller(type=ControllerType.USB, index=0, model=model))
    if model == "ich9-ehci1":
        for companion, port in _MASTER_PORTS.items():
            domain.devices.controllers.append(
                Controller(type=ControllerType.USB, index=0, model=companion, master_startport=port)
            )


def _root(domain: Domain, platform: Platform) -> str | None:
    """The model of the PCI bus that a machine has from the start."""
    board, arch = board_of(domain), arch_of(domain)
    if board == Board.Q35:
        return "pcie-root"
    if board in (Board.ARM_VIRT, Board.RISCV_VIRT):
        return "pcie-root" if platform.has("gpex-pcihost") else None
    if arch in S390:
        return "pci-root" if platform.has("zpci") else None
    is_conventional = board in (Board.I440FX, Board.MALTA) or (board == Board.VERSATILE and arch == "armv6l")
    return "pci-root" if is_conventional or arch in (*PPC64, *_WITH_PCI) else None


def _add_root(domain: Domain, model: str | None) -> None:
    if model is None:
        return
    root = find_controller(domain, ControllerType.PCI, 0)
    if root is None:
        _ensure_controller(domain, ControllerType.PCI, 0, model)
    elif root.model != model:
        reason = (
            f"The PCI controller with index='0' must be model='{model}' for this machine type, "
            f"but model='{root.model}' was found instead"
        )
        raise ModelError(domain.devices.path(root), reason)


def default_audio(domain: Domain, host: HostAudio) -> Audio | None:
    """The back end for sound of a machine that names none (``qemuDomainDefSuggestDefaultAudioBackend``)."""
    devices = domain.devices
    backend: str | None = None
    is_on_host = not devices.graphics and host.without_graphics
    if not devices.graphics and not host.without_graphics:
        backend = "none"
    for item in devices.graphics:
        if item.type == GraphicsType.VNC:
            is_on_host, backend = host.with_vnc, None if host.with_vnc else "none"
        elif item.type == GraphicsType.SPICE:
            is_on_host, backend = False, "spice"
        elif item.type == GraphicsType.SDL:
            is_on_host, backend = True, None
    if is_on_host:
        backend = host.driver
    if backend is None:
        return None
    return Audio(id=1, type=backend, driver=host.sdl_driver if backend == "sdl" else None)


def add_implicit_devices(domain: Domain) -> None:
    """Add the controllers that disks and channels hang on, and a screen for graphics.

    Raises:
        ModelError: more than one console is a serial port, or the controllers would be too many.
    """
    _add_consoles(domain)
    _add_controllers(domain)
    devices = domain.devices
    if devices.graphics and not devices.videos:
        devices.videos.append(Video(model=VideoModel(type="default")))


def _is_serial(console: Console) -> bool:
    return console.target is None or console.target.type in (None, "none", "serial")


def _add_consoles(domain: Domain) -> None:
    """The first serial port of a machine is its console, and the other way round (``virDomainDefAddConsoleCompat``)."""
    devices = domain.devices
    for console in devices.consoles[1:]:
        if console.target is not None and console.target.type == "serial":
            reason = "Only the first console can be a serial port"
            raise ModelError(devices.path(console), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if domain.os is None or domain.os.type.value != "hvm":
        return
    if devices.consoles and _is_serial(devices.consoles[0]):
        if not devices.serials:
            console = devices.consoles[0]
            devices.serials.append(
                Serial(
                    type=console.type,
                    sources=[item.copy() for item in console.sources],
                    protocol=console.protocol,
                    log=console.log,
                    target=SerialTarget(port=0),
                    alias=console.alias,
                    address=console.address,
                )
            )
    elif devices.serials:
        target = devices.serials[0].target
        if (target.type if target is not None else None) in _MIRRORED:
            devices.consoles.insert(0, Console(target=ConsoleTarget(type="serial")))


def mirror_consoles(domain: Domain) -> None:
    """Make consoles that are serial ports say what those say."""
    if domain.os is None or domain.os.type.value != "hvm":
        return
    for console, serial in zip(domain.devices.consoles, domain.devices.serials, strict=False):
        if _is_serial(console):
            console.type = serial.type
            console.sources = [item.copy() for item in serial.sources]
            console.protocol = serial.protocol
            console.log = serial.log.copy() if serial.log is not None else None
            port = serial.target.port if serial.target is not None else 0
            console.target = ConsoleTarget(type="serial", port=port)
            console.alias = serial.alias
            console.address = serial.address.copy() if serial.address is not None else None


def _add_controllers(domain: Domain) -> None:
    devices = domain.devices
    for kind, bus in (
        (ControllerType.SCSI, DiskBus.SCSI),
        (ControllerType.FDC, DiskBus.FDC),
        (ControllerType.IDE, DiskBus.IDE),
        (ControllerType.SATA, DiskBus.SATA),
    ):
        used = [
            item.address.controller
            for item in devices.disks
            if item.target.bus == bus and isinstance(item.address, DriveAddress)
        ]
        _ensure_controllers(domain, kind, max(used, default=-1))
    ends: list[Channel | Console] = [*devices.channels, *devices.consoles]
    for device in ends:
        if device.target is not None and device.target.type == "virtio":
            address = device.address
            index = address.controller if isinstance(address, VirtioSerialAddress) else 0
            _ensure_controller(domain, ControllerType.VIRTIO_SERIAL, index)
    for card in devices.smartcards:
        if isinstance(card.address, CcidAddress):
            _ensure_controller(domain, ControllerType.CCID, card.address.controller)
    add_scsi_controllers(domain)


def add_scsi_controllers(domain: Domain) -> None:
    """Add controllers for SCSI devices of the host, of the kind that there is already; without a place that is one.

    Raises:
        ModelError: they would be too many.
    """
    last, model = -1, None
    for item in domain.devices.hostdevs:
        place = item.address.controller if isinstance(item.address, DriveAddress) else 0
        if isinstance(item, ScsiHostdev) and place > last:
            last = place
            known = find_controller(domain, ControllerType.SCSI, last)
            model = known.model if known is not None and known.model is not None else model
    _ensure_controllers(domain, ControllerType.SCSI, last, model)
