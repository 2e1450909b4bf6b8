"""Shares of caches and of memory bandwidth that a machine's processors have, and what is measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.cgroup import resctrl
from hostel.drivers.cgroup.group import machine_name
from hostel.drivers.cgroup.resctrl import Kind, Resctrl, Wanted
from hostel.drivers.topology import RESCTRL
from hostel.model.domain.domain import Domain
from hostel.model.domain.tune import CacheMonitor, Cachetune, Cputune, MemoryMonitor, Memorytune
from hostel.model.numberset import format_numbers, parse_numbers
from hostel.units import scale_libvirt

_FEATURES: Final = Path("info/L3_MON/mon_features")
_BYTES: Final = {"mbm_local_bytes": "local", "mbm_total_bytes": "total"}


class Watch(NamedTuple):
    """What is measured of some of a share's processors.

    Attributes:
        is_cache: how much of caches is theirs, and not what they read and write.
        vcpus: the processors.
        path: their group; the share's own where all of its processors are meant.
    """

    is_cache: bool
    vcpus: frozenset[int]
    path: Path

    @property
    def name(self) -> str:
        """As statistics have it."""
        return f"vcpus_{format_numbers(self.vcpus)}"


class Share(NamedTuple):
    """What some processors have together.

    Attributes:
        vcpus: the processors.
        path: their group; the host's own where they have no share, and are only watched.
        wanted: their share.
        watches: what is measured.
    """

    vcpus: frozenset[int]
    path: Path
    wanted: Wanted
    watches: list[Watch]

    @property
    def is_empty(self) -> bool:
        """Whether they have no share."""
        return not self.wanted.sizes and not self.wanted.bandwidths


def of_domain(domain: Domain, root: Path = RESCTRL) -> list[Share]:
    """The shares that a live document has."""
    tune, found = domain.cputune or Cputune(), dict[frozenset[int], Share]()
    machine = machine_name("qemu", domain.id or 0, domain.name)
    given: dict[frozenset[int], list[Cachetune | Memorytune]] = {}
    for item in tune.resctrls:
        given.setdefault(parse_numbers(item.vcpus), []).append(item)
    for vcpus, items in given.items():
        wanted = _wanted(items)
        is_empty = not wanted.sizes and not wanted.bandwidths
        path = root if is_empty else root / f"{machine}-vcpus_{format_numbers(vcpus)}"
        found[vcpus] = Share(vcpus, path, wanted, [])
        monitors: Iterator[CacheMonitor | MemoryMonitor] = (each for item in items for each in item.monitors)
        for monitor in monitors:
            watched = parse_numbers(monitor.vcpus)
            below = path / "mon_groups" / f"{machine}-vcpus_{format_numbers(watched)}"
            place = path if watched == vcpus and not is_empty else below
            found[vcpus].watches.append(Watch(isinstance(monitor, CacheMonitor), watched, place))
    return list(found.values())


def _wanted(items: list[Cachetune | Memorytune]) -> Wanted:
    sizes: dict[tuple[Kind, int], int] = {}
    bandwidths: dict[int, int] = {}
    for item in items:
        if isinstance(item, Cachetune):
            for cache in item.caches:
                sizes[Kind(cache.level, cache.type), cache.id] = scale_libvirt(cache.size, cache.unit or "KiB")
        else:
            bandwidths |= {node.id: node.bandwidth for node in item.nodes}
    return Wanted(sizes, bandwidths)


def begin(domain: Domain, host: Resctrl | None = None) -> None:
    """Make the groups that a machine's processors are to be in, and write what they are called into its document.

    Raises:
        VirtError: the host has no such shares, or refuses.
    """
    if not (tune := domain.cputune) or not tune.resctrls:
        return
    host = host or Resctrl()
    host.check()
    for share in of_domain(domain, host.root):
        if not share.is_empty:
            host.make(share.path.name, share.wanted)
        for watch in share.watches:
            with host.locked():
                resctrl.make_folder(watch.path)
    for item in tune.resctrls:
        item.id = f"vcpus_{item.vcpus}"


def settle(domain: Domain, threads: Mapping[int, int], root: Path = RESCTRL) -> None:
    """Put the threads of processors, by their numbers, into the groups that are theirs.

    Raises:
        VirtError: the host refuses.
    """
    for share in of_domain(domain, root):
        for number in sorted(share.vcpus & threads.keys()):
            if not share.is_empty:
                resctrl.enter(share.path, threads[number])
            watch = next((watch for watch in share.watches if number in watch.vcpus and watch.path != share.path), None)
            if watch is not None:
                resctrl.enter(watch.path, threads[number])


def remove(domain: Domain, root: Path = RESCTRL) -> None:
    """Remove the groups of a machine that has ended, whatever there is of them."""
    for share in of_domain(domain, root):
        for watch in share.watches:
            if watch.path != share.path:
                resctrl.remove(watch.path)
        if not share.is_empty:
            resctrl.remove(share.path)


def caches(domain: Domain, root: Path = RESCTRL) -> dict[str, int | str]:
    """How much of caches its processors have, by the names of statistics.

    Raises:
        VirtError: the host does not say.
    """
    found: dict[str, int | str] = {}
    watches = _watched(domain, root, "llc_")
    found["cpu.cache.monitor.count"] = len(watches)
    for number, (watch, used) in enumerate(watches):
        begins = f"cpu.cache.monitor.{number}"
        found |= {f"{begins}.name": watch.name, f"{begins}.vcpus": format_numbers(watch.vcpus)}
        found[f"{begins}.bank.count"] = len(used)
        for place, (bank, values) in enumerate(used):
            found[f"{begins}.bank.{place}.id"] = bank
            found[f"{begins}.bank.{place}.bytes"] = next(iter(values.values())) & 0xFFFFFFFF
    return found


def bandwidths(domain: Domain, root: Path = RESCTRL) -> dict[str, int | str]:
    """How much its processors have read and written, by the names of statistics; nothing where nothing is measured.

    Raises:
        VirtError: the host does not say.
    """
    found: dict[str, int | str] = {}
    watches = _watched(domain, root, "mbm_")
    if watches:
        found["memory.bandwidth.monitor.count"] = len(watches)
    for number, (watch, used) in enumerate(watches):
        begins = f"memory.bandwidth.monitor.{number}"
        found |= {f"{begins}.name": watch.name, f"{begins}.vcpus": format_numbers(watch.vcpus)}
        found[f"{begins}.node.count"] = len(used)
        for place, (node, values) in enumerate(used):
            found[f"{begins}.node.{place}.id"] = node
            found |= {f"{begins}.node.{place}.bytes.{_BYTES[key]}": values[key] for key in values if key in _BYTES}
    return found


def _watched(domain: Domain, root: Path, prefix: str) -> list[tuple[Watch, list[tuple[int, dict[str, int]]]]]:
    """What is measured, with the numbers of those features of the host whose names begin so."""
    shares = of_domain(domain, root)
    wanted = [watch for share in shares for watch in share.watches if watch.is_cache == (prefix == "llc_")]
    if not wanted:
        return []
    try:
        features = [name for name in (root / _FEATURES).read_text().split() if name.startswith(prefix)]
    except OSError:
        features = []
    return [(watch, resctrl.usage(watch.path, features)) for watch in wanted] if features else []
