"""Network interfaces of a container: ``lxc.network.…`` of LXC 2, ``lxc.net.N.…`` of LXC 3."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.hostdev import CapabilitySource, Hostdev, NetHostdev
from hostel.model.domain.devices.interface import (
    Interface,
    InterfaceGuest,
    InterfaceIp,
    InterfaceSource,
    InterfaceType,
    Mac,
)
from hostel.model.domain.domain import Domain
from hostel.model.native.completing import NO_MAC
from hostel.model.native.settings import Settings, refused
from hostel.model.port import Route

_PLAIN: Final = (
    "name", "type", "link", "hwaddr", "flags", "macvlan.mode", "vlan.id", "ipv4.gateway", "ipv6.gateway",
)  # fmt: skip
_ADDRESSES: Final = {"ipv4": 4, "ipv4.address": 4, "ipv6": 6, "ipv6.address": 6}
_INDEXED: Final = re.compile(r"lxc\.net\.(\d{1,9})\.(.+)", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")


class _Network:
    """What is said of one interface."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.ips: list[InterfaceIp] = []

    def say(self, name: str, key: str, value: str) -> None:
        """Take one setting in.

        Raises:
            ModelError: it is none of an interface, or its address is none.
        """
        if key in _PLAIN:
            self.words[key] = value
        elif key in _ADDRESSES:
            self.ips.append(_address(name, value, _ADDRESSES[key]))
        else:
            raise refused(name, f"Unhandled network property: {key} = {value}")

    def routes(self) -> list[Route]:
        """Where everything goes that is for nobody near."""
        found: list[Route] = []
        for family, everything in (("ipv4", "0.0.0.0"), ("ipv6", "::")):
            gateway = self.words.get(f"{family}.gateway")
            if gateway is not None:
                found.append(Route(family=family, address=everything, gateway=gateway))
        return found


def _address(name: str, value: str, version: int) -> InterfaceIp:
    address, slash, prefix = value.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        parsed = None
    is_right = parsed is not None and parsed.version == version and bool(slash)
    if not is_right or not re.fullmatch(r"[0-9]{1,3}", prefix) or int(prefix) > (32 if version == 4 else 128):
        raise refused(name, f"Invalid CIDR address: '{value}'", code=ErrorCode.INVALID_ARG)
    return InterfaceIp(address=str(parsed), family=f"ipv{version}", prefix=int(prefix))


def read_network(settings: Settings, domain: Domain) -> bool:
    """Add every interface.

    Returns:
        whether none is named at all, so that the container has its own loopback interface only.

    Raises:
        ModelError: one is none that a document can have.
    """
    networks: list[_Network] = []
    by_index: dict[int, _Network] = {}
    for item in settings:
        if item.name.startswith("lxc.network."):
            key = item.name.removeprefix("lxc.network.")
            if key == "type":
                networks.append(_Network())
            if not networks:
                raise refused(item.name, "must follow lxc.network.type")
            networks[-1].say(item.name, key, str(item.value))
        elif item.name.startswith("lxc.net."):
            found = _INDEXED.fullmatch(item.name)
            if found is None:
                raise refused(item.name, "Expecting lxc.net.NUMBER.PROPERTY")
            index = int(found[1])
            if index not in by_index:
                by_index[index] = _Network()
                networks.append(by_index[index])
            by_index[index].say(item.name, found[2], str(item.value))
    for network in networks:
        _add(network, domain)
    return not networks


def _add(network: _Network, domain: Domain) -> None:
    words = network.words
    kind = words.get("type", "")
    link = words.get("link")
    if kind in ("", "empty", "none"):
        return
    if kind in ("phys", "vlan"):
        if link is None:
            reason = "Missing 'link' attribute for NIC"
            raise refused("lxc.net.link", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        name = f"{link}.{words['vlan.id']}" if kind == "vlan" and "vlan.id" in words else link
        hostdev: Hostdev = NetHostdev(
            mode="capabilities",
            type="net",
            source=CapabilitySource(interface=name),
            ips=network.ips,
            routes=network.routes(),
        )
        domain.devices.hostdevs.append(hostdev)
        return
    interface = Interface(
        type=InterfaceType.ETHERNET,
        mac=Mac(address=_mac(words.get("hwaddr"))),
        ips=network.ips,
        routes=network.routes(),
        guest=InterfaceGuest(dev=words["name"]) if "name" in words else None,
        link_state="up" if words.get("flags") == "up" else "down",
    )
    if kind == "veth" and link is not None:
        interface.type, interface.source = InterfaceType.BRIDGE, InterfaceSource(bridge=link)
    elif kind == "macvlan":
        mode = words.get("macvlan.mode", "private")
        if link is None:
            raise refused("lxc.net.link", "Missing 'link' attribute for NIC", code=ErrorCode.CONFIG_UNSUPPORTED)
        if mode not in ("private", "vepa", "bridge", "passthru"):
            raise refused("lxc.net.macvlan.mode", f"Unknown macvlan type: {mode}")
        mode = "passthrough" if mode == "passthru" else mode
        interface.type, interface.source = InterfaceType.DIRECT, InterfaceSource(dev=link, mode=mode)
    elif kind != "veth":
        raise refused("lxc.net.type", f"a document has nothing that '{kind}' is", code=ErrorCode.CONFIG_UNSUPPORTED)
    domain.devices.interfaces.append(interface)


def _mac(text: str | None) -> str:
    """An address; LXC's own placeholders (``00:16:3e:xx:xx:xx``) are none."""
    if text is None or not _MAC.fullmatch(text):
        return NO_MAC
    return ":".join(part.zfill(2) for part in text.lower().split(":"))
