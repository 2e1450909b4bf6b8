"""How connections are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, VirtError
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
    from urllib.parse import urlsplit

    from hostel.drivers.registry import DEFAULT_URI, open_drivers
    from hostel.drivers.remote.opener import remote_uri
    from hostel.drivers.store import Directories

    uri = name or os.environ.get("LIBVIRT_DEFAULT_URI") or DEFAULT_URI
    try:
        directories = Directories.of_uri(uri, os.environ)
        remote = remote_uri(urlsplit(uri), directories)
        if remote is not None:
            from hostel.drivers.remote.connect import open_client
            from hostel.libvirt.remote import RemoteCaller

            client = open_client(remote, read_only=read_only)
            return virConnect(RemoteCaller(client, encrypted=remote.transport in ("tls", "ssh")))
        from hostel.libvirt.local import LocalCaller

        return virConnect(LocalCaller(open_drivers(uri, directories), read_only=read_only))
    except ValueError as error:
        failed(fault(ErrorCode.INVALID_ARG, f"URI '{uri}' is malformed: {error}"), what)
    except VirtError as error:
        failed(error, what)


def getVersion(name: str | None = None) -> int:
    """Which libvirt this is: 1,000,000 * major + 1,000 * minor + release."""
    return VERSION


def virInitialize() -> int:
    """There is nothing to be done before the first call."""
    return 0
