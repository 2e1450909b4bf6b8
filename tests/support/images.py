"""Image files with content that is known: made through our own block layer, for tests that copy them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from hostel.block import graph
from hostel.block.driver import CACHE_MODES
from hostel.block.options import given_options
from hostel.img import create

UNSAFE = CACHE_MODES["unsafe"]


def make(
    path: Path,
    size: int,
    *,
    format: str = "qcow2",
    options: str = "",
    backing: Path | None = None,
    backing_format: str = "raw",
) -> None:
    """Create an empty image."""
    plan = create.plan(
        str(path),
        format,
        size,
        given=given_options(options),
        backing=None if backing is None else str(backing),
        backing_format=None if backing is None else backing_format,
    )
    create.create(plan, cache=UNSAFE)


def write(path: Path, format: str, pieces: Mapping[int, bytes | int]) -> None:
    """Write pieces by their offsets; an int is that many zeroes."""
    with graph.open(str(path), format, read_only=False, cache=UNSAFE) as node:
        for offset, data in pieces.items():
            if isinstance(data, int):
                node.write_zeroes(offset, data, unmap=True)
            else:
                node.pwrite(offset, data)


def content(path: Path, format: str) -> bytes:
    """All bytes of an image, read through its chain."""
    with graph.open(str(path), format) as node:
        return bytes(node.read(0, node.length))


def scatter(rng: random.Random, size: int, count: int) -> dict[int, bytes | int]:
    """Pieces of data and of zeroes at random places, in sectors or crossing them."""
    pieces: dict[int, bytes | int] = {}
    for _ in range(count):
        unit = rng.choice([1, 512, 4096, 65536])
        offset = rng.randrange(0, size, unit) if size > unit else 0
        length = min(size - offset, rng.randrange(1, 5) * unit)
        pieces[offset] = (
            length if rng.random() < 0.3 else rng.randbytes(1) * (length // 2) + rng.randbytes(length - length // 2)
        )
    return pieces


def apply(disk: bytearray, pieces: Mapping[int, bytes | int]) -> None:
    """Do to a bytearray what :func:`write` does to an image."""
    for offset, data in pieces.items():
        part = bytes(data) if isinstance(data, int) else data
        disk[offset : offset + len(part)] = part


def below(disk: bytes | bytearray, size: int) -> bytearray:
    """What an overlay of ``size`` bytes reads from a backing disk: cut off, or zeroes beyond its end."""
    return bytearray(disk[:size].ljust(size, b"\0"))
