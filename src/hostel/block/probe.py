"""Which format an image's first bytes are of."""

from __future__ import annotations

from typing import Final

from hostel.block.registry import FORMATS, format_driver

HEAD_LENGTH: Final = 512  # bytes: QEMU's BLOCK_PROBE_BUF_SIZE
_QCOW: Final = b"QFI\xfb"
_VMDK_VERSIONS: Final = (b"version=1", b"version=2", b"version=3")


def detect(head: bytes, filename: str) -> str:
    """The name of the format of an image that starts with ``head``; ``raw`` where none is recognised."""
    best, best_score = "raw", 1
    for name, row in FORMATS.items():
        if row.may_be(head, filename):
            score = format_driver(name).probe(head, filename)
            if score > best_score:
                best, best_score = name, score
    return best


def matching(head: bytes, filename: str) -> list[str]:
    """All formats but ``raw`` that an image starting with ``head`` can be taken for, :func:`detect`'s choice first.

    More than one means that programs will not agree on what the image is. ``head`` may be longer than
    :data:`HEAD_LENGTH`: of VMware's descriptors, which are text, QEMU takes more than those that start as its own do.
    """
    found = [name for name, row in FORMATS.items() if row.may_be(head, filename)]
    found = [name for name in found if format_driver(name).probe(head[:HEAD_LENGTH], filename) > 1]
    if not found and head.startswith(_QCOW):
        found.append("qcow2")  # of a version that nobody knows: not a disk either
    if "vmdk" not in found and is_vmdk_descriptor(head):
        found.append("vmdk")
    return sorted(found, key=lambda name: name != detect(head[:HEAD_LENGTH], filename))


def is_vmdk_descriptor(head: bytes) -> bool:
    """Whether a text starts as QEMU accepts a VMware descriptor: ``version=1`` to 3 after comments and empty lines."""
    for line in head.split(b"\n"):
        text = line.removesuffix(b"\r")
        if text.startswith(b"#") or not text.strip(b" "):
            continue
        return text in _VMDK_VERSIONS
    return False
