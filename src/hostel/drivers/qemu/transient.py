"""Disks whose writes are thrown away (``<transient/>``): each run has overlays of its own on their images.

The overlays are in the machine's state before they are there, and are removed by whoever drops that state, or takes
the disk out of the machine. The images themselves are only read, by any number of machines at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.block.chain import Image, images, over
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk, DiskDriver
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running

_FORMAT: Final = "qcow2"


def _suffix(domain: str) -> str:
    return f".TRANSIENT-{domain}"


def overlay_of(disk: Disk, domain: str) -> str | None:
    """The overlay that a disk of a running domain is on; None where it is on none."""
    path = disk.source.file if disk.transient is not None and disk.source is not None else None
    return path if path is not None and path.endswith(_suffix(domain)) else None


def overlays(domain: Domain) -> list[str]:
    """The overlays of all disks of a running domain."""
    found = (overlay_of(disk, domain.name) for disk in domain.devices.disks)
    return [path for path in found if path is not None]


def put_over(disk: Disk, domain: str) -> Disk:
    """A transient disk as it is on its overlay, which is not made yet; other disks stay as they are.

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED``: there is a file in the overlay's place.
    """
    if disk.transient is None:
        return disk
    path = f"{next(images(disk)).path}{_suffix(domain)}"
    if os.path.lexists(path):
        raise _exists(path, disk)
    return over(disk, Image(0, SourceType.FILE, DiskSource(file=path), _FORMAT, None))


def _exists(path: str, disk: Disk) -> VirtError:
    what = f"Overlay file '{path}' for transient disk '{disk.target.dev}' already exists"
    return fault(
        ErrorCode.OPERATION_UNSUPPORTED, f"{what}; remove it, if no machine is on it any more", ErrorDomain.QEMU
    )


def make(disk: Disk) -> None:
    """Make the overlay that a disk is to be on; what is in its place is left alone.

    Raises:
        VirtError: the host refused, or the file is there.
    """
    # Imported here: only what makes images needs the block layer.
    from hostel.drivers.qemu.block.create import create_over

    overlay, below = list(images(disk))[:2]
    try:
        os.close(os.open(overlay.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise _exists(overlay.path, disk) from error
    except OSError as error:
        raise system_fault(error, f"failed to create image file '{overlay.path}'", ErrorDomain.QEMU) from error
    try:
        create_over(below, overlay)
    except BaseException:
        discard([overlay.path])
        raise


def make_for(machine: Running, disk: Disk) -> None:
    """Make the overlay of a disk that is about to be plugged in.

    Raises:
        VirtError: it cannot be made; the machine's state knows of none then.
    """
    path = overlay_of(disk, machine.name)
    if path is None:
        return
    known = machine.status.overlays
    machine.save(overlays=(*known, path))
    try:
        make(disk)
    except BaseException:
        machine.save(overlays=known)
        raise


def sweep(machine: Running) -> None:
    """Remove the overlays of disks that are no longer in the machine."""
    kept = overlays(machine.domain)
    left = tuple(path for path in machine.status.overlays if path in kept)
    if left != machine.status.overlays:
        discard([path for path in machine.status.overlays if path not in kept])
        machine.save(overlays=left)


def make_all(domain: Domain) -> None:
    """Make the overlays of all disks of a domain that is about to run.

    Raises:
        VirtError: one cannot be made; none is there then.
    """
    made: list[str] = []
    try:
        for disk in domain.devices.disks:
            path = overlay_of(disk, domain.name)
            if path is not None:
                make(disk)
                made.append(path)
    except BaseException:
        discard(made)
        raise


def discard(paths: Iterable[str]) -> None:
    """Remove overlays; one that is not there is gone already."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def take_off(domain: Domain) -> None:
    """Put the disks of a document back on the images beneath their overlays."""
    for disk in domain.devices.disks:
        if overlay_of(disk, domain.name) is None or (below := disk.backing_store) is None or below.source is None:
            continue
        disk.type, disk.source = below.type or SourceType.FILE, below.source
        disk.driver = disk.driver or DiskDriver()
        disk.driver.type = below.image_format.type if below.image_format is not None else None
        disk.backing_store = below.backing_store


def check_can_be_saved(domain: Domain) -> None:
    """Refuse to keep memory, which would know disks that end with the machine.

    Raises:
        VirtError: ``OPERATION_INVALID``, in libvirt's words.
    """
    if any(disk.transient is not None for disk in domain.devices.disks):
        what = "Requested operation is not valid: migration with transient disk is not supported"
        raise VirtError(ErrorCode.OPERATION_INVALID, what, domain=ErrorDomain.QEMU)
