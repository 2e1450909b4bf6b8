"""Which format an image's first bytes are of."""

from __future__ import annotations

from typing import Final

from hostel.block.registry import FORMATS, KNOWN_FORMATS, format_driver

HEAD_LENGTH: Final = 512  # bytes: QEMU's BLOCK_PROBE_BUF_SIZE


def detect(head: bytes, filename: str) -> str:
    """The name of the format of an image that starts with ``head``; ``raw`` where none is recognised.

    A format that we know only by its magic is named too: opening it then fails by name instead of showing its
    bytes as a raw disk.
    """
    best, best_score = "raw", 1
    for name, row in FORMATS.items():
        if row.magic and _matches(head, row.magic):
            score = format_driver(name).probe(head, filename)
            if score > best_score:
                best, best_score = name, score
    if best == "raw":
        for name, magic in KNOWN_FORMATS.items():
            if _matches(head, magic):
                return name
    return best


def _matches(head: bytes, magic: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head[offset : offset + len(value)] == value for offset, value in magic)
