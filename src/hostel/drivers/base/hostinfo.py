"""What the host's firmware says, and how guests are kept from the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hostel.drivers.base.domain import DomainRef


class HostInfoDriver(Protocol):
    """Not every hypervisor has all of these."""

    def connect_get_sysinfo(self) -> str:
        """The host's SMBIOS as a document."""

    def node_get_sev_info(self) -> Mapping[str, int | str]:
        """What AMD's SEV can do on the host."""

    def domain_get_launch_security_info(self, domain: DomainRef) -> Mapping[str, int | str]:
        """How the memory of a running domain was secured at its start."""

    def domain_set_launch_security_state(self, domain: DomainRef, params: Mapping[str, int | str]) -> None:
        """Give a domain that has just been started a secret: ``sev-secret`` and ``sev-secret-header``."""
