"""Every failure as libvirt's error: what a client is told."""

from __future__ import annotations

import re
from typing import Final

from hostel.daemon.access import api_name
from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError

# What is done with events speaks for no part.
_EVENTS: Final = re.compile(r"virConnect\w*Event(Der|R)egister")
_BY_WORD: Final = {
    "DomainSnapshot": ErrorDomain.DOMAIN_SNAPSHOT,
    "DomainCheckpoint": ErrorDomain.DOMAIN_CHECKPOINT,
    "Domain": ErrorDomain.DOMAIN,
    "DefinedDomains": ErrorDomain.DOMAIN,
    "NodeDevice": ErrorDomain.NODEDEV,
    "Devices": ErrorDomain.NODEDEV,
    "Network": ErrorDomain.NETWORK,
    "Storage": ErrorDomain.STORAGE,
    "Interface": ErrorDomain.INTERFACE,
    "Secret": ErrorDomain.SECRET,
    "NWFilter": ErrorDomain.NWFILTER,
    "Stream": ErrorDomain.STREAMS,
}
_PARTS: Final = re.compile(
    rf"vir(?:Connect|Node(?=List|NumOf))?(?:ListAll|ListDefined|List|NumOfDefined|NumOf|Find|Get)?({'|'.join(_BY_WORD)})"
)

# Errors that functions raise before they ask a driver, and those that both do.
_OF_FUNCTIONS: Final = (ErrorCode.NO_SUPPORT, ErrorCode.OPERATION_DENIED, ErrorCode.INVALID_CONN)
_OF_BOTH: Final = (ErrorCode.INVALID_ARG, ErrorCode.ARGUMENT_UNSUPPORTED)
_MACHINES: Final = (ErrorDomain.DOMAIN, ErrorDomain.DOMAIN_SNAPSHOT, ErrorDomain.DOMAIN_CHECKPOINT)


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


def located(error: VirtError, function: str, driver: ErrorDomain = ErrorDomain.NONE) -> VirtError:
    """An error with the part of libvirt that speaks where it does not say: that of the function, or the driver.

    Args:
        error: is changed.
        function: C's name of the function that failed.
        driver: the part that answers for the function's objects; none where no driver was asked.
    """
    if _EVENTS.match(function):
        return error
    if error.domain == ErrorDomain.NONE:
        if error.code in _OF_FUNCTIONS or (error.code in _OF_BOTH and driver == ErrorDomain.NONE):
            error.domain = _part(function)
        else:
            error.domain = driver
    elif error.domain == ErrorDomain.XML and error.code == ErrorCode.XML_DETAIL:
        error.domain = _part(function)
    return error


def _part(function: str) -> ErrorDomain:
    match = _PARTS.match(function)
    return _BY_WORD[match[1]] if match else ErrorDomain.DOMAIN


def speaker(procedure: str, uri: str) -> ErrorDomain:
    """The part of libvirt whose driver answers for the objects of a procedure, in a connection of a URI."""
    if uri.startswith("test"):
        return ErrorDomain.TEST
    part = _part(api_name(procedure))
    return ErrorDomain.QEMU if part in _MACHINES else part
