"""What snapshots and checkpoints of a domain have in common (``virDomainMomentDef``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import UUID, Element, child, flag, text
from hostel.model.domain.cpu import Cpu
from hostel.model.domain.domain import Domain

INTEGER_64: Final = 2**63 - 1


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
