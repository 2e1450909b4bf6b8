"""The drivers that clients share: opened by the first, and those that are only in memory closed after the last."""

from __future__ import annotations

import os
import threading
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hostel.drivers.boot import Missed, nobody
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers, open_drivers
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode

# What the machines of this daemon are called by clients; both are the same.
_QEMU: Final = ("qemu:///system", "qemu:///session")


class Host:
    """One set of drivers.

    Attributes:
        drivers: the drivers.
        in_memory: no call of theirs waits for anything.
    """

    def __init__(self, key: str, drivers: Drivers) -> None:
        self.key = key
        self.drivers = drivers
        self.in_memory = key.startswith("test:")
        self.users = 0


class Hosts:
    """All that is open.

    Args:
        directories: where the machines, pools and networks are kept.
        missed: is told what was to start by itself and did not.
    """

    def __init__(self, directories: Directories, missed: Missed = nobody) -> None:
        self._directories = directories
        self._missed = missed
        self._lock = threading.Lock()
        self._open: dict[str, Host] = {}

    def find(self, uri: str | None) -> tuple[str, Host] | None:
        """What :meth:`acquire` gives, where that is open already and nothing has to be waited for."""
        name, key = _names(uri)
        if not self._lock.acquire(blocking=False):
            return None
        try:
            host = self._open.get(key)
            if host is None:
                return None
            host.users += 1
            return name, host
        finally:
            self._lock.release()

    def acquire(self, uri: str | None) -> tuple[str, Host]:
        """The drivers of a URI as a client gives it, and how the client's connection is called.

        Raises:
            VirtError: no driver knows it, or cannot be opened.
        """
        name, key = _names(uri)
        with self._lock:
            host = self._open.get(key)
            if host is None:
                host = self._open[key] = Host(key, _drivers(key, self._directories, self._missed))
            host.users += 1
            return name, host

    def release(self, host: Host) -> None:
        """Give drivers back."""
        with self._lock:
            host.users -= 1
            if not host.users and host.in_memory:
                del self._open[host.key]
                host.drivers.close()

    def close(self) -> None:
        """Close all of them; running machines run on."""
        with self._lock:
            hosts = list(self._open.values())
            self._open.clear()
        for host in hosts:
            host.drivers.close()


def local_uri() -> str:
    """What the machines of this daemon are: root's are the host's, whichever of the two names a client has for them."""
    return _QEMU[0 if os.geteuid() == 0 else 1]


def _drivers(key: str, directories: Directories, missed: Missed) -> Drivers:
    if key not in _QEMU:
        return open_drivers(key, directories)
    from hostel.drivers.session import open_session

    # Not by the daemon that answers for the host's machines: that is this one.
    drivers = open_session(urlsplit(key), directories, missed=missed)
    assert drivers is not None
    return drivers


def _check_local(uri: str) -> None:
    """A client must not send us to other hosts.

    Raises:
        VirtError: ``NO_CONNECT``.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if "+" in parts.scheme or parts.netloc or not parts.scheme:
        raise fault(ErrorCode.NO_CONNECT, uri)


def _names(uri: str | None) -> tuple[str, str]:
    """What a client's connection is called, and what we call its drivers."""
    name = uri or local_uri()
    _check_local(name)
    parts = urlsplit(name)
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return name, local_uri() if plain in _QEMU else plain
