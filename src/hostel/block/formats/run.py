"""Runs of clusters: what tables of clusters say of a range of the disk."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What a cluster is."""

    UNALLOCATED = 0
    ZERO = 1
    DATA = 2
    COMPRESSED = 3


class Run(NamedTuple):
    """Neighbouring guest bytes of one kind.

    Attributes:
        offset: guest offset, bytes.
        length: bytes; never 0.
        host: of DATA, and of ZERO that has a place, the host offset in bytes; of COMPRESSED, a cluster or a part of
            it, the table entry; else 0.
    """

    offset: int
    length: int
    kind: Kind
    host: int
