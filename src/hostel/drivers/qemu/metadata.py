"""The driver's calls about what people write on domains."""

from __future__ import annotations

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.counting import check_one
from hostel.drivers.metadata import change, look
from hostel.drivers.qemu.calls import Calls


class MetadataCalls(Calls):
    """What is written on domains; see :class:`hostel.drivers.base.metadata.MetadataDriver`."""

    def domain_get_metadata(self, domain: DomainRef, kind: int, uri: str | None, affect: Affect) -> str:
        """What is written on the running domain, or on its definition."""
        check_one(affect)
        return look(self._written(domain, affect).current, kind, uri)

    def domain_set_metadata(
        self, domain: DomainRef, kind: int, text: str | None, key: str | None, uri: str | None, affect: Affect
    ) -> None:
        """Write on the running domain, on its definition, or on both."""
        with self._both(domain, affect, asks=False) as both:
            documents = [both.running.domain if both.running is not None else None, both.definition]
            for document in filter(None, documents):
                change(document, kind, text, key, uri)
            if both.running is not None:
                both.running.save()
            if both.definition is not None:
                self._define(both.definition)
            self._machines.publish(both.current, "metadata-change", type=kind, uri=uri)
