"""Networks of the system: with privileges, a started network is a bridge that is made, served and opened to others.

A start and a stop are marked before the first step, and whoever finds the mark of one who was killed takes away what
there is of the network. A network that is up is looked after when the driver is opened: its rules are set again, and
dnsmasq is started again, where they are gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from hostel.drivers import tool
from hostel.drivers.base.network import DhcpLease, NetworkPortRef, NetworkRef, PortCreateFlag
from hostel.drivers.document import reading
from hostel.drivers.link import device, nft, shaping
from hostel.drivers.network import host, nftables, policy
from hostel.drivers.network.document import NetworkDefinition, with_ports
from hostel.drivers.network.functions import interfaces_of
from hostel.drivers.network.leases import read_leases
from hostel.drivers.network.local import network_fault
from hostel.drivers.network.networks import Network
from hostel.drivers.network.ports import PortedNetworkDriver, check_floor, checked_mac, floor_of, free_class, pool
from hostel.drivers.network.server import DnsmasqServer, is_needed
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.address import prefix_of, read_address
from hostel.model.network import ForwardMode
from hostel.model.network import Network as NetworkDocument
from hostel.model.network_defaults import read_network
from hostel.model.network_port import NetworkPort
from hostel.model.port import Bandwidth


class SystemNetworkDriver(PortedNetworkDriver):
    """Implements :class:`hostel.drivers.base.NetworkDriver` with bridges of its own; needs ``CAP_NET_ADMIN``."""

    def __init__(self, directories: Directories) -> None:
        super().__init__(directories, starts_default=False)
        self._server = DnsmasqServer(directories.state / "network" / "dnsmasq", directories.cache / "network")
        self._recover()

    def network_undefine(self, network: NetworkRef) -> None:
        """Drop the definition; an active network becomes transient, and the leases of another are forgotten."""
        bridge = self._by_ref(network).current.bridge
        super().network_undefine(network)
        if bridge is not None and self._networks.find(network.name) is None:
            self._server.forget_leases(bridge)

    def network_get_dhcp_leases(self, network: NetworkRef, mac: str | None = None) -> list[DhcpLease]:
        """The addresses that were given out, or those of one guest."""
        wanted = checked_mac(mac)
        found = self._by_ref(network).current
        if not found.is_managed or found.bridge is None:
            return []
        prefixes: dict[int, int] = {}
        for ip in read_network(found.xml).ips:
            address = read_address(ip.address or "", "/network/ip/@address")
            prefixes.setdefault(address.version, prefix_of(address, ip.netmask, ip.prefix) or 0)
        leases = read_leases(self._server.leases(found.bridge), found.bridge, prefixes)
        return [lease for lease in leases if wanted in (None, lease.mac)]

    def network_is_as_installed(self, network: NetworkRef) -> bool:
        """Whether nobody has defined, started or stopped it since the host was started."""
        found = self._by_ref(network)
        return found.started is None and not found.is_stopped and self._networks.is_as_installed(network.name)

    def network_port_create_xml(
        self, network: NetworkRef, xml: str, flags: PortCreateFlag = PortCreateFlag.NONE
    ) -> NetworkPortRef:
        """Make a port of a network, whose rules and addresses a guest may rely on."""
        with self._networks.locked(), reading(ErrorDomain.NETWORK):
            found = self._active(network).current
            if found.is_managed:
                self._look_after(found, _rules())
        return super().network_port_create_xml(network, xml, flags)

    def _recover(self) -> None:
        """Take away what others left half done, and look after the networks that are up.

        A network that cannot be put right is left as it is: the call that is about it says why.
        """
        with self._networks.locked():
            for network in self._networks.unfinished():
                with contextlib.suppress(VirtError):
                    self._take_down(network)
            rules = _rules() if self._networks.any_started() else {}
            for found in self._networks.all():
                if found.started is None or not found.started.is_managed:
                    continue
                with contextlib.suppress(VirtError), reading(ErrorDomain.NETWORK):
                    if self._is_active(found):
                        self._look_after(found.started, rules)
                    else:
                        self._take_down(found.started)

    def _look_after(self, network: NetworkDefinition, rules: Mapping[str, set[str]]) -> None:
        """Set the rules of an active network again, and start dnsmasq again, where they are gone.

        Raises:
            VirtError: they cannot be had.
            ModelError: the document has been changed by others.
        """
        document = read_network(network.xml)
        script, chain = nftables.ruleset(document), f"forward_{network.bridge}"
        if any(chain not in rules[family] for family in nftables.families(script)):
            nft.apply(script)
        policy.let_through(network.bridge or "", nftables.families(script))
        self._server.bring_up(document)

    def _exists(self, bridge: str) -> bool:
        return device.exists(bridge)

    def _is_active(self, network: Network) -> bool:
        if network.started is None or self._networks.is_changing(network.current.name):
            return False
        return not network.started.is_managed or self._has_bridge(network.started)

    def _has_bridge(self, network: NetworkDefinition) -> bool:
        """Whether a network's bridge is there, and is no other of the same name."""
        bridge = network.bridge or ""
        if not network.is_managed or network.mac is None:
            return self._exists(bridge)
        try:
            return device.mac(bridge) == network.mac
        except OSError:
            return False

    def _start(self, network: NetworkDefinition) -> None:
        self._settle(network)
        if network.is_managed:
            network = with_ports(self._completed(network))
            with reading(ErrorDomain.NETWORK):
                self._check(network)
            self._networks.begin_change(network)
            try:
                with reading(ErrorDomain.NETWORK):
                    self._make(read_network(network.xml))
            except BaseException:
                with contextlib.suppress(VirtError):  # what failed first is told
                    self._take_down(network)
                raise
        else:
            self._use(network)
        self._networks.save_started(network)
        self._networks.end_change(network.name)

    def _settle(self, network: NetworkDefinition) -> None:
        """Take away what an earlier one left that was not put right when the driver was opened."""
        for unfinished in self._networks.unfinished():
            if unfinished.name == network.name:
                self._take_down(unfinished)

    def _check(self, network: NetworkDefinition) -> None:
        """Refuse what must fail, before anything is made."""
        bridge, document = network.bridge or "", read_network(network.xml)
        device.check_plain(bridge)
        tool.require("nft", ErrorDomain.NETWORK)
        if is_needed(document):
            tool.require("dnsmasq", ErrorDomain.NETWORK)
        others = (other for other in self._networks.all() if other.current.name != network.name)
        if other := next((other for other in others if other.started and other.started.bridge == bridge), None):
            raise network_fault(
                ErrorCode.INTERNAL_ERROR, f"bridge name '{bridge}' already in use by network '{other.current.name}'."
            )
        if self._exists(bridge):
            reason = f"Unable to create bridge '{bridge}': the host has an interface of this name; choose another"
            raise network_fault(ErrorCode.INTERNAL_ERROR, reason)
        if document.bridge is not None and document.bridge.zone is not None:
            reason = f"zone {document.bridge.zone} requested for network {network.name} but zones are not set here"
            raise network_fault(ErrorCode.CONFIG_UNSUPPORTED, f"{reason}; run firewall-cmd --change-interface={bridge}")
        host.check_free(document)

    def _make(self, network: NetworkDocument) -> None:
        assert network.bridge is not None
        host.make_bridge(network)
        script = nftables.ruleset(network)
        nft.apply(script)
        policy.let_through(network.bridge.name or "", nftables.families(script))
        host.add_routes(network)
        if network.forward is not None:
            host.let_through(network)
        self._server.bring_up(network)
        shaping.shape(network.bridge.name or "", network.bandwidth, has_floors=True)

    def _use(self, network: NetworkDefinition) -> None:
        """Take into use what the host has."""
        document = read_network(network.xml)
        if network.bridge is None:
            if document.forward is not None and document.forward.mode is ForwardMode.HOSTDEV:
                pool(document)
            elif document.forward is not None:
                interfaces_of(document.forward)
            return
        # A bridge may come later, and is looked at when it is needed; one that is to be shaped must be there.
        shaping.shape(network.bridge, document.bandwidth, has_floors=True)

    def _stop(self, network: Network) -> None:
        found = network.current
        if found.is_managed:
            self._networks.begin_change(found)
            self._take_down(found)
        else:
            if found.bridge is not None and read_network(found.xml).bandwidth is not None:
                shaping.clear(found.bridge)
            self._networks.drop_started(network)
        if network.defined is None and found.bridge is not None:
            self._server.forget_leases(found.bridge)

    def _take_down(self, network: NetworkDefinition) -> None:
        """Take away all that there may be of a managed network, and say that it is stopped.

        Raises:
            VirtError: the first that could not be taken away; the rest is, and the mark stays.
        """
        bridge, document = network.bridge or "", read_network(network.xml)
        steps: list[Callable[[], object]] = [
            lambda: self._server.end(bridge),
            lambda: shaping.clear(bridge) if document.bandwidth is not None else None,
            lambda: nft.apply(nftables.withdrawal(document)),
            lambda: policy.forget(bridge),
            lambda: device.remove(bridge) if self._has_bridge(network) else None,
        ]
        failure: VirtError | None = None
        for step in steps:
            try:
                step()
            except VirtError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        found = self._networks.find(network.name)
        if found is not None and found.started is not None:
            self._networks.drop_started(found)
        self._networks.end_change(network.name)

    def _renew(self, before: NetworkDefinition, after: NetworkDefinition) -> None:
        if not after.is_managed:
            return
        with reading(ErrorDomain.NETWORK):
            old, new = read_network(before.xml), read_network(after.xml)
            if nftables.ruleset(old) != nftables.ruleset(new):
                nft.apply(nftables.ruleset(new))
            self._server.bring_up(new)

    def _reserve(self, network: NetworkDocument, port: NetworkPort, others: list[NetworkPort]) -> None:
        check_floor(network, port, others)
        floor = floor_of(port)
        if not floor or network.bandwidth is None or network.bandwidth.inbound is None or network.bridge is None:
            return
        assert port.bandwidth is not None
        number = port.bandwidth.class_id = free_class(others)
        total = floor + sum(map(floor_of, others))
        shaping.plug(network.bridge.name or "", network.bandwidth.inbound, port.mac or "", floor, number, total)

    def _release(self, network: NetworkDocument, port: NetworkPort, others: list[NetworkPort]) -> None:
        number = (port.bandwidth or Bandwidth()).class_id
        if number is None or network.bandwidth is None or network.bandwidth.inbound is None or network.bridge is None:
            return
        total = sum(floor_of(other) for other in others if other.uuid != port.uuid)
        shaping.unplug(network.bridge.name or "", network.bandwidth.inbound, number, total)


def _rules() -> dict[str, set[str]]:
    """The chains that there are, by the family."""
    return {family: nft.chains(family) for family in ("ip", "ip6")}
