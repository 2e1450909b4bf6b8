"""What snapshots and checkpoints of a domain have in common (``virDomainMomentDef``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import UUID, Element, Kind, child, flag, integer, text
from hostel.model.domain.cpu import Cpu
from hostel.model.domain.domain import Domain

_INTEGER_64: Final = integer(-(2**63 - 1), 2**63 - 1)


def _read_time(text: str) -> int | None:
    try:
        return _INTEGER_64.parse(text)
    except ValueError:
        return None


# Seconds since 1970. A new moment has its own, whatever its document says: libvirt does not look at it.
CREATION_TIME: Final[Kind[int | None]] = Kind(_read_time, str)


class MomentParent(Element, tag="parent"):
    """The moment before."""

    name: str = text()


class DomainReference(Element, tag="domain", when={"type": None}):
    """The domain by its UUID alone, where its document is not known."""

    uuid: str | None = text(UUID, default=None)


class InactiveDomain(Domain, tag="inactiveDomain"):
    """The domain as it was defined, beside how it ran."""


class SaveCookie(Element, tag="cookie"):
    """What QEMU must find again to go on from saved memory."""

    cpu: Cpu | None = child(Cpu, default=None)
    slirp_helper: bool = flag(tag="slirpHelper", default=False)
