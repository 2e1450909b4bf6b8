"""What no driver of networks can make of a document, whatever the host has (``networkValidate``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.address import read_address
from hostel.model.network import ForwardMode, Network, PortGroup

_MANAGED: Final = (None, ForwardMode.NAT, ForwardMode.ROUTE, ForwardMode.OPEN)


def check_supported(network: Network) -> None:
    """Hold a network that is to be defined or started against what there is for its mode.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    mode = network.forward.mode if network.forward is not None else None
    if mode not in _MANAGED:
        _check_outer(network, f"network {network.name} with forward mode='{mode}'")
    may_shape = mode in _MANAGED or (mode is ForwardMode.BRIDGE and network.bridge is not None)
    if network.bandwidth is not None and not may_shape:
        reason = f"Unsupported network-wide <bandwidth> element in network {network.name} with forward mode='{mode}'"
        raise _unsupported("/network/bandwidth", reason)
    _check_devices(network, mode)
    _check_dhcp(network)
    _check_groups(network, mode, may_shape=may_shape)
    _check_vlans(network, mode)


def _check_outer(network: Network, where: str) -> None:
    """A bridge that others have made has no address, and nothing serves it."""
    dns = network.dns
    given = {
        "mac": network.mac is not None,
        "ip": bool(network.ips),
        "dns": dns is not None and bool(dns.texts or dns.hosts or dns.services),
        "domain": network.domain is not None,
    }
    for name, is_there in given.items():
        if is_there:
            raise _unsupported(f"/network/{name}", f"Unsupported <{name}> element in {where}")


def _check_devices(network: Network, mode: ForwardMode | None) -> None:
    forward = network.forward
    if forward is None:
        return
    if mode is ForwardMode.HOSTDEV and forward.interfaces:
        raise _unsupported(
            "/network/forward/interface",
            f"hostdev network '{network.name}' lists '{forward.interfaces[0].dev}' in the device pool, but hostdev "
            "networks require all devices to be listed by PCI address, not network device name",
        )
    if mode is not ForwardMode.HOSTDEV and forward.addresses:
        raise _unsupported(
            "/network/forward/address",
            f"network '{network.name}' has forward mode '{mode}'  but lists a device by PCI address in the device "
            "pool. This is only supported for networks with forward mode 'hostdev'",
        )
    if sum(map(bool, (forward.pfs, forward.interfaces, forward.addresses))) > 1:
        raise _unsupported(
            "/network/forward",
            f"<address>, <interface>, and <pf> elements of <forward> in network {network.name} are mutually exclusive",
        )


def _check_dhcp(network: Network) -> None:
    for version in (4, 6):
        served = [
            ip
            for ip in network.ips
            if ip.dhcp is not None
            and (ip.dhcp.ranges or ip.dhcp.hosts)
            and read_address(ip.address or "", "/network/ip/@address").version == version
        ]
        if len(served) > 1:
            raise _unsupported(
                "/network/ip/dhcp",
                f"Multiple IPv{version} dhcp sections found -- dhcp is supported only for a single IPv{version} "
                "address on each network",
            )


def _check_groups(network: Network, mode: ForwardMode | None, *, may_shape: bool) -> None:
    default: PortGroup | None = None
    names = [group.name for group in network.portgroups]
    for number, group in enumerate(network.portgroups):
        here = f"/network/portgroup[{number + 1}]"
        if group.is_default and default is not None:
            raise _unsupported(
                f"{here}/@default",
                f"network '{network.name}' has multiple default <portgroup> elements ({default.name} and "
                f"{group.name}), but only one default is allowed",
            )
        default = group if group.is_default else default
        if group.name in names[number + 1 :]:
            reason = f"multiple <portgroup> elements with the same name ({group.name}) in network '{network.name}'"
            raise _unsupported(f"{here}/@name", reason)
        if group.bandwidth is not None and not may_shape:
            raise _unsupported(
                f"{here}/bandwidth",
                f"Unsupported <bandwidth> element in network '{network.name}' in portgroup '{group.name}' with forward "
                f"mode='{mode}'",
            )


def _check_vlans(network: Network, mode: ForwardMode | None) -> None:
    """Only cards of the host and bridges of Open vSwitch separate VLANs for guests."""
    bridged = mode is ForwardMode.BRIDGE
    port = network.virtualport
    allowed = mode in (ForwardMode.HOSTDEV, ForwardMode.PASSTHROUGH) or (
        bridged and port is not None and port.type == "openvswitch"
    )
    used = network.vlan is not None and bool(network.vlan.tags)
    wrong = used and not allowed and not any(group.is_default for group in network.portgroups)
    for group in network.portgroups:
        if not used and (group.vlan is None or not group.vlan.tags):
            continue
        own = group.virtualport
        wrong = wrong or (not allowed if own is None else not (bridged and own.type == "openvswitch"))
    if wrong:
        reason = f"<vlan> element specified for network {network.name}, whose type doesn't support vlan configuration"
        raise _unsupported("/network/vlan", reason)


def _unsupported(path: str, reason: str) -> ModelError:
    return ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
