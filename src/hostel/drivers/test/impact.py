"""What calls on the test driver's domains are about: what runs, the definition, or both."""

from __future__ import annotations

from hostel.drivers.base.domain import Affect
from hostel.drivers.fault import fault
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


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.TEST)
