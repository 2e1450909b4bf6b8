"""Machines that end with the connection that has started them (``VIR_DOMAIN_START_AUTODESTROY``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from hostel.drivers.base import DomainRef, HypervisorDriver
from hostel.errors import VirtError


def end_all(hypervisor: HypervisorDriver, started: Iterable[DomainRef]) -> None:
    """Destroy what still runs as it was started; what has ended, or was started again, is left alone."""
    for ref in started:
        with contextlib.suppress(VirtError):  # nobody is left to tell
            found = hypervisor.domain_lookup_by_uuid(ref.uuid)
            if found.id == ref.id:
                hypervisor.domain_destroy(found)
