"""Reading what the guest printed on its serial port.

Each line is ``HOSTEL-GUEST``, an optional word, and ``key=value`` pairs. Firmware and terminals may put other text
between the lines and escape sequences before them; both are skipped.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_LINE: Final = re.compile(r"HOSTEL-GUEST ([^\r\n\x1b]*)[\r\n]")
_MAX_TEXT: Final = 16 << 20


class Disk(NamedTuple):
    """A drive as the BIOS sees it; ``number`` is 80h for the first."""

    number: int
    sectors: int
    sector_size: int

    @property
    def size(self) -> int:
        """Its capacity in bytes."""
        return self.sectors * self.sector_size


class Outcome(NamedTuple):
    """How one operation went: ``crc32`` for a sum, ``at`` the sector where it failed."""

    name: str
    drive: int
    lba: int
    sectors: int
    result: str
    crc32: int | None
    at: int | None


class Report(NamedTuple):
    """One boot of the guest.

    Attributes:
        label: the guest's name.
        medium: ``disk`` or ``cdrom``.
        drive: the drive that it was booted from.
        boot: its boot counter; None from a CD-ROM.
        write: ``ok`` when the counter was written, read again and found equal; ``none`` for a CD-ROM that could be
            read; otherwise what failed.
        disks: all hard disks.
        outcomes: the operations, in order.
        errors: what else went wrong, such as ``poweroff``.
        failures: the guest's own count; None when it has not finished.
        mode: what it did next; None when it has not finished.
        power_button: the power button was pressed.
    """

    label: str
    medium: str
    drive: Disk
    boot: int | None
    write: str
    disks: tuple[Disk, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    errors: tuple[str, ...] = ()
    failures: int | None = None
    mode: str | None = None
    power_button: bool = False

    @property
    def complete(self) -> bool:
        """Whether the guest has said all that it has to say."""
        return self.failures is not None

    @property
    def ok(self) -> bool:
        """Whether the guest has finished and found nothing wrong."""
        return self.failures == 0 and not self.errors and self.write in ("ok", "none")


def parse_reports(text: str) -> list[Report]:
    """Read every boot in a serial log, oldest first; lines that are damaged or not yet whole are left out."""
    reports: list[Report] = []
    for match in _LINE.finditer(text[-_MAX_TEXT:]):
        words = match.group(1).split()
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        verb = words[0] if words and "=" not in words[0] else ""
        try:
            if not verb and "label" in fields:
                reports.append(_identity(fields))
            elif reports:
                reports[-1] = _add(reports[-1], verb, fields)
        except (KeyError, ValueError):
            continue
    return reports


def parse_report(text: str) -> Report | None:
    """Read the last boot in a serial log; None when no guest has spoken."""
    reports = parse_reports(text)
    return reports[-1] if reports else None


def _identity(fields: dict[str, str]) -> Report:
    boot = int(fields["boot"]) if "boot" in fields else None
    return Report(fields["label"], fields["medium"], _disk(fields), boot, fields["write"])


def _disk(fields: dict[str, str]) -> Disk:
    return Disk(int(fields["drive"], 16), int(fields["sectors"]), int(fields["sector-size"]))


def _add(report: Report, verb: str, fields: dict[str, str]) -> Report:
    if verb == "disk":
        return report._replace(disks=(*report.disks, _disk(fields)))
    if verb in ("sum", "fill", "verify"):
        crc32 = int(fields["crc32"], 16) if "crc32" in fields else None
        at = int(fields["at"]) if "at" in fields else None
        drive, lba, sectors = int(fields["drive"], 16), int(fields["lba"]), int(fields["sectors"])
        outcome = Outcome(verb, drive, lba, sectors, fields["result"], crc32, at)
        return report._replace(outcomes=(*report.outcomes, outcome))
    if verb == "done":
        return report._replace(failures=int(fields["failures"]), mode=fields["mode"])
    if verb == "power-button":
        return report._replace(power_button=True)
    if "error" in fields:
        return report._replace(errors=(*report.errors, fields["error"]))
    return report
