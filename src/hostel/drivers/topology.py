"""How the host's memory, processors and caches lie to one another, as Linux shows it under ``/sys``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel.model.capabilities import (
    BandwidthControl,
    BandwidthNode,
    CacheBank,
    CacheControl,
    HostCache,
    HostCell,
    HostCells,
    HostMemory,
    HostPages,
    HostThread,
    HostThreads,
    HostTopology,
    MemoryBandwidth,
    Monitor,
    MonitorFeature,
)
from hostel.model.domain.cpu import (
    CacheLine,
    CacheSize,
    CellBandwidth,
    CellCache,
    Distances,
    Interconnects,
    Latency,
    Sibling,
)
from hostel.model.numberset import format_numbers, parse_numbers

SYSTEM: Final = Path("/sys/devices/system")
RESCTRL: Final = Path("/sys/fs/resctrl")
_LEAST_LEVEL: Final = 3  # of the caches that are shown
_CACHE_TYPES: Final = {"Unified": "both", "Instruction": "code", "Data": "data"}
_CONTROL: Final = re.compile("L([0-9]+)(CODE|DATA|)")
_SCOPES: Final = {"": "both", "CODE": "code", "DATA": "data"}
_INDEXING: Final = ("direct", "full", "none")
_WRITING: Final = ("writeback", "writethrough", "none")


class CellMemory(NamedTuple):
    """A cell's memory in KiB, and how many pages it has of each size in KiB."""

    size: int
    pages: tuple[tuple[int, int], ...]


def host_topology(
    system: Path = SYSTEM,
    memory: Callable[[Path], CellMemory] | None = None,
    distances: Callable[[Path], list[int]] | None = None,
) -> HostTopology:
    """The host's cells; ``memory`` and ``distances`` tell what a cell has, from its folder unless said otherwise."""
    nodes = [(number, system / "node" / f"node{number}") for number in sorted(_numbers(system / "node" / "online"))]
    cells = [
        _cell(system, number, node, (memory or cell_memory)(node), (distances or cell_distances)(node))
        for number, node in nodes
    ]
    return HostTopology(
        cells=HostCells(num=len(cells), cells=cells),
        interconnects=_interconnects(nodes),
    )


