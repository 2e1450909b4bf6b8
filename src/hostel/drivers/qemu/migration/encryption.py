"""TLS of what QEMU sends to the other host (``qemuMigrationParamsEnableTLS``)."""

from __future__ import annotations

from typing import Final

from hostel.drivers.base.migration import TLS_DESTINATION, MigrateFlag, Parameters
from hostel.drivers.fault import fault
from hostel.drivers.qemu import credentials
from hostel.drivers.qemu.migration.tuning import text
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain

CREDENTIALS: Final = "objlibvirt_migrate_tls0"
PLAIN: Final = {"tls-creds": "", "tls-hostname": ""}


def check_names(flags: MigrateFlag, params: Parameters, where: str, disks: str | None) -> None:
    """Refuse sockets where nobody knows whose certificate is expected.

    Args:
        flags: as the client gave them.
        params: likewise.
        where: the URI that QEMU sends to.
        disks: the one for disks; None where it is not said.

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED``.
    """
    if not flags & MigrateFlag.TLS:
        return
    if where.startswith("unix:") and text(params, TLS_DESTINATION) is None:
        what = "Explicit destination hostname is required for TLS migration over UNIX socket"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if disks is not None and disks.startswith("unix:"):
        what = "NBD migration with TLS is not supported over UNIX socket"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)


def give(machine: Running, flags: MigrateFlag, params: Parameters, end: str) -> dict[str, str]:
    """Give QEMU certificates where a migration is to have them; the parameters of the migration, without them too.

    Args:
        machine: the one that moves.
        flags: as the client gave them.
        params: likewise.
        end: ``client`` at the source, ``server`` at the destination.

    Raises:
        VirtError: there are none, or QEMU cannot read them; ``NO_SECRET``: their key's passphrase is not known.
    """
    if not flags & MigrateFlag.TLS:
        return PLAIN
    settings = machine.settings.migrate
    credentials.check_folder(settings, "host migration", end, "migrate")
    credentials.give(machine, CREDENTIALS, settings, end)
    return {"tls-creds": CREDENTIALS, "tls-hostname": text(params, TLS_DESTINATION) or ""}


def forget(machine: Running) -> None:
    """Take back what :func:`give` gave; QEMU may have ended."""
    machine.attempt("migrate-set-parameters", **PLAIN)
    credentials.take(machine, CREDENTIALS)
