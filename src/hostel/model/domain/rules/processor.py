"""Rules for processors and their cells, whoever runs the machine (``virDomainDefValidateInternal``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.cpu import Cell, CellBandwidth, Cpu, Interconnects, Latency
from hostel.model.domain.domain import Domain
from hostel.model.domain.features import Features
from hostel.model.domain.tune import (
    Cputune,
    DefaultIoThread,
    EmulatorScheduler,
    IdMap,
    IoThread,
    IoThreadScheduler,
    VcpuScheduler,
)

_UNSUPPORTED: Final = ErrorCode.CONFIG_UNSUPPORTED
_HIGHEST_CACHE: Final = 3
_VENDOR_LENGTH: Final = 12
_LEAST_RING, _MOST_RING = 1024, 65536


def check_processor(domain: Domain) -> None:
    """Hold the processor, its features, the clock and the maps of a container against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if domain.cpu is not None:
        _check_cpu(domain.cpu)
    most = domain.vcpu.value if domain.vcpu is not None else 1
    for number, entry in enumerate(domain.vcpus.vcpus if domain.vcpus is not None else [], 1):
        if entry.id >= most:
            reason = f"vcpu id '{entry.id}' is out of range of maximum vcpu count"
            raise ModelError(f"/domain/vcpus/vcpu[{number}]/@id", reason)
    if domain.features is not None:
        _check_features(domain.features)
    clock = domain.clock
    if clock is not None and clock.offset == "timezone" and clock.timezone is None:
        reason = "missing 'timezone' attribute for clock with offset='timezone'"
        raise ModelError("/domain/clock/@timezone", reason, code=ErrorCode.INTERNAL_ERROR)
    if clock is not None and clock.offset == "absolute" and clock.start is None:
        reason = "missing 'start' attribute for clock with offset='absolute'"
        raise ModelError("/domain/clock/@start", reason, code=ErrorCode.INTERNAL_ERROR)
    if domain.cputune is not None:
        _check_schedulers(domain.cputune)
    if domain.idmap is not None:
        _check_maps(domain.idmap)
    _check_pools(domain)


def _check_schedulers(tune: Cputune) -> None:
    """Who is scheduled in real time has a priority."""
    schedulers: list[EmulatorScheduler | VcpuScheduler | IoThreadScheduler] = [*tune.vcpuscheds, *tune.iothreadscheds]
    schedulers += [tune.emulatorsched] if tune.emulatorsched is not None else []
    for item in schedulers:
        if item.scheduler in ("fifo", "rr") and item.priority is None:
            reason = f"Missing required attribute 'priority' in element '{item.TAG}'"
            raise ModelError(f"/domain/cputune/{item.TAG}/@priority", reason)


def _check_maps(maps: IdMap) -> None:
    """Users and groups of a container are mapped both, and root is among them."""
    if bool(maps.uids) != bool(maps.gids):
        raise ModelError("/domain/idmap", "uid and gid should be mapped both", code=_UNSUPPORTED)
    if maps.uids and any(min(item.start for item in items) for items in (maps.uids, maps.gids)):
        raise ModelError("/domain/idmap", "You must map the root user of container", code=_UNSUPPORTED)


def _check_pools(domain: Domain) -> None:
    """A pool of threads has no fewer at most than at least."""
    threads = domain.iothread_ids.iothreads if domain.iothread_ids is not None else []
    pools: list[tuple[IoThread | DefaultIoThread | None, str]] = [
        *((item, f"/domain/iothreadids/iothread[{number}]") for number, item in enumerate(threads, 1)),
        (domain.default_iothread, "/domain/defaultiothread"),
    ]
    for pool, path in pools:
        if pool is None or pool.thread_pool_max is None:
            continue
        if pool.thread_pool_max == 0:
            reason = "thread_pool_max must be a positive integer"
            raise ModelError(f"{path}/@thread_pool_max", reason, code=_UNSUPPORTED)
        if (pool.thread_pool_min or 0) > pool.thread_pool_max:
            reason = "thread_pool_min must be smaller or equal to thread_pool_max"
            raise ModelError(f"{path}/@thread_pool_min", reason, code=_UNSUPPORTED)


