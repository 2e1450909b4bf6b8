"""Rules for starting a machine: what a stored document may ask for, and this QEMU or this machine cannot do.

A document may wait for another QEMU, or for the network that says what its interfaces are (``qemu_command.c``,
``qemu_process.c``).
"""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain import vcpus
from hostel.model.domain.cpu import Cpu
from hostel.model.domain.devices.address import UsbAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.disk import Disk, DiskBus
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.placing.virtio import in_libvirt_order
from hostel.model.domain.platform import ARM, PPC64, S390, Board, Platform
from hostel.model.domain.rules.controller import START_CONTROLLER_RULES
from hostel.model.domain.rules.interface import ACTUAL_INTERFACE_RULES, START_INTERFACE_RULES
from hostel.model.domain.rules.memory import START_SHMEM_RULES, cells_of
from hostel.model.domain.rules.rule import Machine, MachineRule, check, check_on
from hostel.model.numberset import parse_numbers
from hostel.units import KiB

_UNSUPPORTED: Final = ErrorCode.CONFIG_UNSUPPORTED

_DISK_RULES: Final[tuple[MachineRule[Disk], ...]] = (
    MachineRule(
        lambda disk, machine: disk.target.bus == DiskBus.FDC and machine.board == Board.PSERIES,
        "PowerPC pseries machines do not support floppy device",
        "/target/@bus",
    ),
)

_ARM_FEATURES: Final = frozenset({"sve", *(f"sve{bits}" for bits in range(128, 2049, 128))})


def _unknown_to_arm(cpu: Cpu) -> str | None:
    """The first feature that no processor of ARM has."""
    return next((item.name for item in cpu.features if item.name not in _ARM_FEATURES), None)


_CPU_RULES: Final[tuple[MachineRule[Cpu], ...]] = (
    MachineRule(
        lambda cpu, machine: cpu.mode == "host-passthrough" and machine.domain.type == DomainType.QEMU,
        lambda _, machine: (
            f"CPU mode 'host-passthrough' for {machine.arch} qemu domain on {machine.platform.host_arch} host is not "
            "supported by hypervisor"
        ),
        "/@mode",
    ),
    MachineRule(
        lambda cpu, machine: (
            cpu.mode == "custom"
            and cpu.model is not None
            and cpu.model.fallback == "forbid"
            and machine.platform.models is not None
            and cpu.model.name not in machine.platform.models
        ),
        lambda cpu, _: f"CPU model {cpu.model.name if cpu.model is not None else ''} is not supported by hypervisor",
        "/model",
    ),
    MachineRule(
        lambda cpu, machine: machine.arch in S390 and cpu.features and not machine.has("query-cpu-model-expansion"),
        lambda _, machine: f"CPU features not supported by hypervisor for {machine.arch} architecture",
        "/feature",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda cpu, machine: machine.arch in ARM and _unknown_to_arm(cpu) is not None,
        lambda cpu, _: f"unknown CPU feature: {_unknown_to_arm(cpu)}",
        "/feature",
    ),
)

_DOMAIN_RULES: Final[tuple[MachineRule[Domain], ...]] = (
    MachineRule(
        lambda domain, machine: (domain.iothreads or domain.iothread_ids) and not machine.has("iothread"),
        "IOThreads not supported for this QEMU",
        "/iothreads",
    ),
)


_MEMORY_LIMIT: Final = (2**63 - 1) // KiB


def check_start(domain: Domain, platform: Platform) -> None:
    """Hold a complete document against what this QEMU can start.

    Raises:
        ModelError: it asks for something else.
    """
    machine, devices = Machine(domain, platform), domain.devices
    check_on(domain, "/domain", machine, _DOMAIN_RULES)
    vcpus.check_orders(domain)
    if domain.cpu is not None:
        check_on(domain.cpu, "/domain/cpu", machine, _CPU_RULES)
    for disk in devices.disks:
        check_on(disk, devices.path(disk), machine, _DISK_RULES)
    for controller in devices.controllers:
        check_on(controller, devices.path(controller), machine, START_CONTROLLER_RULES)
    for interface in devices.interfaces:
        check_on(interface, devices.path(interface), machine, START_INTERFACE_RULES)
        if interface.type != InterfaceType.NETWORK:
            check(interface, devices.path(interface), ACTUAL_INTERFACE_RULES)
    for shared in devices.shmems:
        check_on(shared, devices.path(shared), machine, START_SHMEM_RULES)
    _check_usb(machine)
    _check_sizes(machine)
    _check_nodes(machine)
    for page in _pages(domain):
        if platform.page_sizes is not None and page not in platform.page_sizes:
            reason = f"Unable to find any usable hugetlbfs mount for {page} KiB"
            raise ModelError("/domain/memoryBacking/hugepages/page/@size", reason, code=ErrorCode.INTERNAL_ERROR)


def _check_usb(machine: Machine) -> None:
    """Every USB bus that a device is said to be on has its controller."""
    devices = machine.domain.devices
    buses = {item.index for item in devices.controllers if item.type == ControllerType.USB}
    for device in in_libvirt_order(machine.domain):
        if isinstance(device.address, UsbAddress) and device.address.bus not in buses:
            reason = f"USB bus {device.address.bus} requested but no controller with that index is present"
            raise ModelError(f"{devices.path(device)}/address/@bus", reason)


def _check_sizes(machine: Machine) -> None:
    """Sizes of memory are still numbers when they are rounded up to whole blocks (``qemuDomainAlignMemorySizes``)."""
    domain = machine.domain
    block = 256 * 1024 if machine.arch in PPC64 else 1024
    path = "/domain/cpu/numa/cell"
    sizes = [(f"{path}/@memory", f"memory size of NUMA node '{item.id}'", item.memory) for item in cells_of(domain)]
    if domain.memory is not None:
        sizes.append(("/domain/memory", "initial memory size", domain.memory.value))
    if domain.max_memory is not None:
        sizes.append(("/domain/maxMemory", "maximum memory size", domain.max_memory.value))
    for place, name, size in sizes:
        if -(-size // block) * block > _MEMORY_LIMIT:
            raise ModelError(place, f"{name} overflowed after alignment", code=_UNSUPPORTED)


def _check_nodes(machine: Machine) -> None:
    """The host's NUMA nodes that memory is to come from are there (``virNumaNodesetIsAvailable``)."""
    domain, tune, there = machine.domain, machine.domain.numatune, machine.platform.host_nodes
    if there is None:
        return
    asked = [
        (f"{domain.devices.path(item)}/source/nodemask", item.source.node_mask)
        for item in domain.devices.memories
        if item.source is not None
    ]
    if tune is not None:
        asked += [("/domain/numatune/memnode/@nodeset", node.nodeset) for node in tune.nodes]
        if tune.memory is not None and tune.memory.placement != "auto":
            asked.append(("/domain/numatune/memory/@nodeset", tune.memory.nodeset))
    for path, nodes in asked:
        missing = min(parse_numbers(nodes) - there, default=None) if nodes else None
        if missing is not None:
            raise ModelError(path, f"NUMA node {missing} is unavailable", code=_UNSUPPORTED)


def _pages(domain: Domain) -> list[int]:
    """The sizes of large pages that are asked for, in KiB."""
    backing = domain.memory_backing
    return [page.size for page in backing.hugepages.pages] if backing is not None and backing.hugepages else []
