"""Connecting to a daemon: being let in, and opening what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hostel.drivers.asking import Asking
from hostel.drivers.base.closing import CloseReason
from hostel.drivers.registry import Drivers
from hostel.drivers.remote.auth import authenticate
from hostel.drivers.remote.client import RpcClient
from hostel.drivers.remote.driver import (
    RemoteHypervisor,
    RemoteInterface,
    RemoteNetwork,
    RemoteNodeDevice,
    RemoteNwfilter,
    RemoteSecret,
    RemoteStorage,
)
from hostel.drivers.remote.events import RemoteEvents
from hostel.drivers.remote.host import RemoteHost
from hostel.drivers.remote.transport import SshTransport, reach
from hostel.drivers.remote.uri import RemoteUri

_READ_ONLY: Final = 1  # VIR_CONNECT_RO
_FEATURE_KEEPALIVE: Final = 10


def connect(remote: RemoteUri, *, read_only: bool = False, asking: Asking | None = None) -> Drivers:
    """Connect and open.

    Raises:
        VirtError: nobody is there, or lets us in, or knows what the URI asks for.
    """
    client = open_client(remote, read_only=read_only, asking=asking)
    # They have the methods of the drivers' protocols, made when they are used.
    hypervisor: Any = RemoteHypervisor(client)
    storage: Any = RemoteStorage(client)
    network: Any = RemoteNetwork(client)
    secret: Any = RemoteSecret(client)
    node_device: Any = RemoteNodeDevice(client)
    interface: Any = RemoteInterface(client)
    nwfilter: Any = RemoteNwfilter(client)
    host: Any = RemoteHost(client)
    events = RemoteEvents(client)
    ours = (node_device, interface, nwfilter, host)
    drivers = (hypervisor, storage, network, secret, *ours)

    def watch(closed: Callable[[CloseReason], None]) -> None:
        client.closed = closed
        if client.is_closed:
            closed(CloseReason.ERROR)

    return Drivers(remote.written, *drivers, events, client.set_keepalive, watch)


def open_client(remote: RemoteUri, *, read_only: bool = False, asking: Asking | None = None) -> RpcClient:
    """Connect and open, for who makes the calls.

    Raises:
        VirtError: as :func:`connect` does.
    """
    transport = reach(remote, read_only=read_only)
    client = RpcClient(transport, transport.said if isinstance(transport, SshTransport) else str)
    try:
        authenticate(client, remote, asking)
        client.call("connect_open", remote.name, _READ_ONLY if read_only else 0)
        if client.call("connect_supports_feature", _FEATURE_KEEPALIVE)[0]:
            client.start_keepalive()
    except BaseException:
        client.close()
        raise
    return client
