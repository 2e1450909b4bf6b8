"""A document as another host takes it: ``VIR_DOMAIN_XML_MIGRATABLE`` (``qemuDomainDefFormatBufInternal``).

It is what lasts of a machine, without the devices that every libvirt adds by itself, so that older ones take it too.
"""

from __future__ import annotations

from typing import Final

from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.ownership.label import drop_made
from hostel.model.domain.cpu import Cpu, CpuFeature
from hostel.model.domain.devices.character import CharacterType
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import default_audio, sorted_controllers
from hostel.model.domain.inactive import forget_run, is_users
from hostel.model.domain.platform import Board, Platform, board_of

_BUILT_IN_PORTS: Final = ("spapr-vio-serial", "system-serial")
_BUILT_IN_PANICS: Final = ("s390", "pseries")
_KEYBOARDS: Final = (("keyboard", "ps2"), ("keyboard", "xen"))


def migratable(found: Domain, stored: Domain | None, machines: Machines, platform: Platform) -> Domain:
    """The document for another host of one that runs, or of a definition.

    Args:
        found: what is changed.
        stored: its definition, which tells what of it this host's settings brought.
        machines: whose the sockets of this run are.
        platform: what every machine has without being told.
    """
    drop_made(found)
    forget_run(found)
    devices = found.devices
    devices.controllers = sorted_controllers(devices.controllers)
    default = [_only(devices.controllers, ControllerType.PCI, "pci-root")]
    if board_of(found) == Board.I440FX:
        default.append(_only(devices.controllers, ControllerType.USB, "piix3-uhci", None))
    devices.controllers = [item for item in devices.controllers if not any(item is one for one in default)]
    built_in = next((item for item in devices.panics if item.model in _BUILT_IN_PANICS), None)
    devices.panics = [item for item in devices.panics if item is not built_in]
    devices.inputs = [item for item in devices.inputs if (item.type, item.bus) not in _KEYBOARDS]
    for channel in devices.channels:
        source = channel.source
        if channel.type == CharacterType.UNIX and source is not None and machines.is_of_a_run(source.path or ""):
            channel.sources = []
    for serial in devices.serials:
        if serial.target is not None and serial.target.type in _BUILT_IN_PORTS:
            serial.target.type = serial.target.model = None
    for index, graphics in enumerate(devices.graphics):
        told = stored.devices.graphics[index : index + 1] if stored is not None else []
        _forget_settings(graphics, told[0] if told else graphics)
        _say_where(graphics, machines)
    if found.cpu is not None:
        _tell_icelake(found.cpu)
    audio = default_audio(found, platform.audio)
    if audio is not None and [item.format() for item in devices.audios] == [audio.format()]:
        devices.audios = []
    return found


def _only(controllers: list[Controller], kind: ControllerType, *models: str | None) -> Controller | None:
    """The one controller of a kind, where it is no other than the machine has without being told."""
    found = [item for item in controllers if item.type == kind]
    if len(found) != 1 or found[0].index != 0 or found[0].model not in models or is_users(found[0].alias):
        return None
    return found[0] if found[0].pci_hole is None else None


def _forget_settings(graphics: Graphics, told: Graphics) -> None:
    """Leave out where this host's settings let a screen's server listen: the other host has its own."""
    if told.websocket == -1:
        graphics.websocket = -1
    for listen, asked in zip(graphics.listens, told.listens, strict=False):
        if listen.type == asked.type == "address" and asked.address is None:
            graphics.listen = listen.address = None


def _say_where(graphics: Graphics, machines: Machines) -> None:
    """Say where a screen's server listens as it was said before there were elements for it."""
    for listen in graphics.listens:
        if listen.socket is not None and machines.is_of_a_run(listen.socket):
            listen.socket = graphics.socket = None
    kinds = [listen.type for listen in graphics.listens]
    if graphics.type == GraphicsType.VNC:
        graphics.listens = [item for item in graphics.listens if item.type != "socket" or item.socket is None]
    elif graphics.type == GraphicsType.SPICE:
        graphics.listens = [item for item in graphics.listens if item.type != "none"]
        if kinds[:1] == ["none"]:
            graphics.autoport = False


def _tell_icelake(cpu: Cpu) -> None:
    """Name what libvirt's model once had and QEMU's never did."""
    is_told = any(feature.name == "pconfig" for feature in cpu.features)
    if cpu.mode in (None, "custom") and cpu.model is not None and cpu.model.name == "Icelake-Server" and not is_told:
        cpu.features.append(CpuFeature(policy="disable", name="pconfig"))
