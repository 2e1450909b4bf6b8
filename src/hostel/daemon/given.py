"""What libvirt's functions refuse before any driver is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hostel.daemon.access import api_name
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.procedure import Procedure

# Procedures, and which of their arguments must not be 0.
_NONZERO: Final = {
    "domain_set_max_memory": 1,
    "domain_set_memory": 1,
    "domain_set_memory_flags": 1,
    "domain_set_vcpus": 1,
    "domain_set_vcpus_flags": 1,
    "domain_set_iothread_params": 1,
    "domain_send_process_signal": 1,
}


def check_given(procedure: Procedure, arguments: Sequence[Any]) -> None:
    """Let a call with such arguments pass, or not.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    place = _NONZERO.get(procedure.name)
    if place is not None and not arguments[place]:
        what = f"{procedure.arguments.fields[place].name} in {api_name(procedure.name)} must not be zero"
        raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.DOMAIN)
