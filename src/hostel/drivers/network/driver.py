"""The session's networks: definitions, and the host's own bridges.

Without privileges nobody can make a bridge. A network is active here when the bridge that it names exists on the host,
made by the administrator or by a system-wide libvirt.
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Final

from hostel.drivers.base import NetworkRef
from hostel.drivers.document import canonical_uuid
from hostel.drivers.fault import fault
from hostel.drivers.network.document import NetworkDefinition, parse_network
from hostel.drivers.store import Directories, Store
from hostel.errors import ErrorCode, ErrorDomain, VirtError

DEFAULT_NAME: Final = "default"
# What libvirt installs; the UUID is ours, and the same for everybody.
DEFAULT_NETWORK: Final = f"""
<network>
  <name>{DEFAULT_NAME}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, "default.network.hostel")}</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
</network>
"""
_SYSTEM_INTERFACES: Final = Path("/sys/class/net")
_STARTED: Final = "started"
_STOPPED: Final = "stopped"


class SessionNetworkDriver:
    """Implements :class:`hostel.drivers.base.NetworkDriver` over files that all processes share."""

    def __init__(self, directories: Directories, *, interfaces: Path = _SYSTEM_INTERFACES) -> None:
        self._definitions = Store(directories.config / "network")
        self._undefined = Store(directories.config / "network" / "undefined", suffix="")
        self._states = Store(directories.state / "network", suffix="")
        self._interfaces = interfaces

    def connect_list_all_networks(self) -> list[NetworkRef]:
        """Every network, by name."""
        return [_ref(network) for network in self._all()]

    def network_lookup_by_name(self, name: str) -> NetworkRef:
        """Find by name."""
        found = self._find(name)
        if found is None:
            raise _fault(ErrorCode.NO_NETWORK, f"no network with matching name '{name}'")
        return _ref(found)

    def network_lookup_by_uuid(self, uuid: str) -> NetworkRef:
        """Find by UUID."""
        wanted = canonical_uuid(uuid)
        for network in self._all():
            if network.uuid == wanted:
                return _ref(network)
        raise _fault(ErrorCode.NO_NETWORK, f"no network with matching uuid '{uuid}'")

    def network_define_xml(self, xml: str) -> NetworkRef:
        """Make or replace a persistent definition."""
        network = parse_network(xml)
        with self._definitions.locked():
            check_duplicate(network, self._all())
            self._definitions.write(network.name, network.xml)
        return _ref(network)

    def network_undefine(self, network: NetworkRef) -> None:
        """Drop the definition; the host's bridge stays."""
        with self._definitions.locked():
            found = self._by_ref(network)
            self._definitions.remove(found.name)
            self._states.remove(found.name)
            if found.name == DEFAULT_NAME:
                self._undefined.write(DEFAULT_NAME, "")

    def network_create(self, network: NetworkRef) -> None:
        """Activate, where the host has the bridge.

        Raises:
            VirtError: ``OPERATION_INVALID`` when it is active, ``OPERATION_UNSUPPORTED`` when there is no bridge.
        """
        with self._definitions.locked():
            found = self._by_ref(network)
            if self._is_active(found):
                raise _fault(ErrorCode.OPERATION_INVALID, "network is already active")
            self._check_bridge(found)
            self._states.write(found.name, _STARTED)

    def network_destroy(self, network: NetworkRef) -> None:
        """Deactivate; the host's bridge stays."""
        with self._definitions.locked():
            found = self._by_ref(network)
            if not self._is_active(found):
                raise _fault(ErrorCode.OPERATION_INVALID, f"network '{found.name}' is not active")
            self._states.write(found.name, _STOPPED)

    def network_is_active(self, network: NetworkRef) -> bool:
        """Whether guests can be attached."""
        return self._is_active(self._by_ref(network))

    def network_get_xml_desc(self, network: NetworkRef) -> str:
        """The network's document."""
        return self._by_ref(network).xml

    def network_get_bridge_name(self, network: NetworkRef) -> str:
        """The host bridge that guests are attached to."""
        found = self._by_ref(network)
        if found.bridge is None:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"network '{found.name}' does not have a bridge name.")
        return found.bridge

    def close(self) -> None:
        """Nothing is held."""

    def _all(self) -> list[NetworkDefinition]:
        networks = []
        for name in sorted({*self._definitions.names(), DEFAULT_NAME}):
            with contextlib.suppress(VirtError):
                if (network := self._find(name)) is not None:
                    networks.append(network)
        return networks

    def _find(self, name: str) -> NetworkDefinition | None:
        if "/" in name or "\0" in name or not name or name.startswith(".") or len(name.encode()) > 200:
            return None  # no network can be called so
        try:
            xml = self._definitions.read(name)
            if xml is None:
                is_known = name == DEFAULT_NAME and self._undefined.read(DEFAULT_NAME) is None
                return parse_network(DEFAULT_NETWORK) if is_known else None
            return parse_network(xml)
        except (VirtError, UnicodeDecodeError) as error:
            path = self._definitions.path(name)
            raise _fault(ErrorCode.INTERNAL_ERROR, f"network file '{path}' is broken: {error}") from error

    def _by_ref(self, ref: NetworkRef) -> NetworkDefinition:
        found = self._find(ref.name)
        if found is None or found.uuid != ref.uuid:
            raise _fault(ErrorCode.NO_NETWORK, f"no network with matching uuid '{ref.uuid}' ({ref.name})")
        return found

    def _is_active(self, network: NetworkDefinition) -> bool:
        if network.bridge is None or not self._exists(network.bridge):
            return False
        state = self._states.read(network.name)
        # The default network's bridge is made by the system's libvirt; where it is, the network is up.
        return state == _STARTED or (state is None and network.name == DEFAULT_NAME)

    def _exists(self, bridge: str) -> bool:
        return (self._interfaces / bridge).exists()

    def _check_bridge(self, network: NetworkDefinition) -> None:
        """Refuse what needs privileges, saying why and what to do instead."""
        instead = "use '--network user', or '--network bridge=NAME' with a bridge of the host"
        if network.mode not in ("bridge", None) and not (network.bridge and self._exists(network.bridge)):
            raise _fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                f"network '{network.name}' forwards by {network.mode} over a bridge of its own"
                f"{f' ({network.bridge})' if network.bridge else ''}, which only the system's administrator "
                f"can make; {instead}",
            )
        if network.bridge is None:
            raise _fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                f"network '{network.name}' names no bridge of the host, and a session cannot make one; {instead}",
            )
        if not self._exists(network.bridge):
            raise _fault(
                ErrorCode.OPERATION_UNSUPPORTED,
                f"network '{network.name}': the host has no bridge '{network.bridge}'; {instead}",
            )


def check_duplicate(network: NetworkDefinition, others: list[NetworkDefinition]) -> None:
    """Refuse a document that takes another network's UUID or name.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    for other in others:
        if other.uuid == network.uuid and other.name != network.name:
            raise _fault(
                ErrorCode.OPERATION_FAILED, f"network '{other.name}' is already defined with uuid {other.uuid}"
            )
        if other.name == network.name and other.uuid != network.uuid:
            raise _fault(ErrorCode.OPERATION_FAILED, f"network '{network.name}' already exists with uuid {other.uuid}")


def _ref(network: NetworkDefinition) -> NetworkRef:
    return NetworkRef(network.name, network.uuid)


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NETWORK)
