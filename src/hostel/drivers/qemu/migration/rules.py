"""What may move, and what is safe to (``qemuMigrationSrcIsAllowed``, ``qemuMigrationSrcIsSafe``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.base.migration import COPIES_DISKS, MigrateFlag
from hostel.drivers.fault import fault
from hostel.drivers.qemu.block.chain import Image, images
from hostel.drivers.qemu.hostdevs import check_movable
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.settings import Migration
from hostel.drivers.qemu.transient import check_can_be_saved
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain

# File systems that several hosts have at once.
_SHARED: Final = frozenset({"nfs", "nfs4", "gfs2", "ocfs2", "afs", "cifs", "smb3", "ceph", "gpfs", "fuse.glusterfs"})
_REFUSED: Final = {
    MigrateFlag.RDMA_PIN_ALL: "RDMA",
    MigrateFlag.ZEROCOPY: "zero-copy",
    MigrateFlag.POSTCOPY_RESUME: "resuming of post-copy",
}


def check_flags(flags: MigrateFlag) -> None:
    """Refuse what does not go together, or is not there; at the source and at the destination.

    Raises:
        VirtError: in libvirt's words.
    """
    for flag, what in _REFUSED.items():
        if flags & flag:
            raise _unsupported(f"{what} is not supported by this driver's migration")
    if flags & MigrateFlag.NON_SHARED_DISK and flags & MigrateFlag.NON_SHARED_INC:
        what = "flags 'VIR_MIGRATE_NON_SHARED_DISK' and 'VIR_MIGRATE_NON_SHARED_INC' in function are mutually exclusive"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    if flags & MigrateFlag.TUNNELLED and not flags & MigrateFlag.PEER2PEER:
        raise _unsupported("cannot perform tunnelled migration without using peer2peer flag")
    if flags & MigrateFlag.TUNNELLED and flags & MigrateFlag.PARALLEL:
        raise _unsupported("parallel migration is not supported with tunnelled migration")
    if flags & MigrateFlag.TUNNELLED and flags & MigrateFlag.TLS:
        raise _unsupported("TLS is not supported with tunnelled migration: the tunnel has that of the daemons")
    if flags & MigrateFlag.POSTCOPY:
        if not flags & MigrateFlag.LIVE or flags & MigrateFlag.PAUSED:
            raise _unsupported("post-copy migration is not supported with non-live or paused migration")
        if flags & MigrateFlag.TUNNELLED:
            raise _unsupported("post-copy is not supported with tunnelled migration")
    if flags & COPIES_DISKS and flags & MigrateFlag.TUNNELLED:
        what = "migration of non-shared storage is not supported with tunnelled migration and this QEMU"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if flags & MigrateFlag.OFFLINE:
        if flags & COPIES_DISKS:
            raise invalid("offline migration cannot handle non-shared storage")
        if not flags & MigrateFlag.PERSIST_DEST:
            raise invalid("offline migration must be specified with the persistent flag set")
        if flags & MigrateFlag.TUNNELLED:
            raise invalid("tunnelled offline migration does not make sense")


def check_encrypted(flags: MigrateFlag, settings: Migration) -> None:
    """Refuse what would go without TLS where the host wants it (``migrate_tls_force``); a tunnel is the daemons'.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    if settings.tls_only and not flags & (MigrateFlag.TUNNELLED | MigrateFlag.TLS):
        raise invalid("this libvirtd instance allows migration only with VIR_MIGRATE_TLS flag (migrate_tls_force)")


def check_allowed(machine: Running, flags: MigrateFlag) -> None:
    """Refuse a machine that cannot move now.

    Raises:
        VirtError: in libvirt's words.
    """
    if machine.status.ending:
        raise invalid("domain is being ended")
    check_movable(machine.domain)
    blockers = machine.ask("query-migrate").get("blocked-reasons", [])
    if blockers:
        raise invalid(f"cannot migrate domain: {'; '.join(map(str, blockers))}")
    if flags & MigrateFlag.ABORT_ON_ERROR and machine.ask("query-status").get("status") == "io-error":
        raise invalid("cannot migrate domain with I/O error")
    if machine.status.jobs or machine.status.backup is not None:
        raise invalid("domain has active block job; end it with blockjob --abort or --pivot, or domjobabort")
    if machine.status.plugs:
        raise invalid("a device is on its way into the domain or out of it")
    check_can_be_saved(machine.domain)


def copied_disks(domain: Domain, chosen: Sequence[str]) -> list[Disk]:
    """The disks that are copied (``qemuMigrationAnyCopyDisk``): those that are named, or all that are the domain's own.

    Raises:
        VirtError: ``INVALID_ARG``: there is no disk of a name; ``OPERATION_UNSUPPORTED``: it cannot be copied.
    """
    disks = {disk.target.dev: disk for disk in domain.devices.disks}
    for name in chosen:
        if name not in disks:
            raise fault(ErrorCode.INVALID_ARG, f"disk target {name} not found", ErrorDomain.QEMU)
        if disks[name].readonly or _top(disks[name]) is None:
            what = f"Cannot migrate empty or read-only disk {name}"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if chosen:
        return [disks[name] for name in chosen]
    return [disk for disk in disks.values() if not disk.shareable and not disk.readonly and _top(disk) is not None]


def check_safe(domain: Domain, copied: Iterable[Disk]) -> None:
    """Refuse disks of which the other host may see something else.

    Raises:
        VirtError: ``MIGRATE_UNSAFE``.
    """
    moving = {disk.target.dev for disk in copied}
    for disk in domain.devices.disks:
        top = _top(disk)
        if top is None or disk.readonly or disk.target.dev in moving:
            continue
        if top.type == SourceType.NVME:
            where = "in this host"
        elif top.type == SourceType.FILE and (kind := file_system(Path(top.path))) not in _SHARED:
            where = f"on {kind or 'an unknown file system'}"
        else:
            continue
        raise VirtError(
            ErrorCode.MIGRATE_UNSAFE,
            f"Unsafe migration: Migration without shared storage is unsafe: disk '{disk.target.dev}' is {where}; "
            "give --copy-storage-all, or --unsafe if the destination has it",
            domain=ErrorDomain.QEMU,
        )


def file_system(path: Path) -> str:
    """The type of the file system that a file is on; empty where that cannot be told."""
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    number = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    for line in mounts:
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            return after.split()[0]
    return ""


def _top(disk: Disk) -> Image | None:
    return next(images(disk), None)


def _unsupported(message: str) -> VirtError:
    return fault(ErrorCode.ARGUMENT_UNSUPPORTED, message, ErrorDomain.QEMU)
