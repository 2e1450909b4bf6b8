"""A domain document as bhyve's command line (``virBhyveProcessBuildBhyveCmd``)."""

from __future__ import annotations

import math
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import CharacterType
from hostel.model.domain.domain import Domain
from hostel.model.native.bhyve.commandline import join
from hostel.model.native.bhyve.document import FIRMWARE, PORTS, parse_document
from hostel.model.native.bhyve.loader import loader_command
from hostel.model.native.bhyve.passthrough import passed_arguments
from hostel.model.native.bhyve.slot_writing import slots

PROGRAM: Final = "/usr/sbin/bhyve"
_TAP: Final = "tap0"  # which it will be is found out when the machine starts
_DEVICE_MAP: Final = "<device.map>"


def write_bhyve(xml: str) -> str:
    """Write a document as command lines: of the loader, where there is one, and of bhyve.

    Raises:
        ModelError: it is no such document, or has what bhyve cannot have; the path is the element's.
    """
    domain = parse_document(xml)
    commands: list[list[str]] = []
    if not uses_firmware(domain):
        commands.append(loader_command(domain, _DEVICE_MAP))
    commands.append(machine_command(domain))
    return "".join(f"{join(command)}\n" for command in commands)


def uses_firmware(domain: Domain) -> bool:
    """Whether the machine boots by firmware, and no loader runs before it."""
    os = domain.os
    return os is not None and domain.bootloader is None and (os.loader is not None or os.firmware == "efi")


def machine_command(domain: Domain, *, tap: str = _TAP, firmware: str = FIRMWARE, ports: int = PORTS) -> list[str]:
    """The command that runs a machine whose document is complete.

    Args:
        domain: the document.
        tap: the interface that cards are connected to.
        firmware: the file of the firmware that is chosen for ``firmware='efi'``.
        ports: how many disks an AHCI controller has.

    Raises:
        ModelError: bhyve cannot run it.
    """
    memory = domain.memory.value if domain.memory is not None else 0
    words = [PROGRAM, "-c", _processors(domain), "-m", str(math.ceil(memory / 1024))]
    if domain.memory_backing is not None and domain.memory_backing.locked:
        words.append("-S")
    words += _features(domain)
    words += ["-H", "-P", "-s", "0:0,hostbridge"]
    if uses_firmware(domain):
        words += ["-l", f"bootrom,{_firmware(domain, firmware)}"]
    for text in slots(domain, tap, ports):
        words += ["-s", text]
    words += _serials(domain)
    words += passed_arguments(domain)
    words.append(domain.name)
    return words


def _processors(domain: Domain) -> str:
    count = domain.vcpu.current or domain.vcpu.value if domain.vcpu is not None else 1
    topology = domain.cpu.topology if domain.cpu is not None else None
    if topology is None:
        return str(count)
    path = "/domain/cpu/topology"
    if topology.dies != 1:
        raise ModelError(path, "Only 1 die per socket is supported", code=ErrorCode.CONFIG_UNSUPPORTED)
    if count != topology.sockets * topology.cores * topology.threads:
        reason = "Invalid CPU topology: total number of vCPUs must equal the product of sockets, cores, and threads"
        raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return f"cpus={count},sockets={topology.sockets},cores={topology.cores},threads={topology.threads}"


def _features(domain: Domain) -> list[str]:
    features = domain.features
    words = []
    if features is not None:
        words += ["-A"] if features.acpi else []
        words += ["-I"] if features.apic is not None else []
        words += ["-w"] if features.msrs == "ignore" else []
    offset = domain.clock.offset if domain.clock is not None else "utc"
    if offset not in ("utc", "localtime"):
        reason = f"unsupported clock offset '{offset}'"
        raise ModelError("/domain/clock/@offset", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return [*words, "-u"] if offset == "utc" else words


def _firmware(domain: Domain, firmware: str) -> str:
    loader = domain.os.loader if domain.os is not None else None
    if domain.os is not None and domain.os.firmware == "efi":
        return firmware
    if loader is None or loader.path is None or loader.type != "pflash" or not loader.readonly:
        reason = "Only read-only pflash is supported."
        raise ModelError("/domain/os/loader", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return loader.path


def _serials(domain: Domain) -> list[str]:
    words: list[str] = []
    for serial in domain.devices.serials:
        path, source = domain.devices.path(serial), serial.source
        if serial.type != CharacterType.NMDM or source is None or source.master is None:
            raise ModelError(path, "only nmdm console types are supported", code=ErrorCode.CONFIG_UNSUPPORTED)
        port = serial.target.port if serial.target is not None and serial.target.port is not None else 0
        if port > 1:
            raise ModelError(path, "only two serial ports are supported", code=ErrorCode.CONFIG_UNSUPPORTED)
        words += ["-l", f"com{port + 1},{source.master}"]
    return words
