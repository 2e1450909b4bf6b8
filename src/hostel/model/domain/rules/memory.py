"""Rules for memory and processors' shares: pages, cells, modules, pinning, shares of caches."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.cpu import Cell
from hostel.model.domain.devices.address import DimmAddress, PciAddress
from hostel.model.domain.devices.paravirtual import SharedMemory
from hostel.model.domain.devices.platform import MemoryDevice
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import PPC64
from hostel.model.domain.rules.rule import Machine, MachineRule, check_on, needs
from hostel.model.domain.tune import Cachetune, Cputune, Memorytune
from hostel.model.numberset import parse_numbers

_UNSUPPORTED: Final = ErrorCode.CONFIG_UNSUPPORTED
_DETAIL: Final = ErrorCode.XML_DETAIL
_PERIODS: Final = (1000, 1000000)  # microseconds
_QUOTAS: Final = (1000, 17592186044415)
_SHARES: Final = (2, 262144)
_LEAST_SHARED: Final = 1024 * 1024  # bytes


def cells_of(domain: Domain) -> list[Cell]:
    """The guest's NUMA cells."""
    return domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []


def check_pages(domain: Domain) -> None:
    """Hold large pages against the cells (``virDomainDefMemtuneValidate``).

    Raises:
        ModelError: two sizes are for the same cell, or there is no such cell.
    """
    backing = domain.memory_backing
    pages = backing.hugepages.pages if backing is not None and backing.hugepages is not None else []
    path = "/domain/memoryBacking/hugepages/page"
    last = max(len(cells_of(domain)) - 1, -1)
    taken: list[tuple[int, frozenset[int] | None]] = []
    for position, page in enumerate(pages, 1):
        nodes = parse_numbers(page.nodeset) if page.nodeset else None
        if nodes == frozenset({0}) and not cells_of(domain):
            nodes = None  # there is one cell, though nobody calls it so
        for size, others in taken:
            if nodes is None and others is None:
                raise ModelError(
                    f"{path}[{position}]", f"two master hugepages detected: {page.size} and {size}", code=_DETAIL
                )
            if nodes is not None and others is not None and nodes & others:
                reason = f"nodeset attribute of hugepages of sizes {page.size} and {size} intersect"
                raise ModelError(f"{path}[{position}]/@nodeset", reason, code=_DETAIL)
        missing = next((node for node in sorted(nodes or ()) if node > last), None)
        if missing is not None:
            raise ModelError(f"{path}[{position}]/@nodeset", f"hugepages: node {missing} not found", code=_DETAIL)
        taken.append((page.size, nodes))


def check_qemu_pages(machine: Machine) -> None:
    """Hold large pages against what QEMU can do (``qemuValidateDomainDefMemory``).

    Raises:
        ModelError: they are asked for with what excludes them.
    """
    backing = machine.domain.memory_backing
    if backing is None or backing.hugepages is None:
        return
    path = "/domain/memoryBacking"
    if backing.allocation is not None and backing.allocation.mode == "ondemand":
        raise ModelError(
            f"{path}/allocation", "hugepages are not allowed with memory allocation ondemand", code=_UNSUPPORTED
        )
    if backing.source == "anonymous":
        reason = "hugepages are not allowed with anonymous memory source"
        raise ModelError(f"{path}/source", reason, code=_UNSUPPORTED)
    # A machine whose memory has no name cannot share it, but for that of cells.
    if machine.platform.shares_memory or cells_of(machine.domain):
        return
    if backing.access == "shared":
        reason = f"memory access mode '{backing.access}' not supported without guest numa node"
        raise ModelError(f"{path}/access", reason, code=_UNSUPPORTED)


