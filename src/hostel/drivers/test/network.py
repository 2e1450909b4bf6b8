"""Networks without a wire."""

from __future__ import annotations

from hostel.drivers.base import NetworkRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.document import canonical_uuid
from hostel.drivers.fault import fault
from hostel.drivers.network.document import NetworkDefinition, parse_network, updated
from hostel.drivers.network.local import check_duplicate, checked_affect, read_change
from hostel.drivers.test.host import Host, TestNetwork
from hostel.errors import ErrorCode, ErrorDomain, VirtError


class TestNetworkDriver:
    """Implements :class:`hostel.drivers.base.NetworkDriver` in memory."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, host: Host) -> None:
        self._host = host

    def connect_list_all_networks(self) -> list[NetworkRef]:
        """Every network."""
        with self._host.lock:
            return [_ref(network) for network in self._host.networks.values()]

    def network_lookup_by_name(self, name: str) -> NetworkRef:
        """Find by name."""
        with self._host.lock:
            network = self._host.networks.get(name)
            if network is None:
                raise _fault(ErrorCode.NO_NETWORK, f"no network with matching name '{name}'")
            return _ref(network)

    def network_lookup_by_uuid(self, uuid: str) -> NetworkRef:
        """Find by UUID."""
        with self._host.lock:
            for network in self._host.networks.values():
                if network.definition.uuid == canonical_uuid(uuid):
                    return _ref(network)
        raise _fault(ErrorCode.NO_NETWORK, f"no network with matching uuid '{uuid}'")

    def network_define_xml(self, xml: str) -> NetworkRef:
        """Make or replace a definition."""
        definition = parse_network(xml)
        with self._host.lock:
            self._check_duplicate(definition)
            network = self._host.networks.setdefault(definition.name, TestNetwork(definition, persistent=True))
            network.definition = definition
            network.persistent = True
            return _ref(network)

    def network_create_xml(self, xml: str) -> NetworkRef:
        """Activate a transient network."""
        definition = parse_network(xml)
        with self._host.lock:
            self._check_duplicate(definition)
            network = self._host.networks.setdefault(definition.name, TestNetwork(definition, persistent=False))
            if network.active:
                what = f"network is already active as '{definition.name}'"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.NETWORK)
            network.live = definition
            network.active = True
            return _ref(network)

    def network_update(
        self, network: NetworkRef, command: int, section: int, parent: int, xml: str, affect: Affect = Affect.CURRENT
    ) -> None:
        """Change a section of the active network, of the definition, or of both."""
        with self._host.lock:
            found = self._find(network)
            affect = checked_affect(affect, active=found.active, persistent=found.persistent)
            change = read_change(command, section)
            live = updated(found.current, *change, parent, xml) if affect & Affect.LIVE else None
            if affect & Affect.CONFIG:
                found.definition = updated(found.definition, *change, parent, xml)
            if live is not None:
                found.live = live

    def network_undefine(self, network: NetworkRef) -> None:
        """Drop an inactive network."""
        with self._host.lock:
            found = self._find(network)
            if found.active:
                raise _fault(ErrorCode.OPERATION_INVALID, f"Network '{network.name}' is still running")
            del self._host.networks[network.name]

    def network_create(self, network: NetworkRef) -> None:
        """Activate."""
        with self._host.lock:
            found = self._find(network)
            if found.active:
                raise _fault(ErrorCode.OPERATION_INVALID, f"Network '{network.name}' is already running")
            found.live = found.definition
            found.active = True

    def network_destroy(self, network: NetworkRef) -> None:
        """Deactivate; libvirt's test driver takes this of inactive networks too. A transient one is gone."""
        with self._host.lock:
            found = self._find(network)
            found.active = False
            found.live = None
            if not found.persistent:
                del self._host.networks[network.name]

    def network_is_active(self, network: NetworkRef) -> bool:
        """Whether it is active."""
        with self._host.lock:
            return self._find(network).active

    def network_is_persistent(self, network: NetworkRef) -> bool:
        """Whether a definition exists."""
        with self._host.lock:
            return self._find(network).persistent

    def network_get_autostart(self, network: NetworkRef) -> bool:
        """Whether it is marked."""
        with self._host.lock:
            return self._find(network).autostart

    def network_set_autostart(self, network: NetworkRef, autostart: bool) -> None:
        """Mark it; libvirt's test driver takes this of transient networks too."""
        with self._host.lock:
            self._find(network).autostart = autostart

    def network_get_xml_desc(self, network: NetworkRef, *, inactive: bool = False) -> str:
        """The network's document."""
        with self._host.lock:
            found = self._find(network)
            return found.definition.xml if inactive else found.current.xml

    def network_get_bridge_name(self, network: NetworkRef) -> str:
        """The bridge that the document names."""
        with self._host.lock:
            bridge = self._find(network).definition.bridge
        if bridge is None:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"network '{network.name}' does not have a bridge name.")
        return bridge

    def close(self) -> None:
        """Nothing is held."""

    def _check_duplicate(self, definition: NetworkDefinition) -> None:
        check_duplicate(definition, (known.definition for known in self._host.networks.values()))

    def _find(self, ref: NetworkRef) -> TestNetwork:
        network = self._host.networks.get(ref.name)
        if network is None or network.definition.uuid != ref.uuid:
            raise _fault(ErrorCode.NO_NETWORK, f"no network with matching uuid '{ref.uuid}'")
        return network


def _ref(network: TestNetwork) -> NetworkRef:
    return NetworkRef(network.definition.name, network.definition.uuid)


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.TEST)
