"""An interface that is changed while its machine runs (``qemuDomainChangeNet``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.interface import (
    FilterReference,
    Interface,
    InterfaceDriver,
    InterfaceSource,
    InterfaceTarget,
    InterfaceType,
)
from hostel.model.domain.rules.interface import ACTUAL_INTERFACE_RULES, check_shared_parts
from hostel.model.domain.rules.rule import check
from hostel.model.port import VirtualPort, VirtualPortParameters
from hostel.model.port_rules import complete_vlan, completed_bandwidth

_BRIDGED: Final = (InterfaceType.NETWORK, InterfaceType.BRIDGE)
_SOCKETS: Final = (InterfaceType.SERVER, InterfaceType.CLIENT, InterfaceType.MCAST, InterfaceType.UDP)
_FIXED: Final = (InterfaceType.HOSTDEV, InterfaceType.VDPA)
# What is as it is wanted, also where nothing is said of it.
_WANTED: Final = (
    "type", "source", "vlan", "virtualport", "bandwidth", "isolation", "trust_guest_rx_filters", "coalesce",
    "filterref", "link_state", "tune",
)  # fmt: skip
_MOVED: Final = ("type", "source", "actual", "vlan", "virtualport", "bandwidth", "isolation", "trust_guest_rx_filters")


def change_interface(machine: Running, held: Interface, wanted: Interface, launcher: Launcher) -> None:
    """Have an interface as it is wanted, as far as that can be while the machine runs; the live document follows.

    Address, card and names stay where nothing is said of them. What can change and is not there is taken off.

    Raises:
        VirtError: something cannot be changed, and nothing is then; or the host refused, and what was changed before
            is in the live document.
    """
    if actual(held).type in _FIXED:
        raise _unsupported(f"cannot change config of '{actual(held).type}' network interface type")
    _check_card(held, wanted)
    changed = _completed(held, wanted)
    with reading(ErrorDomain.QEMU):
        check_shared_parts(changed, machine.domain.devices.path(held))
    is_ours = launcher.wiring.makes(changed)
    with launcher.wiring.replugged(machine.domain, held, changed):
        with reading(ErrorDomain.QEMU):
            check(actual(changed), machine.domain.devices.path(held), ACTUAL_INTERFACE_RULES)
        _check_connection(held, changed, is_ours=is_ours)
        _move(machine, held, changed, launcher)
    _finish(machine, held, changed, launcher)


def _completed(held: Interface, wanted: Interface) -> Interface:
    """The interface as it is to be: what is held, with all that can change as it is wanted."""
    changed = held.copy()
    changed.actual = None
    for name in _WANTED:
        value = getattr(wanted, name)
        setattr(changed, name, value.copy() if isinstance(value, Element) else value)
    if changed.link_state == "default":
        changed.link_state = None
    if changed.type == InterfaceType.NETWORK and changed.source is not None:
        # Which port it is, and what of the host's, is not for the client to say.
        source = changed.source
        source.portid = held.source.portid if held.source is not None else None
        source.bridge = source.dev = source.mode = source.mac_table_manager = None
    if changed.type == InterfaceType.DIRECT and changed.source is not None:
        changed.source.mode = changed.source.mode or "vepa"
    complete_vlan(changed.vlan)
    changed.bandwidth = completed_bandwidth(changed.bandwidth)
    changed.virtualport = _same_port(actual(held).virtualport, changed.virtualport)
    return changed


def _same_port(held: VirtualPort | None, wanted: VirtualPort | None) -> VirtualPort | None:
    """A virtual port with the identifiers that were made up for it, where none are given."""
    if held is None or held.parameters is None or (wanted is not None and wanted.type not in (None, held.type)):
        return wanted
    port = wanted or VirtualPort()
    given = port.parameters = port.parameters or VirtualPortParameters()
    given.interfaceid = given.interfaceid or held.parameters.interfaceid
    given.instanceid = given.instanceid or held.parameters.instanceid
    return port


def _check_card(held: Interface, wanted: Interface) -> None:
    """Refuse what would make another card of it, or give the host's end another name."""
    if wanted.model is not None and wanted.model != held.model:
        raise _unsupported(f"cannot modify network device model from {held.model} to {wanted.model}")
    held_driver, driver = held.driver or InterfaceDriver(), wanted.driver
    if driver is not None and driver != held_driver:
        raise _unsupported("cannot modify virtio network device driver attributes")
    if wanted.script not in (None, held.script):
        raise _unsupported("cannot modify network device script attribute")
    if wanted.target is not None and wanted.target.dev not in (None, (held.target or InterfaceTarget()).dev):
        raise _unsupported("cannot modify network device tap name")
    if wanted.address is not None and wanted.address != held.address:
        raise _unsupported("cannot modify network device guest PCI address")
    if wanted.rom is not None and wanted.rom != held.rom:
        raise _unsupported("cannot modify network rom file")
    if wanted.boot is not None and wanted.boot != held.boot:
        raise _unsupported("cannot modify network device boot index setting")
    if (wanted.mtu or None) != (held.mtu or None):
        raise _unsupported("cannot modify MTU")
    for name in ("ips", "routes", "port_forwards", "backend", "teaming"):
        value = getattr(wanted, name)
        if value and value != getattr(held, name):
            raise _unsupported(f"cannot modify <{name.rstrip('s').replace('_f', 'F')}> of a network device")