def check_numatune(domain: Domain) -> None:
    """Hold what is said of cells one by one against what is said of all (``virDomainNumatuneNodeParseXML``).

    Raises:
        ModelError: they contradict each other, or there is no such cell.
    """
    tune = domain.numatune
    if tune is None:
        return
    memory = tune.memory
    if memory is not None and memory.nodeset == "":
        raise ModelError(
            "/domain/numatune/memory/@nodeset", "Invalid value of 'nodeset': it is empty", code=_UNSUPPORTED
        )
    seen: set[int] = set()
    for position, node in enumerate(tune.nodes, 1):
        path = f"/domain/numatune/memnode[{position}]"
        if memory is not None and memory.placement == "auto":
            reason = "Per-node binding is not compatible with automatic NUMA placement."
            raise ModelError(path, reason, code=_UNSUPPORTED)
        if not cells_of(domain):
            raise ModelError(path, "Element 'memnode' is invalid without any guest NUMA cells")
        if node.cellid >= len(cells_of(domain)):
            reason = "Argument 'cellid' in memnode element must correspond to existing guest's NUMA cell"
            raise ModelError(f"{path}/@cellid", reason)
        if node.cellid in seen:
            raise ModelError(f"{path}/@cellid", f"Multiple memnode elements with cellid {node.cellid}")
        if memory is not None and memory.mode == "restrictive" and node.mode != "restrictive":
            reason = "'restrictive' mode is required in memnode element when mode is 'restrictive' in memory element"
            raise ModelError(f"{path}/@mode", reason)
        if node.nodeset is None:
            raise ModelError(f"{path}/@nodeset", "Missing required nodeset attribute in memnode element")
        seen.add(node.cellid)


def _node(memory: MemoryDevice) -> int | None:
    return memory.target.node


MEMORY_RULES: Final[tuple[MachineRule[MemoryDevice], ...]] = (
    MachineRule(
        lambda memory, _: memory.model == "sgx-epc" and memory.address is not None,
        "memory device address is not supported for model 'sgx-epc'",
        "/address",
    ),
    MachineRule(
        lambda memory, machine: _node(memory) is not None and not cells_of(machine.domain),
        "can't add memory backend as guest has no NUMA nodes configured",
        "/target/node",
        _DETAIL,
    ),
    MachineRule(
        lambda memory, machine: (_node(memory) or 0) >= max(len(cells_of(machine.domain)), 1),
        lambda memory, machine: (
            f"can't add memory backend for guest node '{_node(memory)}' as the guest has only "
            f"'{len(cells_of(machine.domain))}' NUMA nodes configured"
        ),
        "/target/node",
        _DETAIL,
    ),
    MachineRule(
        lambda memory, _: (
            memory.model in ("nvdimm", "virtio-pmem") and (memory.source is None or memory.source.path is None)
        ),
        lambda memory, _: f"path is required for model '{memory.model}'",
        "/source/path",
        _DETAIL,
    ),
    MachineRule(
        lambda memory, _: memory.model == "nvdimm" and memory.discard,
        "discard is not supported for nvdimms",
        "/@discard",
    ),
    MachineRule(
        lambda memory, machine: memory.model == "nvdimm" and machine.arch in PPC64 and memory.target.label is None,
        "label size is required for NVDIMM device",
        "/target/label",
    ),
    MachineRule(
        lambda memory, machine: memory.model == "nvdimm" and machine.arch not in PPC64 and memory.uuid is not None,
        "UUID is not supported for NVDIMM device",
        "/uuid",
    ),
    MachineRule(
        lambda memory, _: memory.model == "virtio-pmem" and memory.discard,
        "discard is not supported for model 'virtio-pmem'",
        "/@discard",
    ),
    MachineRule(
        lambda memory, _: memory.model == "virtio-pmem" and memory.access != "shared",
        "shared access mode required for virtio-pmem device",
        "/@access",
    ),
    MachineRule(
        lambda memory, _: memory.model == "virtio-pmem" and _node(memory) is not None,
        "virtio-pmem does not support NUMA nodes",
        "/target/node",
    ),
    MachineRule(
        lambda memory, _: _requested(memory) > memory.target.size.to_kib(),
        lambda memory, _: f"requested size must be smaller than or equal to @size ({memory.target.size.to_kib()}KiB)",
        "/target/requested",
        _DETAIL,
    ),
    MachineRule(
        lambda memory, _: memory.model == "virtio-mem" and _block(memory).bit_count() != 1,
        "block size must be a power of two",
        "/target/block",
        _DETAIL,
    ),
    MachineRule(
        lambda memory, _: memory.model == "virtio-mem" and _requested(memory) % max(_block(memory), 1),
        "requested size must be an integer multiple of block size",
        "/target/requested",
        _DETAIL,
    ),
)


