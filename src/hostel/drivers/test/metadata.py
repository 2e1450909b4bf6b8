"""What people write on the test driver's domains."""

from __future__ import annotations

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.events import Event, Subject
from hostel.drivers.metadata import change, look
from hostel.drivers.test.document import DomainDefinition
from hostel.drivers.test.host import Host
from hostel.drivers.test.impact import one_document, settled_impact


class MetadataCalls:
    """Implements :class:`hostel.drivers.base.metadata.MetadataDriver`."""

    _host: Host

    def domain_get_metadata(self, domain: DomainRef, kind: int, uri: str | None, affect: Affect) -> str:
        """What is written on the running domain, or on its definition."""
        with self._host.lock:
            return look(one_document(self._host.domain(domain), affect).domain, kind, uri)

    def domain_set_metadata(
        self, domain: DomainRef, kind: int, text: str | None, key: str | None, uri: str | None, affect: Affect
    ) -> None:
        """Write on the running domain, on its definition, or on both."""
        with self._host.lock:
            found = self._host.domain(domain)
            settled = settled_impact(found, affect)
            definition, live = found.definition, found.live
            if settled & Affect.LIVE:
                assert live is not None
                live = _changed(live, kind, text, key, uri)
            if settled & Affect.CONFIG or not found.persistent:
                definition = _changed(definition, kind, text, key, uri)
            found.definition, found.live = definition, live
            told = Event(
                Subject.DOMAIN, "metadata-change", domain.name, domain.uuid, found.id, {"type": kind, "uri": uri}
            )
            self._host.bus.publish(told)


def _changed(
    document: DomainDefinition, kind: int, text: str | None, key: str | None, uri: str | None
) -> DomainDefinition:
    copy = document.domain.copy()
    change(copy, kind, text, key, uri)
    return DomainDefinition(copy)
