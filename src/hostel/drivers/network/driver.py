"""The session's networks: definitions, and the host's own bridges.

Without privileges nobody can make a bridge. A network is active here when it was started and the bridge that it names
exists on the host, made by the administrator or by a system-wide libvirt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostel.drivers.base.network import DEFAULT_NETWORK
from hostel.drivers.network.document import NetworkDefinition
from hostel.drivers.network.local import network_fault
from hostel.drivers.network.networks import Network
from hostel.drivers.network.ports import PortedNetworkDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode
from hostel.model.network import ForwardMode

_SYSTEM_INTERFACES: Final = Path("/sys/class/net")


class SessionNetworkDriver(PortedNetworkDriver):
    """Implements :class:`hostel.drivers.base.NetworkDriver` with the bridges that there are."""

    def __init__(self, directories: Directories, *, interfaces: Path = _SYSTEM_INTERFACES) -> None:
        super().__init__(directories)
        self._interfaces = interfaces

    def _is_active(self, network: Network) -> bool:
        bridge = network.current.bridge
        if bridge is None or not self._exists(bridge):
            return False
        # The default network's bridge is made by the system's libvirt; where it is, the network is up.
        return network.started is not None or (network.current.name == DEFAULT_NETWORK and not network.is_stopped)

    def _exists(self, bridge: str) -> bool:
        return (self._interfaces / bridge).exists()

    def _start(self, network: NetworkDefinition) -> None:
        """Take into use what the host has; what needs privileges is refused, with what to do instead."""
        instead = "use '--network user', or '--network bridge=NAME' with a bridge of the host"
        if network.mode not in (ForwardMode.BRIDGE, None) and not (network.bridge and self._exists(network.bridge)):
            raise network_fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                f"network '{network.name}' forwards by {network.mode} over a bridge of its own"
                f"{f' ({network.bridge})' if network.bridge else ''}, which only the system's administrator "
                f"can make (qemu:///system); {instead}",
            )
        if network.bridge is None:
            raise network_fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                f"network '{network.name}' names no bridge of the host, and a session cannot make one; {instead}",
            )
        if not self._exists(network.bridge):
            raise network_fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                f"network '{network.name}': the host has no bridge '{network.bridge}'; {instead}",
            )
        self._networks.save_started(network)

    def _stop(self, network: Network) -> None:
        self._networks.drop_started(network)  # the host's bridge stays

    def _renew(self, before: NetworkDefinition, after: NetworkDefinition) -> None:
        """Whoever made the bridge serves it."""