def _requested(memory: MemoryDevice) -> int:
    """KiB."""
    requested = memory.target.requested
    return requested.to_kib() if requested is not None else 0


def _block(memory: MemoryDevice) -> int:
    """KiB."""
    return memory.target.block.to_kib() if memory.target.block is not None else 0


_FEATURES: Final = {
    "dimm": ("pc-dimm", "memory hotplug isn't supported by this QEMU binary"),
    "nvdimm": ("nvdimm", "nvdimm isn't supported by this QEMU binary"),
    "virtio-pmem": ("virtio-pmem-pci", "virtio-pmem isn't supported by this QEMU binary"),
    "virtio-mem": ("virtio-mem-pci", "virtio-mem isn't supported by this QEMU binary"),
    "sgx-epc": ("sgx-epc", "sgx epc isn't supported by this QEMU binary"),
}


def check_plugging(machine: Machine) -> None:
    """Hold what is plugged in against where it can be (``qemuDomainDefValidateMemoryHotplug``).

    Raises:
        ModelError: it does not fit.
    """
    domain = machine.domain
    modules, most = domain.devices.memories, domain.max_memory
    added = sum(item.target.size.to_kib() for item in modules)
    if most is None:
        others = [item for item in modules if item.model != "sgx-epc"]
        if others:
            reason = "cannot use/hotplug a memory device when domain 'maxMemory' is not defined"
            raise ModelError(domain.devices.path(others[0]), reason, code=_UNSUPPORTED)
        return
    if machine.arch not in PPC64 and not cells_of(domain):
        reason = "At least one numa node has to be configured when enabling memory hotplug"
        raise ModelError("/domain/cpu/numa", reason, code=_UNSUPPORTED)
    if len(modules) > most.slots:
        reason = f"memory device count '{len(modules)}' exceeds slots count '{most.slots}'"
        raise ModelError("/domain/maxMemory/@slots", reason, code=_UNSUPPORTED)
    for module in modules:
        _check_module(machine, module)
    total = domain.memory.to_kib() if domain.memory is not None else 0
    if added > most.to_kib() - (total - added):
        raise ModelError("/domain/maxMemory", "memory device total size exceeds hotplug space", code=_UNSUPPORTED)


def _check_module(machine: Machine, module: MemoryDevice) -> None:
    path = machine.domain.devices.path(module)
    if module.model in ("dimm", "nvdimm") and not isinstance(module.address, DimmAddress | None):
        reason = "only 'dimm' addresses are supported for the pc-dimm device"
        raise ModelError(f"{path}/address/@type", reason, code=_UNSUPPORTED)
    if module.model in ("virtio-pmem", "virtio-mem") and not isinstance(module.address, PciAddress | None):
        reason = f"only 'pci' addresses are supported for the {module.model} device"
        raise ModelError(f"{path}/address/@type", reason, code=_UNSUPPORTED)
    is_placed = module.model in ("virtio-pmem", "sgx-epc") or _node(module) is not None
    if cells_of(machine.domain) and not is_placed:
        reason = "target NUMA node needs to be specified for memory device"
        raise ModelError(f"{path}/target/node", reason, code=_UNSUPPORTED)
    feature, words = _FEATURES[module.model]
    if not machine.has(feature):
        raise ModelError(f"{path}/@model", words, code=_UNSUPPORTED)


SHMEM_RULES: Final[tuple[MachineRule[SharedMemory], ...]] = (
    MachineRule(lambda item, _: "/" in item.name, "shmem name cannot include '/' character", "/@name"),
    MachineRule(
        lambda item, _: item.name in (".", ".."),
        lambda item, _: f"shmem name cannot be equal to '{item.name}'",
        "/@name",
    ),
)

