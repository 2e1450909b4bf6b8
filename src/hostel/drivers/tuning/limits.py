"""Shares and limits that a document has: of processors, memory, disks, nodes, networks, and counters of events.

Each kind is read as the parameters that libvirt has for it, all of them, and written from any of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hostel.drivers.fault import fault
from hostel.drivers.tuning.parameter import BANDWIDTH, BLKIO, MEMORY, NUMA, PERF, SCHEDULER, check
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain
from hostel.model.domain.memory import HardLimit, Memtune, Numatune, NumatuneMemory, SoftLimit, SwapHardLimit
from hostel.model.domain.tune import BlkioDevice, Blkiotune, Cputune, Perf, PerfEvent
from hostel.model.numberset import format_numbers, parse_numbers
from hostel.model.port import Bandwidth, Inbound, Outbound

UNLIMITED: Final = 2**53 - 1  # KiB: VIR_DOMAIN_MEMORY_PARAM_UNLIMITED
MODES: Final = ("strict", "preferred", "interleave", "restrictive")  # virDomainNumatuneMemMode
_PERIOD: Final = (1000, 1_000_000)  # microseconds
_QUOTA: Final = (1000, 17_592_186_044_415)
_LIMITS: Final = {"hard_limit": HardLimit, "soft_limit": SoftLimit, "swap_hard_limit": SwapHardLimit}
DEVICES: Final = {
    "device_weight": "weight",
    "device_read_iops_sec": "read_iops_sec",
    "device_write_iops_sec": "write_iops_sec",
    "device_read_bytes_sec": "read_bytes_sec",
    "device_write_bytes_sec": "write_bytes_sec",
}
_DIGITS: Final = re.compile("[0-9]{1,20}", re.ASCII)


def scheduler(domain: Domain) -> dict[str, int]:
    """Shares of processors; periods and quotas in microseconds, 0 where none is set."""
    tune = domain.cputune or Cputune()
    return {name: getattr(tune, _field(name)) or 0 for name in SCHEDULER}


def set_scheduler(domain: Domain, given: Mapping[str, int]) -> None:
    """Change shares of processors.

    Raises:
        VirtError: ``INVALID_ARG``: one is out of range; ``ARGUMENT_UNSUPPORTED``: unknown.
    """
    check(given, SCHEDULER)
    for name, value in given.items():
        least, most = _PERIOD if name.endswith("_period") else _QUOTA
        if name != "cpu_shares" and (0 < value < least or value > most):
            raise _invalid(f"value of '{name}' is out of range [{least}, {most}]", ErrorDomain.QEMU)
    tune = domain.cputune = domain.cputune or Cputune()
    for name, value in given.items():
        # Shares may be 0; of the rest that is none.
        setattr(tune, _field(name), value if value or name == "cpu_shares" else None)


def _field(name: str) -> str:
    return {"cpu_shares": "shares"}.get(name, name.removeprefix("vcpu_"))


def memory(domain: Domain) -> dict[str, int]:
    """Limits of memory, in KiB."""
    tune = domain.memtune or Memtune()
    limits = {name: getattr(tune, name) for name in MEMORY}
    return {name: UNLIMITED if limit is None else limit.to_kib() for name, limit in limits.items()}


def set_memory(domain: Domain, given: Mapping[str, int]) -> None:
    """Change limits of memory.

    Raises:
        VirtError: ``INVALID_ARG``: they contradict each other.
    """
    check(given, MEMORY)
    after = {**memory(domain), **given}
    if {"hard_limit", "swap_hard_limit"} & set(given) and after["hard_limit"] > after["swap_hard_limit"]:
        what = "memory hard_limit tunable value must be lower than or equal to swap_hard_limit"
        raise _invalid(what, ErrorDomain.NONE)
    tune = domain.memtune = domain.memtune or Memtune()
    for name, value in given.items():
        setattr(tune, name, None if value >= UNLIMITED else _LIMITS[name](unit="KiB", value=value))


def blkio(domain: Domain) -> dict[str, Any]:
    """Shares of disk traffic; those of devices as ``PATH,NUMBER`` with commas between."""
    tune = domain.blkiotune or Blkiotune()
    found: dict[str, Any] = {"weight": tune.weight or 0}
    for name, field in DEVICES.items():
        numbers = ((device.path, getattr(device, field)) for device in tune.devices)
        found[name] = ",".join(f"{path},{number}" for path, number in numbers if number)
    return found


def set_blkio(domain: Domain, given: Mapping[str, Any]) -> None:
    """Change shares of disk traffic; those of devices that are not named stay.

    Raises:
        VirtError: ``INVALID_ARG``: a list of devices cannot be read.
    """
    check(given, BLKIO)
    parsed = {name: devices(name, given[name]) for name in DEVICES if name in given}
    tune = domain.blkiotune = domain.blkiotune or Blkiotune()
    if "weight" in given:
        tune.weight = given["weight"] or None
    for name, numbers in parsed.items():
        for path, number in numbers:
            device = next((each for each in tune.devices if each.path == path), None)
            if device is None and number:
                device = BlkioDevice(path=path)
                tune.devices.append(device)
            if device is not None:
                setattr(device, DEVICES[name], number or None)
    tune.devices = [device for device in tune.devices if any(getattr(device, field) for field in DEVICES.values())]


def devices(name: str, text: str) -> list[tuple[str, int]]:
    """Read a list of devices with numbers, ``PATH,NUMBER`` with commas between.

    Raises:
        VirtError: ``INVALID_ARG``: it is none.
    """
    if not text:
        return []
    words = text.split(",")
    if len(words) % 2:
        raise _invalid(f"unable to parse blkio device '{name}' '{text}'", ErrorDomain.DOMAIN)
    most = 2**64 - 1 if "bytes" in name else 2**32 - 1
    found = []
    for path, number in zip(words[::2], words[1::2], strict=True):
        if not _DIGITS.fullmatch(number) or int(number) > most:
            raise _invalid(f"invalid value '{number}' for parameter '{name}' of device '{path}'", ErrorDomain.DOMAIN)
        found.append((path, int(number)))
    return found


def numa(domain: Domain) -> dict[str, Any]:
    """Which nodes of the host memory comes from."""
    tune = domain.numatune.memory if domain.numatune is not None else None
    mode = MODES.index(tune.mode) if tune is not None and tune.mode is not None else 0
    return {"numa_mode": mode, "numa_nodeset": (tune.nodeset or "") if tune is not None else ""}


def check_numa(given: Mapping[str, Any], speaker: ErrorDomain) -> None:
    """Hold parameters against what there is of nodes.

    Raises:
        VirtError: ``INVALID_ARG`` or ``OPERATION_INVALID``.
    """
    check(given, NUMA)
    mode, nodeset = given.get("numa_mode", 0), given.get("numa_nodeset")
    if not 0 <= mode < len(MODES):
        raise _invalid(f"unsupported numatune mode: '{mode}'", speaker)
    if nodeset is None:
        return
    try:
        nodes = parse_numbers(nodeset)
    except ValueError:
        raise _invalid(f"Failed to parse bitmap '{nodeset}'", ErrorDomain.NONE) from None
    if not nodes:
        raise fault(ErrorCode.OPERATION_INVALID, f"Invalid nodeset of 'numatune': {nodeset}", speaker)


def set_numa(domain: Domain, given: Mapping[str, Any]) -> None:
    """Change which nodes memory comes from; the parameters have been checked.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: there would be no nodes to take it from.
    """
    if not given:
        return
    old = domain.numatune.memory if domain.numatune is not None else None
    tune = NumatuneMemory(mode="strict") if old is None else old.copy()
    if "numa_mode" in given:
        tune.mode = MODES[given["numa_mode"]]
    if "numa_nodeset" in given:
        tune.nodeset, tune.placement = format_numbers(parse_numbers(given["numa_nodeset"])), "static"
    is_static = domain.vcpu is None or domain.vcpu.placement != "auto"
    placement = tune.placement or ("static" if tune.nodeset or (old is None and is_static) else "auto")
    if placement == "static" and not tune.nodeset:
        what = "nodeset for NUMA memory tuning must be set if 'placement' is 'static'"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.DOMAIN)
    tune.placement = None if placement == "static" else placement
    domain.numatune = domain.numatune or Numatune()
    domain.numatune.memory = tune


def find_interface(domain: Domain, device: str) -> Interface:
    """The interface of a hardware address, or of a name on the host.

    Raises:
        VirtError: ``INVALID_ARG``: there is none.
    """
    for interface in domain.devices.interfaces:
        mac = interface.mac.address if interface.mac is not None else ""
        name = interface.target.dev if interface.target is not None else None
        if device.lower() == mac.lower() or device == name:
            return interface
    raise _invalid(f"'{device}' is not a known interface", ErrorDomain.DOMAIN)


def bandwidth(interface: Interface) -> dict[str, int]:
    """How an interface's traffic is shaped: KiB a second, and KiB for bursts; 0 where it is not."""
    shaped = interface.bandwidth or Bandwidth()
    found = {}
    for name in BANDWIDTH:
        way, _, field = name.partition(".")
        found[name] = getattr(getattr(shaped, way), field, None) or 0
    return found


