"""PCI devices for bhyve's command line: ``-s SLOT:FUNCTION,KIND,CONFIGURATION``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.codec.xml import Element
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.devices.sound import Sound
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.devices.video import Video
from hostel.model.domain.domain import Domain
from hostel.model.native.bhyve.document import slot_of

_CARDS: Final = {"virtio": "virtio-net", "e1000": "e1000"}
_KINDS: Final = {DiskDevice.DISK: "hd", DiskDevice.CDROM: "cd"}


def slots(domain: Domain, tap: str, ports: int) -> Iterator[str]:
    """What each slot has.

    Args:
        domain: the document, complete.
        tap: the interface that cards are connected to.
        ports: how many disks an AHCI controller has.

    Raises:
        ModelError: a device is none that bhyve has.
    """
    devices = domain.devices
    _check_single(domain, ControllerType.USB, "only single USB controller is supported")
    _check_single(domain, ControllerType.ISA, "only single ISA controller is supported")
    for controller in devices.controllers:
        yield from _controller(domain, controller, ports)
    for interface in devices.interfaces:
        yield _card(domain, interface, tap)
    for disk in devices.disks:
        if disk.target.bus is DiskBus.VIRTIO:
            yield f"{slot_of(disk)[0]}:0,virtio-blk,{_path(domain, disk)}"
        elif disk.target.bus is not DiskBus.SATA:
            raise _unsupported(domain, disk, "unsupported disk device")
    if devices.graphics and devices.videos:
        if len(devices.graphics) > 1 or len(devices.videos) > 1:
            raise _unsupported(domain, devices.graphics[-1], "Multiple graphics devices are not supported")
        yield _screen(domain, devices.graphics[0], devices.videos[0])
    for sound in devices.sounds:
        yield _sound(domain, sound)
    for filesystem in devices.filesystems:
        yield _filesystem(domain, filesystem)


def _unsupported(domain: Domain, device: Element, reason: str) -> ModelError:
    return ModelError(domain.devices.path(device), reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _no_comma(domain: Domain, device: Element, text: str) -> str:
    if "," in text:
        raise _unsupported(domain, device, f"'{text}' has a comma, which bhyve's command line cannot say")
    return text


def _check_single(domain: Domain, kind: ControllerType, reason: str) -> None:
    found = [item for item in domain.devices.controllers if item.type == kind]
    if len(found) > 1:
        raise _unsupported(domain, found[1], reason)


def _path(domain: Domain, disk: Disk) -> str:
    """The file of a disk."""
    if disk.device not in _KINDS or (disk.target.bus is DiskBus.VIRTIO and disk.device != DiskDevice.DISK):
        raise _unsupported(domain, disk, "unsupported disk device")
    if disk.type != SourceType.FILE:
        raise _unsupported(domain, disk, "unsupported disk type")
    path = disk.source.file if disk.source is not None else None
    if path is None:
        raise _unsupported(domain, disk, f"{disk.device} device without source path not supported")
    return _no_comma(domain, disk, path)


def _controller(domain: Domain, controller: Controller, ports: int) -> Iterator[str]:
    match controller.type:
        case ControllerType.PCI if controller.model != "pci-root":
            raise _unsupported(domain, controller, "unsupported PCI controller model: only PCI root supported")
        case ControllerType.SATA:
            yield _ahci(domain, controller, ports)
        case ControllerType.USB:
            inputs = domain.devices.inputs
            if [(item.bus, item.type) for item in inputs] != [("usb", "tablet")]:
                reason = "only single input device is supported: a USB tablet"
                raise _unsupported(domain, inputs[-1] if inputs else controller, reason)
            if controller.address is None:
                raise _unsupported(domain, controller, "only USB controllers of model nec-xhci are supported")
            slot, function = slot_of(controller)
            yield f"{slot}:{function},xhci,tablet"
        case ControllerType.ISA:
            yield f"{slot_of(controller)[0]}:0,lpc"


def _ahci(domain: Domain, controller: Controller, ports: int) -> str:
    """A controller and all its disks."""
    words = [f"{slot_of(controller)[0]}:0,ahci"]
    for disk in domain.devices.disks:
        address = disk.address
        is_here = isinstance(address, DriveAddress) and address.controller == controller.index
        if disk.target.bus is DiskBus.SATA and is_here:
            path = _path(domain, disk)
            words.append(f",{_KINDS[disk.device]}:{path}" if ports > 1 else f"-{_KINDS[disk.device]},{path}")
    return "".join(words)


def _card(domain: Domain, interface: Interface, tap: str) -> str:
    if interface.model not in _CARDS:
        raise _unsupported(domain, interface, f"NIC model '{interface.model}' is not supported")
    if interface.type != InterfaceType.BRIDGE:
        raise _unsupported(domain, interface, f"Network type {interface.type} is not supported")
    mac = interface.mac.address if interface.mac is not None else ""
    return f"{slot_of(interface)[0]}:0,{_CARDS[interface.model]},{tap},mac={mac}"


def _screen(domain: Domain, graphics: Graphics, video: Video) -> str:
    has_loader = domain.os is not None and (domain.os.loader is not None or domain.os.firmware == "efi")
    if domain.bootloader is not None or not has_loader:
        raise _unsupported(domain, graphics, "Graphics are only supported when booting using UEFI")
    if graphics.type != GraphicsType.VNC:
        raise _unsupported(domain, graphics, "Only VNC supported")
    listen = graphics.listens[0] if graphics.listens else None
    if listen is None or listen.type not in ("address", "network"):
        raise _unsupported(domain, graphics, "Unsupported listen type")
    port = 5900 if graphics.autoport or graphics.port is None else graphics.port
    if not 5900 <= port <= 65535:
        raise _unsupported(domain, graphics, "vnc port must be in range [5900,65535]")
    address = listen.address or ""
    address = f"[{address}]" if ":" in address else address
    slot, function = slot_of(video)
    words = [f"{slot}:{function},fbuf", f"tcp={_no_comma(domain, graphics, address)}:{port}"]
    if graphics.passwd is not None:
        if "," in graphics.passwd:
            raise _unsupported(domain, graphics, "Password may not contain ',' character")
        words.append(f"password={graphics.passwd}")
    resolution = video.model.resolution if video.model is not None else None
    if resolution is not None:
        words.append(f"w={resolution.x},h={resolution.y}")
    if video.driver is not None and video.driver.vgaconf is not None:
        words.append(f"vga={video.driver.vgaconf}")
    return ",".join(words)


def _sound(domain: Domain, sound: Sound) -> str:
    if sound.model != "ich7":
        raise _unsupported(domain, sound, "Sound device model is not supported")
    slot, function = slot_of(sound)
    words = [f"{slot}:{function},hda"]
    audio = next((item for item in domain.devices.audios if item.id == sound.audio), None)
    if audio is not None:
        if audio.type != "oss":
            raise _unsupported(domain, audio, f"unsupported audio backend '{audio.type}'")
        ends = (("play", audio.input), ("rec", audio.output))
        words += [f"{name}={end.dev}" for name, end in ends if end is not None and end.dev is not None]
    return ",".join(_no_comma(domain, sound, word) if number else word for number, word in enumerate(words))


def _filesystem(domain: Domain, filesystem: Filesystem) -> str:
    if filesystem.type != "mount":
        raise _unsupported(domain, filesystem, f"unsupported filesystem type '{filesystem.type}'")
    driver = filesystem.driver.type if filesystem.driver is not None else None
    if driver not in (None, "default"):
        raise _unsupported(domain, filesystem, f"unsupported filesystem driver '{driver}'")
    if filesystem.accessmode != "passthrough":
        raise _unsupported(domain, filesystem, f"unsupported filesystem accessmode '{filesystem.accessmode}'")
    slot, function = slot_of(filesystem)
    path = (filesystem.source.dir if filesystem.source is not None else None) or ""
    share = _no_comma(domain, filesystem, f"{filesystem.target}={path}")
    return f"{slot}:{function},virtio-9p,{share}" + (",ro" if filesystem.readonly else "")
