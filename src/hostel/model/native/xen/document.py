"""Domain documents as Xen's driver completes them (``libxlDomainDefPostParse``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ModelError
from hostel.model.domain.devices.character import CharacterType, Console, ConsoleTarget
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import DiskDriver
from hostel.model.domain.devices.hostdev import PciHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.paravirtual import MemoryBalloon
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Features
from hostel.model.domain.platform import Platform
from hostel.model.native.completing import complete_document, complete_read

PLATFORM: Final = Platform(arch="x86_64")
HVM: Final = "hvm"
PV: Final = "linux"  # libvirt writes it so; it reads "xen" too
PVH: Final = "xenpvh"
_MACHINES: Final = {HVM: "xenfv", PV: "xenpv", PVH: "xenpvh"}


def kind_of(domain: Domain) -> str:
    """How much of a machine the domain has: ``hvm``, ``linux`` or ``xenpvh``."""
    return domain.os.type.value if domain.os is not None else PV


def is_hvm(domain: Domain) -> bool:
    """Whether it is a whole machine."""
    return kind_of(domain) == HVM


def finish_read(domain: Domain) -> None:
    """Complete what was made from Xen's configuration.

    Raises:
        ModelError: it does not go together.
    """
    _add_devices(domain)
    complete_read(domain, PLATFORM)
    _finish(domain)


def parse_document(xml: str) -> Domain:
    """Read a document that is to become Xen's configuration.

    Raises:
        ModelError: it is none of Xen's.
    """
    domain = Domain.parse(xml)
    if domain.type != DomainType.XEN:
        raise ModelError("/domain/@type", f"Expecting virt type to be 'xen' but found '{domain.type}'")
    if domain.os is not None and domain.os.type.value == "xen":
        domain.os.type.value = PV
    if kind_of(domain) not in _MACHINES:
        raise ModelError("/domain/os/type", f"Expecting 'hvm', 'xen' or 'xenpvh' but found '{kind_of(domain)}'")
    _add_devices(domain)
    complete_document(domain, PLATFORM)
    _finish(domain)
    return domain


def _add_devices(domain: Domain) -> None:
    """Add what every domain of Xen has."""
    devices, kind = domain.devices, kind_of(domain)
    if domain.os is not None and domain.os.type.machine is None:
        domain.os.type.machine = _MACHINES[kind]
    if kind != HVM:
        if not devices.consoles:
            devices.consoles.append(Console(type=CharacterType.PTY))
        for console in devices.consoles:
            console.target = console.target or ConsoleTarget()
            console.target.type = console.target.type or "xen"
    bus = "ps2" if kind == HVM else "xen"
    for type_ in ("mouse", "keyboard"):
        if not any(item.type == type_ and item.bus == bus for item in devices.inputs):
            devices.inputs.append(Input(type=type_, bus=bus))
    if kind == HVM:
        features = domain.features = domain.features or Features()
        features.pae = True
        if domain.cpu is not None and domain.cpu.numa is not None and domain.cpu.numa.cells:
            features.acpi = True
    for disk in devices.disks:
        disk.driver = disk.driver or DiskDriver()
        disk.driver.type = disk.driver.type or "raw"
        if disk.type == SourceType.NETWORK:
            disk.driver.name = disk.driver.name or "qemu"
    devices.memballoon = devices.memballoon or MemoryBalloon(model="xen")
    if not any(item.type == ControllerType.XENBUS for item in devices.controllers):
        devices.controllers.append(Controller(type=ControllerType.XENBUS, index=0))
    for hostdev in devices.hostdevs:
        if isinstance(hostdev, PciHostdev) and hostdev.driver in (None, "default"):
            hostdev.driver = "xen"
    if devices.graphics and not devices.videos:
        devices.videos.append(Video(model=VideoModel(type="default", heads=1)))
    for video in devices.videos:
        _complete_screen(video, kind)


def _complete_screen(video: Video, kind: str) -> None:
    model = video.model = video.model or VideoModel(type="default")
    if model.type == "default":
        model.type = "xen" if kind == PV else "cirrus"
    if kind == HVM and model.vram is None:
        model.vram = {"vga": 16384, "xen": 16384, "cirrus": 8192}.get(model.type)


def _finish(domain: Domain) -> None:
    clock = domain.clock
    if clock is not None and not is_hvm(domain) and clock.offset in ("utc", "localtime"):
        clock.adjustment = "reset"  # no real-time clock runs on while the domain is away
