"""The driver's calls about what the host's firmware and processor say, and how guests are kept from the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from hostel.drivers.base import DomainRef
from hostel.drivers.fault import fault
from hostel.drivers.qemu.running import Calls, no_domain
from hostel.errors import ErrorCode, ErrorDomain


class HostInfoCalls(Calls):
    """See :class:`hostel.drivers.base.hostinfo.HostInfoDriver`."""

    def connect_get_sysinfo(self) -> str:
        """The host's SMBIOS as a document.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: it says nothing, or may not be read.
        """
        from hostel.drivers.host.smbios import host_sysinfo

        found = host_sysinfo()
        if found is None:
            what = "Host SMBIOS information is not available"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
        return found.format()

    def node_get_sev_info(self) -> NoReturn:
        """What SEV can do: nothing, since this driver starts no such guests.

        Raises:
            VirtError: ``OPERATION_UNSUPPORTED``, always.
        """
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, "QEMU does not support SEV guest", ErrorDomain.QEMU)

    def domain_get_launch_security_info(self, domain: DomainRef) -> dict[str, int | str]:
        """How a domain is kept from the host: not at all."""
        self._check_there(domain)
        return {}

    def domain_set_launch_security_state(self, domain: DomainRef, params: Mapping[str, int | str]) -> NoReturn:
        """Give a domain a secret, which none takes.

        Raises:
            VirtError: ``OPERATION_UNSUPPORTED``, always.
        """
        self._check_there(domain)
        what = "setting a launch secret is only supported in SEV-enabled domains"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)

    def _check_there(self, domain: DomainRef) -> None:
        with self._machines.locked(domain.name):
            if self._machines.live(domain.name) is None and self._machines.definition(domain.name) is None:
                raise no_domain(f"name '{domain.name}'")
