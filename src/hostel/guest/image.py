"""Building the guest's disk and CD-ROM images: the program, a parameter sector for it, and its boot counter."""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Final, NamedTuple

from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.errors import UsageError
from hostel.guest.assembler import Assembly, assemble
from hostel.guest.pattern import SECTOR, stream

PARAMETERS_MAGIC: Final = b"HOSTELPS"
STATE_MAGIC: Final = b"HOSTELST"
VERSION: Final = 1
MAX_OPERATIONS: Final = 19
MAX_LABEL: Final = 31


class Mode(enum.IntEnum):
    """What the guest does once it has reported."""

    POWEROFF = 0
    """Switch the machine off through ACPI."""
    WAIT = 1
    """Echo the serial console until the ACPI power button is pressed, then switch off."""
    REBOOT = 2
    """Reset the machine; with ``until``, switch off instead once the boot counter has reached it."""
    STAY = 3
    """Echo the serial console and ignore the power button."""


class OperationCode(enum.IntEnum):
    """What an :class:`Operation` does with its sectors."""

    SUM = 1
    """Report the CRC-32 of what is there."""
    FILL = 2
    """Write the pattern of the seed."""
    VERIFY = 3
    """Compare with the pattern of the seed."""


class Operation(NamedTuple):
    """Work on ``sectors`` sectors from ``lba`` on; ``drive`` is the BIOS's number, 0 for the drive booted from."""

    code: OperationCode
    lba: int
    sectors: int
    seed: int = 0
    drive: int = 0


class _Parameters(Record, endian="little"):
    """The parameter sector's first 48 bytes; operations of 24 bytes follow."""

    magic: Annotated[bytes, 8]
    version: u16
    mode: u8
    operations: u8
    until: u32
    label: Annotated[bytes, 32]


class _Operation(Record, endian="little"):
    code: u8
    drive: u8
    reserved: u16
    seed: u32
    lba: u64
    sectors: u32
    reserved2: u32


class State(NamedTuple):
    """The boot counter's sector as the host reads it; ``intact`` when its pattern is that of the count."""

    boot_count: int
    intact: bool


@functools.cache
def program() -> Assembly:
    """Assemble ``boot.asm``."""
    return assemble(_source("boot.asm"), name="boot.asm")


def _source(name: str) -> str:
    return resources.files("hostel.guest").joinpath(name).read_text(encoding="utf-8")


def image(
    *,
    label: str = "hostel",
    mode: Mode = Mode.POWEROFF,
    until: int = 0,
    operations: Sequence[Operation] = (),
    size: int | None = None,
) -> bytes:
    """Build the guest for a disk.

    Args:
        label: its name in reports, up to 31 printable ASCII characters without spaces.
        mode: what it does after its report.
        until: with ``Mode.REBOOT``, the boot count at which it powers off instead; 0 for never.
        operations: up to 19, carried out at each boot.
        size: pad with zeroes to this many bytes; otherwise the image ends with the guest's last sector.

    Returns:
        The bytes from sector 0 on, a whole number of sectors.

    Raises:
        UsageError: a value is out of its limits.
    """
    code = _with_parameters(label, mode, until, operations)
    state = program().offset("state")
    code[state : state + len(STATE_MAGIC)] = STATE_MAGIC
    if size is None:
        return bytes(code)
    if size < len(code) or size % SECTOR:
        raise UsageError(
            f"the guest needs {len(code)} bytes and whole sectors of {SECTOR}; a size of {size} will not do"
        )
    return bytes(code) + bytes(size - len(code))


def cdrom_image(*, label: str = "cdrom", mode: Mode = Mode.POWEROFF, operations: Sequence[Operation] = ()) -> bytes:
    """Build the guest for El Torito, as a boot image without emulation.

    The catalogue entry must load all of it: its sector count is ``len(image) // 512``. Operations work on the machine's
    disks, so each needs its drive.

    Raises:
        UsageError: a value is out of its limits.
    """
    code = _with_parameters(label, mode, 0, operations)
    code[program().offset("medium")] = 1
    return bytes(code)


def probe_sector() -> bytes:
    """Build the boot sector that ends QEMU with status 85 through ``isa-debug-exit`` at port F4h, of four bytes."""
    return assemble(_source("probe.asm"), name="probe.asm").code


def state_offset() -> int:
    """Return where on a disk the boot counter is, in bytes."""
    return program().offset("state")


def state_sector(boot_count: int) -> bytes:
    """Build the boot counter's sector as the guest leaves it after ``boot_count`` boots."""
    head = STATE_MAGIC + boot_count.to_bytes(4, "little") + bytes(4)
    words = (SECTOR - len(head)) // 4
    return head + (stream(boot_count, state_offset() // SECTOR, words) if boot_count else bytes(4 * words))


def read_state(sector: bytes) -> State:
    """Read the boot counter's sector.

    Args:
        sector: the 512 bytes at :func:`state_offset`.

    Raises:
        UsageError: this is not a guest's state sector.
    """
    if len(sector) != SECTOR or not sector.startswith(STATE_MAGIC):
        raise UsageError("this is not the state sector of Hostel's guest; it starts with 'HOSTELST'")
    count = int.from_bytes(sector[8:12], "little")
    return State(count, bytes(sector) == state_sector(count))


def _with_parameters(label: str, mode: Mode, until: int, operations: Sequence[Operation]) -> bytearray:
    if not (1 <= len(label) <= MAX_LABEL and label.isascii() and label.isprintable() and " " not in label):
        raise UsageError(f"the guest's label '{label}' must be 1 to {MAX_LABEL} ASCII characters without spaces")
    if len(operations) > MAX_OPERATIONS:
        raise UsageError(f"the guest carries out {MAX_OPERATIONS} operations at most, not {len(operations)}")
    sector = _Parameters(
        magic=PARAMETERS_MAGIC,
        version=VERSION,
        mode=int(mode),
        operations=len(operations),
        until=until,
        label=label.encode().ljust(32, b"\0"),
    ).pack()
    for operation in operations:
        _check(operation)
        sector += _Operation(
            code=int(operation.code),
            drive=operation.drive,
            reserved=0,
            seed=operation.seed,
            lba=operation.lba,
            sectors=operation.sectors,
            reserved2=0,
        ).pack()
    code = bytearray(program().code)
    start = program().offset("parameters")
    code[start : start + len(sector)] = sector
    return code


def _check(operation: Operation) -> None:
    limits = (("lba", operation.lba, 64), ("sectors", operation.sectors, 32), ("seed", operation.seed, 32))
    for name, value, bits in (*limits, ("drive", operation.drive, 8)):
        if not 0 <= value < 1 << bits:
            raise UsageError(f"the {name} of a guest's operation is an unsigned number of {bits} bits, not {value}")
