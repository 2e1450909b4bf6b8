"""``test:///default``: opened as often as one likes, in memory, gone with its last connection."""

from __future__ import annotations

from urllib.parse import SplitResult

from hostel.drivers.announcing import announcing
from hostel.drivers.events import Subject
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers, written
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.store import Directories
from hostel.drivers.test.host import Host, shared
from hostel.drivers.test.hypervisor import TestDriver
from hostel.drivers.test.network import TestNetworkDriver
from hostel.drivers.test.nodedev import TestNodeDeviceDriver
from hostel.drivers.test.nodeinfo import TestHostDriver
from hostel.drivers.test.storage import TestStorageDriver
from hostel.errors import ErrorCode, ErrorDomain

_DEFAULT = "test:///default"


def open_test(uri: SplitResult, directories: Directories) -> Drivers | None:
    """Open the invented host's drivers; None for another scheme. Nothing is read or written anywhere.

    Raises:
        VirtError: the URI names another host than the default one.
    """
    if uri.scheme != "test":
        return None
    if uri.path in ("", "/"):
        raise fault(ErrorCode.INVALID_ARG, f"testOpen: supply a path or use {_DEFAULT}", ErrorDomain.TEST)
    if uri.path != "/default":
        raise fault(
            ErrorCode.CONFIG_UNSUPPORTED,
            f"'{written(uri)}': hosts described in a file are not supported yet; use {_DEFAULT}",
            ErrorDomain.TEST,
        )
    host: Host = shared.acquire()
    return Drivers(
        _DEFAULT,
        TestDriver(host, shared.release),
        announcing(TestStorageDriver(host), Subject.POOL, host.bus),
        announcing(TestNetworkDriver(host), Subject.NETWORK, host.bus),
        VaultSecretDriver(host.secrets, host.bus),
        TestNodeDeviceDriver(),
        TestHostDriver(),
        host.bus,
    )
