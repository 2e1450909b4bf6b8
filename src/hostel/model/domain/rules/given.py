"""Rules for what is given alone: what was defined, saved or started before there were these rules goes on as it did."""

from __future__ import annotations

import re
from typing import Final

from hostel.codec.xml import Element
from hostel.errors import ErrorCode
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import MODELS, Controller
from hostel.model.domain.devices.disk import Disk, DiskBus
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.devices.redirection import Smartcard
from hostel.model.domain.rules.interface import source_of
from hostel.model.domain.rules.memory import check_pins
from hostel.model.domain.rules.rule import Machine, MachineRule, Rule, check, check_on

_XML: Final = ErrorCode.XML_ERROR
_MODEL: Final = re.compile("[a-zA-Z0-9_-]*")
_EVENTS: Final = {"passthrough": "evdev", "evdev": "dev"}  # which attribute of the source names the host's device
_NEEDED: Final = {
    InterfaceType.VHOSTUSER: ("type", "path", "mode"),
    InterfaceType.SERVER: ("port",),
    InterfaceType.MCAST: ("address", "port"),
    InterfaceType.CLIENT: ("address", "port"),
    InterfaceType.UDP: ("address", "port"),
}


def _lacking(interface: Interface) -> str | None:
    """What the source must say and does not."""
    source, needed = source_of(interface), _NEEDED.get(interface.type, ())
    return next((name for name in needed if getattr(source, name) is None), None)


def _lacking_here(interface: Interface) -> str | None:
    """What the near end of a UDP tunnel must say and does not."""
    local = source_of(interface).local
    if interface.type != InterfaceType.UDP or local is None:
        return None
    return next((name for name in ("address", "port") if getattr(local, name) is None), None)


_INTERFACE_RULES: Final[tuple[Rule[Interface], ...]] = (
    Rule(
        _lacking,
        lambda item: f"Missing required attribute '{_lacking(item)}' in element 'source'",
        _XML,
        "/source",
    ),
    Rule(
        lambda item: item.type == InterfaceType.UDP and source_of(item).local is None,
        lambda _: "'<local>' element missing for 'udp' socket interface",
        _XML,
        "/source/local",
    ),
    Rule(
        _lacking_here,
        lambda item: f"Missing required attribute '{_lacking_here(item)}' in element 'local'",
        _XML,
        "/source/local",
    ),
    Rule(
        lambda item: item.model is not None and not _MODEL.fullmatch(item.model),
        lambda _: "Model name contains invalid characters",
        ErrorCode.INVALID_ARG,
        "/model/@type",
    ),
)
_CONTROLLER_RULES: Final[tuple[Rule[Controller], ...]] = (
    Rule(
        lambda item: item.model is not None and item.type not in MODELS,
        lambda item: f"Unknown model type '{item.model}'",
        below="/@model",
    ),
)
_INPUT_RULES: Final[tuple[Rule[Input], ...]] = (
    Rule(
        lambda item: (
            item.type in _EVENTS and item.source is not None and getattr(item.source, _EVENTS[item.type]) is None
        ),
        lambda _: "Missing evdev path for input device",
        _XML,
        "/source",
    ),
)
_SMARTCARD_RULES: Final[tuple[Rule[Smartcard], ...]] = (
    Rule(
        lambda item: item.mode == "host-certificates" and len(item.certificates) != 3,
        lambda _: "host-certificates mode needs exactly three certificates",
        _XML,
        "/certificate",
    ),
)
_QEMU_DISK_RULES: Final[tuple[Rule[Disk], ...]] = (
    Rule(
        lambda disk: disk.target.prefix is None,
        lambda disk: f"invalid disk target '{disk.target.dev}'; write sda, vda, hda or fda, or a later letter",
        below="/target/@dev",
    ),
    Rule(
        lambda disk: disk.target.bus == DiskBus.SCSI and isinstance(disk.address, DriveAddress) and disk.address.bus,
        lambda _: "SCSI controller only supports 1 bus",
        ErrorCode.INTERNAL_ERROR,
        "/address/@bus",
    ),
)
_QEMU_GRAPHICS_RULES: Final[tuple[MachineRule[Graphics], ...]] = (
    MachineRule(
        lambda item, machine: (
            item.type == GraphicsType.SPICE
            and (item.tls_port or 0) > 0
            and not machine.platform.spice_tls
            and all(listen.type in ("address", "network") for listen in item.listens[:1])
        ),
        "spice TLS port set in XML configuration, but TLS is disabled in qemu.conf",
        "/@tlsPort",
    ),
)


def check_given(machine: Machine) -> None:
    """Hold a whole document that is given against the rules for such.

    Raises:
        ModelError: one is broken.
    """
    check_pins(machine.domain)
    for device in machine.domain.devices.elements():
        check_given_device(machine, device)


def check_given_device(machine: Machine, device: Element) -> None:
    """Hold a device that is given, and is in the machine's document, against the rules for such.

    Raises:
        ModelError: one is broken.
    """
    path, is_qemu = machine.domain.devices.path(device), machine.platform.is_qemu
    match device:
        case Interface():
            check(device, path, _INTERFACE_RULES)
        case Controller():
            check(device, path, _CONTROLLER_RULES)
        case Input():
            check(device, path, _INPUT_RULES)
        case Smartcard():
            check(device, path, _SMARTCARD_RULES)
        case Disk() if is_qemu:
            check(device, path, _QEMU_DISK_RULES)
        case Graphics() if is_qemu:
            check_on(device, path, machine, _QEMU_GRAPHICS_RULES)
