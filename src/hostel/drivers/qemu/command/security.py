"""Guests whose memory is kept from the host: the object that does it, and the files that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.command.context import Context, option
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Sev
from hostel.model.domain.security import LaunchSecurity

_ID: Final = "lsec0"


def settle(domain: Domain, sev: Sev | None) -> None:
    """Write into a live document what the host's processors are like, where the document does not say it.

    Args:
        domain: the document.
        sev: what they are like; None where they have no SEV.
    """
    security = domain.launch_security
    if security is None or security.type != "sev" or sev is None:
        return
    if security.cbitpos is None:
        security.cbitpos = sev.cbitpos
    if security.reduced_phys_bits is None:
        security.reduced_phys_bits = sev.reduced_phys_bits


def machine_properties(domain: Domain, context: Context) -> list[str]:
    """What of it is the board's; QEMU before 6.0 knows it by another name."""
    security = domain.launch_security
    if security is None:
        return []
    is_old = security.type == "sev" and not context.has("confidential-guest-support")
    return [f"{'memory-encryption' if is_old else 'confidential-guest-support'}={_ID}"]


def arguments(domain: Domain, context: Context) -> list[str]:
    """The object that encrypts."""
    security = domain.launch_security
    if security is None:
        return []
    if security.type == "s390-pv":
        return option("-object", {"qom-type": "s390-pv-guest", "id": _ID})
    paths = {name: str(path) for name, path, _ in _given(security, context)}
    return option(
        "-object",
        {
            "qom-type": "sev-guest",
            "id": _ID,
            "cbitpos": security.cbitpos,
            "reduced-phys-bits": security.reduced_phys_bits,
            "policy": security.policy,
            **paths,
            "kernel-hashes": security.kernel_hashes,
        },
    )


def files(domain: Domain, context: Context) -> list[tuple[Path, str]]:
    """What QEMU reads at the start: the owner's certificate and session, base64, each with its path."""
    security = domain.launch_security
    if security is None or security.type != "sev":
        return []
    return [(path, text) for _, path, text in _given(security, context)]


def _given(security: LaunchSecurity, context: Context) -> Iterator[tuple[str, Path, str]]:
    for name, file, text in (
        ("dh-cert-file", "dh_cert.base64", security.dh_cert),
        ("session-file", "session.base64", security.session),
    ):
        if text is not None:
            yield name, context.run / file, text
