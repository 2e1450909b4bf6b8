"""What calls on the test driver's domains are about: what runs, the definition, or both."""

from __future__ import annotations

from hostel.drivers.base.domain import Affect
from hostel.drivers.counting import check_one
from hostel.drivers.fault import fault
from hostel.drivers.test.document import DomainDefinition
from hostel.drivers.test.host import TestDomain
from hostel.errors import ErrorCode, ErrorDomain, VirtError


def settled_impact(found: TestDomain, affect: Affect) -> Affect:
    """What a call is about (``virDomainObjUpdateModificationImpact``).

    Raises:
        VirtError: ``OPERATION_INVALID``: the domain has not what is asked for.
    """
    if not affect:
        affect = Affect.LIVE if found.live is not None else Affect.CONFIG
    if affect & Affect.LIVE and found.live is None:
        raise _fault(ErrorCode.OPERATION_INVALID, "domain is not running")
    if affect & Affect.CONFIG and not found.persistent:
        raise _fault(ErrorCode.OPERATION_INVALID, "transient domains do not have any persistent config")
    return affect


def one_document(found: TestDomain, affect: Affect) -> DomainDefinition:
    """The document that a question is about.

    Raises:
        VirtError: as :func:`settled_impact` does, and ``INVALID_ARG`` where it is about both.
    """
    check_one(affect, ErrorDomain.TEST)
    document = found.live if settled_impact(found, affect) & Affect.LIVE else found.definition
    assert document is not None
    return document


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.TEST)
