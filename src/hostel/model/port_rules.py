"""What networks, port groups and network ports have in common: completed, and held against the rules."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.address import format_address, is_network, prefix_of, read_address
from hostel.model.port import Bandwidth, Rate, Route, VirtualPort, VirtualPortParameters, Vlan

_QBG: Final = ("managerid", "typeid", "typeidversion", "instanceid")
# Which parameters a type of virtual ports cannot have (virNetDevVPortProfileCheckNoExtras), and which it shows.
_EXTRA: Final = {
    "802.1Qbg": ("profileid", "interfaceid"),
    "802.1Qbh": (*_QBG, "interfaceid"),
    "openvswitch": _QBG,
}
_SHOWN: Final = {
    "802.1Qbg": _QBG,
    "802.1Qbh": ("profileid",),
    "openvswitch": ("interfaceid", "profileid"),
    "midonet": ("interfaceid",),
}
# What one cannot do without (virNetDevVPortProfileCheckComplete); what is not here is made up.
_NEEDED: Final = {
    "802.1Qbg": ("managerid", "typeid", "typeidversion"),
    "802.1Qbh": ("profileid",),
    "midonet": ("interfaceid",),
}
_PARAMETERS: Final = (*_QBG, "interfaceid", "profileid")
_LONGEST_PROFILE: Final = 39  # LIBVIRT_IFLA_VF_PORT_PROFILE_MAX, less its end


def complete_vlan(vlan: Vlan | None) -> None:
    """More than one tag is a trunk; a port that is none does not say so."""
    if vlan is not None:
        vlan.trunk = True if len(vlan.tags) > 1 or vlan.trunk else None


def check_vlan(vlan: Vlan | None, path: str) -> None:
    """A VLAN has tags, one of them native at most, and is a trunk where it must be.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if vlan is None:
        return
    if not vlan.tags:
        raise ModelError(path, "missing tag id - each <vlan> must have at least one <tag id='n'/> subelement")
    native = sum(tag.native_mode is not None for tag in vlan.tags)
    if native > 1:
        raise ModelError(path, "duplicate native vlan setting")
    if vlan.trunk is False and len(vlan.tags) > 1:
        reason = "invalid \"trunk='no'\" in <vlan> - trunk='yes' is required for more than one vlan tag"
        raise ModelError(f"{path}/@trunk", reason)
    if vlan.trunk is False and native:
        reason = "invalid configuration in <vlan> - \"trunk='no'\" is not allowed with a native vlan id"
        raise ModelError(f"{path}/@trunk", reason)


def completed_virtual_port(port: VirtualPort | None) -> VirtualPort | None:
    """The port with the parameters of its type; none where it says nothing."""
    if port is None:
        return None
    port.type = None if port.type == "none" else port.type
    if port.parameters is not None and port.type is not None:
        for name in _PARAMETERS:
            if name not in _SHOWN[port.type]:
                setattr(port.parameters, name, None)
    if port.type is None and (port.parameters is None or port.parameters.is_empty()):
        return None
    return port


