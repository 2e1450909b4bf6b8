"""Ports of external switches: a profile is asked for, and given back, by rtnetlink (``virnetdevvportprofile.c``).

802.1Qbh is spoken by a card's firmware, which its driver in the kernel asks; 802.1Qbg by lldpad, which is sent the same
messages in place of the kernel. Either says what has become of a request when it is asked for the interface.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import time
import uuid
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.codec import netlink
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.link import device
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.port import VirtualPortParameters

LLDPAD: Final = Path("/var/run/lldpad.pid")
KERNEL: Final = 0  # whom to ask: the port of the kernel, or of a process
_GETLINK, _SETLINK = 18, 19  # RTM_GETLINK, RTM_SETLINK
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_NAME, _VF_LIST, _VF_PORTS, _PORT_SELF, _EXTENT = 3, 22, 24, 25, 29  # IFLA_IFNAME and so on
_VF_INFO, _VF_MAC, _VF_VLAN, _VF_PORT = 1, 1, 2, 1
_VF, _PROFILE, _VSI_TYPE, _INSTANCE, _HOST, _REQUEST, _RESPONSE = range(1, 8)  # IFLA_PORT_…
_WITH_FUNCTIONS: Final = struct.pack("=I", 1)  # RTEXT_FILTER_VF
_SELF: Final = -1  # PORT_SELF_VF: the interface itself, and none of its virtual functions
_IN_PROGRESS: Final = 0x101  # PORT_PROFILE_RESPONSE_INPROGRESS
_DONE: Final = (0x100, 0)  # PORT_PROFILE_RESPONSE_SUCCESS, PORT_VDP_RESPONSE_SUCCESS
_ANSWER_SECONDS: Final = 2.0
_SECONDS, _POLL = 10.0, 0.125
_LARGEST: Final = 131_072


class Wish(enum.IntEnum):
    """What becomes of a port (``PORT_REQUEST_…``)."""

    PREASSOCIATE = 0
    PREASSOCIATE_RR = 1
    ASSOCIATE = 2
    DISASSOCIATE = 3


class Place(NamedTuple):
    """Who has a port.

    Attributes:
        interface: its number.
        function: which of its virtual functions; the interface itself where it is -1.
        name: what it is called.
    """

    interface: int
    function: int
    name: str


class Asked(NamedTuple):
    """A request.

    Attributes:
        place: who has the port.
        wish: what becomes of it.
        instance: the UUID by which it is known afterwards; None where nobody has it then.
        settings: the attributes of the port.
        names: the attributes of the interface: its name, its hardware address and VLAN.
        can_be_silent: whether an answer without a state is one that says to wait.
    """

    place: Place
    wish: Wish
    instance: bytes | None
    settings: bytes
    names: bytes = b""
    can_be_silent: bool = False


class _TimedOut(Exception):
    """Nobody has decided."""


def bridged(name: str, mac: str, given: VirtualPortParameters, wish: Wish, lldpad: Path = LLDPAD) -> None:
    """Ask the switch behind a macvtap, by 802.1Qbg.

    Args:
        name: the macvtap.
        mac: the guest's hardware address.
        given: what the switch is told: manager, type and its version, and instance.
        wish: what becomes of the port.
        lldpad: where lldpad says which process it is.

    Raises:
        VirtError: nobody is there to be asked, or the switch refused.
    """
    link, vlan = _bottom(name)
    place = Place(socket.if_nametoindex(link), _SELF, link)
    instance = uuid.UUID(given.instanceid).bytes if given.instanceid else bytes(16)
    number = (given.typeid or 0).to_bytes(3, "little")
    kind = struct.pack("=B3sB3x", given.managerid or 0, number, given.typeidversion or 0)
    names = netlink.attribute(_NAME, link.encode() + b"\0") + netlink.nest(
        _VF_LIST,
        netlink.nest(
            _VF_INFO,
            netlink.attribute(_VF_MAC, struct.pack("=i32s", _SELF, _mac_bytes(mac))),
            netlink.attribute(_VF_VLAN, struct.pack("=iII", _SELF, vlan, 0)),
        ),
    )
    settings = netlink.attribute(_VSI_TYPE, kind) + netlink.attribute(_INSTANCE, instance)
    asked = Asked(place, wish, instance, settings, names, can_be_silent=True)
    try:
        peer = _process(lldpad)
    except VirtError as error:
        raise _unsent(error) from error
    try:
        _ask(asked, peer)
    except _TimedOut as error:
        raise _too_late() from error


class Guest(NamedTuple):
    """Whose port it is, by 802.1Qbh.

    Attributes:
        mac: the guest's hardware address.
        profile: the name of what the switch gives the port.
        machine: the machine's UUID.
        host: the host's UUID.
    """

    mac: str
    profile: str
    machine: uuid.UUID
    host: uuid.UUID


def associate(link: str, function: int, guest: Guest, wish: Wish = Wish.ASSOCIATE, peer: int = KERNEL) -> None:
    """Have a card ask the switch for a profile, by 802.1Qbh; where nobody decides, it is given back.

    Args:
        link: the card's interface.
        function: which of its virtual functions; the interface itself where it is -1.
        guest: whose port it is.
        wish: whether it is wanted now, or later.
        peer: whom to ask.

    Raises:
        VirtError: the card does not do that, or the switch refused.
    """
    place, instance = Place(_index(link), function, link), guest.machine.bytes
    settings = (
        netlink.attribute(_PROFILE, guest.profile.encode() + b"\0")
        + netlink.attribute(_INSTANCE, instance)
        + netlink.attribute(_HOST, guest.host.bytes)
    )
    mac = netlink.attribute(_VF_MAC, struct.pack("=i32s", function, _mac_bytes(guest.mac)))
    names = netlink.nest(_VF_LIST, netlink.nest(_VF_INFO, mac))
    try:
        _ask(Asked(place, wish, instance, settings, names), peer)
    except _TimedOut as error:
        disassociate(link, function, peer)
        raise _too_late() from error


def disassociate(link: str, function: int, peer: int = KERNEL) -> None:
    """Have a card give a profile back, by 802.1Qbh; see :func:`associate`.

    Raises:
        VirtError: the card does not do that, or the switch refused.
    """
    place = Place(_index(link), function, link)
    try:
        _ask(Asked(place, Wish.DISASSOCIATE, None, b"", can_be_silent=True), peer)
    except _TimedOut as error:
        raise _too_late() from error


def _too_late() -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, "port-profile setlink timed out", ErrorDomain.NET)


def _ask(asked: Asked, peer: int) -> None:
    """Send a request, and wait until it is decided.

    Raises:
        VirtError: it was refused.
        _TimedOut: it was not decided in time.
    """
    place, settings = asked.place, asked.settings
    if place.function != _SELF:
        settings += netlink.attribute(_VF, struct.pack("=i", place.function))
    settings += netlink.attribute(_REQUEST, bytes([asked.wish]))
    if _is_own(place, peer):
        port = netlink.nest(_PORT_SELF, settings)
    else:
        port = netlink.nest(_VF_PORTS, netlink.nest(_VF_PORT, settings))
    try:
        _talk(_SETLINK, place.interface, asked.names + port, peer, "error during virtual port configuration of ifindex")
    except VirtError as error:
        raise _unsent(error) from error
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        shown = _talk(_GETLINK, place.interface, netlink.attribute(_EXTENT, _WITH_FUNCTIONS), peer, "error dumping")
        found = _state(shown, asked, own=_is_own(place, peer))
        if found in _DONE:
            return
        if found != _IN_PROGRESS:
            reason = f"error {found} during port-profile setlink on interface {place.name} ({place.interface})"
            raise fault(ErrorCode.SYSTEM_ERROR, f"{reason}: Invalid argument", ErrorDomain.NET)
        time.sleep(_POLL)
    raise _TimedOut


def _is_own(place: Place, peer: int) -> bool:
    """Whether the port is told of as the interface's own: lldpad is told of all as of virtual functions."""
    return place.function == _SELF and peer == KERNEL


