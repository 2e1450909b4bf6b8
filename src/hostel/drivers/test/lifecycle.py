"""The ways in which the test driver's domains begin and end, and what is told of them."""

from __future__ import annotations

from typing import Final

from hostel.drivers.base import DomainRef, DomainState, ShutoffReason, StateInfo
from hostel.drivers.events import Event, Lifecycle, Subject
from hostel.drivers.fault import fault
from hostel.drivers.test.host import Host, TestDomain
from hostel.errors import ErrorCode, ErrorDomain, VirtError


def ref_of(domain: TestDomain) -> DomainRef:
    """What names a domain."""
    return DomainRef(domain.definition.name, domain.definition.uuid, domain.id)


def running(host: Host, ref: DomainRef) -> TestDomain:
    """Find a domain that runs.

    Raises:
        VirtError: ``NO_DOMAIN``, or ``OPERATION_INVALID`` where it does not run.
    """
    domain = host.domain(ref)
    if domain.live is None:
        raise fault(ErrorCode.OPERATION_INVALID, "domain is not running", ErrorDomain.DOMAIN)
    return domain


def end(domain: TestDomain, reason: ShutoffReason) -> None:
    """A domain runs no more; nothing is told, and a transient one stays."""
    domain.live = None
    for job in domain.jobs.values():
        job.cancel()
    domain.jobs.clear()
    domain.frozen.clear()
    domain.id = -1
    domain.state = StateInfo(DomainState.SHUTOFF, reason)


def stop(host: Host, domain: TestDomain, reason: ShutoffReason, detail: int) -> None:
    """End a domain; a transient one is gone afterwards."""
    end(domain, reason)
    tell(host, domain, Lifecycle.STOPPED, detail)
    if not domain.persistent:
        del host.domains[domain.definition.name]


def tell(host: Host, domain: TestDomain, event: Lifecycle, detail: int) -> None:
    """Tell of a step in a domain's life."""
    tell_of(host, domain, "lifecycle", event=int(event), detail=int(detail))


def tell_of(host: Host, domain: TestDomain, kind: str, **given: object) -> None:
    """Tell of something else that happened to a domain."""
    ref = ref_of(domain)
    host.bus.publish(Event(Subject.DOMAIN, kind, ref.name, ref.uuid, ref.id, given))


TEXT_OKAY: Final = 4  # VIR_TYPED_PARAM_STRING_OKAY, which whoever asks with flags gives


def refused(code: ErrorCode, detail: str) -> VirtError:
    """An error of the test driver's."""
    return fault(code, detail, ErrorDomain.TEST)


def no_flags(flags: int, function: str) -> VirtError:
    """Flags that one of libvirt's functions does not take; its words come without what ``INVALID_ARG`` begins with."""
    what = f"unsupported flags ({int(flags):#x}) in function {function}"
    return VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.TEST)