def check_virtual_port(port: VirtualPort | None, path: str, *, needs_type: bool = False) -> None:
    """A port has a type where it needs one, and no parameter of another type.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if port is None:
        return
    if port.type == "none":
        reason = "unknown virtualport type none; leave the type out"
        raise ModelError(f"{path}/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if needs_type and port.type is None:
        raise ModelError(f"{path}/@type", "missing required virtualport type")
    if port.parameters is None:
        return
    for name in _EXTRA.get(port.type or "", ()):
        if getattr(port.parameters, name) is not None:
            reason = f"extra {name} unsupported in <virtualport type='{port.type}'>"
            raise ModelError(f"{path}/parameters/@{name}", reason)
    if len((port.parameters.profileid or "").encode()) > _LONGEST_PROFILE:
        raise ModelError(f"{path}/parameters/@profileid", "profileid parameter too long")


def check_complete(port: VirtualPort | None, path: str) -> None:
    """A port that is to be used has all parameters that its type needs.

    Raises:
        ModelError: one is missing; the words are libvirt's.
    """
    given = port.parameters if port is not None else None
    for name in _NEEDED.get((port.type if port is not None else None) or "", ()):
        if given is None or getattr(given, name) is None:
            kind = port.type if port is not None else None
            raise ModelError(f"{path}/parameters/@{name}", f"missing {name} in <virtualport type='{kind}'>")


def merged_virtual_port(*ports: VirtualPort | None) -> VirtualPort | None:
    """The port that an interface, its network and its group of ports say together (``virNetDevVPortProfileMerge3``).

    Raises:
        ModelError: two say different things of the same; the words are libvirt's.
    """
    if all(port is None or port.type in (None, "none") for port in ports):
        return None
    merged = VirtualPort(parameters=VirtualPortParameters())
    assert merged.parameters is not None
    for port in ports:
        if port is None:
            continue
        if port.type not in (None, "none", merged.type):
            if merged.type is not None:
                raise _mismatch("types", merged.type, port.type)
            merged.type = port.type
        for name in _PARAMETERS if port.parameters is not None else ():
            value, held = getattr(port.parameters, name), getattr(merged.parameters, name)
            if value is None or name not in _SHOWN.get(merged.type or "", _PARAMETERS):
                continue
            if held not in (None, value):
                raise _mismatch(f"{name}s", held, value)
            setattr(merged.parameters, name, value)
    return merged


def _mismatch(what: str, one: object, other: object) -> ModelError:
    shown = f"'{one}' and '{other}'" if what in ("instanceids", "interfaceids", "profileids") else f"{one} and {other}"
    return ModelError("", f"attempt to merge virtualports with mismatched {what} ({shown})")


def completed_bandwidth(bandwidth: Bandwidth | None) -> Bandwidth | None:
    """The bandwidth without what is 0, which is no limit; none where nothing is left."""
    if bandwidth is None:
        return None
    for rate in (bandwidth.inbound, bandwidth.outbound):
        if rate is not None:
            for name in ("average", "peak", "floor", "burst"):
                setattr(rate, name, getattr(rate, name) or None)
    bandwidth.inbound = bandwidth.inbound if _limits(bandwidth.inbound) else None
    bandwidth.outbound = bandwidth.outbound if _limits(bandwidth.outbound) else None
    return bandwidth if bandwidth.inbound is not None or bandwidth.outbound is not None else None


def _limits(rate: Rate | None) -> bool:
    return rate is not None and (rate.average is not None or rate.floor is not None)


def check_bandwidth(bandwidth: Bandwidth | None, path: str, *, is_port: bool = False, has_floor: bool = False) -> None:
    """Peaks and bursts stand on an average; only a port has a class, and it or an interface of a network a floor.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if bandwidth is None:
        return
    if bandwidth.class_id is not None and not is_port:
        reason = "classID attribute not supported on <bandwidth> in this usage context"
        raise ModelError(f"{path}/@classID", reason, code=ErrorCode.XML_DETAIL)
    rates: tuple[tuple[str, Rate | None], ...] = (("inbound", bandwidth.inbound), ("outbound", bandwidth.outbound))
    for name, rate in rates:
        if rate is None:
            continue
        here = f"{path}/{name}"
        if rate.average is None and rate.floor is None:
            raise ModelError(here, "Missing mandatory average or floor attributes", code=ErrorCode.XML_DETAIL)
        if rate.average is None and (rate.peak is not None or rate.burst is not None):
            reason = "'peak' and 'burst' require 'average' attribute"
            raise ModelError(here, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        if rate.floor and (name == "outbound" or not (is_port or has_floor)):
            reason = (
                "'floor' attribute allowed only in <inbound> element"
                if name == "outbound"
                else "floor attribute is not supported for this config"
            )
            raise ModelError(f"{here}/@floor", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def complete_route(route: Route, path: str) -> None:
    """Write a route's addresses in their shortest form.

    Raises:
        ModelError: one is none.
    """
    for name in ("address", "netmask", "gateway"):
        value = getattr(route, name)
        if value is not None:
            setattr(route, name, format_address(read_address(value, f"{path}/@{name}")))


def check_route(route: Route, path: str, network: str) -> None:
    """A route leads to a network, by a gateway of the same family.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    for name in ("address", "gateway"):
        if getattr(route, name) is None:
            raise ModelError(path, f"{network}: Missing required {name} attribute in route definition")
    version = 6 if route.family == "ipv6" else 4
    for name, what in (("address", "address"), ("gateway", "gateway")):
        address = read_address(getattr(route, name), f"{path}/@{name}")
        if address.version != version:
            family = {None: "No family", "ipv4": "IPv4 family", "ipv6": "ipv6 family"}[route.family]
            reason = f"{network}: {family} specified for non-IPv{version} {what} '{address}' in route definition"
            raise ModelError(f"{path}/@{name}", reason)
    address = read_address(route.address or "", f"{path}/@address")
    if route.netmask is not None:
        if version == 6:
            reason = f"{network}: Specifying netmask invalid for IPv6 address '{address}' in route definition"
            raise ModelError(f"{path}/@netmask", reason)
        if route.prefix is not None:
            reason = f"{network}: Route definition cannot have both a prefix and a netmask"
            raise ModelError(path, reason)
    if (route.prefix or 0) > address.max_prefixlen:
        most = address.max_prefixlen
        reason = f"{network}: Invalid prefix {route.prefix} specified in route definition, must be 0 - {most}"
        raise ModelError(f"{path}/@prefix", reason)
    # Without a prefix libvirt takes 0, so that only the default route is a network address.
    length = prefix_of(address, route.netmask, route.prefix) if route.netmask is not None else route.prefix or 0
    if length is None or not is_network(address, length):
        reason = f"{network}: Address '{address}' in route definition is not a network address"
        raise ModelError(f"{path}/@address", reason)
