"""Rules for guests whose memory is kept from the host (``virDomainSEVDefParseXML``, ``qemuValidateDomainDef``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.rules.rule import MachineRule, Rule, needs
from hostel.model.domain.security import LaunchSecurity

LAUNCH_RULES: Final[tuple[Rule[LaunchSecurity], ...]] = (
    Rule(
        lambda security: security.type == "sev" and security.policy is None,
        lambda _: "failed to get launch security policy",
        ErrorCode.XML_ERROR,
        "/policy",
    ),
)

QEMU_LAUNCH_RULES: Final[tuple[MachineRule[LaunchSecurity], ...]] = (
    needs(
        "sev-guest",
        lambda security: security.type == "sev",
        "SEV launch security is not supported with this QEMU binary",
    ),
    needs(
        "sev-guest-kernel-hashes",
        lambda security: security.type == "sev" and security.kernel_hashes is not None,
        "SEV measured direct kernel boot is not supported with this QEMU binary",
        "/@kernelHashes",
    ),
    MachineRule(
        lambda security, machine: (
            security.type == "s390-pv"
            and not (machine.has("confidential-guest-support") and machine.has("s390-pv-guest"))
        ),
        "S390 PV launch security is not supported with this QEMU binary",
    ),
)
