"""How connections are opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from hostel.drivers.asking import Asking, Question
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
    """Open a connection whose other side may ask who one is; ``VIR_CONNECT_RO`` in ``flags``: one that only looks.

    Args:
        uri: what is opened.
        auth: those of ``VIR_CRED_`` that are answered, ``callback(credentials, opaque)``, and ``opaque``. Each
            credential is a list: its kind, a prompt, a challenge, what is meant where nothing is said, and the place of
            the answer. The callback returns 0, or -1 where it will not answer.
        flags: see above.
    """
    asking = None if auth is None else _asking(*auth)
    return _opened(uri, "virConnectOpenAuth", read_only=bool(flags & _READ_ONLY), asking=asking)


def _asking(kinds: Sequence[int], callback: Callable[[list[list[Any]], Any], int], opaque: Any) -> Asking:
    def ask(questions: Sequence[Question]) -> list[str | None] | None:
        credentials: list[list[Any]] = [[*question, None] for question in questions]
        if callback(credentials, opaque) < 0:
            return None
        return [credential[4] for credential in credentials]

    return Asking(kinds, ask)


def _opened(name: str | None, what: str, *, read_only: bool = False, asking: Asking | None = None) -> virConnect:
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

            client = open_client(remote, read_only=read_only, asking=asking)
            return virConnect(RemoteCaller(client, encrypted=remote.transport in ("tls", "ssh")))
        from hostel.libvirt.local import LocalCaller

        return virConnect(LocalCaller(open_drivers(uri, directories, asking), read_only=read_only))
    except ValueError as error:
        failed(fault(ErrorCode.INVALID_ARG, f"URI '{uri}' is malformed: {error}"), what)
    except VirtError as error:
        failed(error, what)


def getVersion(name: str | None = None) -> int | tuple[int, int]:
    """Which libvirt this is: 1,000,000 * major + 1,000 * minor + release; with a driver's name, twice."""
    return VERSION if name is None else (VERSION, VERSION)


def virInitialize() -> int:
    """There is nothing to be done before the first call."""
    return 0
