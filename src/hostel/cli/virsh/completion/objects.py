"""Values that are objects of the connection: domains, networks, pools and what is in them, devices of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hostel.cli.options import Args
from hostel.cli.output import pretty_size
from hostel.cli.virsh import document
from hostel.cli.virsh.domain_monitor import has_checkpoints, has_snapshots, is_saved
from hostel.cli.virsh.session import Session
from hostel.drivers.base import DomainRef, DomainState, NetworkRef, PoolRef
from hostel.drivers.base.backup import CheckpointDriver
from hostel.drivers.base.capabilities import DomainCapabilitiesDriver
from hostel.drivers.base.network import NetworkPortDriver
from hostel.drivers.base.nwfilter import NwfilterBindings
from hostel.drivers.base.offered import offered
from hostel.drivers.base.snapshot import SnapshotDriver

Values = Callable[[Session, Args], Iterable[str]]
_MAIN_STATES: Final = (DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTOFF)


def _domains(test: Callable[[Session, DomainRef], bool] = lambda session, domain: True) -> Values:
    def found(session: Session, args: Args) -> list[str]:
        return [domain.name for domain in session.hypervisor.connect_list_all_domains() if test(session, domain)]

    return found


def _is_active(session: Session, domain: DomainRef) -> bool:
    return domain.id != -1


def _is_persistent(session: Session, domain: DomainRef) -> bool:
    return session.hypervisor.domain_is_persistent(domain)


def _in_state(test: Callable[[DomainState], bool]) -> Values:
    return _domains(lambda session, domain: test(session.hypervisor.domain_get_state(domain).state))


def _domain_uuids(session: Session, args: Args) -> list[str]:
    return [domain.uuid for domain in session.hypervisor.connect_list_all_domains()]


def _networks(test: Callable[[Session, NetworkRef], bool] = lambda session, network: True) -> Values:
    def found(session: Session, args: Args) -> list[str]:
        return [network.name for network in session.network.connect_list_all_networks() if test(session, network)]

    return found


def _network_uuids(session: Session, args: Args) -> list[str]:
    return [network.uuid for network in session.network.connect_list_all_networks()]


def _network_ports(session: Session, args: Args) -> list[str]:
    network = session.find_network(args["network"])
    calls = offered(session.network, NetworkPortDriver, "virNetworkListAllPorts")
    return [port.uuid for port in calls.network_list_all_ports(network)]


def _lease_macs(session: Session, args: Args) -> list[str]:
    network = session.find_network(args["network"])
    calls = offered(session.network, NetworkPortDriver, "virNetworkGetDHCPLeases")
    return [lease.mac for lease in calls.network_get_dhcp_leases(network) if lease.mac is not None]


def _pools(test: Callable[[Session, PoolRef], bool] = lambda session, pool: True) -> Values:
    def found(session: Session, args: Args) -> list[str]:
        return [pool.name for pool in session.storage.connect_list_all_storage_pools() if test(session, pool)]

    return found


def _pool_is_active(session: Session, pool: PoolRef) -> bool:
    return session.storage.storage_pool_is_active(pool)


def _volumes(session: Session, args: Args) -> list[str]:
    pool = session.pool(args["pool"])
    return [volume.name for volume in session.storage.storage_pool_list_all_volumes(pool)]


def _volume_keys(session: Session, args: Args) -> list[str]:
    pools = [pool for pool in session.storage.connect_list_all_storage_pools() if _pool_is_active(session, pool)]
    return [volume.key for pool in pools for volume in session.storage.storage_pool_list_all_volumes(pool)]


def _interfaces(active: bool | None = None) -> Values:
    def found(session: Session, args: Args) -> list[str]:
        refs = session.interface.connect_list_all_interfaces()
        return [ref.name for ref in refs if active is None or session.interface.interface_is_active(ref) == active]

    return found


def _interface_macs(session: Session, args: Args) -> list[str]:
    return [ref.mac for ref in session.interface.connect_list_all_interfaces()]


def _snapshots(session: Session, args: Args) -> list[str]:
    calls = offered(session.hypervisor, SnapshotDriver, "virDomainListAllSnapshots")
    return [snapshot.name for snapshot in calls.domain_list_all_snapshots(session.domain(args))]


def _checkpoints(session: Session, args: Args) -> list[str]:
    calls = offered(session.hypervisor, CheckpointDriver, "virDomainListAllCheckpoints")
    return [checkpoint.name for checkpoint in calls.domain_list_all_checkpoints(session.domain(args))]


def _page_sizes(session: Session, args: Args) -> list[str]:
    capabilities = document.tree(session.hypervisor.connect_get_capabilities())
    cell = args.get("cellno")
    place = f"host/topology/cells/cell[@id='{cell}']/pages" if cell and cell.isdecimal() else "host/cpu/pages"
    pages = [(int(page.get("size", "0")), page.get("unit", "KiB")) for page in capabilities.iterfind(place)]
    scaled = [pretty_size(size * (1024 if unit == "KiB" else 1)).split() for size, unit in pages]
    return [f"{float(number):.0f}{unit}" for number, unit in scaled]


def _cells(session: Session, args: Args) -> list[str]:
    capabilities = document.tree(session.hypervisor.connect_get_capabilities())
    return [cell.get("id", "") for cell in capabilities.iterfind("host/topology/cells/cell")]


def _online_cpus(session: Session, args: Args) -> list[str]:
    return [str(number) for number, online in enumerate(session.host.node_get_cpu_map()) if online]


def _cpus(session: Session, args: Args) -> list[str]:
    return [str(number) for number in range(len(session.host.node_get_cpu_map()))]


def _cpu_models(session: Session, args: Args) -> list[str]:
    calls = offered(session.hypervisor, DomainCapabilitiesDriver, "virConnectGetDomainCapabilities")
    given = (args.get("emulator"), args.get("arch"), args.get("machine"), args.get("virttype"))
    found = document.tree(calls.connect_get_domain_capabilities(*given))
    return [model.text or "" for model in found.iterfind("cpu/mode[@name='custom']/model")]


def _keycodes(session: Session, args: Args) -> Iterable[str]:
    from hostel.drivers.qemu.keyboard import CODES

    return CODES if args.get("codeset") in (None, "linux") else ()


def _commands(session: Session, args: Args) -> Iterable[str]:
    from hostel.cli.virsh.registry import COMMANDS

    return COMMANDS


def _nwfilter_bindings(session: Session, args: Args) -> list[str]:
    calls = offered(session.nwfilter, NwfilterBindings, "virConnectListAllNWFilterBindings")
    return [binding.port_device for binding in calls.connect_list_all_nwfilter_bindings()]


OBJECTS: Final[dict[str, Values]] = {
    "domain": _domains(),
    "active-domain": _domains(_is_active),
    "inactive-domain": _domains(lambda session, domain: domain.id == -1),
    "persistent-domain": _domains(_is_persistent),
    "saved-domain": _domains(is_saved),
    "running-domain": _in_state(lambda state: state is DomainState.RUNNING),
    "paused-domain": _in_state(lambda state: state is DomainState.PAUSED),
    "shutoff-domain": _in_state(lambda state: state is DomainState.SHUTOFF),
    "other-domain": _in_state(lambda state: state not in _MAIN_STATES),
    "domain-with-snapshot": _domains(has_snapshots),
    "domain-with-checkpoint": _domains(has_checkpoints),
    "active-domain-with-checkpoint": _domains(lambda s, domain: domain.id != -1 and has_checkpoints(s, domain)),
    "domain-uuid": _domain_uuids,
    "network": _networks(),
    "active-network": _networks(lambda session, network: session.network.network_is_active(network)),
    "inactive-network": _networks(lambda session, network: not session.network.network_is_active(network)),
    "persistent-network": _networks(lambda session, network: session.network.network_is_persistent(network)),
    "network-uuid": _network_uuids,
    "network-port": _network_ports,
    "lease-mac": _lease_macs,
    "pool": _pools(),
    "active-pool": _pools(_pool_is_active),
    "inactive-pool": _pools(lambda session, pool: not _pool_is_active(session, pool)),
    "persistent-pool": _pools(lambda session, pool: session.storage.storage_pool_is_persistent(pool)),
    "volume": _volumes,
    "volume-key": _volume_keys,
    "secret": lambda session, args: [ref.uuid for ref in session.secret.connect_list_all_secrets()],
    "nwfilter": lambda session, args: [ref.name for ref in session.nwfilter.connect_list_all_nwfilters()],
    "nwfilter-binding": _nwfilter_bindings,
    "node-device": lambda session, args: [ref.name for ref in session.node_device.connect_list_all_node_devices()],
    "host-interface": _interfaces(),
    "active-host-interface": _interfaces(active=True),
    "inactive-host-interface": _interfaces(active=False),
    "host-interface-mac": _interface_macs,
    "snapshot": _snapshots,
    "checkpoint": _checkpoints,
    "page-size": _page_sizes,
    "cell": _cells,
    "online-cpu": _online_cpus,
    "cpu-list": _cpus,
    "cpu-model": _cpu_models,
    "keycode": _keycodes,
    "command": _commands,
}
