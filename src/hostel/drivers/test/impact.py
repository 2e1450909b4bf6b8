"""What calls on the test driver's domains are about: what runs, the definition, or both."""

from __future__ import annotations

from collections.abc import Callable

from hostel.drivers.base.domain import Affect
from hostel.drivers.counting import check_one
from hostel.drivers.fault import fault
from hostel.drivers.test.document import DomainDefinition
from hostel.drivers.test.host import TestDomain
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain


def settled_impact(found: TestDomain, affect: Affect) -> Affect:
    """What a call is about (``virDomainObjUpdateModificationImpact``).

    Raises:
        VirtError: ``OPERATION_INVALID``: the domain has not what is asked for.
    """
    if not affect:
        affect = Affect.LIVE if found.live is not None else Affect.CONFIG
    if affect & Affect.LIVE and found.live is None:
        raise fault(ErrorCode.OPERATION_INVALID, "domain is not running", ErrorDomain.DOMAIN)
    if affect & Affect.CONFIG and not found.persistent:
        what = "transient domains do not have any persistent config"
        raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.DOMAIN)
    return affect


def one_document(found: TestDomain, affect: Affect) -> DomainDefinition:
    """The document that a question is about.

    Raises:
        VirtError: as :func:`settled_impact` does, and ``INVALID_ARG`` where it is about both.
    """
    check_one(affect)
    document = found.live if settled_impact(found, affect) & Affect.LIVE else found.definition
    assert document is not None
    return document


def change_documents(found: TestDomain, settled: Affect, change: Callable[[Domain], None]) -> None:
    """Change what runs, the definition, or both: all of it, or where ``change`` refuses nothing.

    Args:
        found: the domain; documents are replaced.
        settled: as :func:`settled_impact` answers.
        change: changes a document.
    """
    live, definition = found.live, found.definition
    if settled & Affect.LIVE and live is not None:
        live = _changed(live, change)
    if settled & Affect.CONFIG:
        definition = _changed(definition, change)
    found.live, found.definition = live, definition if found.persistent or live is None else live


def _changed(document: DomainDefinition, change: Callable[[Domain], None]) -> DomainDefinition:
    copy = document.domain.copy()
    change(copy)
    return DomainDefinition(copy)
