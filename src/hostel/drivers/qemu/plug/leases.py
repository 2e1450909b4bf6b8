"""Leases, which are no devices to QEMU: a lock manager gets them, or lets go of them, while the guest runs on."""

from __future__ import annotations

from hostel.drivers.fault import fault
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.platform import Lease
from hostel.model.domain.domain import Domain


def define_lease(domain: Domain, lease: Lease) -> None:
    """Add a lease to a definition.

    Raises:
        VirtError: ``OPERATION_INVALID``: it has it.
    """
    if _find(domain, lease) is not None:
        raise fault(ErrorCode.OPERATION_INVALID, f"Lease {_named(lease)} already exists", ErrorDomain.QEMU)
    domain.devices.leases.append(lease.copy())


def undefine_lease(domain: Domain, lease: Lease) -> None:
    """Take a lease out of a definition.

    Raises:
        VirtError: ``DEVICE_MISSING``: it has none such.
    """
    held = _find(domain, lease)
    if held is None:
        what = f"device not found: Lease {_named(lease)} does not exist"
        raise fault(ErrorCode.DEVICE_MISSING, what, ErrorDomain.QEMU)
    _remove(domain, held)


def attach_lease(machine: Running, lease: Lease) -> None:
    """Get a lease for a running machine.

    Raises:
        VirtError: somebody else has it, or the lock manager refuses it; nothing is changed.
    """
    before = machine.domain
    after = before.copy()
    after.devices.leases.append(lease.copy())
    machine.save(domain=after)
    try:
        holding.hold_if_running(machine)
    except BaseException:
        machine.save(domain=before)
        raise


def detach_lease(machine: Running, lease: Lease) -> None:
    """Let go of a lease of a running machine.

    Raises:
        VirtError: ``INVALID_ARG``: it has none such.
    """
    held = _find(machine.domain, lease)
    if held is None:
        raise fault(ErrorCode.INVALID_ARG, f"Lease {_named(lease)} does not exist", ErrorDomain.QEMU)
    _remove(machine.domain, held)
    machine.save()
    holding.settle(machine)


def _find(domain: Domain, wanted: Lease) -> Lease | None:
    """The lease of the same key and lockspace (``virDomainLeaseIndex``)."""
    which = (wanted.lockspace, wanted.key)
    return next((held for held in domain.devices.leases if (held.lockspace, held.key) == which), None)


def _remove(domain: Domain, lease: Lease) -> None:
    domain.devices.leases[:] = [item for item in domain.devices.leases if item is not lease]


def _named(lease: Lease) -> str:
    return f"{lease.key} in lockspace {'<null>' if lease.lockspace is None else lease.lockspace}"