def _check_connection(held: Interface, wanted: Interface, *, is_ours: bool) -> None:
    """Refuse what would need another connection to the host, which is of our making or not."""
    before, after = actual(held), actual(wanted)
    if after.type in _FIXED:
        raise _unsupported(f"cannot change network interface type to '{after.type}'")
    old, new = before.source or InterfaceSource(), after.source or InterfaceSource()
    both_bridged = before.type in _BRIDGED and after.type in _BRIDGED
    other_type = before.type != after.type and not both_bridged
    other_socket = after.type in _SOCKETS and (old.address, old.port) != (new.address, new.port)
    other_device = after.type == InterfaceType.DIRECT and (old.dev, old.mode) != (new.dev, new.mode)
    other_bridge = old.bridge != new.bridge and (after.virtualport is not None or not is_ours)
    other_port = _shown(before.virtualport) != _shown(after.virtualport)
    other_buffer = wanted.tune != held.tune
    is_stuck = after.type == InterfaceType.VHOSTUSER or old.name != new.name
    if other_type or other_socket or other_device or other_bridge or other_port or other_buffer or is_stuck:
        raise _unsupported(f"unable to change config on '{wanted.type}' network type")


def _move(machine: Running, held: Interface, wanted: Interface, launcher: Launcher) -> None:
    """Change what is at the host's end; the live document follows step by step."""
    wiring, domain = launcher.wiring, machine.domain
    before, after = actual(held), actual(wanted)
    if before.bandwidth != after.bandwidth:
        wiring.shape(domain, held, after.bandwidth)
    if (before.source or InterfaceSource()).bridge != (after.source or InterfaceSource()).bridge:
        wiring.rejoin(domain, held, after)
    elif before.isolation != after.isolation:
        wiring.isolate(held, after)
    if before.vlan != after.vlan:
        wiring.set_vlan(held, after)
    for name in _MOVED:
        setattr(held, name, getattr(wanted, name))
    machine.save()


def _finish(machine: Running, held: Interface, wanted: Interface, launcher: Launcher) -> None:
    """Change what concerns no port: filter, coalescing and link."""
    asked = wanted.filterref
    if _shown_filter(asked) != _shown_filter(held.filterref):
        launcher.wiring.change_filter(machine.domain, held, asked)
        machine.save()
    if wanted.coalesce != held.coalesce:
        launcher.wiring.coalesce(held, wanted)
        held.coalesce = wanted.coalesce
        machine.save()
    machine.ask("set_link", name=held.alias, up=wanted.link_state != "down")
    held.link_state = wanted.link_state
    machine.save()


def _shown(port: VirtualPort | None) -> str:
    return "" if port is None or port.type is None else port.format()


def _shown_filter(reference: FilterReference | None) -> str:
    return "" if reference is None else reference.format()


def _unsupported(what: str) -> VirtError:
    return fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