def _check_cpu(cpu: Cpu) -> None:
    if cpu.migratable is not None and cpu.mode not in ("host-passthrough", "maximum"):
        reason = "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode"
        raise ModelError("/domain/cpu/@migratable", reason, code=_UNSUPPORTED)
    if cpu.check is not None and cpu.model is None and cpu.mode in (None, "custom"):
        reason = "check attribute specified for CPU with no model"
        raise ModelError("/domain/cpu/@check", reason, code=_UNSUPPORTED)
    vendor = cpu.model.vendor_id if cpu.model is not None else None
    if vendor is not None and len(vendor) != _VENDOR_LENGTH:
        reason = f"vendor_id must be exactly {_VENDOR_LENGTH} characters long"
        raise ModelError("/domain/cpu/model/@vendor_id", reason)
    if cpu.vendor is not None and cpu.model is None:
        raise ModelError("/domain/cpu/vendor", "CPU vendor specified without CPU model")
    if cpu.numa is None:
        return
    for number, cell in enumerate(cpu.numa.cells, 1):
        _check_caches(cell, f"/domain/cpu/numa/cell[{number}]/cache")
    if cpu.numa.interconnects is not None:
        _check_interconnects(cpu.numa.interconnects, cpu.numa.cells)


def _check_caches(cell: Cell, path: str) -> None:
    levels = [cache.level for cache in cell.caches]
    for number, level in enumerate(levels):
        here = f"{path}[{number + 1}]/@level"
        if level > _HIGHEST_CACHE:
            raise ModelError(here, "Ain't nobody heard of that much cache level")
        if level in levels[:number]:
            raise ModelError(here, f"Cache level '{level}' already defined")


def _check_interconnects(interconnects: Interconnects, cells: list[Cell]) -> None:
    links: list[Latency | CellBandwidth] = [*interconnects.latencies, *interconnects.bandwidths]
    for link in links:
        path = f"/domain/cpu/numa/interconnects/{link.TAG}"
        for end in ("initiator", "target"):
            if getattr(link, end) >= len(cells):
                raise ModelError(f"{path}/@{end}", f"'{end}' refers to a non-existent NUMA node")
        if not cells[link.initiator].cpus:
            raise ModelError(f"{path}/@initiator", "NUMA nodes without CPUs can't be initiator")
        if link.cache and link.cache not in [cache.level for cache in cells[link.target].caches]:
            raise ModelError(f"{path}/@cache", "'cache' refers to a non-existent NUMA node cache")


def _check_features(features: Features) -> None:
    hyperv, ring = features.hyperv, features.kvm.dirty_ring if features.kvm is not None else None
    locks, vendor = (hyperv.spinlocks, hyperv.vendor_id) if hyperv is not None else (None, None)
    if locks is not None and locks.state and locks.retries is None:
        reason = "Missing required attribute 'retries' in element 'spinlocks'"
        raise ModelError("/domain/features/hyperv/spinlocks/@retries", reason)
    if vendor is not None and vendor.state and vendor.value is None:
        reason = "missing 'value' attribute for HyperV feature 'vendor_id'"
        raise ModelError("/domain/features/hyperv/vendor_id/@value", reason)
    if ring is not None and ring.state and ring.size is not None:
        if ring.size.bit_count() != 1 or not _LEAST_RING <= ring.size <= _MOST_RING:
            reason = f"dirty ring must be power of 2 and ranges [{_LEAST_RING}, {_MOST_RING}]"
            raise ModelError("/domain/features/kvm/dirty-ring/@size", reason)
    elif ring is not None and ring.state:
        reason = "Missing required attribute 'size' in element 'dirty-ring'"
        raise ModelError("/domain/features/kvm/dirty-ring/@size", reason)
