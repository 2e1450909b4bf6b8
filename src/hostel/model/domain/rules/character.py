"""Rules for ports, consoles and channels (``virDomainChrSourceDefValidate``, ``qemuValidateDomainChrDef``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.address import (
    Address,
    IsaAddress,
    PciAddress,
    SpaprVioAddress,
    UsbAddress,
)
from hostel.model.domain.devices.character import (
    Channel,
    CharacterEnd,
    CharacterSource,
    CharacterType,
    Serial,
    SerialTarget,
)
from hostel.model.domain.devices.graphics import GraphicsType
from hostel.model.domain.devices.source import Reconnect
from hostel.model.domain.platform import S390, Board
from hostel.model.domain.rules.rule import Machine, MachineRule, Rule

_WITH_PATH: Final = (CharacterType.DEV, CharacterType.FILE, CharacterType.PIPE)


def _first(character: CharacterEnd) -> CharacterSource:
    return character.source or CharacterSource()


def _reconnect(character: CharacterEnd) -> Reconnect:
    return _first(character).reconnect or Reconnect()


def _kind(character: CharacterEnd) -> CharacterType | None:
    kind: CharacterType | None = getattr(character, "type", None)
    return kind


CHARACTER_RULES: Final[tuple[Rule[CharacterEnd], ...]] = (
    Rule(
        lambda item: _kind(item) in _WITH_PATH and not _first(item).path,
        lambda _: "Missing source path attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _kind(item) == CharacterType.TCP and not _first(item).host,
        lambda _: "Missing source host attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: (
            _kind(item) in (CharacterType.TCP, CharacterType.UDP) and not any(source.service for source in item.sources)
        ),
        lambda _: "Missing source service attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _kind(item) == CharacterType.NMDM and bool(_first(item).master) != bool(_first(item).slave),
        lambda _: "Should define both master and slave path attributes for nmdm device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: (
            (_kind(item) == CharacterType.SPICEPORT or (_kind(item) == CharacterType.DBUS and item.TAG != "redirdev"))
            and not _first(item).channel
        ),
        lambda _: "Missing source channel attribute for char device",
        below="/source",
    ),
    Rule(
        lambda item: _first(item).mode == "bind" and _first(item).reconnect is not None,
        lambda _: "chardev reconnect is possible only for connect mode",
        ErrorCode.INTERNAL_ERROR,
        "/source/reconnect",
    ),
    Rule(
        lambda item: isinstance(item, Channel) and (item.target is None or item.target.type is None),
        lambda _: "target type must be specified for channel device",
        ErrorCode.XML_ERROR,
        "/target",
    ),
)


def _is_generated(character: CharacterEnd) -> bool:
    """Whether a socket without a path gets one when the machine starts."""
    target = character.target if isinstance(character, Channel) else None
    return target is not None and target.type in ("virtio", "xen")


SOURCE_RULES: Final[tuple[Rule[CharacterEnd], ...]] = (
    Rule(
        lambda item: len(item.sources) > (2 if _kind(item) == CharacterType.UDP else 1),
        lambda item: (
            f"only {'two source elements are' if _kind(item) == CharacterType.UDP else 'one source element is'} "
            "allowed for character device"
        ),
        ErrorCode.XML_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _reconnect(item).enabled and _reconnect(item).timeout is None,
        lambda _: "Missing required attribute 'timeout' in element 'reconnect'",
        ErrorCode.XML_ERROR,
        "/source/reconnect",
    ),
    *CHARACTER_RULES,
    Rule(
        lambda item: _kind(item) == CharacterType.UNIX and not _first(item).path and not _is_generated(item),
        lambda _: "Missing source path attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _kind(item) == CharacterType.UNIX and not _first(item).path and _first(item).reconnect is not None,
        lambda _: "chardev reconnect is possible only for connect mode",
        ErrorCode.INTERNAL_ERROR,
        "/source/reconnect",
    ),
)


QEMU_SOURCE_RULES: Final[tuple[MachineRule[CharacterEnd], ...]] = (
    MachineRule(
        lambda item, _: _reconnect(item).enabled and _reconnect(item).timeout == 0,
        "chardev reconnect source timeout cannot be '0'",
        "/source/reconnect/@timeout",
        ErrorCode.INVALID_ARG,
    ),
    MachineRule(
        lambda item, machine: (
            _kind(item) in (CharacterType.SPICEVMC, CharacterType.SPICEPORT) and not has_spice(machine)
        ),
        lambda item, _: f"chardev '{_kind(item)}' not supported without spice graphics",
        "/@type",
    ),
)


def has_spice(machine: Machine) -> bool:
    """Whether the guest can be looked at over SPICE."""
    return any(item.type == GraphicsType.SPICE for item in machine.domain.devices.graphics)


def _target(serial: Serial) -> SerialTarget:
    return serial.target or SerialTarget()


_PLACES: Final[dict[str, type[Address]]] = {
    "isa-serial": IsaAddress,
    "isa-debug": IsaAddress,
    "usb-serial": UsbAddress,
    "pci-serial": PciAddress,
    "spapr-vio-serial": SpaprVioAddress,
}
_KINDS: Final = {
    "isa-serial": "isa-serial", "usb-serial": "usb-serial", "pci-serial": "pci-serial",
    "spapr-vty": "spapr-vio-serial", "pl011": "system-serial", "16550a": "system-serial",
    "sclpconsole": "sclp-serial", "sclplmconsole": "sclp-serial", "isa-debugcon": "isa-debug",
}  # fmt: skip


def _is_elsewhere(serial: Serial, machine: Machine) -> bool:
    """Whether only other machines have such a port."""
    target = _target(serial)
    if target.type == "system-serial":
        own = {Board.ARM_VIRT: "pl011", Board.RISCV_VIRT: "16550a"}.get(machine.board)
        return target.model is not None and target.model != own
    if target.type == "spapr-vio-serial" or target.model == "spapr-vty":
        return machine.board != Board.PSERIES
    return target.type == "sclp-serial" and machine.arch not in S390


SERIAL_RULES: Final[tuple[MachineRule[Serial], ...]] = (
    MachineRule(
        lambda item, _: (
            _target(item).type in _PLACES
            and item.address is not None
            and not isinstance(item.address, _PLACES[_target(item).type or ""])
        ),
        lambda item, _: (
            f"Target type '{_target(item).type}' requires address type "
            f"'{_PLACES[_target(item).type or ''].WHEN['type']}'"
        ),
        "/address/@type",
    ),
    MachineRule(
        lambda item, _: _target(item).type in ("system-serial", "sclp-serial") and item.address is not None,
        lambda item, _: f"Target type '{_target(item).type}' cannot have an associated address",
        "/address",
    ),
    MachineRule(
        lambda item, _: _target(item).model is not None and _KINDS[_target(item).model or ""] != _target(item).type,
        lambda item, _: (
            f"Target model '{_target(item).model}' requires target type '{_KINDS[_target(item).model or '']}'"
        ),
        "/target/model/@name",
    ),
    MachineRule(
        _is_elsewhere,
        lambda item, _: (
            f"Serial device with target type '{_target(item).type}' and target model '{_target(item).model}' not "
            "compatible with guest architecture or machine type"
        ),
        "/target/@type",
    ),
)