def cell_memory(node: Path) -> CellMemory:
    """What a cell says of its memory; what large pages take is no longer there as small ones."""
    found = re.search(r"MemTotal:\s+([0-9]{1,18}) kB", _text(node / "meminfo"))
    size = int(found[1]) if found else 0
    large = sorted(
        (int(folder.name.removeprefix("hugepages-").removesuffix("kB")), _number(folder / "nr_hugepages") or 0)
        for folder in (node / "hugepages").glob("hugepages-*kB")
    )
    small = _page_size()
    rest = max(size - sum(page * count for page, count in large), 0)
    return CellMemory(size, ((small, rest // small), *large))


def cell_distances(node: Path) -> list[int]:
    """How far it is from a cell to each."""
    return [_whole(word) or 0 for word in _text(node / "distance").split()]


def _page_size() -> int:
    import resource

    return resource.getpagesize() // 1024


def _cell(system: Path, number: int, node: Path, memory: CellMemory, distances: list[int]) -> HostCell:
    threads = [_thread(system, cpu) for cpu in sorted(_numbers(node / "cpulist"))]
    siblings = [Sibling(id=index, value=value) for index, value in enumerate(distances) if value]
    return HostCell(
        id=number,
        memory=HostMemory(unit="KiB", size=memory.size) if memory.size else None,
        pages=[HostPages(unit="KiB", size=size, count=count) for size, count in memory.pages],
        distances=Distances(siblings=siblings) if siblings else None,
        caches=sorted(_cell_caches(node), key=lambda cache: cache.level),
        cpus=HostThreads(num=len(threads), cpus=threads),
    )


def _thread(system: Path, cpu: int) -> HostThread:
    topology = system / "cpu" / f"cpu{cpu}" / "topology"
    # A kernel that does not know says -1, or nothing.
    socket, die, core = (max(_number(topology / name) or 0, 0) for name in ("physical_package_id", "die_id", "core_id"))
    siblings = format_numbers(_numbers(topology / "thread_siblings_list"))
    return HostThread(id=cpu, socket_id=socket, die_id=die, core_id=core, siblings=siblings)


def _cell_caches(node: Path) -> Iterator[CellCache]:
    for folder in (node / "memory_side_cache").glob("index[0-9]"):
        indexing, writing = (_number(folder / name) or 0 for name in ("indexing", "write_policy"))
        line = _number(folder / "line_size")
        yield CellCache(
            level=int(folder.name.removeprefix("index")),
            associativity=_INDEXING[min(indexing, 2)],
            policy=_WRITING[min(writing, 2)],
            size=CacheSize(value=(_number(folder / "size") or 0) >> 10, unit="KiB"),
            line=CacheLine(value=line, unit="B") if line else None,
        )


def _interconnects(nodes: list[tuple[int, Path]]) -> Interconnects | None:
    """The best ways from processors to memory, which is all that Linux shows of them."""
    found = Interconnects()
    pairs = [
        (int(initiator.name.removeprefix("node")), target, initiator.parent)
        for target, node in nodes
        for initiator in (node / "access1" / "initiators").glob("node[0-9]*")
    ]
    for initiator, target, folder in sorted(pairs):
        for kind in ("read", "write"):
            latency, bandwidth = (_number(folder / f"{kind}_{what}") for what in ("latency", "bandwidth"))
            place = {"initiator": initiator, "target": target}
            if latency is not None:
                found.latencies.append(Latency(**place, type=kind, value=latency))
            if bandwidth is not None:  # MiB a second
                found.bandwidths.append(CellBandwidth(**place, type=kind, value=bandwidth << 10, unit="KiB"))
    return found if found.latencies or found.bandwidths else None


def host_cache(system: Path = SYSTEM, resctrl: Path = RESCTRL) -> HostCache:
    """The host's last caches, and how they can be shared out and watched."""
    banks: dict[tuple[int, int, str, int, str], CacheBank] = {}
    for cpu in sorted(_numbers(system / "cpu" / "online")):
        for folder in sorted((system / "cpu" / f"cpu{cpu}" / "cache").glob("index*")):
            bank = _bank(folder, resctrl)
            if bank is not None:
                banks.setdefault((bank.level, bank.id, bank.type, bank.size, bank.cpus), bank)
    ordered = [banks[key] for key in sorted(banks, key=lambda key: key[:2])]
    return HostCache(banks=ordered, monitor=_monitor(resctrl, "llc_", is_cache=True))


def _bank(folder: Path, resctrl: Path) -> CacheBank | None:
    level, number = _number(folder / "level"), _number(folder / "id")
    type = _CACHE_TYPES.get(_text(folder / "type"))
    if level is None or level < _LEAST_LEVEL or number is None or type is None:
        return None
    size = _scaled(_text(folder / "size"))
    shown, unit = _pretty(size)
    return CacheBank(
        id=number,
        level=level,
        type=type,
        size=shown,
        unit=unit,
        cpus=format_numbers(_numbers(folder / "shared_cpu_list")),
        controls=_controls(resctrl, level, size),
    )


def _controls(resctrl: Path, level: int, size: int) -> list[CacheControl]:
    found = []
    for folder in (resctrl / "info").glob("L*"):
        kind = _CONTROL.fullmatch(folder.name)
        if kind is None or int(kind[1]) != level:
            continue
        bits = (_whole(_text(folder / "cbm_mask"), 16) or 0).bit_count()
        granularity = size // bits if bits else 0
        if not granularity:
            continue
        least = _number(folder / "min_cbm_bits") or 1
        minimum = least * granularity if least != 1 else 0
        shown, shown_least, unit = _in_one_unit(granularity, minimum)
        found.append(
            CacheControl(
                granularity=shown,
                min=shown_least or None,
                unit=unit,
                type=_SCOPES[kind[2]],
                max_allocations=_number(folder / "num_closids") or 0,
            )
        )
    return sorted(found, key=lambda control: control.type)


def _in_one_unit(one: int, other: int) -> tuple[int, int, str]:
    """Two sizes in the smaller of their units."""
    shown, unit = _pretty(one)
    if not other:
        return shown, 0, unit
    shown_other, unit_other = _pretty(other)
    scale, scale_other = one // shown, other // shown_other
    if scale_other > scale:
        return shown, shown_other * (scale_other // scale), unit
    return shown * (scale // scale_other), shown_other, unit_other


def host_bandwidth(cache: HostCache, resctrl: Path = RESCTRL) -> MemoryBandwidth:
    """How the bandwidth of memory can be shared out and watched, for each of the last caches."""
    folder = resctrl / "info" / "MB"
    step, least, most = (_number(folder / name) for name in ("bandwidth_gran", "min_bandwidth", "num_closids"))
    nodes = []
    if step is not None and most is not None:
        last = max((bank.level for bank in cache.banks), default=0)
        for bank in (bank for bank in cache.banks if bank.level == last):
            control = BandwidthControl(granularity=step, min=least or 0, max_allocations=most)
            nodes.append(BandwidthNode(id=bank.id, cpus=bank.cpus, controls=[control]))
    return MemoryBandwidth(nodes=nodes, monitor=_monitor(resctrl, "mbm_", is_cache=False))


def _monitor(resctrl: Path, prefix: str, *, is_cache: bool) -> Monitor | None:
    folder = resctrl / "info" / "L3_MON"
    most = _number(folder / "num_rmids")
    names = [name for name in _text(folder / "mon_features").split() if name.startswith(prefix)]
    if most is None or not names:
        return None
    return Monitor(
        level=3 if is_cache else None,
        reuse_threshold=(_number(folder / "max_threshold_occupancy") or 0) if is_cache else None,
        max_monitors=most,
        features=[MonitorFeature(name=name) for name in names],
    )


def _text(path: Path) -> str:
    """What a file says, without blanks around it; nothing where there is no such file."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    return _whole(_text(path))


def _whole(text: str, base: int = 10) -> int | None:
    try:
        return int(text, base)
    except ValueError:
        return None


def _numbers(path: Path) -> frozenset[int]:
    try:
        return parse_numbers(_text(path))
    except ValueError:
        return frozenset()


def _scaled(text: str) -> int:
    """A size with a unit of one letter, in bytes."""
    found = re.fullmatch("([0-9]{1,18})([KMG]?)", text)
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]] if found else 0


def _pretty(size: int) -> tuple[int, str]:
    """A size in the largest unit in which it is whole."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size % 1024 or not size:
            return size, unit
        size >>= 10
    return size, "TiB"
