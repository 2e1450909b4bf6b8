"""A machine that exists: found as virt-install's tools find one, and read so that it can be installed once more."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from hostel.cli.virt_install import registry
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.storage import Storage
from hostel.drivers.base.saving import SaveDriver
from hostel.errors import ErrorCode, UsageError, VirtError
from hostel.objects import Connection, Domain

_SET_BY_MACHINE: Final = ("name", "uuid", "description", "os_type", "virt_type", "arch", "machine", "xml")


def find(connection: Connection, key: str) -> Domain:
    """The machine with a name, UUID or id.

    Raises:
        UsageError: there is none.
    """
    try:
        return connection.domain(key)
    except VirtError as error:
        if error.code is ErrorCode.NO_DOMAIN and key.isdigit():
            try:
                return connection.domain(int(key))
            except VirtError as by_id:
                error = by_id
        raise UsageError(f"Could not find domain '{key}': {error}") from error


def check_stopped(domain: Domain) -> None:
    """Refuse a machine that cannot be installed now.

    Raises:
        UsageError: it runs, or has a saved state: that would go on with the memory of the old system on the new disk.
    """
    if domain.is_active:
        raise UsageError(f"--reinstall: domain '{domain.name}' is already active; stop it first: virsh shutdown")
    driver = domain.connection.hypervisor
    if isinstance(driver, SaveDriver) and driver.domain_has_managed_save_image(
        driver.domain_lookup_by_name(domain.name)
    ):
        raise UsageError(
            f"--reinstall: domain '{domain.name}' has a saved state, which belongs to the system that is replaced; "
            "start it, or remove that: virsh managedsave-remove"
        )


def read(host: Host, storage: Storage, domain: Domain) -> Guest:
    """The machine as it is defined, with its secrets, to be changed."""
    return Guest.parse(host, storage, domain.xml(inactive=True, secure=True))


def needless(options: Namespace) -> list[str]:
    """The options that describe a machine: one that is installed again stays as it is."""
    names = [*_SET_BY_MACHINE, *registry.tables()]
    return list(
        dict.fromkeys(f"--{name.replace('_', '-')}" for name in names if getattr(options, name.replace("-", "_")))
    )