QEMU_SHMEM_RULES: Final[tuple[MachineRule[SharedMemory], ...]] = (
    MachineRule(
        lambda item, _: item.msi is not None and item.server is None and item.model in (None, "ivshmem"),
        "msi option is only supported with a server",
        "/msi",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: item.model == "ivshmem-doorbell" and item.server is None,
        "shmem model 'ivshmem-doorbell' is supported only with server option enabled",
        "/server",
    ),
    MachineRule(
        lambda item, _: item.model == "ivshmem-plain" and item.server is not None,
        "shmem model 'ivshmem-plain' is supported only with server option disabled",
        "/server",
    ),
    MachineRule(
        lambda item, _: item.model == "ivshmem-doorbell" and item.size is not None,
        "shmem model 'ivshmem-doorbell' does not support size setting",
        "/size",
    ),
    needs(
        "ivshmem",
        lambda item: item.model in (None, "ivshmem"),
        "ivshmem device is not supported with this QEMU binary",
        "/model",
    ),
    *(
        needs(
            name,
            lambda item, name=name: item.model == name,  # type: ignore[misc]
            f"shmem model '{name}' is not supported by this QEMU binary",
            "/model",
        )
        for name in ("ivshmem-plain", "ivshmem-doorbell")
    ),
)


START_SHMEM_RULES: Final[tuple[MachineRule[SharedMemory], ...]] = (
    MachineRule(
        lambda item, _: item.size is not None and item.size.to_bytes() < _LEAST_SHARED,
        "shmem size must be at least 1 MiB (1024 KiB)",
        "/size",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: item.size is not None and item.size.to_bytes().bit_count() != 1,
        "shmem size must be a power of two",
        "/size",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: not isinstance(item.address, PciAddress | None),
        "only 'pci' addresses are supported for the shared memory device",
        "/address/@type",
    ),
)


def check_shares(domain: Domain) -> None:
    """Hold shares of processors and caches against their limits and each other (``virDomainDefCputuneValidate``).

    Raises:
        ModelError: one is out of range, or two are for the same processors.
    """
    tune = domain.cputune
    if tune is None:
        return
    _check_range("shares", tune.shares, *_SHARES)
    for name in ("period", "global_period", "emulator_period", "iothread_period"):
        _check_range(name, getattr(tune, name), *_PERIODS)
    for name in ("quota", "global_quota", "emulator_quota", "iothread_quota"):
        _check_range(name, getattr(tune, name), *_QUOTAS)
    _check_schedulers(domain, tune)
    _check_caches(tune)


