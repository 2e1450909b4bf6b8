"""What an image needs besides its nodes: secrets, certificates, helpers for persistent reservations.

A secret's value is in a file that only its owner reads, and never on the command line.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.context import Context, option
from hostel.drivers.qemu.command.protocol import (
    SHARED_HELPER,
    authentication_secret,
    cookie_secret,
    credentials,
    encryption_secret,
    file_set,
    reservation_manager,
)
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.helper.reservations import SOCKET, are_managed
from hostel.drivers.qemu.settings import Settings
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk import is_empty

# What certificates are for that are not for disks, by how their names begin.
_KEYS: Final = {"vnc-": "vnc", "objchar": "character"}


class Needed(NamedTuple):
    """A secret that QEMU has to be given.

    Attributes:
        name: the object's.
        reference: what names the secret; None where the value is in the document.
        usage: what it has to be for.
        value: what the document says itself.
    """

    name: str
    reference: SecretReference | None
    usage: str = ""
    value: str = ""


def value_of(needed: Needed, find: Callable[[SecretReference, str], bytes]) -> bytes:
    """The value of a secret.

    Args:
        needed: what QEMU has to be given.
        find: looks up what a document names, for a use.

    Raises:
        VirtError: there is no such secret, it has no value, or it is for something else.
    """
    if needed.reference is None:
        return needed.value.encode()
    try:
        return find(needed.reference, needed.usage)
    except VirtError as error:
        if error.code is not ErrorCode.NO_SECRET:
            raise
        fix = "the machine needs it: virsh secret-define and virsh secret-set-value"
        raise VirtError(error.code, f"{error.message}; {fix}", domain=error.domain) from error


def images(disk: Disk) -> Iterator[tuple[SourceType, DiskSource, int | None]]:
    """The images of a disk, from the top of its chain down."""
    if is_empty(disk) or disk.source is None:
        return
    yield disk.type, disk.source, disk.source.index
    backing = disk.backing_store
    while backing is not None and backing.type is not None and backing.source is not None:
        yield backing.type, backing.source, backing.index
        backing = backing.backing_store


def secrets(disk: Disk) -> Iterator[Needed]:
    """The secrets of a disk whose images have numbers.

    Raises:
        VirtError: ``XML_ERROR``: something is encrypted or guarded, and no secret is named.
    """
    for kind, source, index in images(disk):
        own = disk if disk.source is source else None
        auth = source.auth or (own.auth if own is not None else None)
        if kind == SourceType.NETWORK and auth is not None and source.protocol != "ssh":
            usage = "ceph" if source.protocol == "rbd" else "iscsi"
            yield Needed(authentication_secret(index), _named(disk, auth.secret), usage)
        encryption = source.encryption or (own.encryption if own is not None else None)
        if encryption is not None:
            named = next(iter(encryption.secrets), None)
            yield Needed(encryption_secret(index), _named(disk, named), "volume")
        if source.cookies is not None:
            value = "; ".join(f"{cookie.name}={cookie.value or ''}" for cookie in source.cookies.cookies)
            yield Needed(cookie_secret(index), None, value=value)


def _named(disk: Disk, secret: SecretReference | None) -> SecretReference:
    if secret is None:
        message = f"XML error: disk '{disk.target.dev}': <secret> is missing; write its uuid or its usage"
        raise VirtError(ErrorCode.XML_ERROR, message)
    return secret


def specs(argv: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects that options of a command line make."""
    for name, value in itertools.pairwise(argv):
        if name == "-object":
            yield json.loads(value)


def passphrases(objects: Iterable[Mapping[str, Any]], settings: Settings) -> Iterator[Needed]:
    """The passphrases of the keys of all certificates among objects."""
    for item in objects:
        if item["qom-type"] == "tls-creds-x509" and "passwordid" in item:
            use = next((use for start, use in _KEYS.items() if item["id"].startswith(start)), "nbd")
            yield Needed(item["passwordid"], SecretReference(uuid=getattr(settings, use).secret), "tls")


def with_passphrase(spec: dict[str, Any], secret_uuid: str, context: Context) -> list[str]:
    """Certificates, after the secret with the passphrase of their key, where that has one."""
    if not secret_uuid:
        return option("-object", spec)
    name = f"{spec['id']}-secret0"
    return [*secret(name, context), *option("-object", {**spec, "passwordid": name})]


def shared(domain: Domain, context: Context) -> list[str]:
    """What several images have together: the helper that this driver starts for them."""
    return option("-object", reservation_helper(context.run)) if are_managed(domain) else []


def reservation_helper(run: Path) -> dict[str, Any]:
    """What speaks to the helper for persistent reservations that serves all disks; ``run`` has its socket."""
    return {"qom-type": "pr-manager-helper", "id": SHARED_HELPER, "path": str(run / SOCKET)}


def names_objects(disk: Disk) -> bool:
    """Whether a disk's nodes name objects; where they do not, :func:`disk_objects` has none."""
    named = any(source.reservations or source.fdgroup is not None or source.tls for _, source, _ in images(disk))
    return named or next(secrets(disk), None) is not None


def disk_objects(disk: Disk, context: Context) -> list[str]:
    """The objects that a disk's nodes name.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is to be opened by TLS, and there are no certificates for its protocol.
    """
    argv: list[str] = []
    for _, source, index in images(disk):
        reservations = source.reservations
        if reservations is not None and not reservations.managed and reservations.source is not None:
            name = reservation_manager(source, index)
            argv += option("-object", {"qom-type": "pr-manager-helper", "id": name, "path": reservations.source.path})
        if source.fdgroup is not None:
            argv += _descriptors(source.fdgroup, index, context)
        if source.tls:
            folder = context.certificates.get(source.protocol or "")
            if folder is None:
                why = f"tls='yes', and no certificates for {source.protocol} are set"
                raise unsupported(f"disk '{disk.target.dev}': {why}")
            spec = {"qom-type": "tls-creds-x509", "id": credentials(index), "dir": folder, "endpoint": "client"}
            argv += with_passphrase({**spec, "verify-peer": True}, context.settings.nbd.secret, context)
    for needed in secrets(disk):
        argv += secret(needed.name, context)
    return argv


def _descriptors(group: str, index: int | None, context: Context) -> list[str]:
    """The descriptors that QEMU opens an image by, instead of by a path."""
    files = context.descriptors.get(group)
    if files is None:
        what = f"file descriptor group '{group}' was not associated with the domain"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    argv: list[str] = []
    for number, file in enumerate(files):
        name = f"libvirt-{index}-storage{number}"
        argv += ["-add-fd", f"set={file_set(index)},fd={file},opaque={name}"]
    return argv


def secret(name: str, context: Context) -> list[str]:
    """A secret object."""
    return option("-object", {"qom-type": "secret", "id": name, "format": "raw", "file": context.secret(name)})
