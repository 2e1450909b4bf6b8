"""From a URI to the drivers behind it.

Each row of :data:`OPENERS` is asked in turn. One that is not concerned declines by returning None; one that is, and
cannot, raises.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from hostel.drivers.base import HypervisorDriver, NetworkDriver, StorageDriver
from hostel.drivers.base.closing import CloseReason
from hostel.drivers.base.host import HostDriver
from hostel.drivers.base.interface import InterfaceDriver
from hostel.drivers.base.nodedev import NodeDeviceDriver
from hostel.drivers.base.nwfilter import NwfilterDriver
from hostel.drivers.base.secret import SecretDriver
from hostel.drivers.events import EventSource
from hostel.drivers.fault import fault
from hostel.drivers.readonly import read_only
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode

if TYPE_CHECKING:
    from hostel.drivers.asking import Asking


class Drivers(NamedTuple):
    """What answers for one URI.

    Attributes:
        keepalive: has a silent daemon asked every so many seconds, so many times; None where there is no daemon.
        on_close: has somebody told, by another thread, why the connection to the daemon is over; None likewise.
    """

    uri: str
    hypervisor: HypervisorDriver
    storage: StorageDriver
    network: NetworkDriver
    secret: SecretDriver
    node_device: NodeDeviceDriver
    interface: InterfaceDriver
    nwfilter: NwfilterDriver
    host: HostDriver
    events: EventSource | None = None
    keepalive: Callable[[int, int], bool] | None = None
    on_close: Callable[[Callable[[CloseReason], None]], None] | None = None

    def read_only(self) -> Drivers:
        """The same drivers, refusing every change."""
        return self._replace(
            hypervisor=read_only(self.hypervisor),
            storage=read_only(self.storage),
            network=read_only(self.network),
            secret=read_only(self.secret),
            node_device=read_only(self.node_device),
            interface=read_only(self.interface),
            nwfilter=read_only(self.nwfilter),
        )

    def _drivers(self) -> tuple[object, ...]:
        return (
            self.hypervisor, self.storage, self.network, self.secret, self.node_device, self.interface, self.nwfilter,
            self.host,
        )  # fmt: skip

    def close(self) -> None:
        """Release all of them; the first failure is raised once all were tried."""
        failure: Exception | None = None
        for driver in self._drivers():
            close = getattr(driver, "close", None)
            try:
                if close is not None:
                    close()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


Opener = Callable[[SplitResult, Directories, "Asking | None"], "Drivers | None"]

# "module:function" of each opener, imported when it is asked.
OPENERS: Final[dict[str, str]] = {
    "remote": "hostel.drivers.remote.opener:open_remote",
    "qemu": "hostel.drivers.session:open_session",
    "test": "hostel.drivers.test.opener:open_test",
}
DEFAULT_URI: Final = "qemu:///session"
_KNOWN: Final = "qemu:///session, qemu:///system, test:///default, and with a transport what another daemon has: qemu+ssh://host/system"


def written(uri: SplitResult) -> str:
    """A URI as people write it: ``urlunsplit`` drops the slashes of an empty host."""
    return f"{uri.scheme}://{uri.netloc}{uri.path}{f'?{uri.query}' if uri.query else ''}"


def open_drivers(uri: str | None, directories: Directories, asking: Asking | None = None) -> Drivers:
    """Find and open the drivers of a URI; ``qemu:///session`` when it is None or empty.

    ``asking`` is asked where the other side wants to know who one is.

    Raises:
        VirtError: ``NO_CONNECT`` when no driver knows it; what the driver says when it does and cannot.
    """
    uri = uri or DEFAULT_URI
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise fault(ErrorCode.INVALID_ARG, f"URI '{uri}' is malformed: {error}; known are {_KNOWN}") from None
    if not parts.scheme:
        raise fault(ErrorCode.NO_CONNECT, f"URI '{uri}' does not include a driver name; known are {_KNOWN}")
    for target in OPENERS.values():
        module, _, name = target.partition(":")
        opener: Opener = getattr(importlib.import_module(module), name)
        drivers = opener(parts, directories, asking)
        if drivers is not None:
            return drivers
    raise fault(ErrorCode.NO_CONNECT, f"'{uri}'; known are {_KNOWN}")
