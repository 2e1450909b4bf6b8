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

# How the functions of the drivers begin that say what flags they do not know.
_DRIVERS: Final = {
    ErrorDomain.QEMU: "qemu",
    ErrorDomain.TEST: "test",
    ErrorDomain.STORAGE: "storage",
    ErrorDomain.NETWORK: "network",
    ErrorDomain.NODEDEV: "node",
    ErrorDomain.INTERFACE: "udev",
    ErrorDomain.SECRET: "secret",
    ErrorDomain.NWFILTER: "nwfilter",
}
# Those whose flags another function than the driver's own looks at.
_ELSEWHERE: Final = {
    "virDomainAttachDeviceFlags": "qemuDomainAttachDeviceLiveAndConfig",
    "virDomainBackupBegin": "qemuBackupBegin",
    "virDomainBackupGetXMLDesc": "qemuBackupGetXMLDesc",
    "virDomainCheckpointCreateXML": "qemuCheckpointCreateXML",
    "virDomainCheckpointDelete": "qemuCheckpointDelete",
    "virDomainCheckpointGetXMLDesc": "qemuCheckpointGetXMLDesc",
    "virDomainCoreDump": "qemuDomainCoreDumpWithFormat",
    "virDomainDetachDeviceAlias": "qemuDomainDetachDeviceAliasLiveAndConfig",
    "virDomainDetachDeviceFlags": "qemuDomainDetachDeviceLiveAndConfig",
    "virDomainQemuMonitorCommand": "qemuDomainQemuMonitorCommandWithFiles",
    "virDomainRevertToSnapshot": "qemuSnapshotRevert",
    "virDomainSnapshotCreateXML": "qemuSnapshotCreateXML",
    "virDomainSnapshotDelete": "qemuSnapshotDelete",
    "virNodeAllocPages": "virHostMemAllocPages",
    "virNodeGetCPUMap": "virHostCPUGetMap",
    "virNodeGetCPUStats": "virHostCPUGetStats",
    "virNodeGetFreePages": "virHostMemGetFreePages",
    "virNodeGetMemoryParameters": "virHostMemGetParameters",
    "virNodeGetMemoryStats": "virHostMemGetStats",
    "virNodeSetMemoryParameters": "virHostMemSetParameters",
    "virStorageVolDelete": "virStorageBackendVolDeleteLocal",
    "virStorageVolWipe": "storageVolWipePattern",
}
# Those that libvirt's test driver hands on.
_HANDED_ON: Final = {
    "virDomainCreateWithFiles": "testDomainCreateWithFlags",
    "virDomainCreateXMLWithFiles": "testDomainCreateXML",
}
_OF_NOBODY: Final = ("virNodeSuspendForDuration",)
_METADATA: Final = "virDomainGetMetadata"  # whose flags what all drivers share looks at
_PARAMETER: Final = re.compile(r"argument unsupported: parameter '.*' not supported")
_FLAGS_TOGETHER: Final = re.compile(r"Flags? 'VIR_\w+' (and|is required by flag) 'VIR_")
_UNKNOWN_FLAGS: Final = re.compile(r"unsupported flags \(0x[0-9a-f]+\) in function ")
_IN_A_NAME: Final = "invalid char in name"  # found by what reads values, and not by the parser
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
    if error.code == ErrorCode.INVALID_ARG:
        _say_who_looks(error, function, driver)
    if error.domain == ErrorDomain.NONE:
        if error.code not in _OF_FUNCTIONS and _speaks_for_nobody(error, function, driver):
            return error
        if error.code in _OF_FUNCTIONS or (error.code in _OF_BOTH and driver == ErrorDomain.NONE):
            error.domain = _part(function)
        else:
            error.domain = driver
    elif (
        error.domain == ErrorDomain.XML
        and error.code == ErrorCode.XML_DETAIL
        and not error.message.startswith(_IN_A_NAME)
    ):
        error.domain = _part(function)
    return error


def _say_who_looks(error: VirtError, function: str, driver: ErrorDomain) -> None:
    """Name the function of libvirt's that looks at the flags which are refused."""
    if error.domain == ErrorDomain.NONE and driver in _DRIVERS and (match := _UNKNOWN_FLAGS.match(error.message)):
        asked = _driver_function(function, driver)
        error.message = match[0] + asked
        if asked.startswith("virDomainObj"):
            error.domain = ErrorDomain.DOMAIN
    if error.details is None and _FLAGS_TOGETHER.match(error.message):
        asked = _driver_function(function, driver) if error.domain in _DRIVERS else function
        error.details = (asked, "ctl", None, 0, 0)


def _speaks_for_nobody(error: VirtError, function: str, driver: ErrorDomain) -> bool:
    """Whether what fails is of no part of libvirt's: what reads the host's files, and what checks parameters."""
    is_of_host = function in _OF_NOBODY or _ELSEWHERE.get(function, "").startswith("virHost")
    if driver != ErrorDomain.TEST and is_of_host:
        return True
    return error.code == ErrorCode.ARGUMENT_UNSUPPORTED and _PARAMETER.fullmatch(error.message) is not None


def _driver_function(function: str, driver: ErrorDomain) -> str:
    """The driver's function behind one of libvirt's: ``qemuDomainReset``, ``storagePoolRefresh``."""
    if function == _METADATA and driver != ErrorDomain.TEST:
        return function.replace("virDomain", "virDomainObj")
    elsewhere = _HANDED_ON if driver == ErrorDomain.TEST else _ELSEWHERE
    if function in elsewhere:
        return elsewhere[function]
    prefix, name = _DRIVERS[driver], function.removeprefix("vir")
    return prefix + (name[len(prefix) :] if name.lower().startswith(prefix) else name)


def _part(function: str) -> ErrorDomain:
    match = _PARTS.match(function)
    return _BY_WORD[match[1]] if match else ErrorDomain.DOMAIN


def speaker(procedure: str, uri: str) -> ErrorDomain:
    """The part of libvirt whose driver answers for the objects of a procedure, in a connection of a URI."""
    if uri.startswith("test"):
        return ErrorDomain.TEST
    part = _part(api_name(procedure))
    return ErrorDomain.QEMU if part in _MACHINES else part
