"""Overwriting volumes: what each of libvirt's algorithms writes, as the ``scrub`` tool that libvirt calls has them.

Overwriting reaches what the host's file system maps to the file now. Where it writes elsewhere (copy-on-write file
systems, reflinked files, snapshots, flash), older copies stay.
"""

from __future__ import annotations

import os
import random
import secrets
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.drivers.base import Progress, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.content import CHUNK, data_ranges, write_all
from hostel.errors import ErrorCode, ErrorDomain

Pattern = bytes | None  # bytes that are repeated, from the start of the file on; None for random ones
RANDOM: Final = None


class Sequence(NamedTuple):
    """The passes of an algorithm; ``verify`` reads the last one back from the disk."""

    passes: tuple[Pattern, ...]
    verify: bool = False


def _repeated(*values: int) -> tuple[Pattern, ...]:
    return tuple(bytes([value]) for value in values)


# Gutmann, "Secure Deletion of Data from Magnetic and Solid-State Memory" (1996), table 1: passes 5 to 31.
_GUTMANN: Final[tuple[Pattern, ...]] = (
    *_repeated(0x55, 0xAA),
    b"\x92\x49\x24",
    b"\x49\x24\x92",
    b"\x24\x92\x49",
    *_repeated(*(value * 0x11 for value in range(16))),
    b"\x92\x49\x24",
    b"\x49\x24\x92",
    b"\x24\x92\x49",
    b"\x6d\xb6\xdb",
    b"\xb6\xdb\x6d",
    b"\xdb\x6d\xb6",
)
SEQUENCES: Final[dict[WipeAlgorithm, Sequence]] = {
    WipeAlgorithm.ZERO: Sequence(_repeated(0)),
    WipeAlgorithm.NNSA: Sequence((RANDOM, RANDOM, *_repeated(0)), verify=True),
    WipeAlgorithm.DOD: Sequence((*_repeated(0x00, 0xFF), RANDOM), verify=True),
    WipeAlgorithm.BSI: Sequence(_repeated(0xFF, 0xFE, 0xFD, 0xFB, 0xF7, 0xEF, 0xDF, 0xBF, 0x7F)),
    WipeAlgorithm.GUTMANN: Sequence((*[RANDOM] * 4, *_GUTMANN, *[RANDOM] * 4)),
    WipeAlgorithm.SCHNEIER: Sequence((*_repeated(0x00, 0xFF), *[RANDOM] * 5)),
    WipeAlgorithm.PFITZNER7: Sequence((RANDOM,) * 7),
    WipeAlgorithm.PFITZNER33: Sequence((RANDOM,) * 33),
    WipeAlgorithm.RANDOM: Sequence((RANDOM,)),
}


def check(algorithm: WipeAlgorithm) -> None:
    """Refuse what cannot be done to a file.

    Raises:
        VirtError: ``ARGUMENT_UNSUPPORTED``.
    """
    if algorithm not in SEQUENCES:
        raise fault(
            ErrorCode.ARGUMENT_UNSUPPORTED, f"'{algorithm.name.lower()}' algorithm not supported", ErrorDomain.STORAGE
        )


def wipe(descriptor: int, algorithm: WipeAlgorithm, progress: Progress | None) -> None:
    """Overwrite every allocated byte of an open file in place, pass by pass; holes have nothing to hide and stay.

    Raises:
        OSError: the host refuses, or a pass does not read back as it was written.
    """
    sequence = SEQUENCES[algorithm]
    status = os.fstat(descriptor)
    ranges = list(data_ranges(descriptor))
    total = sum(end - start for start, end in ranges) * (len(sequence.passes) + sequence.verify)
    done = 0
    for pattern in sequence.passes:
        seed = secrets.randbits(128)
        for offset, block in _blocks(ranges, pattern, seed):
            write_all(descriptor, block, offset)
            done += len(block)
            if progress is not None:
                progress(done, total)
        # Without this, the passes would meet in the page cache and only the last reach the disk.
        os.fsync(descriptor)
    if sequence.verify:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for offset, block in _blocks(ranges, pattern, seed):
            if os.pread(descriptor, len(block), offset) != block:
                raise OSError(f"what was written at offset {offset} does not read back")
            done += len(block)
            if progress is not None:
                progress(done, total)
    elif progress is not None:
        progress(total, total)
    if algorithm is WipeAlgorithm.ZERO and stat.S_ISREG(status.st_mode) and status.st_blocks * 512 < status.st_size:
        # A sparse file is one again afterwards, all holes, as libvirt leaves it.
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, status.st_size)
        os.fsync(descriptor)


def _blocks(ranges: list[tuple[int, int]], pattern: Pattern, seed: int) -> Iterator[tuple[int, memoryview]]:
    """What a pass writes where; the same for the same ``seed``."""
    repeated = memoryview((pattern or b"\0") * (CHUNK // len(pattern or b"\0") + 2))
    for start, end in ranges:
        for offset in range(start, end, CHUNK):
            length = min(CHUNK, end - offset)
            if pattern is None:
                yield offset, memoryview(random.Random(f"{seed} {offset}").randbytes(length))
            else:
                phase = offset % len(pattern)
                yield offset, repeated[phase : phase + length]
