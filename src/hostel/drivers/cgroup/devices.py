"""Which devices of the host those in a group may open (``vircgroupv1.c``, ``vircgroupv2devices.c``).

Version 1 has files for it. Version 2 asks a program (``BPF_PROG_TYPE_CGROUP_DEVICE``) that stays with the group, and
takes the place of the one before at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.cgroup.group import Group

_SYSCALLS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "ppc64": 361, "s390x": 351}
# enum bpf_cmd, bpf_prog_type, bpf_attach_type (linux/bpf.h)
_LOAD, _ATTACH, _DEVICE_PROGRAM, _DEVICE = 5, 8, 15, 6
_KINDS: Final = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_MAKE: Final = 1  # BPF_DEVCG_ACC_MKNOD, beside which reading and writing are what is allowed
_ATTRIBUTES: Final = 128  # bytes


class Rule(NamedTuple):
    """Devices that may be read and written, of a kind (``b`` or ``c``) and a major; without a minor all of them."""

    kind: str
    major: int
    minor: int | None = None

    def format(self) -> str:
        """As the files of version 1 have it."""
        return f"{self.kind} {self.major}:{'*' if self.minor is None else self.minor} rw"


def rules(paths: Iterable[str]) -> set[Rule]:
    """What lets somebody open those of these files that are devices."""
    found: set[Rule] = set()
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else ""
        if kind:
            found.add(Rule(kind, os.major(status.st_rdev), os.minor(status.st_rdev)))
    return found


def restrict(group: Group, allowed: Collection[Rule]) -> None:
    """Let those in the group open these devices, and no others.

    Raises:
        OSError: the host refuses.
    """
    if group.is_unified("devices"):
        _attach(group.folder("devices"), _program(allowed))
        return
    folder = group.folder("devices")
    wanted, has = {rule.format() for rule in allowed}, set((folder / "devices.list").read_text().splitlines())
    if any(line.startswith("a ") for line in has):
        (folder / "devices.deny").write_text("a")
        has = set()
    for name, lines in (("allow", wanted - has), ("deny", has - wanted)):
        for line in sorted(lines):
            (folder / f"devices.{name}").write_text(line)


def _program(allowed: Collection[Rule]) -> bytes:
    """Instructions that answer 1 where a device may be opened.

    They find the kind in the lower half of the first word, what is to be done in the upper half; then major and minor.
    """
    text = _instruction(0x61, 2, 1) + _instruction(0xBC, 3, 2) + _instruction(0x54, 2, value=0xFFFF)
    text += _instruction(0x74, 3, value=16) + _instruction(0x61, 4, 1, 4) + _instruction(0x61, 5, 1, 8)
    text += _instruction(0x54, 3, value=_MAKE) + _instruction(0x55, 3, skip=6 * len(allowed))
    for rule in sorted(allowed, key=lambda it: (it.kind, it.major, -1 if it.minor is None else it.minor)):
        has_minor = rule.minor is not None
        text += _instruction(0x55, 2, skip=4, value=_KINDS[rule.kind])
        text += _instruction(0x55, 4, skip=3, value=rule.major)
        text += _instruction(0x55, 5, skip=2, value=rule.minor or 0) if has_minor else _instruction(0xBF, 5, 5)
        text += _instruction(0xB7, 0, value=1) + _instruction(0x95) + _instruction(0xBF, 5, 5)
    return text + _instruction(0xB7, 0) + _instruction(0x95)


def _instruction(code: int, target: int = 0, source: int = 0, skip: int = 0, value: int = 0) -> bytes:
    registers = source << 4 | target if sys.byteorder == "little" else target << 4 | source
    return struct.pack("=BBhi", code, registers, skip, value)


def _attach(folder: Path, text: bytes) -> None:
    instructions, licence = ctypes.create_string_buffer(text, len(text)), ctypes.create_string_buffer(b"GPL")
    places = (ctypes.addressof(instructions), ctypes.addressof(licence))
    program = _bpf(_LOAD, struct.pack("=IIQQ", _DEVICE_PROGRAM, len(text) // 8, *places))
    try:
        group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_ATTACH, struct.pack("=IIII", group, program, _DEVICE, 0))
        finally:
            os.close(group)
    finally:
        os.close(program)


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    given = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    found = int(ctypes.CDLL(None, use_errno=True).syscall(number, command, given, _ATTRIBUTES))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