def set_bandwidth(interface: Interface, given: Mapping[str, int]) -> None:
    """Change how an interface's traffic is shaped; an average of 0 ends that of its direction.

    Raises:
        VirtError: a parameter is unknown, or of another type.
    """
    check(given, BANDWIDTH)
    shaped = interface.bandwidth.copy() if interface.bandwidth is not None else Bandwidth()
    inbound = {name.partition(".")[2]: value for name, value in given.items() if name.startswith("inbound.")}
    outbound = {name.partition(".")[2]: value for name, value in given.items() if name.startswith("outbound.")}
    if inbound.get("average") or inbound.get("floor"):
        shaped.inbound = Inbound(**{name: value or None for name, value in inbound.items()})
    elif "average" in inbound or "floor" in inbound:
        shaped.inbound = None
    if outbound.get("average"):
        shaped.outbound = Outbound(**{name: value or None for name, value in outbound.items()})
    elif "average" in outbound:
        shaped.outbound = None
    interface.bandwidth = shaped if shaped.inbound is not None or shaped.outbound is not None else None


def perf(domain: Domain) -> dict[str, bool]:
    """Which events are counted."""
    counted = enabled(domain)
    return {name: name in counted for name in PERF}


def enabled(domain: Domain) -> list[str]:
    """The events that a document wants counted."""
    return [event.name for event in domain.perf.events if event.enabled] if domain.perf is not None else []


def set_perf(domain: Domain, given: Mapping[str, Any]) -> None:
    """Change which events are counted.

    Raises:
        VirtError: there is no such event.
    """
    check(given, PERF)
    said = {event.name: event.enabled for event in domain.perf.events} if domain.perf is not None else {}
    said.update((name, bool(value)) for name, value in given.items())
    domain.perf = Perf(events=[PerfEvent(name=name, enabled=said[name]) for name in PERF if name in said])


def _invalid(what: str, speaker: ErrorDomain) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, what, speaker)