def _unsent(error: VirtError) -> VirtError:
    """Libvirt says that a request was not sent; we also why."""
    reason = f"sending of PortProfileRequest failed.: {error.message}"
    return fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NET)


def _state(shown: netlink.Message, asked: Asked, *, own: bool) -> int:
    """What has become of a request, by what is told of the interface (``IFLA_PORT_RESPONSE``).

    Raises:
        VirtError: ``INTERNAL_ERROR``: nothing is told of the port.
    """
    try:
        of_link = dict(netlink.attributes(shown.body[_LINK.size :]))
        if (_PORT_SELF if own else _VF_PORTS) not in of_link:
            raise ValueError(f"{'IFLA_PORT_SELF' if own else 'IFLA_VF_PORTS'} is missing")
        if own:
            port = dict(netlink.attributes(of_link[_PORT_SELF]))
        else:
            told = [dict(netlink.attributes(value)) for _, value in netlink.attributes(of_link[_VF_PORTS])]
            port = _port_among(told, asked)
        if _RESPONSE in port:
            return int(struct.unpack_from("=H", port[_RESPONSE])[0])
    except (ValueError, struct.error) as error:
        raise fault(ErrorCode.INTERNAL_ERROR, str(error), ErrorDomain.NET) from error
    if not asked.can_be_silent:
        reason = "no IFLA_PORT_RESPONSE found in netlink message"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NET)
    return _IN_PROGRESS


