"""What of a snapshot is refused, once it is said of each disk what becomes of it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.block.chain import check_jobs_supported
from hostel.drivers.snapshot_alignment import Plan
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.os import Nvram, Os
from hostel.model.domain.rules.disk import is_empty
from hostel.model.domain.rules.machine import has_uefi
from hostel.model.snapshot import Snapshot, SnapshotDisk, SnapshotDriver, SnapshotMemory

_INTERNAL_FORMATS = ("qcow2",)
_OVERLAYS = ("qcow2", "qed")


def check(snapshot: Snapshot, plan: Plan, *, is_active: bool, flags: SnapshotCreateFlag) -> None:
    """Refuse what cannot be kept together, and say of what format overlays are.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``, in libvirt's words.
    """
    internal, external = plan.of("internal"), plan.of("external")
    memory = (snapshot.memory or SnapshotMemory()).snapshot
    is_disk_only = snapshot.state == "disk-snapshot"
    for disk, _ in (*internal, *external):
        check_jobs_supported(disk)
    for disk, wanted in internal:
        if is_disk_only and is_active:
            raise _unsupported(
                f"active qemu domains require external disk snapshots; disk {wanted.name} requested internal"
            )
        fmt = disk.image_format
        if fmt not in _INTERNAL_FORMATS:
            raise _unsupported(f"internal snapshot for disk {wanted.name} unsupported for storage type {fmt}")
    if internal and isinstance(snapshot.domain, Domain):
        _check_variables(snapshot.domain.os)
    for disk, wanted in external:
        if disk.shareable and not disk.readonly:  # an overlay is one guest's alone; the others write on below it
            raise _unsupported(f"shared access for disk '{wanted.name}' requires use of supported storage format")
        _check_overlay(wanted, reuse=bool(flags & SnapshotCreateFlag.REUSE_EXT))
    if not internal and not external and memory in (None, "no"):
        raise _unsupported("nothing selected for snapshot")
    excluded = [
        wanted
        for disk, wanted in plan.disks
        if wanted.snapshot == "manual" or (wanted.snapshot == "no" and not is_empty(disk) and not disk.readonly)
    ]
    if (memory == "internal" and not internal) or (internal and excluded):
        raise _unsupported("internal and full system snapshots require all disks to be selected for snapshot")
    if is_disk_only and not external:
        raise _unsupported("disk-only snapshots require at least one disk to be selected for snapshot")
    if (internal and external) or (memory == "internal" and external) or (memory == "external" and internal):
        raise _unsupported("mixing internal and external targets for a snapshot is not yet supported")


def _check_variables(found: Os | None) -> None:
    """UEFI's variables go back with the disks, or nothing does: a guest does not stand to find others."""
    is_stateless = found is not None and found.loader is not None and found.loader.stateless
    if found is None or not has_uefi(found) or is_stateless or (found.nvram or Nvram()).format_name == "qcow2":
        return
    what = "internal snapshots of a VM with pflash based firmware are not supported"
    raise _unsupported(f"{what} where its variables are not in qcow2; write <nvram format='qcow2'>")


def _check_overlay(wanted: SnapshotDisk, *, reuse: bool) -> None:
    wanted.driver = wanted.driver or SnapshotDriver()
    wanted.driver.type = wanted.driver.type or "qcow2"
    if wanted.driver.type not in _OVERLAYS:
        raise _unsupported(f"external snapshot format for disk {wanted.name} is unsupported: {wanted.driver.type}")
    path = Path((wanted.source.file or wanted.source.dev or "") if wanted.source is not None else "")
    try:
        status: os.stat_result | None = path.stat()
    except OSError:
        status = None
    if status is None and reuse:
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        raise system_fault(missing, f"missing existing file for disk {wanted.name}: {path}", ErrorDomain.QEMU)
    if status is not None and not reuse and stat.S_ISREG(status.st_mode) and status.st_size:
        raise _unsupported(
            f"external snapshot file for disk {wanted.name} already exists and is not a block device: {path}"
        )


def _unsupported(message: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, message, ErrorDomain.QEMU)
