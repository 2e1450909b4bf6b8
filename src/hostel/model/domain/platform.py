"""What a hypervisor brings to a document that leaves things out: its machines, its emulator, its models.

Defaults and places are worked out from a document and one of these; the host is not asked.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from hostel.model.domain.domain import Domain


class Board(enum.Enum):
    """The kind of machine, as far as its buses go."""

    I440FX = "i440fx"
    Q35 = "q35"
    ISA = "isa"
    OTHER = "other"


class Platform(NamedTuple):
    """A hypervisor's defaults.

    Attributes:
        is_qemu: whether devices get the places and the company that QEMU's machines give them.
        arch: the architecture of guests that name none.
        emulator: the program, for documents that name none; None where there is no such thing.
        machine: the machine type of guests that name none.
        aliases: machine types that stand for others, such as ``pc``.
        cpu: QEMU's default processor model.
    """

    is_qemu: bool = False
    arch: str | None = None
    emulator: str | None = None
    machine: str | None = None
    aliases: Mapping[str, str] = {}
    cpu: str | None = None


X86 = ("i686", "x86_64")


def board_of(domain: Domain) -> Board:
    """Which board a document's machine type means."""
    kind = domain.os.type if domain.os is not None else None
    if kind is None or kind.arch not in X86 or kind.machine is None:
        return Board.OTHER
    machine = kind.machine
    if machine == "isapc":
        return Board.ISA
    if machine == "q35" or machine.startswith("pc-q35"):
        return Board.Q35
    if machine == "pc" or machine.startswith(("pc-0.", "pc-1.", "pc-i440", "rhel")):
        return Board.I440FX
    return Board.OTHER
