"""A look at a domain's memory and disks."""

from __future__ import annotations

import enum
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain

MOST_PEEKED = 4 << 20  # bytes: REMOTE_DOMAIN_MEMORY_PEEK_BUFFER_MAX


class PeekFlag(enum.IntFlag):
    """``virDomainPeekFlags``: what addresses are."""

    NONE = 0
    VIRTUAL = 1
    PHYSICAL = 2


@runtime_checkable
class PeekDriver(Protocol):
    """Looks into running domains."""

    def domain_memory_peek(self, domain: DomainRef, offset: int, size: int, flags: PeekFlag) -> bytes:
        """A piece of memory, from an address on that is virtual for the first CPU, or physical."""

    def domain_block_peek(self, domain: DomainRef, path: str, offset: int, size: int) -> bytes:
        """A piece of a raw disk."""


def check_peek(size: int, flags: PeekFlag, speaker: ErrorDomain) -> None:
    """Refuse a look that says not what addresses are, or is at too much.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if flags not in (PeekFlag.VIRTUAL, PeekFlag.PHYSICAL):
        what = "flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL"
        raise fault(ErrorCode.INVALID_ARG, what, speaker)
    check_size(size, speaker)


def check_size(size: int, speaker: ErrorDomain) -> None:
    """Refuse to look at too much.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if size > MOST_PEEKED:
        raise fault(ErrorCode.INVALID_ARG, f"size must be at most {MOST_PEEKED} bytes, not {size}", speaker)
