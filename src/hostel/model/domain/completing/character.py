"""What ports, consoles and channels get that their document does not say (``virDomainChrDefPostParse``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import (
    Channel,
    CharacterEnd,
    CharacterSource,
    CharacterType,
    SerialTarget,
)
from hostel.model.domain.devices.paravirtual import RngBackend
from hostel.model.domain.devices.redirection import Redirdev
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import S390, X86, Board, Platform, arch_of, board_of

_ISA_PORTS: Final = 4
_SERIAL_MODELS: Final = {
    "isa-serial": "isa-serial",
    "usb-serial": "usb-serial",
    "pci-serial": "pci-serial",
    "spapr-vio-serial": "spapr-vty",
    "sclp-serial": "sclpconsole",
    "isa-debug": "isa-debugcon",
}
_BOARD_PORTS: Final = {
    Board.PSERIES: "spapr-vio-serial",
    Board.ARM_VIRT: "system-serial",
    Board.RISCV_VIRT: "system-serial",
}
_USB_CHANNEL: Final = "org.qemu.usbredir"  # on D-Bus
_BOARD_MODELS: Final = {Board.ARM_VIRT: "pl011", Board.RISCV_VIRT: "16550a"}


def complete_source(character: CharacterEnd | RngBackend) -> None:
    """Write a source as libvirt does: modes said, what does not count left out."""
    kind = getattr(character, "type", None)
    for source in character.sources:
        if kind in (CharacterType.TCP, CharacterType.UNIX, CharacterType.UDP) and source.mode is None:
            source.mode = "connect"
    character.protocol = (character.protocol or "raw") if kind == CharacterType.TCP else None
    if kind in (CharacterType.UNIX, CharacterType.DEV, CharacterType.FILE, CharacterType.PIPE):
        character.sources = [item for item in character.sources if item.path is not None]
    if kind in (CharacterType.NULL, CharacterType.VC, CharacterType.STDIO, CharacterType.SPICEVMC):
        character.sources = []
    if (
        kind == CharacterType.DBUS
        and isinstance(character, Redirdev)
        and not any(item.channel for item in character.sources)
    ):
        character.sources = [CharacterSource(channel=_USB_CHANNEL)]
    if kind == CharacterType.UDP:
        character.sources.sort(key=_is_connecting)


def _is_connecting(source: CharacterSource) -> bool:
    return source.mode == "connect"


def number_isa_serials(domain: Domain) -> None:
    """Give numbers to the serial ports that are said to be on ISA.

    Raises:
        ModelError: a number is used twice, or there are more ports than a machine has.
    """
    isa = [item for item in domain.devices.serials if item.target is not None and item.target.type == "isa-serial"]
    used: set[int] = set()
    for serial in isa:
        port = serial.target.port if serial.target is not None else None
        path = f"{domain.devices.path(serial)}/target/@port"
        if len(isa) > _ISA_PORTS or (port or 0) >= _ISA_PORTS:
            reason = f"Maximum supported number of ISA serial ports is '{_ISA_PORTS}'"
            raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
        if port is not None:
            if port in used:
                raise ModelError(path, f"target port '{port}' already allocated", code=ErrorCode.INTERNAL_ERROR)
            used.add(port)
    for serial in isa:
        if serial.target is not None and serial.target.port is None:
            serial.target.port = next(port for port in range(_ISA_PORTS) if port not in used)
            used.add(serial.target.port)


def complete_serials(domain: Domain, platform: Platform) -> None:
    """Give serial ports their kind and model, and the next number.

    Raises:
        ModelError: a debug port of ISA is on a machine without ISA.
    """
    for serial in domain.devices.serials:
        target = serial.target = serial.target or SerialTarget()
        if platform.is_qemu:
            _complete_target(domain, target)
        if target.type == "isa-debug" and arch_of(domain) not in X86:
            reason = "isa-debug serial type only valid on x86 architecture"
            path = f"{domain.devices.path(serial)}/target/@type"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        if target.port is None:
            ports = [item.target.port for item in domain.devices.serials if item.target is not None]
            target.port = max((port for port in ports if port is not None), default=-1) + 1


def _complete_target(domain: Domain, target: SerialTarget) -> None:
    board, arch = board_of(domain), arch_of(domain)
    if target.type in (None, "isa-serial"):  # the latter was what every machine's were called once
        if arch in X86:
            target.type = "isa-serial"
        else:
            target.type = _BOARD_PORTS.get(board, "sclp-serial" if arch in S390 else None)
    if target.model is None and target.type is not None:
        if target.type == "system-serial":
            target.model = _BOARD_MODELS.get(board)
        else:
            target.model = _SERIAL_MODELS[target.type]


def complete_channel(channel: Channel, platform: Platform, *, is_live: bool) -> None:
    """Forget sockets of an earlier run."""
    target = channel.target
    if not is_live and target is not None and target.type == "virtio" and channel.type == CharacterType.UNIX:
        channel.sources = [item for item in channel.sources if not _is_made_up(item.path, target.name, platform)]


def _is_made_up(path: str | None, name: str | None, platform: Platform) -> bool:
    """Whether a socket's path is one that starting a machine makes up, now or in earlier versions of libvirt."""
    prefix = f"{platform.channel_directory}/"
    if path is None or not path.startswith(prefix):
        return False
    rest = path.removeprefix(prefix)
    return ("/" not in rest and rest.endswith(f".{name}")) or bool(
        re.fullmatch(f"domain-[^/]+/{re.escape(name or '')}", rest)
    )
