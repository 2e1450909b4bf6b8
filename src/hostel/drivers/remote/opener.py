"""``qemu+unix:///system``, ``qemu+ssh://host/system``, ``test+tcp://host/default``: whatever a daemon answers for."""

from __future__ import annotations

import contextlib
import os
from typing import Final
from urllib.parse import SplitResult

from hostel.drivers.asking import Asking
from hostel.drivers.registry import Drivers, written
from hostel.drivers.remote.uri import RemoteUri, parse
from hostel.drivers.store import SYSTEM_URI, Directories
from hostel.errors import NetworkError
from hostel.net.address import UnixAddress, connect

_ANSWER_SECONDS: Final = 5.0


def open_remote(uri: SplitResult, directories: Directories, asking: Asking | None = None) -> Drivers | None:
    """Connect to the daemon of a URI; None where it names no other host and no transport.

    The host's machines are its daemon's, libvirt's or ours, where one answers; without one they are root's to manage,
    in this process. Root who names the directories means what is in them, whoever answers.

    Raises:
        VirtError: nobody is there, or lets us in, or knows what the URI asks for.
    """
    remote = remote_uri(uri, directories)
    if remote is None:
        return None
    # Imported here: opening one's own machines is asked this first, and needs none of it.
    from hostel.drivers.remote.connect import connect

    return connect(remote, asking=asking)


def remote_uri(uri: SplitResult, directories: Directories) -> RemoteUri | None:
    """Which daemon a URI is about; None where it is about none.

    Raises:
        VirtError: ``INVALID_ARG``: no transport of this name, a port that is none.
    """
    text = written(uri)
    if text.partition("?")[0] != SYSTEM_URI:
        return parse(uri, text)
    remote = parse(uri._replace(scheme="qemu+unix"), text)
    assert remote is not None  # it has a transport
    if os.geteuid() != 0 or uri.query:
        return remote
    return remote if directories == Directories.system() and _answers(remote) else None


def _answers(remote: RemoteUri) -> bool:
    """Whether a daemon listens on the socket of a URI."""
    with contextlib.suppress(NetworkError):
        path = remote.socket_path(read_only=False, environment=dict(os.environ))
        connect(UnixAddress(path), _ANSWER_SECONDS).close()
        return True
    return False
