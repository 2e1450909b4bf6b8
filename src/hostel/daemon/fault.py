"""Every failure as libvirt's error: what a client is told."""

from __future__ import annotations

from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError


def describe(error: Exception) -> VirtError:
    """An exception as a :class:`VirtError`; what nobody foresaw is named, without its details."""
    if isinstance(error, VirtError):
        return error
    if isinstance(error, HostelError):
        return fault(ErrorCode.INTERNAL_ERROR, str(error), ErrorDomain.RPC)
    if isinstance(error, UnicodeEncodeError):
        # What a client calls something may be any bytes, and what we have is called by text.
        return fault(ErrorCode.INVALID_ARG, "a name or a path is not UTF-8", ErrorDomain.RPC)
    if isinstance(error, OSError):
        return system_fault(error, "the host refused")
    if isinstance(error, MemoryError):
        return VirtError(ErrorCode.NO_MEMORY, "out of memory")
    return fault(ErrorCode.INTERNAL_ERROR, f"{type(error).__name__}; the daemon's log says more", ErrorDomain.RPC)
