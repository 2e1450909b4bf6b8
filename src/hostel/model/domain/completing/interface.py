"""What an interface gets that its document does not say: address, model, identifiers (``virDomainNetDefParseXML``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.address import Address, format_address, read_address
from hostel.model.domain.devices.device import VirtioOptions
from hostel.model.domain.devices.interface import Interface, InterfaceDriver, InterfaceIp, InterfaceType, Mac
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import ARM, S390, Board, Platform, arch_of, board_of
from hostel.model.port import Route, VirtualPort, VirtualPortParameters
from hostel.model.port_rules import check_route, complete_route, complete_vlan

# virDomainNetModel: QEMU's other models are kept as they are written, and are taken for PCI Express ones.
CARDS: Final = (
    "netfront", "rtl8139", "virtio", "e1000", "e1000e", "virtio-transitional", "virtio-non-transitional", "usb-net",
    "spapr-vlan", "lan9118", "scm91c111", "vlance", "vmxnet", "vmxnet2", "vmxnet3", "Am79C970A", "Am79C973", "82540EM",
    "82545EM", "82543GC",
)  # fmt: skip
_VIRTIO_CARDS: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")


def complete_interface(domain: Domain, interface: Interface, platform: Platform) -> None:
    """Give an interface a hardware address, a model, and its virtual port the identifiers that a switch needs.

    Raises:
        ModelError: an address is none.
    """
    _complete_source(interface)
    if interface.mac is None:
        tail = ":".join(f"{byte:02x}" for byte in platform.random_bytes(3))
        interface.mac = Mac(address=f"52:54:00:{tail}")
    interface.mac.address = interface.mac.address.lower()
    complete_vlan(interface.vlan)
    if interface.virtualport is not None:
        _complete_virtual_port(interface.virtualport, platform)
    if interface.coalesce is not None and not (interface.coalesce.rx is not None and interface.coalesce.rx.frames):
        interface.coalesce = None
    if interface.link_state == "default":
        interface.link_state = None
    if interface.model is not None:
        written = interface.model.lower()
        interface.model = next((card for card in CARDS if card.lower() == written), interface.model)
    _complete_driver(interface)
    if not platform.is_qemu or interface.model is not None:
        return
    if interface.type == InterfaceType.VDPA:
        interface.model = "virtio"
    elif interface.type != InterfaceType.HOSTDEV:
        interface.model = _default_model(domain, platform)


def _complete_source(interface: Interface) -> None:
    source, path = interface.source, "/domain/devices/interface"
    if source is not None:
        if interface.type == InterfaceType.DIRECT:
            source.mode = source.mode or "vepa"
        if source.host_address is not None and source.host_address.type != "usb":
            for name in ("domain", "bus", "slot", "function"):
                setattr(source.host_address, name, getattr(source.host_address, name) or 0)
        complete_addresses(source.ips, source.routes, f"{path}/source", "interface host IP")
    complete_addresses(interface.ips, interface.routes, path, "guest interface")
    for forward in interface.port_forwards:
        if forward.address is not None:
            forward.address = format_address(read_address(forward.address, f"{path}/portForward/@address"))


def complete_addresses(ips: list[InterfaceIp], routes: list[Route], path: str, what: str) -> None:
    """Write addresses in their shortest form, and of which family they are.

    Args:
        ips: the addresses.
        routes: the routes beside them.
        path: the element that has them.
        what: what libvirt calls it.

    Raises:
        ModelError: one is no address, is of another family, or a route leads nowhere; the words are libvirt's.
    """
    for ip in ips:
        version = {"ipv4": 4, "ipv6": 6}.get(ip.family or "")
        reason = f"Invalid address '{ip.address}' in <ip>"
        address = _read(ip.address, version, f"{path}/ip/@address", reason, ErrorCode.XML_ERROR)
        ip.address, ip.family = format_address(address), f"ipv{address.version}"
        if (ip.prefix or 0) > address.max_prefixlen:
            raise ModelError(f"{path}/ip/@prefix", f"Invalid prefix value '{ip.prefix}' in <ip>")
        if ip.peer is not None:
            reason = f"Invalid peer '{ip.peer}' in <ip>"
            peer = _read(ip.peer, address.version, f"{path}/ip/@peer", reason, ErrorCode.INVALID_ARG)
            ip.peer = format_address(peer)
    for route in routes:
        check_route(route, f"{path}/route", what)
        complete_route(route, f"{path}/route")


def _read(text: str, version: int | None, path: str, reason: str, code: ErrorCode) -> Address:
    try:
        address = read_address(text, path)
    except ModelError:
        raise ModelError(path, reason, code=code) from None
    if version not in (None, address.version):
        raise ModelError(path, reason, code=code)
    return address


def _complete_driver(interface: Interface) -> None:
    """Leave out what only a virtio card has, and one queue, which every card has."""
    driver = interface.driver
    if driver is not None and driver.queues == 1:
        driver.queues = None
    if interface.model in _VIRTIO_CARDS or interface.type == InterfaceType.HOSTDEV:
        return
    if interface.model is not None:
        if driver is not None:
            # What only another model may have stays to be refused.
            options = {field.name: getattr(driver, field.name) for field in VirtioOptions.FIELDS}
            interface.driver = InterfaceDriver(**options)
        if interface.backend is not None:
            interface.backend.vhost = None


def _default_model(domain: Domain, platform: Platform) -> str:
    """The card that guests are most likely to have a driver for (``qemuDomainDefaultNetModel``)."""
    arch, board = arch_of(domain), board_of(domain)
    if arch in S390 or board in (Board.ARM_VIRT, Board.RISCV_VIRT):
        return "virtio"
    if arch in ARM:
        return "smc91c111" if board == Board.VERSATILE else "lan9118"
    for flag, model in (("rtl8139", "rtl8139"), ("e1000", "e1000"), ("virtio-net", "virtio")):
        if platform.has(flag):
            return model
    return "rtl8139"


def _complete_virtual_port(port: VirtualPort, platform: Platform) -> None:
    """Make up the identifiers that a switch needs and the document does not have."""
    given = port.parameters = port.parameters or VirtualPortParameters()
    if given.instanceid is None and port.type in (None, "none", "802.1Qbg"):
        given.instanceid = platform.new_uuid()
    if given.interfaceid is None and port.type in (None, "none", "openvswitch"):
        given.interfaceid = platform.new_uuid()
