"""What is on a device, asked before anything is written to it, and clearing it (``virStorageBackendDeviceIsEmpty``)."""

from __future__ import annotations

import os
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.storage import content
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.holding import held, translating
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import MiB

_NOTHING: Final = 2  # blkid's exit code where it recognises nothing
_AMBIGUOUS: Final = 8
# Labels that blkid does not tell apart as parted does.
_PARTED_ONLY: Final = ("dvh", "pc98", "bsd")
_CLEARED: Final = MiB  # bytes at each end of a device


def found_on(device: str) -> str | None:
    """What blkid calls the file system, the volume or else the partition table on a device; None where is nothing.

    Raises:
        VirtError: ``STORAGE_PROBE_FAILED``: it cannot be read, or looks like several things at once.
    """
    if not os.access(device, os.R_OK):
        raise _failed(f"Failed to create filesystem probe for device {device}: it cannot be read")
    ended = tool.run(["blkid", "-p", "-o", "export", device], expected=(0, _NOTHING, _AMBIGUOUS))
    if ended.code == _AMBIGUOUS:
        raise _failed(f"device '{device}' looks like several things at once; clear it with 'wipefs --all {device}'")
    values = dict(line.split("=", 1) for line in ended.out.splitlines() if "=" in line)
    return values.get("TYPE") or values.get("PTTYPE")


def require_empty(device: str, format: str) -> None:
    """Make sure that a device may be formatted: nothing is on it.

    Raises:
        VirtError: ``STORAGE_POOL_BUILT`` when something is, ``STORAGE_PROBE_FAILED`` where that cannot be told.
    """
    found = found_on(device)
    if found == format:
        raise _built(f"Device '{device}' already formatted using '{format}'")
    if found is not None:
        raise _built(
            f"Format of device '{device}' does not match the expected format '{format}', forced overwrite is necessary"
        )


def require_label(device: str, format: str) -> None:
    """Make sure that a device has the partition table that a pool is to have.

    Raises:
        VirtError: it has another (``OPERATION_INVALID``), or none (``STORAGE_PROBE_FAILED``).
    """
    found = _parted_label(device) if format in _PARTED_ONLY else found_on(device)
    if found is None:
        raise _failed(f"Device '{device}' is unrecognized, requires build")
    if found != format:
        raise fault(
            ErrorCode.OPERATION_INVALID,
            f"Format of device '{device}' does not match the expected format '{format}'",
            ErrorDomain.STORAGE,
        )


def clear_ends(device: str) -> None:
    """Overwrite both ends of a device, where labels and signatures lie, unless somebody uses it.

    Raises:
        VirtError: ``OPERATION_INVALID`` when it is in use, naming by whom; the host's reason where it refuses.
    """
    with translating(f"cannot clear device '{device}'", device, device), held(device, device) as descriptor:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        zeroes = memoryview(bytes(min(_CLEARED, end)))
        content.write_all(descriptor, zeroes, 0)
        content.write_all(descriptor, zeroes, end - len(zeroes))
        os.fsync(descriptor)


def require_device(path: str, what: str) -> None:
    """Refuse what cannot be a device's path: a tool would take it for an option, or for something of its folder.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if not path.startswith("/"):
        raise fault(ErrorCode.INVALID_ARG, f"{what} '{path}' is not absolute", ErrorDomain.STORAGE)


def require_word(name: str, what: str) -> None:
    """Refuse a name that a tool would take for an option.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if not name or name.startswith("-") or not name.isprintable():
        raise fault(
            ErrorCode.INVALID_ARG,
            f"{what} '{name}' cannot be used: it is printable and does not begin with '-'",
            ErrorDomain.STORAGE,
        )


def _parted_label(device: str) -> str | None:
    ended = tool.run(["parted", "-s", "-m", device, "print"], expected=(0, 1))
    fields = ended.out.splitlines()[1].split(":") if ended.code == 0 and "\n" in ended.out else []
    return fields[5] if len(fields) > 5 else None


def _failed(detail: str) -> VirtError:
    return fault(ErrorCode.STORAGE_PROBE_FAILED, detail, ErrorDomain.STORAGE)


def _built(detail: str) -> VirtError:
    return fault(ErrorCode.STORAGE_POOL_BUILT, detail, ErrorDomain.STORAGE)
