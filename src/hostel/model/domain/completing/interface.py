"""What an interface gets that its document does not say: address, model, identifiers (``virDomainNetDefParseXML``)."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.devices.interface import Interface, InterfaceType, Mac
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import ARM, S390, Board, Platform, arch_of, board_of
from hostel.model.port import VirtualPort, VirtualPortParameters
from hostel.model.port_rules import complete_vlan

# virDomainNetModel: QEMU's other models are kept as they are written.
_CARDS: Final = (
    "netfront", "rtl8139", "virtio", "e1000", "e1000e", "virtio-transitional", "virtio-non-transitional", "usb-net",
    "spapr-vlan", "lan9118", "scm91c111", "vlance", "vmxnet", "vmxnet2", "vmxnet3", "Am79C970A", "Am79C973", "82540EM",
    "82545EM", "82543GC",
)  # fmt: skip
_VIRTIO_CARDS: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")


def complete_interface(domain: Domain, interface: Interface, platform: Platform) -> None:
    """Give an interface a hardware address, a model, and its virtual port the identifiers that a switch needs."""
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
        interface.model = next((card for card in _CARDS if card.lower() == written), interface.model)
    _complete_driver(interface)
    if not platform.is_qemu or interface.model is not None:
        return
    if interface.type == InterfaceType.VDPA:
        interface.model = "virtio"
    elif interface.type != InterfaceType.HOSTDEV:
        interface.model = _default_model(domain, platform)


def _complete_driver(interface: Interface) -> None:
    """Leave out what only a virtio card has, and one queue, which every card has."""
    driver = interface.driver
    if driver is not None and driver.queues == 1:
        driver.queues = None
    if interface.model in _VIRTIO_CARDS or interface.type == InterfaceType.HOSTDEV:
        return
    if interface.model is not None:
        interface.driver = None
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
