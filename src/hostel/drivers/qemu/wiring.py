"""The host's end of guests' interfaces, where this process may make it: ports of networks, taps, macvtaps, filters.

What outlives this process is written into the live document, and that to disk, before it is made: whoever finds the
machine gone, or its starter killed, lets go of it. A tap needs no letting go, for it ends with who has it open.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Final

from hostel.drivers.base import NetworkDriver
from hostel.drivers.base.network import NetworkPortDriver, NetworkPortRef, NetworkRef, OnDemandNetworkDriver
from hostel.drivers.base.nwfilter import NwfilterDriver, NwfilterEnforcer
from hostel.drivers.base.offered import offered
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.link import device, openvswitch, shaping, spoofing, tap
from hostel.drivers.qemu import direct
from hostel.drivers.qemu.command.context import Wire
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.interface import (
    ActualInterface,
    FilterReference,
    HostdevAddress,
    Interface,
    InterfaceBackend,
    InterfaceSource,
    InterfaceTarget,
    InterfaceType,
)
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.interface import ACTUAL_INTERFACE_RULES
from hostel.model.domain.rules.rule import check
from hostel.model.network_port import NetworkPort, Plug, PortOwner, ReceiveFilters
from hostel.model.port import Bandwidth

_OURS: Final = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.DIRECT)
_TAPS: Final = "vnet%d"
_GUARDED: Final = "mac-filter"  # where it is written down which taps are kept to an address
_VIRTIO: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")
_GONE: Final = (ErrorCode.NO_NETWORK, ErrorCode.NO_NETWORK_PORT, ErrorCode.OPERATION_INVALID)


class Wiring:
    """Makes the host's end of interfaces, for one driver.

    Args:
        network: where networks are looked up.
        nwfilter: who puts filters in force, where somebody does.
        directories: the session's, where ``qemu.conf`` has a say.
        is_allowed: whether this process may make interfaces.
    """

    def __init__(
        self,
        network: NetworkDriver | None,
        nwfilter: NwfilterDriver | None = None,
        directories: Directories | None = None,
        *,
        is_allowed: Callable[[], bool] = device.may_administer,
    ) -> None:
        self._network = network
        self._nwfilter = nwfilter
        self._directories = directories
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
        if _backend(interface).tap is not None:
            reason = f"QEMU makes the taps of interfaces of type '{interface.type}' itself; leave <backend tap=…> out"
            reason = reason if may else "cannot use custom tap device in session mode"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
        if interface.type in _OURS and interface.virtualport is not None and interface.virtualport.type is not None:
            reason = f"only the system's administrator may make ports of type '{interface.virtualport.type}'"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, f"{reason}; use qemu:///system", ErrorDomain.QEMU)
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

    @staticmethod
    def look_up(interface: Interface) -> None:
        """Write into a live document by which name a switch knows an interface that it serves itself."""
        source = interface.source
        if interface.type == InterfaceType.VHOSTUSER and source is not None and source.path is not None:
            interface.target = interface.target or InterfaceTarget()
            found = openvswitch.vhost_user_port(source.path, is_served=source.mode == "server")
            interface.target.dev = interface.target.dev or found

    def reserve(self, interface: Interface) -> None:
        """Write into a live document by what is found again that which is about to be made."""
        if interface.type == InterfaceType.NETWORK:
            interface.source = interface.source or InterfaceSource()
            interface.source.portid = str(uuid.uuid4())

    def connect(self, domain: Domain, interface: Interface, *, moves: bool = False) -> Wire:
        """Make an interface's end, and complete the live document.

        Args:
            domain: the live document.
            interface: the interface in it.
            moves: the guest is on another host yet, and switches are only told that it will come (:meth:`arrive`).

        Raises:
            VirtError: the host, or the network, refused; nothing is left.
        """
        if interface.type == InterfaceType.NETWORK:
            self._plug(domain, interface)
        try:
            with reading(ErrorDomain.QEMU):
                check(actual(interface), domain.devices.path(interface), ACTUAL_INTERFACE_RULES)
            return self._open(domain, interface, actual(interface), moves=moves)
        except BaseException:
            self.release(domain, interface)
            raise

    def reshape(self, domain: Domain, interface: Interface, bandwidth: Bandwidth | None) -> None:
        """Shape what passes an interface of a running machine, and write that into its live document.

        Raises:
            VirtError: the host, or the network, refused; it is shaped as before then, where that can be had.
        """
        before = actual(interface).bandwidth
        try:
            self._reshape(domain, interface, bandwidth)
        except VirtError:
            with contextlib.suppress(VirtError):  # what failed first is told
                self._reshape(domain, interface, before)
            raise
        interface.bandwidth = bandwidth
        if interface.actual is not None:
            interface.actual.bandwidth = bandwidth

    def _reshape(self, domain: Domain, interface: Interface, bandwidth: Bandwidth | None) -> None:
        source, given = interface.source, bandwidth or Bandwidth()
        if interface.type == InterfaceType.NETWORK and source is not None and source.portid is not None:
            rates = {"inbound": given.inbound, "outbound": given.outbound}
            numbers = {
                f"{way}.{kind}": getattr(rate, kind) or 0
                for way, rate in rates.items()
                for kind in ("average", "peak", "floor", "burst")
                if rate is not None
            }
            ref = NetworkPortRef(self._find(source.network or ""), source.portid)
            self._ports().network_port_set_parameters(ref, numbers)
        self.shape(domain, interface, bandwidth)

    @staticmethod
    def shape(domain: Domain, interface: Interface, bandwidth: Bandwidth | None) -> None:
        """Set the rates of what passes an interface that is there, and of nothing else.

        Raises:
            VirtError: the host refused.
        """
        real, name = actual(interface), _tap(interface)
        if openvswitch.is_switched(real.virtualport):
            openvswitch.shape(name, bandwidth, domain.uuid or "", _mac(interface))
            return
        shaping.clear(name)
        shaping.shape(name, bandwidth, seen_from_host=real.type == InterfaceType.DIRECT)

    @contextlib.contextmanager
    def replugged(self, domain: Domain, held: Interface, wanted: Interface) -> Iterator[None]:
        """Have the port of a network that a changed interface asks for; the one before again, where the block fails.

        There is never a port too many: what the one before had reserved counts as free.

        Raises:
            VirtError: the network refused.
        """
        self._unplug(held)
        try:
            if wanted.type == InterfaceType.NETWORK and not self._is_user_mode(wanted) and self._is_allowed():
                if wanted.source is None or wanted.source.portid is None:
                    self.reserve(wanted)
                self._plug(domain, wanted)
            yield
        except BaseException:
            self._unplug(wanted)
            if held.actual is not None:
                with contextlib.suppress(VirtError):  # what failed first is told
                    self._plug(domain, held.copy())
            raise

    @staticmethod
    def rejoin(domain: Domain, interface: Interface, wanted: Interface) -> None:
        """Put the tap of a running machine into another bridge.

        Raises:
            VirtError: it cannot be there; it is in the one before then.
        """
        bridge = (wanted.source.bridge if wanted.source is not None else None) or ""
        if not device.exists(bridge):
            raise fault(ErrorCode.OPERATION_FAILED, f"bridge {bridge} doesn't exist", ErrorDomain.QEMU)
        try:
            _enslave(_tap(interface), wanted)
        except VirtError:
            with contextlib.suppress(VirtError):  # what failed first is told
                _enslave(_tap(interface), actual(interface))
            raise

    @staticmethod
    def isolate(interface: Interface, wanted: Interface) -> None:
        """Keep the tap of a running machine from others, or no longer.

        Raises:
            VirtError: the host refused.
        """
        state = "on" if wanted.isolation is not None and wanted.isolation.isolated else "off"
        device.bridge("link", "set", "dev", _tap(interface), "isolated", state)

    @staticmethod
    def set_vlan(interface: Interface, wanted: Interface) -> None:
        """Have the port of a running machine in other VLANs.

        Raises:
            VirtError: the switch refused.
        """
        openvswitch.set_vlan(_tap(interface), wanted.vlan)

    @staticmethod
    def coalesce(interface: Interface, wanted: Interface) -> None:
        """Have the host look for frames more or less often.

        Raises:
            VirtError: the host refused.
        """
        device.set_coalescing(_tap(interface), _frames(wanted))

    def release(self, domain: Domain, interface: Interface) -> None:
        """Let go of an interface's end, whatever there is of it; what cannot be taken away is left."""
        if interface.type not in _OURS or not self._is_allowed():
            return
        source = interface.source
        if interface.actual is None and source is not None and source.portid is not None:
            with contextlib.suppress(VirtError):  # its starter may have been killed before there was a port
                self._learn(interface)
        with contextlib.suppress(VirtError, OSError):
            self._remove(domain, interface)
        with contextlib.suppress(VirtError):
            self._unfilter(domain, interface)
        if self._directories is not None and (name := _tap(interface)):
            spoofing.let_go(self._directories.state / _GUARDED, name)
        self._unplug(interface)

    def _unplug(self, interface: Interface) -> None:
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

    def arrive(self, domain: Domain) -> None:
        """Tell the switches of a machine's interfaces that its guest is about to run here.

        Raises:
            VirtError: one refused.
        """
        for interface in domain.devices.interfaces if self._is_allowed() else ():
            real = actual(interface)
            if real.type == InterfaceType.DIRECT:
                direct.arrive(domain, interface, real)

    def release_all(self, domain: Domain) -> None:
        """Let go of the ends of all of a machine's interfaces."""
        for interface in domain.devices.interfaces:
            self.release(domain, interface)

    def _remove(self, domain: Domain, interface: Interface) -> None:
        name, real = _tap(interface), actual(interface)
        if openvswitch.is_switched(real.virtualport):
            openvswitch.remove_ports(domain.uuid or "", _mac(interface), name)
        if real.type == InterfaceType.DIRECT:
            direct.remove(domain, interface, real)
        elif name and device.exists(name) and device.mac(name) == _mac_of_tap(interface):
            device.remove(name)
        if name and real.bandwidth is not None and not openvswitch.is_switched(real.virtualport):
            shaping.clear(name)

    def _plug(self, domain: Domain, interface: Interface) -> None:
        """Have a network make a port, and write into the live document what that is."""
        source = interface.source or InterfaceSource()
        network = self._find(source.network or "")
        self._start_on_demand(network)
        self._ports().network_port_create_xml(network, _port(domain, interface).format())
        self._learn(interface)

    def _start_on_demand(self, network: NetworkRef) -> None:
        driver = self._network
        if driver is None or not isinstance(driver, OnDemandNetworkDriver):
            return
        if driver.network_is_as_installed(network):
            try:
                driver.network_create(network)
            except VirtError:
                if not driver.network_is_active(network):  # another guest was not faster
                    raise

    def _learn(self, interface: Interface) -> None:
        """Write into the live document what a network's port is plugged into."""
        source = interface.source or InterfaceSource()
        ref = NetworkPortRef(self._find(source.network or ""), source.portid or "")
        port = NetworkPort.parse(self._ports().network_port_get_xml_desc(ref))
        assert port.plug is not None
        plug, shaped = port.plug, port.bandwidth
        interface.actual = ActualInterface(
            type=InterfaceType.HOSTDEV if plug.address is not None else InterfaceType(plug.type),
            managed=plug.managed,
            source=InterfaceSource(
                bridge=plug.bridge,
                dev=plug.dev,
                mode=plug.mode,
                mac_table_manager=plug.mac_table_manager,
                host_address=_card(plug),
            ),
            vlan=port.vlan,
            virtualport=port.virtualport,
            bandwidth=Bandwidth(inbound=shaped.inbound, outbound=shaped.outbound) if shaped is not None else None,
            isolation=port.isolation,
        )

    def _open(self, domain: Domain, interface: Interface, real: Interface, *, moves: bool) -> Wire:
        """Make the tap of an interface, of which it is known what it is plugged into."""
        if real.type == InterfaceType.HOSTDEV:
            return Wire((), ())  # a card of the host, which is taken as other devices are
        queues = (interface.driver.queues if interface.driver is not None else None) or 1
        files: list[int] = []
        interface.target = interface.target or InterfaceTarget()
        try:
            if real.type == InterfaceType.DIRECT:
                files = direct.connect(domain, interface, real, queues, moves=moves)
            else:
                name, files = tap.open_tap(interface.target.dev or _TAPS, queues=queues, path=_backend(interface).tap)
                interface.target.dev = name
                self._filter(domain, interface, name)
                self._guard(interface, name, real)
                _join(domain, name, real)
            if real.bandwidth is not None:
                self.shape(domain, interface, real.bandwidth)
            return Wire(files, self._vhosts(interface, queues))
        except BaseException:
            tap.close(files)
            raise

    def _guard(self, interface: Interface, name: str, real: Interface) -> None:
        """Keep a guest to its own hardware address on a tap, where the host wants that."""
        if self._directories is None or openvswitch.is_switched(real.virtualport):
            return
        if read_settings(self._directories).mac_filter:
            spoofing.hold(self._directories.state / _GUARDED, name, _mac(interface))

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
        files = tap.open_vhosts(queues, _backend(interface).vhost)
        if driver == "vhost" and not files:
            reason = "vhost-net was requested for an interface, but is unavailable"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
        return files

    def _find(self, name: str) -> NetworkRef:
        assert self._network is not None
        return self._network.network_lookup_by_name(name)

    def _ports(self) -> NetworkPortDriver:
        return self._network  # type: ignore[return-value]


