"""The driver's call that takes open files for disks."""

from __future__ import annotations

from collections.abc import Sequence

from hostel.drivers.base import DomainRef
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.errors import ErrorCode


class DescriptorCalls(Calls):
    """See :class:`hostel.drivers.base.files.AssociationDriver`."""

    def domain_fd_associate(self, domain: DomainRef, name: str, files: Sequence[int]) -> None:
        """Keep open files for a domain's disks."""
        if not files:
            raise fault(ErrorCode.INVALID_ARG, "nfds in virDomainFDAssociate must not be zero")
        if self._machines.ref(domain.name) is None:
            raise no_domain(f"name '{domain.name}'")
        self._machines.descriptors.associate(domain.uuid, name, files)
