"""The driver's calls about what the host's firmware and processor say, and how guests are kept from the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.fault import fault
from hostel.drivers.qemu import confidential
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.machines import invalid
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain

_PAUSED: Final = ("paused", "prelaunch")  # as QEMU tells it: before its guest has run, too


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

    def node_get_sev_info(self) -> dict[str, int | str]:
        """What SEV can do on this host.

        Raises:
            VirtError: ``OPERATION_UNSUPPORTED``: there is none, or QEMU does not know it.
        """
        sev = self._launcher.platform().sev
        if sev is None:
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, "QEMU does not support SEV guest", ErrorDomain.QEMU)
        return confidential.host_parameters(sev)

    def domain_get_launch_security_info(self, domain: DomainRef) -> dict[str, int | str]:
        """How the memory of a running domain was secured; nothing where SEV does not do it.

        Raises:
            VirtError: ``OPERATION_INVALID``: it does not run; QEMU has not measured it yet.
        """
        if not _is_encrypted(self._document(domain)):
            return {}
        with self._running(domain) as machine:
            return confidential.launch_parameters(machine.ask)

    def domain_set_launch_security_state(self, domain: DomainRef, params: Mapping[str, int | str]) -> None:
        """Give a domain that has been started, and not run yet, a secret.

        Raises:
            VirtError: ``OPERATION_UNSUPPORTED``: SEV does not secure it, or QEMU cannot; ``OPERATION_INVALID``: it is
                not paused.
        """
        if not _is_encrypted(self._document(domain)):
            what = "setting a launch secret is only supported in SEV-enabled domains"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        given = confidential.secret_arguments(params)
        with self._running(domain) as machine:
            if machine.ask("query-status")["status"] not in _PAUSED:
                raise invalid("domain must be in a paused state")
            if not self._launcher.platform().has("sev-inject-launch-secret"):
                what = "QEMU does not support setting a launch secret"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            machine.ask("sev-inject-launch-secret", **given)

    def _document(self, domain: DomainRef) -> Domain:
        """What it runs with, or else its definition."""
        status = self._machines.seen(domain.name)
        found = status.domain if status is not None else self._machines.definition(domain.name)
        if found is None:
            raise no_domain(f"name '{domain.name}'")
        return found


def _is_encrypted(domain: Domain) -> bool:
    return domain.launch_security is not None and domain.launch_security.type == "sev"