def _backend(interface: Interface) -> InterfaceBackend:
    return interface.backend or InterfaceBackend()


def _card(plug: Plug) -> HostdevAddress | None:
    """Which card of the host a port is, where it is one."""
    place = plug.address
    if place is None:
        return None
    return HostdevAddress(type="pci", domain=place.domain, bus=place.bus, slot=place.slot, function=place.function)


def _tap(interface: Interface) -> str:
    """The name of the host's end; empty where there is none yet."""
    return (interface.target.dev if interface.target is not None else None) or ""


def _mac(interface: Interface) -> str:
    return interface.mac.address if interface.mac is not None else ""


def _mac_of_tap(interface: Interface) -> str:
    """The guest's, but high, so that the bridge does not take it for its own."""
    return "fe" + _mac(interface)[2:]


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


def _join(domain: Domain, name: str, interface: Interface) -> None:
    """Put a tap into its bridge, and set it up."""
    source, port = interface.source or InterfaceSource(), interface.virtualport
    bridge = source.bridge or ""
    try:
        size = interface.mtu or device.mtu(bridge)
    except OSError as error:
        reason = f"Unable to add bridge {bridge} port {name}: {error.strerror}"
        raise fault(ErrorCode.SYSTEM_ERROR, reason, ErrorDomain.NETWORK) from error
    device.ip("link", "set", "dev", name, "address", _mac_of_tap(interface), "mtu", str(size))
    if port is not None and openvswitch.is_switched(port):
        openvswitch.add_port(bridge, name, _mac(interface), domain.uuid or "", port, interface.vlan)
        device.ip("link", "set", "dev", name, "up")
        return
    if port is not None and port.type is not None:
        reason = f"virtualport type '{port.type}' of a bridge is not supported; known is openvswitch"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
    _enslave(name, interface)
    if interface.coalesce is not None:
        device.set_coalescing(name, _frames(interface))


def _enslave(name: str, interface: Interface) -> None:
    """Make a tap a port of a bridge of Linux's."""
    source = interface.source or InterfaceSource()
    learns = source.mac_table_manager != "libvirt"
    device.ip("link", "set", "dev", name, "master", source.bridge or "")
    settings: list[str] = []
    if interface.isolation is not None and interface.isolation.isolated:
        settings += ["isolated", "on"]
    if not learns:
        settings += ["learning", "off", "flood", "off"]
    if settings:
        device.bridge("link", "set", "dev", name, *settings)
    device.ip("link", "set", "dev", name, "up")
    if not learns and interface.mac is not None:
        device.bridge("fdb", "replace", interface.mac.address, "dev", name, "master", "static")


def _frames(interface: Interface) -> int:
    """How many frames the host takes for one look."""
    coalesce = interface.coalesce
    return (coalesce.rx.frames if coalesce is not None and coalesce.rx is not None else None) or 0
