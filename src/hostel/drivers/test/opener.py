"""``test:///default``: opened as often as one likes, in memory, gone with its last connection.

``test:///FILE`` is a host that a file describes; each connection has its own.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote

from hostel.drivers.announcing import announcing
from hostel.drivers.asking import Asking, Credentials, ask_password, ask_user, find_credentials
from hostel.drivers.base.host import NodeInfo
from hostel.drivers.deferred import deferred
from hostel.drivers.events import Subject
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers, written
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.store import Directories
from hostel.drivers.test.host import Host, shared
from hostel.drivers.test.hypervisor import TestDriver
from hostel.drivers.test.interface import TestInterfaceDriver
from hostel.drivers.test.network import TestNetworkDriver
from hostel.drivers.test.nodeinfo import INFO, TestHostDriver
from hostel.drivers.test.storage import TestStorageDriver
from hostel.errors import ErrorCode, ErrorDomain, VirtError

if TYPE_CHECKING:
    from hostel.drivers.nwfilter.memory import MemoryNwfilterDriver
    from hostel.drivers.test.nodedev import TestNodeDeviceDriver

_DEFAULT = "test:///default"
_HOST = "localhost"  # what it is called where somebody is asked for a password


def open_test(uri: SplitResult, directories: Directories, asking: Asking | None = None) -> Drivers | None:
    """Open an invented host's drivers; None for another scheme. Nothing is written anywhere.

    Raises:
        VirtError: the URI names neither the default host nor a file that describes one, or the file has users and who
            connects is none of them.
    """
    if uri.scheme != "test":
        return None
    if uri.path in ("", "/"):
        raise fault(ErrorCode.INVALID_ARG, f"testOpen: supply a path or use {_DEFAULT}", ErrorDomain.TEST)
    if uri.path == "/default":
        return _drivers(_DEFAULT, shared.acquire(), shared.release, INFO)
    from hostel.drivers.test.described import read_host

    host, info = read_host(unquote(uri.path))
    try:
        _let_in(host.users, dict(parse_qsl(uri.query)), asking)
    except BaseException:
        host.close()
        raise
    return _drivers(written(uri), host, host.close, info)


def _let_in(users: Mapping[str, str | None], settings: Mapping[str, str], asking: Asking | None) -> None:
    """Find out who connects, where the host has users; one without a password is let in by the name."""
    if not users:
        return
    known = find_credentials("test", _HOST, settings) or Credentials(None, None)
    user = known.user or ask_user(asking, _HOST)
    wanted = users.get(user)
    if user in users and wanted is None:
        return
    password = known.password or ask_password(asking, user, _HOST)
    if wanted is None or not hmac.compare_digest(password.encode(), wanted.encode()):
        text = "authentication failed, see test XML for the correct username/password"
        raise VirtError(ErrorCode.AUTH_FAILED, f"authentication failed: {text}", domain=ErrorDomain.TEST)


def _drivers(uri: str, host: Host, release: Callable[[], None], info: NodeInfo) -> Drivers:
    return Drivers(
        uri,
        TestDriver(host, release),
        announcing(TestStorageDriver(host), Subject.POOL, host.bus),
        announcing(TestNetworkDriver(host), Subject.NETWORK, host.bus),
        VaultSecretDriver(host.secrets, host.bus),
        deferred(lambda: _node_device(host)),
        TestInterfaceDriver(host),
        deferred(lambda: _nwfilter(host)),
        TestHostDriver(info),
        host.bus,
    )


def _node_device(host: Host) -> TestNodeDeviceDriver:
    from hostel.drivers.test.nodedev import node_device_driver

    return node_device_driver(host)


def _nwfilter(host: Host) -> MemoryNwfilterDriver:
    from hostel.drivers.nwfilter.memory import MemoryNwfilterDriver

    return MemoryNwfilterDriver(host.nwfilters, host.lock)