def _port_among(ports: list[dict[int, bytes]], asked: Asked) -> dict[int, bytes]:
    wanted = struct.pack("=i", asked.place.function)
    for port in ports:
        if port.get(_VF) == wanted and asked.instance in (None, port.get(_INSTANCE)):
            return port
    instance = str(uuid.UUID(bytes=asked.instance)) if asked.instance is not None else "(none)"
    raise ValueError(f"Could not find vf/instanceId {asked.place.function}/{instance} in netlink response")


def _talk(kind: int, index: int, attributes: bytes, peer: int, doing: str) -> netlink.Message:
    """Send a message about an interface, and return the answer.

    Raises:
        VirtError: ``SYSTEM_ERROR``: it was refused, or not answered; ``INTERNAL_ERROR``: the answer is none.
    """
    doing, body = f"{doing} {index}", _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
    acknowledge = netlink.ACKNOWLEDGE if kind == _SETLINK else 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
            asking.settimeout(_ANSWER_SECONDS)
            asking.bind((0, 0))
            message, own = netlink.Message(kind, 1, body), int(asking.getsockname()[0])
            asking.sendto(netlink.pack(message, flags=netlink.REQUEST | acknowledge, sender=own), (peer, 0))
            answer = netlink.unpack(asking.recv(_LARGEST))
        if answer.kind == netlink.ERROR and (number := -struct.unpack_from("=i", answer.body)[0]):
            raise OSError(number, os.strerror(number))
    except TimeoutError as error:
        reason = f"{doing}: no valid netlink response was received: Connection timed out"
        raise fault(ErrorCode.SYSTEM_ERROR, reason, ErrorDomain.NET) from error
    except OSError as error:
        raise system_fault(error, doing, ErrorDomain.NET) from error
    except (ValueError, struct.error) as error:
        raise fault(ErrorCode.INTERNAL_ERROR, "malformed netlink response message", ErrorDomain.NET) from error
    return answer


def _process(path: Path) -> int:
    """The number of the process that a file names, which is its port too.

    Raises:
        VirtError: there is no such file, or none that names a process.
    """
    try:
        text = path.read_text("ascii", "replace")
    except OSError as error:
        doing = f"Error opening file {path}: lldpad, which speaks 802.1Qbg with the switch, does not run"
        raise system_fault(OSError(error.errno, os.strerror(error.errno or 0)), doing, ErrorDomain.NET) from error
    word = text.split()[0] if text.strip() else ""
    if not word.isdecimal() or not 0 < int(word) < 2**32:
        raise fault(ErrorCode.INTERNAL_ERROR, "error parsing pid of lldpad", ErrorDomain.NET)
    return int(word)


def _bottom(name: str) -> tuple[str, int]:
    """The interface that others stand on, down from ``name``, and the VLAN of the first on the way; 0 for none.

    A cable's ends stand on one another: the first that is seen again is where it ends.

    Raises:
        VirtError: there is no interface of this name.
    """
    seen, vlan = {name}, 0
    while True:
        shown: dict[str, Any] = device.ip_json("-details", "link", "show", "dev", name)[0]
        vlan = vlan or _vlan(shown)
        below = shown.get("link")
        if below is None or below in seen or "link_netnsid" in shown:
            return name, vlan
        seen.add(below)
        name = str(below)


def _vlan(shown: dict[str, Any]) -> int:
    """The VLAN of an interface as ``ip`` tells of it; 0 for none."""
    kind = shown.get("linkinfo", {})
    return int(kind.get("info_data", {}).get("id", 0)) if kind.get("info_kind") == "vlan" else 0


def _index(link: str) -> int:
    try:
        return socket.if_nametoindex(link)
    except OSError as error:
        reason = f"Unable to get index for interface {link}: No such device"
        raise fault(ErrorCode.SYSTEM_ERROR, reason, ErrorDomain.NET) from error


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
