"""Command lines of bhyve and its loader as a domain document (``bhyveParseCommandLineString``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.codec.xml import UUID
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.clock import Clock
from hostel.model.domain.cpu import Cpu, Topology, Vcpu
from hostel.model.domain.devices.character import CharacterSource, CharacterType, Serial, SerialTarget
from hostel.model.domain.devices.device import Boot
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Apic, Features
from hostel.model.domain.memory import CurrentMemory, Memory, MemoryBacking
from hostel.model.domain.os import Loader, Os, OsType
from hostel.model.domain.platform import Platform
from hostel.model.native.bhyve.commandline import split_commands
from hostel.model.native.bhyve.slot_reading import read_slot
from hostel.model.native.settings import refused, whole_number

_WITH_VALUE: Final = "cglmpsU"
_WITHOUT_EFFECT: Final = "aCDehHPWxY"  # on what a document says
_UNITS: Final = "bkmgtpe"
_SIZE: Final = re.compile(r"(\d{1,18})([bkmgtpe]?)b?", re.ASCII | re.IGNORECASE)


class _Option(NamedTuple):
    letter: str
    value: str


def read_bhyve(text: str, platform: Platform | None = None) -> Domain:
    """Read command lines: of bhyve, and before it of a loader.

    Args:
        text: the commands, one a line.
        platform: where identifiers and hardware addresses come from.

    Raises:
        ModelError: they are none, or have what a document cannot have; the path is the option.
    """
    platform = platform or Platform()
    commands = split_commands(text)
    machines = [command for command in commands if _is(command, "bhyve")]
    loaders = [command for command in commands if not _is(command, "bhyve")]
    if not machines:
        raise ModelError("", "Failed to convert the command string to argv-lists: it has no bhyve command")
    domain = Domain(
        type=DomainType.BHYVE,
        os=Os(type=OsType(value="hvm")),
        clock=Clock(offset="localtime"),
        vcpu=Vcpu(value=1, placement="static"),
        on_poweroff="destroy",
        on_reboot="destroy",
        on_crash="destroy",
    )
    _read_machine(machines[0], domain, platform)
    if loaders:
        _read_loader(loaders[0], domain)
    domain.uuid = domain.uuid or platform.new_uuid()
    if domain.memory is None:
        raise refused("-m", "the command does not say how much memory there is", code=ErrorCode.OPERATION_FAILED)
    return domain


def _is(command: list[str], program: str) -> bool:
    return command[0].rpartition("/")[2] == program


def _options(command: list[str]) -> tuple[list[_Option], list[str]]:
    """The options of a command, and what follows them."""
    options: list[_Option] = []
    words: Iterator[str] = iter(command[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            return options, [word, *words]
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in _WITH_VALUE and letter != "d":
                options.append(_Option(letter, ""))
                continue
            value = letters or next(words, None)
            if value is None:
                raise refused(f"-{letter}", f"Missing argument for '-{letter}'", code=ErrorCode.INVALID_ARG)
            options.append(_Option(letter, value))
            break
    return options, []


def _name(command: list[str], rest: list[str], domain: Domain) -> None:
    if len(rest) != 1:
        reason = f"Failed to parse arguments for {command[0]} command: one name was expected, not {rest}"
        raise refused("", reason, code=ErrorCode.OPERATION_FAILED)
    if domain.name not in ("", rest[0]):
        raise refused("", "Failed to parse arguments: VM name mismatch", code=ErrorCode.OPERATION_FAILED)
    domain.name = rest[0]


def _read_machine(command: list[str], domain: Domain, platform: Platform) -> None:
    options, rest = _options(command)
    features = Features()
    for letter, value in options:
        match letter:
            case "A":
                features.acpi = True
            case "I":
                features.apic = Apic()
            case "w":
                features.msrs = "ignore"
            case "u":
                domain.clock = Clock(offset="utc")
            case "S":
                domain.memory_backing = MemoryBacking(locked=True)
            case "c":
                _read_processors(value, domain)
            case "m":
                _read_memory(value, domain)
            case "U":
                domain.uuid = _uuid(value)
            case "l":
                _read_lpc(value, domain)
            case "s":
                read_slot(value, domain, platform)
            case "p" | "g":
                pass  # pinning to processors of that host, and a debugger's port
            case _ if letter not in _WITHOUT_EFFECT:
                raise refused(f"-{letter}", "a document has nothing that it is", code=ErrorCode.CONFIG_UNSUPPORTED)
    domain.features = features if not features.is_empty() else None
    _name(command, rest, domain)


def _read_processors(text: str, domain: Domain) -> None:
    words = dict(part.partition("=")[::2] for part in text.split(","))
    if "cpus" not in words and "sockets" not in words:
        domain.vcpu = Vcpu(value=whole_number("-c", text, 1, 4096), placement="static")
        return
    sizes = {key: whole_number("-c", words.get(key, "1"), 1, 4096) for key in ("sockets", "cores", "threads")}
    count = sizes["sockets"] * sizes["cores"] * sizes["threads"]
    domain.vcpu = Vcpu(value=whole_number("-c", words.get("cpus", str(count)), 1, 4096), placement="static")
    domain.cpu = Cpu(topology=Topology(**sizes))


def _read_memory(text: str, domain: Domain) -> None:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise refused("-m", f"Failed to parse memory '{text}'", code=ErrorCode.OPERATION_FAILED)
    number, unit = int(found[1]), found[2].lower()
    if unit:
        number <<= 10 * _UNITS.index(unit)
    elif number < 1024 * 1024:
        number <<= 20  # bhyve takes small numbers for megabytes
    size = number // 1024
    if not 0 < size < 2**53:
        raise refused("-m", f"Failed to parse memory '{text}'", code=ErrorCode.OPERATION_FAILED)
    if domain.memory is not None and domain.memory.value != size:
        raise refused("-m", "Failed to parse memory: size mismatch", code=ErrorCode.OPERATION_FAILED)
    domain.memory = Memory(unit="KiB", value=size)
    domain.current_memory = CurrentMemory(unit="KiB", value=size)


def _uuid(text: str) -> str:
    try:
        return UUID.parse(text)
    except ValueError:
        raise refused("-U", f"Cannot parse UUID '{text}'") from None


def _read_lpc(text: str, domain: Domain) -> None:
    """Read a device of the LPC bridge: a serial port, or the firmware."""
    kind, comma, config = text.partition(",")
    if not comma:
        raise refused("-l", f"'{text}' does not say what it is connected to", code=ErrorCode.OPERATION_FAILED)
    if kind == "bootrom" and domain.os is not None:
        domain.os.loader = Loader(readonly=True, type="pflash", path=config.partition(",")[0])
        return
    if kind not in ("com1", "com2"):
        reason = f"Failed to parse {kind}: only com1, com2 and bootrom supported."
        raise refused("-l", reason, code=ErrorCode.OPERATION_FAILED)
    ends = {"A": "B", "B": "A"}
    if not config.startswith("/dev/nmdm") or config[-1] not in ends:
        reason = f"Failed to set com port {kind}: '{config}' is not /dev/nmdmNA or /dev/nmdmNB"
        raise refused("-l", reason, code=ErrorCode.OPERATION_FAILED)
    source = CharacterSource(master=config, slave=config[:-1] + ends[config[-1]])
    port = SerialTarget(port=int(kind[-1]) - 1)
    domain.devices.serials.append(Serial(type=CharacterType.NMDM, sources=[source], target=port))


def _read_loader(command: list[str], domain: Domain) -> None:
    """Read the command that loads a kernel; what is more than bhyveload's own is kept as it is."""
    if not _is(command, "bhyveload"):
        domain.bootloader, domain.bootloader_args = command[0], " ".join(command[1:])
        return
    options, rest = _options(command)
    for letter, value in options:
        if letter == "m":
            _read_memory(value, domain)
        elif letter == "d":
            _boot_from(value, domain)
    if {option.letter for option in options} != {"m", "d"}:
        domain.bootloader, domain.bootloader_args = command[0], " ".join(command[1:])
    _name(command, rest, domain)


def _boot_from(path: str, domain: Domain) -> None:
    for position, disk in enumerate(domain.devices.disks):
        source = disk.source
        if source is not None and path in (source.file, source.dev):
            disk.boot = Boot(order=1) if position else None  # the first is what is booted anyway
            return
