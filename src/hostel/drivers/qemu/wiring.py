"""The host's end of guests' interfaces, where this process may make it: ports of networks, taps, macvtaps, filters.

What outlives this process is written into the live document, and that to disk, before it is made: whoever finds the
machine gone, or its starter killed, lets go of it. A tap needs no letting go, for it ends with who has it open.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.drivers.base import NetworkDriver
from hostel.drivers.base.network import NetworkPortDriver, NetworkPortRef, NetworkRef
from hostel.drivers.base.nwfilter import NwfilterDriver, NwfilterEnforcer
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import fault
from hostel.drivers.link import device, shaping, tap
from hostel.drivers.qemu.command.context import Wire, alias_of
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.interface import (
    FilterReference,
    Interface,
    InterfaceSource,
    InterfaceTarget,
    InterfaceType,
)
from hostel.model.domain.domain import Domain
from hostel.model.network_port import NetworkPort, PortOwner, ReceiveFilters
from hostel.model.port import Bandwidth

_OURS: Final = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.DIRECT)
_TAPS: Final = "vnet%d"
_VIRTIO: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")
_GONE: Final = (ErrorCode.NO_NETWORK, ErrorCode.NO_NETWORK_PORT, ErrorCode.OPERATION_INVALID)


class Plugged(NamedTuple):
    """What an interface is plugged into: a bridge, or another interface in a mode."""

    bridge: str | None
    dev: str | None = None
    mode: str = "vepa"
    learns: bool = True


class Wiring:
    """Makes the host's end of interfaces, for one driver.

    Args:
        network: where networks are looked up.
        nwfilter: who puts filters in force, where somebody does.
        is_allowed: whether this process may make interfaces.
    """

    def __init__(
        self,
        network: NetworkDriver | None,
        nwfilter: NwfilterDriver | None = None,
        *,
        is_allowed: Callable[[], bool] = device.may_administer,
    ) -> None:
        self._network = network
        self._nwfilter = nwfilter
        self._is_allowed = is_allowed

    def makes(self, interface: Interface) -> bool:
        """Whether an interface's end is made here, and not by QEMU.

        Raises:
            VirtError: the document asks for what only privileges give.
        """
        may = self._is_allowed()
        self._check_filter(interface)
        if may and interface.type in _OURS and not self._is_user_mode(interface):
            return True
        if interface.bandwidth is not None:
            reason = "Network bandwidth tuning is not available in session mode"
            if may:
                reason = f"setting bandwidth on interfaces of type '{interface.type}' is not implemented"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, reason, ErrorDomain.QEMU)
        if interface.isolation is not None and interface.isolation.isolated:
            reason = "a port is kept from others where this process makes it; use qemu:///system, and a bridge"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
        return False

    def _is_user_mode(self, interface: Interface) -> bool:
        """Whether a network is none of the host's, as those of the test driver."""
        return interface.type == InterfaceType.NETWORK and not hasattr(self._network, "network_port_create_xml")

    def _check_filter(self, interface: Interface) -> None:
        if interface.filterref is not None:
            from hostel.drivers.nwfilter import guest

            is_plugged = self._is_allowed() and not self._is_user_mode(interface)
            guest.check(interface, enforced=is_plugged and self._filters() is not None)

    def _filters(self) -> NwfilterEnforcer | None:
        return self._nwfilter if isinstance(self._nwfilter, NwfilterEnforcer) else None

    def reserve(self, interface: Interface) -> None:
        """Write into a live document by what is found again that which is about to be made."""
        if interface.type == InterfaceType.NETWORK:
            interface.source = interface.source or InterfaceSource()
            interface.source.portid = str(uuid.uuid4())

    def connect(self, domain: Domain, interface: Interface) -> Wire:
        """Make an interface's end, and complete the live document.

        Raises:
            VirtError: the host, or the network, refused; nothing is left.
        """
        plugged = self._plug(domain, interface)
        try:
            return self._open(domain, interface, plugged)
        except BaseException:
            self.release(domain, interface)
            raise

    def reshape(self, interface: Interface) -> None:
        """Shape what passes an interface of a running machine as its live document says.

        Raises:
            VirtError: the host, or the network, refused.
        """
        name = interface.target.dev if interface.target is not None else None
        source, bandwidth = interface.source, interface.bandwidth or Bandwidth()
        if interface.type == InterfaceType.NETWORK and source is not None and source.portid is not None:
            rates = {"inbound": bandwidth.inbound, "outbound": bandwidth.outbound}
            given = {
                f"{way}.{kind}": getattr(rate, kind) or 0
                for way, rate in rates.items()
                for kind in ("average", "peak", "floor", "burst")
                if rate is not None
            }
            ref = NetworkPortRef(self._find(source.network or ""), source.portid)
            self._ports().network_port_set_parameters(ref, given)
        shaping.clear(name or "")
        shaping.shape(name or "", interface.bandwidth, seen_from_host=_is_direct(interface))

    def release(self, domain: Domain, interface: Interface) -> None:
        """Let go of an interface's end, whatever there is of it; what cannot be taken away is left."""
        if interface.type not in _OURS or not self._is_allowed():
            return
        with contextlib.suppress(VirtError, OSError):
            self._remove(domain, interface)
        with contextlib.suppress(VirtError):
            self._unfilter(domain, interface)
        source = interface.source
        if interface.type == InterfaceType.NETWORK and source is not None and source.portid is not None:
            with contextlib.suppress(VirtError):
                network = self._find(source.network or "")
                self._ports().network_port_delete(NetworkPortRef(network, source.portid))

    def change_filter(self, domain: Domain, interface: Interface, reference: FilterReference | None) -> None:
        """Let an interface of a machine that runs have another filter, or none; changes the live document too.

        Raises:
            VirtError: it cannot have it; it has the one before then.
        """
        name = interface.target.dev if interface.target is not None else None
        changed = interface.copy()
        changed.filterref = reference
        self._check_filter(changed)
        if reference is None or name is None:
            self._unfilter(domain, interface)
        else:
            self._filter(domain, changed, name, is_in_use=True)
        interface.filterref = reference

    def release_all(self, domain: Domain) -> None:
        """Let go of the ends of all of a machine's interfaces."""
        for interface in domain.devices.interfaces:
            self.release(domain, interface)

    def _remove(self, domain: Domain, interface: Interface) -> None:
        name = interface.target.dev if interface.target is not None else None
        if _is_direct(interface):
            tap.remove_macvtaps(_purpose(domain, interface))
        elif name is not None and device.exists(name) and device.mac(name) == _mac_of_tap(interface):
            device.remove(name)
        if name is not None and interface.bandwidth is not None:
            shaping.clear(name)

    def _plug(self, domain: Domain, interface: Interface) -> Plugged:
        source = interface.source or InterfaceSource()
        learns = source.mac_table_manager != "libvirt"
        if interface.type == InterfaceType.BRIDGE:
            return Plugged(source.bridge, learns=learns)
        if interface.type == InterfaceType.DIRECT:
            return Plugged(None, source.dev, source.mode or "vepa")
        ports = self._ports()
        made = ports.network_port_create_xml(self._find(source.network or ""), _port(domain, interface).format())
        port = NetworkPort.parse(ports.network_port_get_xml_desc(made))
        assert port.plug is not None
        source.bridge, source.dev, source.mode = port.plug.bridge, port.plug.dev, port.plug.mode
        if port.bandwidth is not None:
            interface.bandwidth = Bandwidth(inbound=port.bandwidth.inbound, outbound=port.bandwidth.outbound)
        interface.isolation = port.isolation
        learns = port.plug.mac_table_manager != "libvirt"
        return Plugged(port.plug.bridge, port.plug.dev, port.plug.mode or "vepa", learns=learns)

    def _open(self, domain: Domain, interface: Interface, plugged: Plugged) -> Wire:
        queues = (interface.driver.queues if interface.driver is not None else None) or 1
        files: list[int] = []
        try:
            if plugged.dev is not None:
                mac = interface.mac.address if interface.mac is not None else ""
                name = tap.make_macvtap(plugged.dev, plugged.mode, mac, _purpose(domain, interface))
                files = tap.open_macvtap(name, queues=queues)
                if interface.mtu:
                    device.ip("link", "set", "dev", name, "mtu", str(interface.mtu))
            else:
                wanted = interface.target.dev if interface.target is not None else None
                name, files = tap.open_tap(wanted or _TAPS, queues=queues)
                self._filter(domain, interface, name)
                _join(name, interface, plugged)
            interface.target = interface.target or InterfaceTarget()
            interface.target.dev = name
            shaping.shape(name, interface.bandwidth, seen_from_host=plugged.dev is not None)
            return Wire(files, self._vhosts(interface, queues))
        except BaseException:
            tap.close(files)
            raise

    def _filter(self, domain: Domain, interface: Interface, name: str, *, is_in_use: bool = False) -> None:
        """Put the interface's filter in force on a tap, to which nothing is connected yet where it is not in use."""
        if interface.filterref is None:
            return
        from hostel.drivers.nwfilter import guest

        binding = guest.binding_of(interface, interface.filterref, name, name=domain.name, uuid=domain.uuid)
        filters = offered(self._nwfilter, NwfilterEnforcer, "virNWFilterBindingCreateXML")
        (filters.change if is_in_use else filters.apply)(binding)

    def _unfilter(self, domain: Domain, interface: Interface) -> None:
        filters = self._filters() if interface.filterref is not None else None
        if filters is not None and interface.mac is not None:
            filters.remove_of(domain.uuid or "", interface.mac.address)

    @staticmethod
    def _vhosts(interface: Interface, queues: int) -> list[int]:
        driver = interface.driver.name if interface.driver is not None else None
        if interface.model not in _VIRTIO or driver == "qemu":
            return []
        files = tap.open_vhosts(queues)
        if driver == "vhost" and not files:
            reason = "vhost-net was requested for an interface, but is unavailable"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
        return files

    def _find(self, name: str) -> NetworkRef:
        assert self._network is not None
        return self._network.network_lookup_by_name(name)

    def _ports(self) -> NetworkPortDriver:
        return self._network  # type: ignore[return-value]


