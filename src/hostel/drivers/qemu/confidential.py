"""What the host's processors can do to keep guests from the host (AMD's SEV), as QEMU and CPUID tell it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from hostel.drivers.qemu import probe
from hostel.drivers.qemu.cpu import cpuid
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.platform import Sev

_DEVICE: Final = Path("/dev/sev")  # the platform's firmware
_LEAF: Final = 0x8000001F  # CPUID: encrypted memory


def sev(emulator: str, cache: Path, device: Path = _DEVICE) -> Sev | None:
    """What SEV can do with guests of this emulator; None where there is none.

    Without the firmware's device QEMU is not asked; what it answers with it, is remembered.
    """
    if not device.exists():
        return None
    answer = probe.sev_capabilities(emulator, cache)
    return described(json.loads(answer), cpuid.registers(_LEAF)) if answer else None


def described(told: Mapping[str, Any], registers: cpuid.Registers | None) -> Sev:
    """QEMU's ``query-sev-capabilities``, and how many guests there may be at a time.

    Args:
        told: QEMU's answer.
        registers: CPUID's, which has the last number of a guest in ECX, and in EDX the first of those without
            encrypted registers (SEV API, section 6.19.1); None where it cannot be asked.
    """
    _, _, last, first = registers or (0, 0, 0, 0)
    plain, encrypted = (last - first + 1, first - 1) if last and first else (0, 0)
    return Sev(
        told["pdh"], told["cert-chain"], told.get("cpu0-id"), told["cbitpos"], told["reduced-phys-bits"], plain,
        encrypted,
    )  # fmt: skip


def host_parameters(found: Sev) -> dict[str, int | str]:
    """What SEV can do, by libvirt's names and in its order."""
    named: dict[str, int | str | None] = {
        "pdh": found.pdh,
        "cert-chain": found.cert_chain,
        "cpu0-id": found.cpu0_id,
        "cbitpos": found.cbitpos,
        "reduced-phys-bits": found.reduced_phys_bits,
        "max-guests": found.max_guests,
        "max-es-guests": found.max_es_guests,
    }
    return {name: value for name, value in named.items() if value is not None}


def launch_parameters(ask: Callable[..., Any]) -> dict[str, int | str]:
    """How the memory of a running guest was measured and secured, by libvirt's names.

    Args:
        ask: runs a command of QEMU's.

    Raises:
        VirtError: QEMU refuses, as it does before the guest is measured.
    """
    measurement = ask("query-sev-launch-measure")["data"]
    found = ask("query-sev")
    return {
        "sev-measurement": measurement,
        "sev-api-major": found["api-major"],
        "sev-api-minor": found["api-minor"],
        "sev-build-id": found["build-id"],
        "sev-policy": found["policy"],
    }


def secret_arguments(params: Mapping[str, int | str]) -> dict[str, int | str]:
    """What QEMU's ``sev-inject-launch-secret`` is given.

    Raises:
        VirtError: ``INTERNAL_ERROR``: half of it is missing.
    """
    header, secret = params.get("sev-secret-header"), params.get("sev-secret")
    if header is None or secret is None:
        message = "internal error: Both secret and the secret header are required"
        raise VirtError(ErrorCode.INTERNAL_ERROR, message, domain=ErrorDomain.QEMU)
    given = {"packet-header": header, "secret": secret}
    address = params.get("sev-secret-set-address")
    return given if address is None else {**given, "gpa": address}