def _check_range(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and value > 0 and not least <= value <= most:
        reason = f"Value of cputune '{name}' must be in range [{least}, {most}]"
        raise ModelError(f"/domain/cputune/{name}", reason, code=_UNSUPPORTED)


def check_pins(domain: Domain) -> None:
    """Refuse what is pinned twice; pins of processors that there are not count for nothing, those of threads do.

    Raises:
        ModelError: there is such a pin.
    """
    tune = domain.cputune or Cputune()
    count = domain.vcpu.value if domain.vcpu is not None else 1
    vcpus = [pin.vcpu for pin in tune.vcpupins if pin.vcpu < count]
    threads = [pin.iothread for pin in tune.iothreadpins]
    for thread in threads:
        _check_thread(domain, str(thread), "iothreadpin/@iothread")
    for name, numbers, words in (("vcpupin", vcpus, "vcpu"), ("iothreadpin", threads, "same iothread")):
        again = next((number for place, number in enumerate(numbers) if number in numbers[:place]), None)
        if again is not None:
            reason = f"duplicate {name} for {words} '{again}'"
            raise ModelError(f"/domain/cputune/{name}", reason, code=ErrorCode.INTERNAL_ERROR)


def _check_thread(domain: Domain, thread: str, below: str) -> None:
    threads = {str(item.id) for item in domain.iothread_ids.iothreads} if domain.iothread_ids is not None else set()
    if thread not in (threads or {str(number) for number in range(1, (domain.iothreads or 0) + 1)}):
        raise ModelError(f"/domain/cputune/{below}", f"Cannot find 'iothread' : {thread}", code=_UNSUPPORTED)


def _check_schedulers(domain: Domain, tune: Cputune) -> None:
    numbers = [item.vcpus for item in tune.vcpuscheds]
    if len(set(numbers)) < len(numbers):
        reason = "'vcpusched' attributes 'vcpus' must not overlap"
        raise ModelError("/domain/cputune/vcpusched/@vcpus", reason, code=_DETAIL)
    for item in tune.iothreadscheds:
        _check_thread(domain, item.iothreads, "iothreadsched/@iothreads")


def _check_caches(tune: Cputune) -> None:
    groups: list[frozenset[int]] = []
    for number, item in enumerate(tune.cachetunes, 1):
        path = f"/domain/cputune/cachetune[{number}]"
        _join(groups, parse_numbers(item.vcpus), path, may_repeat=False)
        taken: set[tuple[int, int, str]] = set()
        for cache in item.caches:
            others = ("both", "code", "data") if cache.type == "both" else ("both", cache.type)
            if any((cache.level, cache.id, kind) in taken for kind in others):
                reason = (
                    f"Colliding cache allocations for cache level '{cache.level}' id '{cache.id}', type '{cache.type}'"
                )
                raise ModelError(f"{path}/cache", reason)
            taken.add((cache.level, cache.id, cache.type))
        _check_monitors(item, path)
    for number, memory in enumerate(tune.memorytunes, 1):
        path = f"/domain/cputune/memorytune[{number}]"
        _join(groups, parse_numbers(memory.vcpus), path, may_repeat=True)
        nodes = [node.id for node in memory.nodes]
        twice = next((node for node in nodes if nodes.count(node) > 1), None)
        if twice is not None:
            raise ModelError(f"{path}/node", f"Memory Bandwidth already defined for node {twice}")
        _check_monitors(memory, path)


def _join(groups: list[frozenset[int]], vcpus: frozenset[int], path: str, *, may_repeat: bool) -> None:
    for group in groups:
        if group == vcpus:
            if not may_repeat:
                raise ModelError(f"{path}/@vcpus", "Identical vcpus in cachetunes found")
        elif group & vcpus:
            raise ModelError(f"{path}/@vcpus", "Overlapping vcpus in resctrls")
    groups.append(vcpus)


def _check_monitors(tune: Cachetune | Memorytune, path: str) -> None:
    vcpus, code = parse_numbers(tune.vcpus), ErrorCode.INVALID_ARG
    is_default = not (tune.caches if isinstance(tune, Cachetune) else tune.nodes)
    seen: list[frozenset[int]] = []
    for monitor in tune.monitors:
        watched, where = parse_numbers(monitor.vcpus), f"{path}/monitor/@vcpus"
        if not watched <= vcpus:
            raise ModelError(where, "Monitor vcpus conflicts with allocation", code=code)
        if watched in seen:
            raise ModelError(where, "Identical vcpus found in same type monitors", code=code)
        if any(other & watched and (is_default or vcpus not in (other, watched)) for other in seen):
            raise ModelError(where, "vcpus overlaps in resctrl groups", code=code)
        seen.append(watched)


def check_memory(machine: Machine) -> None:
    """Hold memory modules and shared memory against what the guest and QEMU have.

    Raises:
        ModelError: one does not fit.
    """
    devices = machine.domain.devices
    for module in devices.memories:
        check_on(module, devices.path(module), machine, MEMORY_RULES)
    for shared in devices.shmems:
        check_on(shared, devices.path(shared), machine, SHMEM_RULES)
    if machine.platform.is_qemu:
        check_plugging(machine)
        check_qemu_pages(machine)
        for shared in devices.shmems:
            check_on(shared, devices.path(shared), machine, QEMU_SHMEM_RULES)