def _is_direct(interface: Interface) -> bool:
    source = interface.source
    return interface.type == InterfaceType.DIRECT or (source is not None and source.dev is not None)


def _purpose(domain: Domain, interface: Interface) -> str:
    return f"hostel {domain.uuid} {alias_of(interface)}"


def _mac_of_tap(interface: Interface) -> str:
    """The guest's, but high, so that the bridge does not take it for its own."""
    return "fe" + (interface.mac.address if interface.mac is not None else "")[2:]


def _port(domain: Domain, interface: Interface) -> NetworkPort:
    """The port that an interface asks for."""
    source = interface.source or InterfaceSource()
    trusts = interface.trust_guest_rx_filters
    return NetworkPort(
        uuid=source.portid,
        owner=PortOwner(name=domain.name, uuid=domain.uuid),
        group=source.portgroup,
        mac=interface.mac.address if interface.mac is not None else None,
        virtualport=interface.virtualport,
        bandwidth=interface.bandwidth,
        vlan=interface.vlan,
        isolation=interface.isolation,
        receive_filters=None if trusts is None else ReceiveFilters(trust_guest=trusts),
    )


def _join(name: str, interface: Interface, plugged: Plugged) -> None:
    """Put a tap into its bridge, and set it up."""
    bridge = plugged.bridge or ""
    try:
        size = interface.mtu or device.mtu(bridge)
    except OSError as error:
        reason = f"Unable to add bridge {bridge} port {name}: {error.strerror}"
        raise fault(ErrorCode.SYSTEM_ERROR, reason, ErrorDomain.NETWORK) from error
    device.ip("link", "set", "dev", name, "address", _mac_of_tap(interface), "mtu", str(size), "master", bridge)
    settings: list[str] = []
    if interface.isolation is not None and interface.isolation.isolated:
        settings += ["isolated", "on"]
    if not plugged.learns:
        settings += ["learning", "off", "flood", "off"]
    if settings:
        device.bridge("link", "set", "dev", name, *settings)
    device.ip("link", "set", "dev", name, "up")
    if not plugged.learns and interface.mac is not None:
        device.bridge("fdb", "replace", interface.mac.address, "dev", name, "master", "static")
