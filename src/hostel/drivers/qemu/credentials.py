"""Certificates that a running QEMU is given for a while: what it needs them for begins and ends at a moment."""

from __future__ import annotations

import base64
from pathlib import Path

from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.settings import TlsSettings
from hostel.model.authentication import SecretReference


def check_folder(settings: TlsSettings, what: str, end: str, kind: str) -> None:
    """Refuse where there are no certificates.

    Args:
        settings: where they are.
        what: what the folder is for, in libvirt's words.
        end: ``client`` or ``server``.
        kind: how ``qemu.conf`` calls what they are for.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    if not Path(settings.folder).is_dir():
        raise invalid(
            f"{what} TLS directory not configured: there is no '{settings.folder}'; put ca-cert.pem, {end}-cert.pem "
            f"and {end}-key.pem there, or name another one in qemu.conf: {kind}_tls_x509_cert_dir"
        )


def give(machine: Running, name: str, settings: TlsSettings, end: str) -> None:
    """Give QEMU certificates under a name, and the passphrase of their key by its monitor.

    Raises:
        VirtError: QEMU cannot read them; ``NO_SECRET``: the passphrase is not known.
    """
    given = {"dir": settings.folder, "endpoint": end, "verify-peer": settings.verify or end == "client"}
    take(machine, name)  # those of what ended without us
    if settings.secret:
        passphrase = _passphrase(name)
        found = machine.find_secret(SecretReference(uuid=settings.secret), "tls")
        value = {"data": base64.b64encode(found).decode(), "format": "base64"}
        machine.ask("object-add", id=passphrase, **{"qom-type": "secret", **value})
        given["passwordid"] = passphrase
    machine.ask("object-add", id=name, **{"qom-type": "tls-creds-x509", **given})


def take(machine: Running, name: str) -> None:
    """Take them back; QEMU may have ended."""
    for each in (name, _passphrase(name)):
        machine.attempt("object-del", id=each)


def _passphrase(name: str) -> str:
    return f"{name}-secret0"
