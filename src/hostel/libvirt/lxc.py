"""libvirt-python's module ``libvirt_lxc``: calls that only containers have, of which no driver here has any."""

from __future__ import annotations

from typing import NoReturn

from hostel.libvirt.method import Handle, unsupported


def lxcEnterCGroup(domain: Handle, flags: int) -> NoReturn:
    """Move this process into a container's control groups.

    Raises:
        libvirtError: always, with ``VIR_ERR_NO_SUPPORT``.
    """
    unsupported("virDomainLxcEnterCGroup")


def lxcOpenNamespace(domain: Handle, flags: int) -> NoReturn:
    """Open a container's namespaces.

    Raises:
        libvirtError: always, with ``VIR_ERR_NO_SUPPORT``.
    """
    unsupported("virDomainLxcOpenNamespace")
