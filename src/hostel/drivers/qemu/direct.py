"""The host's end of direct interfaces: a macvtap, and its port of the switch outside (``virnetdevmacvlan.c``)."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.link import device, switchport, tap
from hostel.drivers.link.switchport import Guest, Wish
from hostel.drivers.passthrough import network
from hostel.drivers.passthrough.pci import PciFunctions
from hostel.drivers.qemu.command.context import alias_of
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.interface import Interface, InterfaceSource
from hostel.model.domain.domain import Domain
from hostel.model.port import VirtualPort, VirtualPortParameters

_LINKS: Final = Path("/sys/class/net")


def connect(domain: Domain, interface: Interface, real: Interface, queues: int, *, moves: bool) -> list[int]:
    """Make a macvtap and give it its port; its open files, one for each queue.

    Args:
        domain: the live document.
        interface: the interface in it, which gets the macvtap's name.
        real: what it is plugged into.
        queues: how many files.
        moves: the guest is on another host yet.

    Raises:
        VirtError: the host, or the switch, refused; nothing is left.
    """
    assert interface.target is not None
    source = real.source or InterfaceSource()
    if real.vlan is not None and real.vlan.tags:
        reason = f"vlan can only be set for SR-IOV VFs, which no interface is made of here; '{source.dev}' is none"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
    purpose = _purpose(domain, interface)
    name = tap.make_macvtap(source.dev or "", source.mode or "vepa", _mac(interface), purpose)
    try:
        _ask(domain, name, interface, real, moves=moves)
    except BaseException:
        with contextlib.suppress(VirtError):
            tap.remove_macvtaps(purpose)
        raise
    interface.target.dev = name
    files = tap.open_macvtap(name, queues=queues)
    try:
        if interface.mtu:
            device.ip("link", "set", "dev", name, "mtu", str(interface.mtu))
    except BaseException:
        tap.close(files)
        raise
    return files


def arrive(domain: Domain, interface: Interface, real: Interface) -> None:
    """Tell the switch that a guest that moved here is about to run.

    Raises:
        VirtError: it refused.
    """
    if interface.target is not None and interface.target.dev is not None:
        _ask(domain, interface.target.dev, interface, real, moves=False)


def remove(domain: Domain, interface: Interface, real: Interface) -> None:
    """Give the port back and remove the macvtap, whatever there is of them.

    Raises:
        VirtError: the macvtap stays.
    """
    name = interface.target.dev if interface.target is not None else None
    if name is not None and device.exists(name):
        with contextlib.suppress(VirtError, OSError):  # a switch that is away keeps no macvtap here
            _give_back(name, interface, real)
    tap.remove_macvtaps(_purpose(domain, interface))


def _ask(domain: Domain, name: str, interface: Interface, real: Interface, *, moves: bool) -> None:
    """Ask the switch for a macvtap's port, where it is one of a kind that is asked for."""
    kind, given = _parameters(real.virtualport)
    if kind == "802.1Qbg":
        switchport.bridged(name, _mac(interface), given, Wish.PREASSOCIATE if moves else Wish.ASSOCIATE)
    elif kind == "802.1Qbh":
        from hostel.drivers.qemu.capabilities import host_uuid

        link, function = _card(_link(real))
        machine = uuid.UUID(domain.uuid) if domain.uuid else uuid.UUID(int=0)
        guest = Guest(_mac(interface), given.profileid or "", machine, uuid.UUID(host_uuid()))
        switchport.associate(link, function, guest, Wish.PREASSOCIATE_RR if moves else Wish.ASSOCIATE)


def _give_back(name: str, interface: Interface, real: Interface) -> None:
    kind, given = _parameters(real.virtualport)
    if kind == "802.1Qbg":
        switchport.bridged(name, _mac(interface), given, Wish.DISASSOCIATE)
    elif kind == "802.1Qbh":
        device.ip("link", "set", "dev", _link(real), "down")
        switchport.disassociate(*_card(_link(real)))


def _card(link: str) -> tuple[str, int]:
    """Whose switch is asked for what stands on an interface: of a virtual function the physical one's."""
    own = Path(_LINKS / link / "device").resolve().name
    functions = PciFunctions(Path("/"), ErrorDomain.NET)
    if not (_LINKS / link / "device" / "physfn").exists():
        return link, -1
    place = network.locate(functions, own)
    return place.link, place.number


def _parameters(port: VirtualPort | None) -> tuple[str | None, VirtualPortParameters]:
    if port is None:
        return None, VirtualPortParameters()
    return port.type, port.parameters or VirtualPortParameters()


def _link(real: Interface) -> str:
    return (real.source.dev if real.source is not None else None) or ""


def _mac(interface: Interface) -> str:
    return interface.mac.address if interface.mac is not None else ""


def _purpose(domain: Domain, interface: Interface) -> str:
    return f"hostel {domain.uuid} {alias_of(interface)}"
