"""The built-in guest in tests: a bootable ISO of it, and the byte oracle of a disk that it works on."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

from hostel import guest
from hostel.guest import Operation, OperationCode, Report


def write_iso(path: Path, *, label: str = "cdrom", mode: guest.Mode = guest.Mode.POWEROFF) -> Path:
    """Write a bootable CD-ROM image with the guest on it."""
    import pycdlib

    program = guest.cdrom_image(label=label, mode=mode)
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="HOSTEL")
    iso.add_fp(io.BytesIO(program), len(program), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1", bootcatfile="/BOOT.CAT;1", boot_load_size=len(program) // guest.SECTOR)
    iso.write(str(path))
    iso.close()
    return path


def report_of(text: str) -> Report:
    """The last boot in a serial log, which must be there."""
    report = guest.parse_report(text)
    assert report is not None, f"no guest spoke on the serial port:\n{text}"
    return report


class Oracle:
    """What a disk must hold: the host writes some ranges, the guest checks them and writes others, the host checks.

    Ranges are of whole sectors, never overlap and never touch the guest's own program.
    """

    def __init__(self, size: int, *, seed: int = 1, ranges: int = 6) -> None:
        rng = random.Random(seed)
        sectors = size // guest.SECTOR
        step = sectors // (2 * ranges + 1)
        starts = [step * (index + 1) + rng.randrange(step // 4) for index in range(2 * ranges - 1)]
        lengths = [rng.choice((1, 3, 8, 65, 128, 200)) for _ in starts]
        chosen = [(lba, min(count, step // 2), rng.getrandbits(32)) for lba, count in zip(starts, lengths, strict=True)]
        last = min(7, step // 2)
        chosen.append((sectors - last, last, rng.getrandbits(32)))  # up to the very last sector
        self.size = size
        self.by_host = chosen[0::2]
        self.by_guest = chosen[1::2]

    def operations(self) -> list[Operation]:
        """What the guest is asked to do: verify the host's ranges, write and verify its own."""
        verify = [Operation(OperationCode.VERIFY, *item) for item in self.by_host]
        fill = [Operation(OperationCode.FILL, *item) for item in self.by_guest]
        again = [Operation(OperationCode.VERIFY, *item) for item in self.by_guest]
        return verify + fill + again

    def image(self, label: str, mode: guest.Mode = guest.Mode.POWEROFF) -> bytes:
        """The disk before the boot: the guest with its parameters, and the host's ranges."""
        content = bytearray(guest.image(label=label, mode=mode, operations=self.operations(), size=self.size))
        _fill(content, self.by_host)
        return bytes(content)

    def written(self, boots: int) -> list[tuple[int, bytes]]:
        """What the guest has written after ``boots`` boots: where, and the bytes."""
        ranges = [(lba * guest.SECTOR, guest.pattern(seed, lba, count)) for lba, count, seed in self.by_guest]
        return [*ranges, (guest.state_offset(), guest.state_sector(boots))]

    def after(self, before: bytes, boots: int) -> bytes:
        """The disk after ``boots`` boots, to the last byte."""
        content = bytearray(before)
        for start, data in self.written(boots):
            content[start : start + len(data)] = data
        return bytes(content)


def _fill(content: bytearray, ranges: Sequence[tuple[int, int, int]]) -> None:
    for lba, count, seed in ranges:
        content[lba * guest.SECTOR : (lba + count) * guest.SECTOR] = guest.pattern(seed, lba, count)
