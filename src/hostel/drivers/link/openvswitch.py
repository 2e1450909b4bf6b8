"""Ports of Open vSwitch bridges, through ``ovs-vsctl`` (``virNetDevOpenvswitch*``, ``ovs-vswitchd.conf.db(5)``).

What a switch is told outlives the interface, and its name may be another's by then. So that a port is found again, the
guest's UUID and the hardware address are in its external identifiers, where controllers look for them too; and in those
of its shaping, which nothing but us removes.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from hostel.drivers import tool
from hostel.drivers.fault import fault
from hostel.drivers.link import device
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.port import Bandwidth, Rate, VirtualPort, VirtualPortParameters, Vlan

_TOOL: Final = "ovs-vsctl"
_SECONDS: Final = 5  # until it gives a switch up that does not answer
_GRACE: Final = 5.0  # seconds more until it is killed itself
# Open vSwitch counts bits a second, and bits at once; policing kilobits.
_BITS_PER_KILOBYTE: Final = 8000
_BITS_PER_KIBIBYTE: Final = 8192
_BITS_PER_BYTE: Final = 8
_COUNTERS: Final = ("bytes", "packets", "errors", "dropped")


def is_switched(port: VirtualPort | None) -> bool:
    """Whether a virtual port is one of Open vSwitch."""
    return port is not None and port.type == "openvswitch"


def add_port(bridge: str, name: str, mac: str, owner: str, port: VirtualPort, vlan: Vlan | None) -> None:
    """Put an interface of a guest into a bridge.

    Args:
        bridge: the bridge's name.
        name: the interface's, which has just been made: what the switch may know of this name is of one that is gone.
        mac: the guest's hardware address.
        owner: the guest's UUID.
        port: what controllers are told.
        vlan: the VLANs that it is in.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the switch refused, or is not there.
    """
    device.check_plain(bridge)
    device.check_plain(name)
    given = port.parameters or VirtualPortParameters()
    identifiers = {"attached-mac": mac, "iface-id": given.interfaceid or "", "vm-id": owner}
    if given.profileid:
        identifiers |= {"port-profile": given.profileid, "ifname": name}
    with _explained(f"Unable to add port {name} to OVS bridge {bridge}"):
        _change(
            *_removal(_ports(f"name={json.dumps(name)}", 'external_ids:vm-id!=""')),
            ["--may-exist", "add-port", bridge, name, *_tags(vlan)],
            ["set", "Interface", name, *_identifiers({**identifiers, "iface-status": "active"})],
        )


def remove_ports(owner: str, mac: str, name: str = "") -> None:
    """Remove the ports of a guest's interface, and their shaping, whatever there is of them.

    Args:
        owner: the guest's UUID.
        mac: the interface's hardware address.
        name: the port's; empty where it is not known. Where a guest moves within a host it has two for a while.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the switch refused, or is not there.
    """
    with _explained(f"Unable to delete port of {mac} from OVS"):
        names = _ports(*_identified(owner, mac), *([f"name={json.dumps(name)}"] if name else []))
        _change(*_removal(names))
        _change(*_unshaping(owner, mac, name))  # which is not removed as long as a port refers to it


def set_vlan(name: str, vlan: Vlan | None) -> None:
    """Have a port in other VLANs.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the switch refused, or is not there.
    """
    device.check_plain(name)
    with _explained(f"Unable to set vlan configuration on port {name}"):
        cleared = [["--if-exists", "clear", "Port", name, column] for column in ("tag", "trunks", "vlan_mode")]
        tags = _tags(vlan)
        _change(*cleared, *([["--if-exists", "set", "Port", name, *tags]] if tags else []))


def shape(name: str, bandwidth: Bandwidth | None, owner: str, mac: str) -> None:
    """Set the rates of a guest's port; what was set before is gone.

    What the guest receives is queued; what it sends beyond its rate is dropped.

    Args:
        name: the port's.
        bandwidth: the rates; none where nothing is limited.
        owner: the guest's UUID.
        mac: the guest's hardware address.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the switch refused, or is not there.
    """
    device.check_plain(name)
    given = bandwidth or Bandwidth()
    with _explained(f"Unable to set qos configuration on port {name}"):
        before = ["--if-exists", "clear", "Port", name, "qos"]
        mine = {"vm-id": owner, "attached-mac": mac, "ifname": name}
        queueing = _queueing(name, given.inbound, _identifiers(mine))
        _change(before, *_unshaping(owner, mac, name), *queueing, _policing(name, given.outbound))


def statistics(name: str) -> tuple[int, ...]:
    """The guest's counters of a port: received bytes, packets, errors and drops, then those it sent; -1 where unknown.

    Raises:
        VirtError: ``INTERNAL_ERROR``: there is no such port, or nothing is counted.
    """
    try:
        rows = _rows("--if-exists", "--columns=statistics", "list", "Interface", name)
    except VirtError:
        rows = []
    if not rows:
        raise _fault("Interface not found")
    try:
        told = dict(rows[0]["statistics"][1])
        # The guest receives what the switch sends.
        found = tuple(int(told.get(f"{way}_{what}", -1)) for way in ("tx", "rx") for what in _COUNTERS)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _fault("Malformed ovs-vsctl output") from error
    if all(number == -1 for number in found):
        raise _fault("Interface doesn't have any statistics")
    return found


def vhost_user_port(path: str, *, is_served: bool) -> str | None:
    """The name of the switch's port behind a socket; None where it is none of a switch's.

    Args:
        path: the socket's.
        is_served: whether the guest serves the socket, and the switch connects to it.
    """
    if tool.find(_TOOL) is None:
        return None
    name = Path(path).name  # of one that the switch serves
    asked = f"options:vhost-server-path={json.dumps(path)}" if is_served else f"name={json.dumps(name)}"
    try:
        rows = _rows("--columns=name", "find", "Interface", asked)
    except VirtError:
        return None
    return str(rows[0]["name"]) if rows else None


def port_data(name: str) -> str:
    """What a controller has written on a port for whoever has the guest next; as ``ovs-vsctl`` writes it.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the switch refused, or is not there.
    """
    with _explained(f"Unable to run command to get OVS port data for interface {name}"):
        return _run("--if-exists", "get", "Interface", name, "external_ids:PortData").strip()


def set_port_data(name: str, data: str) -> None:
    """Write on a port what was on the guest's port at its host before.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the switch refused, or is not there.
    """
    with _explained(f"Unable to run command to set OVS port data for interface {name}"):
        _run("set", "Interface", name, f"external_ids:PortData={data}")


def _tags(vlan: Vlan | None) -> list[str]:
    if vlan is None or not vlan.tags:
        return []
    native = next((tag for tag in vlan.tags if tag.native_mode is not None), None)
    found = [f"vlan_mode=native-{native.native_mode}", f"tag={native.id}"] if native is not None else []
    if vlan.trunk:
        return [*found, "trunks=" + ",".join(str(tag.id) for tag in vlan.tags)]
    return [f"tag={vlan.tags[0].id}"]


def _ports(*conditions: str) -> list[str]:
    return [str(row["name"]) for row in _rows("--columns=name", "find", "Interface", *conditions)]


def _removal(names: Iterable[str]) -> Iterator[list[str]]:
    for name in names:
        device.check_plain(name)
        yield ["--if-exists", "del-port", name]


def _unshaping(owner: str, mac: str, name: str) -> Iterator[list[str]]:
    """What removes the shaping that no port refers to any more in the same change."""
    named = [f"external_ids:ifname={json.dumps(name)}"] if name else []
    for table in ("QoS", "Queue"):
        for row in _rows("--columns=_uuid", "find", table, *_identified(owner, mac), *named):
            yield ["--if-exists", "destroy", table, str(row["_uuid"][1])]


def _queueing(name: str, rate: Rate | None, identifiers: list[str]) -> Iterator[list[str]]:
    if rate is None or not rate.average:
        return
    limits = [f"other_config:min-rate={rate.average * _BITS_PER_KILOBYTE}"]
    if rate.burst:
        limits.append(f"other_config:burst={rate.burst * _BITS_PER_KIBIBYTE}")
    if rate.peak:
        limits.append(f"other_config:max-rate={rate.peak * _BITS_PER_KILOBYTE}")
    yield ["set", "Port", name, "qos=@qos", *identifiers]
    yield ["--id=@qos", "create", "QoS", "type=linux-htb", *limits, "queues:0=@queue", *identifiers]
    yield ["--id=@queue", "create", "Queue", *limits, *identifiers]


def _policing(name: str, rate: Rate | None) -> list[str]:
    average, burst = (rate.average or 0, rate.burst or 0) if rate is not None else (0, 0)
    numbers = (("rate", average), ("burst", burst))
    settings = [f"ingress_policing_{what}={number * _BITS_PER_BYTE}" for what, number in numbers]
    return ["--if-exists", "set", "Interface", name, *settings]


def _identified(owner: str, mac: str) -> tuple[str, str]:
    """The conditions for what is a guest's interface's."""
    return f"external_ids:vm-id={json.dumps(owner)}", f"external_ids:attached-mac={json.dumps(mac)}"


def _identifiers(values: dict[str, str]) -> list[str]:
    return [f"external_ids:{name}={json.dumps(value)}" for name, value in values.items()]


def _change(*commands: list[str]) -> None:
    """Make changes, all of them or none."""
    if commands:
        _run(*(word for command in commands for word in ("--", *command)))


def _rows(*words: str) -> list[dict[str, Any]]:
    told = json.loads(_run("--format=json", *words) or '{"headings": [], "data": []}')
    return [dict(zip(told["headings"], row, strict=True)) for row in told["data"]]


def _run(*words: str) -> str:
    command = [_TOOL, f"--timeout={_SECONDS}", *words]
    ended = tool.run(command, ErrorDomain.NETWORK, expected=range(-64, 256), timeout=_SECONDS + _GRACE)
    if ended.code == -signal.SIGALRM:
        raise _fault(f"the switch has not answered within {_SECONDS} seconds; is ovs-vswitchd running?")
    if ended.code:
        said = ended.err.strip().splitlines() or [f"ovs-vsctl ended with {ended.code}"]
        raise _fault(said[-1].removeprefix("ovs-vsctl: "))
    return ended.out


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Say what was being done when the switch failed, before its own words."""
    try:
        yield
    except VirtError as error:
        raise _fault(f"{doing}: {error.message.removeprefix('internal error: ')}") from error


def _fault(reason: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)
