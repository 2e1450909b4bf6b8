"""What people write on domains."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, DomainRef


@runtime_checkable
class MetadataDriver(Protocol):
    """Titles, descriptions and elements; the kinds are those of :class:`hostel.model.domain.metadata.MetadataType`."""

    def domain_get_metadata(self, domain: DomainRef, kind: int, uri: str | None, affect: Affect) -> str:
        """What is written; ``NO_DOMAIN_METADATA``."""

    def domain_set_metadata(
        self, domain: DomainRef, kind: int, text: str | None, key: str | None, uri: str | None, affect: Affect
    ) -> None:
        """Write, or with None take away."""
