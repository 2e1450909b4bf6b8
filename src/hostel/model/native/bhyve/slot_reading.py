"""PCI devices of bhyve's command line: ``-s SLOT,KIND,CONFIGURATION``."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice, DiskTarget
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.interface import Interface, InterfaceSource, InterfaceTarget, InterfaceType, Mac
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.devices.video import Resolution, Video, VideoDriver, VideoModel
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Platform
from hostel.model.native.diskname import disk_name
from hostel.model.native.settings import refused, whole_number

_OPTION: Final = "-s"
_DISKS: Final = {
    "ahci-cd": (DiskBus.SATA, DiskDevice.CDROM),
    "ahci-hd": (DiskBus.SATA, DiskDevice.DISK),
    "virtio-blk": (DiskBus.VIRTIO, DiskDevice.DISK),
}
_CARDS: Final = {"virtio-net": "virtio", "e1000": "e1000"}
_BRIDGES: Final = ("hostbridge", "amd_hostbridge", "lpc")  # every machine has them
_MOST_DISKS: Final = 26
_MAC: Final = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}")
_PLACE: Final = re.compile(r"(?:tcp|rfb)=(\[[^\]]*\]|[^:]*):(\d{1,5})", re.ASCII)


def read_slot(text: str, domain: Domain, platform: Platform) -> None:
    """Add a device.

    Raises:
        ModelError: it is none that a document can have.
    """
    place, comma, rest = text.partition(",")
    if not comma:
        raise refused(_OPTION, f"'{text}' does not say what is in the slot", code=ErrorCode.OPERATION_FAILED)
    kind, _, config = rest.partition(",")
    address = _address(place)
    if kind in _DISKS:
        domain.devices.disks.append(_disk(domain, kind, config, address))
    elif kind in _CARDS:
        domain.devices.interfaces.append(_card(kind, config, address, platform))
    elif kind == "fbuf":
        _read_screen(config, domain)
    elif kind not in _BRIDGES:
        raise refused(_OPTION, f"a document has nothing that '{kind}' is", code=ErrorCode.CONFIG_UNSUPPORTED)


def _address(text: str) -> PciAddress:
    """A place: slot, slot and function, or bus, slot and function."""
    numbers = [whole_number(_OPTION, part, 0, 255) for part in text.split(":")]
    if len(numbers) > 3:
        raise refused(_OPTION, f"'{text}' is no place", code=ErrorCode.OPERATION_FAILED)
    bus, slot, function = {1: (0, *numbers, 0), 2: (0, *numbers), 3: tuple(numbers)}[len(numbers)]
    if slot > 31 or function > 7:
        raise refused(_OPTION, f"'{text}' is no place", code=ErrorCode.OPERATION_FAILED)
    return PciAddress(bus=bus, slot=slot, function=function)


def _disk(domain: Domain, kind: str, config: str, address: PciAddress) -> Disk:
    bus, device = _DISKS[kind]
    path = config.partition(",")[0]
    if not path:
        raise refused(_OPTION, f"{kind} has no path", code=ErrorCode.OPERATION_FAILED)
    position = sum(disk.target.bus is bus for disk in domain.devices.disks)
    if position >= _MOST_DISKS:
        raise refused(_OPTION, "too many disks", code=ErrorCode.CONFIG_UNSUPPORTED)
    is_device = path.startswith("/dev/")
    return Disk(
        type=SourceType.BLOCK if is_device else SourceType.FILE,
        device=device,
        source=DiskSource(dev=path) if is_device else DiskSource(file=path),
        target=DiskTarget(dev=disk_name("sd" if bus is DiskBus.SATA else "vd", position), bus=bus),
        address=address,
    )


def _card(kind: str, config: str, address: PciAddress, platform: Platform) -> Interface:
    """A card at a tap; the bridge that this is in is not said, and taken to be libvirt's own."""
    tap, comma, option = config.partition(",")
    if not tap.startswith("tap"):
        raise refused(_OPTION, "Only tap devices supported", code=ErrorCode.CONFIG_UNSUPPORTED)
    if comma and not option.startswith("mac="):
        raise refused(_OPTION, f"Only mac option can be specified for {kind}", code=ErrorCode.CONFIG_UNSUPPORTED)
    mac = option.removeprefix("mac=").lower()
    if comma and not _MAC.fullmatch(mac):
        raise refused(_OPTION, f"unable to parse mac address '{mac}'")
    if not comma:
        mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in platform.random_bytes(3))
    return Interface(
        type=InterfaceType.BRIDGE,
        mac=Mac(address=":".join(part.zfill(2) for part in mac.split(":"))),
        source=InterfaceSource(bridge="virbr0"),
        target=InterfaceTarget(dev=tap),
        model=_CARDS[kind],
        address=address,
    )


def _read_screen(config: str, domain: Domain) -> None:
    video = Video(model=VideoModel(type="gop", heads=1))
    graphics = Graphics(type=GraphicsType.VNC, port=0, autoport=False, listens=[Listen(type="address")])
    sizes: dict[str, int] = {}
    for word in config.split(","):
        key, _, value = word.partition("=")
        if key == "vga" and value in ("on", "io", "off"):
            video.driver = VideoDriver(vgaconf=value)
        elif key in ("rfb", "tcp"):
            found = _PLACE.fullmatch(word)
            if found is None or int(found[2]) > 65535:
                raise refused(_OPTION, f"'{word}' is no address and port", code=ErrorCode.OPERATION_FAILED)
            graphics.listen = found[1].strip("[]") or "127.0.0.1"  # as bhyve does
            graphics.listens, graphics.port = [Listen(type="address", address=graphics.listen)], int(found[2])
        elif key in ("w", "h"):
            sizes[key] = whole_number(_OPTION, value, 1, 65535)
        elif key == "password":
            graphics.passwd = value
    if sizes and video.model is not None:
        if len(sizes) != 2:
            raise refused(_OPTION, "fbuf needs both w= and h=", code=ErrorCode.OPERATION_FAILED)
        video.model.resolution = Resolution(x=sizes["w"], y=sizes["h"])
    domain.devices.videos.append(video)
    domain.devices.graphics.append(graphics)
