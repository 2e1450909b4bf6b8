"""Descriptors of firmware: what a host has, and for which machines (QEMU, ``docs/interop/firmware.json``).

A descriptor is a JSON file. Of files of one name that in the last directory counts, and an empty one hides the others;
what is tried first is what sorts first.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.errors import ErrorCode, ErrorDomain, VirtError

# The vendor's, then the host's; a user's own comes after these.
DIRECTORIES: Final = (Path("/usr/share/qemu/firmware"), Path("/etc/qemu/firmware"))
_MODES: Final = ("split", "combined", "stateless")


class FirmwareFile(NamedTuple):
    """A file of firmware, and its image format."""

    path: str
    format: str = "raw"


class Firmware(NamedTuple):
    """What a descriptor says.

    Attributes:
        path: the descriptor's.
        interfaces: what it looks like to the guest: ``uefi``, ``bios``.
        device: how it is mapped: ``flash``, ``kernel`` or ``memory``.
        executable: the firmware itself.
        mode: of flash: whether variables are ``split`` off, ``combined`` with it, or not there (``stateless``).
        template: what variables are made from, where they are split off.
        targets: architectures, each with patterns of machine types.
        features: what it has and asks for, such as ``secure-boot`` and ``requires-smm``.
    """

    path: Path
    interfaces: frozenset[str]
    device: str
    executable: FirmwareFile
    mode: str | None
    template: FirmwareFile | None
    targets: tuple[tuple[str, tuple[str, ...]], ...]
    features: frozenset[str]

    def fits(self, arch: str, machine: str) -> bool:
        """Whether it is for a machine."""
        return any(
            arch == target and any(fnmatch.fnmatchcase(machine, pattern) for pattern in machines)
            for target, machines in self.targets
        )


def installed(directories: Sequence[Path] = DIRECTORIES) -> list[Firmware]:
    """The firmware of a host, what is to be tried first at the beginning.

    Raises:
        VirtError: ``INTERNAL_ERROR``: a descriptor is broken; the message names it.
    """
    found: dict[str, Path] = {}
    for directory in directories:
        if directory.is_dir():
            found |= {path.name: path for path in directory.iterdir() if not path.name.startswith(".")}
    return [read(path) for _, path in sorted(found.items()) if path.is_file() and path.stat().st_size]


def read(path: Path) -> Firmware:
    """Read a descriptor.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it cannot be read, or is none.
    """
    try:
        return _firmware(path, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        message = f"internal error: firmware descriptor '{path}' is broken: {why}; mend it, or hide it by an empty file"
        raise VirtError(ErrorCode.INTERNAL_ERROR, message, domain=ErrorDomain.QEMU) from error


def _firmware(path: Path, found: dict[str, Any]) -> Firmware:
    mapping = found["mapping"]
    device, mode, template = mapping["device"], None, None
    if device == "flash":
        mode = mapping.get("mode", "split")
        if mode not in _MODES:
            raise ValueError(f"mode '{mode}' is none of {', '.join(_MODES)}")
        executable = _file(mapping["executable"])
        template = _file(mapping["nvram-template"]) if mode == "split" else None
    elif device in ("kernel", "memory"):
        executable = FirmwareFile(str(mapping["filename"]))
    else:
        raise ValueError(f"device '{device}' is not flash, kernel or memory")
    targets = tuple((str(item["architecture"]), tuple(map(str, item["machines"]))) for item in found["targets"])
    interfaces, features = frozenset(found["interface-types"]), frozenset(found["features"])
    return Firmware(path, interfaces, device, executable, mode, template, targets, features)


def _file(found: dict[str, Any]) -> FirmwareFile:
    return FirmwareFile(str(found["filename"]), str(found["format"]))
