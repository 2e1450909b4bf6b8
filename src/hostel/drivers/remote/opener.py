"""``qemu+unix:///system``, ``qemu+ssh://host/system``, ``test+tcp://host/default``: whatever a daemon answers for."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult

from hostel.drivers.registry import Drivers, written
from hostel.drivers.remote.uri import RemoteUri, parse
from hostel.drivers.store import Directories

_SYSTEM: Final = "qemu:///system"


def open_remote(uri: SplitResult, directories: Directories) -> Drivers | None:
    """Connect to the daemon of a URI; None where it names no other host and no transport.

    The machines of this host are its daemon's, too.

    Raises:
        VirtError: nobody is there, or lets us in, or knows what the URI asks for.
    """
    remote = remote_uri(uri)
    if remote is None:
        return None
    # Imported here: opening one's own machines is asked this first, and needs none of it.
    from hostel.drivers.remote.connect import connect

    return connect(remote)


def remote_uri(uri: SplitResult) -> RemoteUri | None:
    """Which daemon a URI is about; None where it is about none.

    Raises:
        VirtError: ``INVALID_ARG``: no transport of this name, a port that is none.
    """
    text = written(uri)
    return parse(uri._replace(scheme="qemu+unix") if text.partition("?")[0] == _SYSTEM else uri, text)
