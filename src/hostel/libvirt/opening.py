"""How connections are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from hostel.errors import VirtError
from hostel.libvirt.connection import virConnect
from hostel.libvirt.error import failed

VERSION: Final = 9_000_000  # the libvirt whose names, numbers and behaviour these are
_READ_ONLY: Final = 1  # VIR_CONNECT_RO


def open(name: str | None = None) -> virConnect:
    """Open a connection that may change things; None is ``LIBVIRT_DEFAULT_URI``, or else the user's own machines."""
    return _opened(name, "virConnectOpen")


def openReadOnly(name: str | None = None) -> virConnect:
    """Open a connection that only looks."""
    return _opened(name, "virConnectOpenReadOnly", read_only=True)


def openAuth(uri: str, auth: Sequence[Any] | None, flags: int = 0) -> virConnect:
    """Open a connection whose daemon may ask who one is; ``VIR_CONNECT_RO`` in ``flags``: one that only looks."""
    return _opened(uri, "virConnectOpenAuth", read_only=bool(flags & _READ_ONLY))


def _opened(name: str | None, what: str, *, read_only: bool = False) -> virConnect:
    from hostel.drivers.registry import open_drivers
    from hostel.drivers.store import Directories
    from hostel.libvirt.local import LocalCaller

    uri = name or os.environ.get("LIBVIRT_DEFAULT_URI") or None
    try:
        drivers = open_drivers(uri, Directories.from_environment(os.environ))
    except VirtError as error:
        failed(error, what)
    return virConnect(LocalCaller(drivers, read_only=read_only))


def getVersion(name: str | None = None) -> int:
    """Which libvirt this is: 1,000,000 * major + 1,000 * minor + release."""
    return VERSION


def virInitialize() -> int:
    """There is nothing to be done before the first call."""
    return 0
