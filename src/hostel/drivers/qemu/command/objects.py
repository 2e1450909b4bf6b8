"""What an image needs besides its nodes: secrets, certificates, helpers for persistent reservations.

A secret's value is in a file that only its owner reads, and never on the command line.
"""

from __future__ import annotations

from hostel.drivers.qemu.command.context import Context, option
from hostel.drivers.qemu.command.protocol import (
    authentication_secret,
    cookie_secret,
    credentials,
    encryption_secret,
    reservation_manager,
)
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain


def shared(domain: Domain, context: Context) -> list[str]:
    """What several images have together: the helper that this driver starts for them."""
    sources = (disk.source for disk in domain.devices.disks if disk.source is not None)
    if not any(source.reservations is not None and source.reservations.managed for source in sources):
        return []
    path = str(context.monitor.with_name("pr-helper0.sock"))
    return option("-object", {"qom-type": "pr-manager-helper", "id": "pr-helper0", "path": path})


def image_objects(disk: Disk, kind: SourceType, source: DiskSource, index: int | None, context: Context) -> list[str]:
    """The objects that one image's nodes name.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is to be opened by TLS, and there are no certificates for its protocol.
    """
    argv: list[str] = []
    own = disk if disk.source is source else None
    reservations = source.reservations
    if reservations is not None and not reservations.managed and reservations.source is not None:
        name = reservation_manager(source, index)
        argv += option("-object", {"qom-type": "pr-manager-helper", "id": name, "path": reservations.source.path})
    if kind == SourceType.NETWORK and (source.auth or (own and own.auth)) and source.protocol != "ssh":
        argv += secret(authentication_secret(index), context)
    if source.encryption or (own and own.encryption):
        argv += secret(encryption_secret(index), context)
    if source.cookies is not None:
        argv += secret(cookie_secret(index), context)
    if source.tls:
        folder = context.certificates.get(source.protocol or "")
        if folder is None:
            raise unsupported(f"disk '{disk.target.dev}': tls='yes', and no certificates for {source.protocol} are set")
        spec = {"qom-type": "tls-creds-x509", "id": credentials(index), "dir": folder, "endpoint": "client"}
        argv += option("-object", {**spec, "verify-peer": True})
    return argv


def secret(name: str, context: Context) -> list[str]:
    """A secret object."""
    return option("-object", {"qom-type": "secret", "id": name, "format": "raw", "file": context.secret(name)})
