"""Hostel: the QEMU/KVM storage and virtual-machine stack as one Python package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostel.drivers.store import Directories
    from hostel.objects import Connection

__version__ = "0.1.0"


def open(
    uri: str | None = "qemu:///session", directories: Directories | None = None, *, read_only: bool = False
) -> Connection:
    """Open a connection to a hypervisor.

    Args:
        uri: ``qemu:///session`` for the user's own machines, ``qemu:///system`` for the host's,
            ``test:///default`` for an invented one in memory.
        directories: where things are kept; when left out ``HOSTEL_HOME`` or the XDG variables say it, and of
            ``qemu:///system`` the host has its own.
        read_only: refuse every change.

    Raises:
        hostel.errors.VirtError: no driver knows the URI, or the driver cannot be opened.
    """
    # Imported here: qemu-img and its kin start without any of this.
    import os

    from hostel.drivers.registry import open_drivers
    from hostel.drivers.store import Directories
    from hostel.objects import Connection

    if directories is None:
        directories = Directories.of_uri(uri, os.environ)
    return Connection(open_drivers(uri, directories), read_only=read_only)
