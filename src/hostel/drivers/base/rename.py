"""Other names for domains."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef


@runtime_checkable
class RenameDriver(Protocol):
    """Domains that get other names."""

    def domain_rename(self, domain: DomainRef, new_name: str) -> None:
        """Give a domain that does not run another name; what belongs to it goes with it."""
