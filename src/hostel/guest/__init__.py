"""The built-in guest: bytes for a disk or a CD-ROM that boots, and what it says on its serial port.

A pure layer: :func:`image` makes the bytes of a bootable disk, :func:`parse_report` reads the guest's answer, and
:func:`pattern` is what both sides write and check. The program itself is ``boot.asm``, assembled by
:mod:`hostel.guest.assembler`.

>>> disk = image(label="alpha", mode=Mode.POWEROFF, size=1 << 20)
>>> read_state(disk[state_offset() :][:512]).boot_count
0
"""

from __future__ import annotations

from hostel.guest.image import (
    Mode,
    Operation,
    OperationCode,
    State,
    cdrom_image,
    image,
    probe_sector,
    read_state,
    state_offset,
    state_sector,
)
from hostel.guest.pattern import SECTOR, pattern
from hostel.guest.report import Disk, Outcome, Report, parse_report, parse_reports

PROBE_STATUS = 85
"""QEMU's exit status when the probe sector ran: (2Ah << 1) | 1."""

__all__ = [
    "PROBE_STATUS",
    "SECTOR",
    "Disk",
    "Mode",
    "Operation",
    "OperationCode",
    "Outcome",
    "Report",
    "State",
    "cdrom_image",
    "image",
    "parse_report",
    "parse_reports",
    "pattern",
    "probe_sector",
    "read_state",
    "state_offset",
    "state_sector",
]
