"""Control groups of machines: one for each machine of the host's own connection, and one below for each thread."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostel.drivers.cgroup import limits as cgroups
from hostel.drivers.cgroup.group import MACHINES, Group, machine_path, mounted, write
from hostel.drivers.fault import fault
from hostel.drivers.store import Directories
from hostel.drivers.tuning import limits
from hostel.drivers.tuning.iothread import entries
from hostel.drivers.tuning.parameter import MEMORY
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain
from hostel.model.domain.tune import Blkiotune, Cputune, Resource

if TYPE_CHECKING:
    from hostel.drivers.qemu.settings import Settings
    from hostel.drivers.qemu.status import Status

_DRIVER: Final = "qemu"
_APPID_STORE: Final = Path("/sys/class/fc/fc_udev_device/appid_store")
_NONE: Final = {
    "cpu": "cgroup CPU controller is not mounted",
    "memory": "cgroup memory controller is not mounted",
    "blkio": "blkio cgroup isn't mounted",
    "cpuset": "cgroup cpuset controller is not mounted",
}


def are_used(directories: Directories) -> bool:
    """Whether machines get groups: those of the host's own connection, as with libvirt."""
    return directories == Directories.system() and os.geteuid() == 0


def choose(domain: Domain, number: int, settings: Settings, directories: Directories) -> str:
    """The path of the group that a machine gets; empty where it gets none.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: its document wants what no group gives it here.
    """
    places = mounted(settings.controllers) if are_used(directories) else {}
    _check(domain, places, is_session=not are_used(directories) and os.geteuid() != 0)
    if not places:
        return ""
    resource = domain.resource = domain.resource or Resource()
    resource.partition = resource.partition or MACHINES
    return machine_path(resource.partition, _DRIVER, number, domain.name)


def _check(domain: Domain, places: Mapping[str, object], *, is_session: bool) -> None:
    """Refuse limits that nobody would keep (``qemuValidateDomainDef``, ``virDomainCgroupSetup…``)."""
    tune = domain.cputune or Cputune()
    wanted = (
        ("memory", "Memory tuning", "Memory cgroup", set(limits.memory(domain).values()) != {limits.UNLIMITED}),
        ("blkio", "Block I/O tuning", "Block I/O tuning", any(limits.blkio(domain).values())),
        ("cpu", "CPU tuning", "CPU tuning", tune.shares is not None),
    )
    for controller, session, host, is_wanted in wanted:
        if is_wanted and controller not in places:
            what = f"{session} is not available in session mode"
            missing = f"{host} is not available on this host"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what if is_session else missing, ErrorDomain.QEMU)
    if not places and domain.resource is not None and domain.resource.appid is not None:
        what = "<fibrechannel> names what a control group sends, and this machine has none"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    if "cpu" not in places and any(value for name, value in limits.scheduler(domain).items() if name != "cpu_shares"):
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, "cgroup cpu is required for scheduler tuning", ErrorDomain.QEMU)


def make(domain: Domain, path: str, settings: Settings) -> Group:
    """Make a machine's group, with its limits, before anybody is in it.

    Raises:
        VirtError: the host refuses.
    """
    most = settings.max_threads
    places = mounted((*settings.controllers, "pids") if most else settings.controllers)
    group, above = Group(path, places), Group(path.rpartition("/")[0], places)
    if above.path == MACHINES:
        above.make()
    group.check_above()
    group.make()
    tune = domain.blkiotune or Blkiotune()
    if tune.weight:
        cgroups.set_weight(group, tune.weight)
    for device in tune.devices:
        for name in limits.DEVICES.values():
            if value := getattr(device, name):
                cgroups.set_device(group, device.path, name, value)
    for name, value in limits.memory(domain).items():
        if value != limits.UNLIMITED:
            cgroups.set_memory(group, name, value)
    shares = (domain.cputune or Cputune()).shares
    if shares is not None:
        cgroups.set_shares(group, shares)
    if most and group.has("pids"):
        write(group.folder("pids") / "pids.max", str(most))
    now = limits.scheduler(domain)
    if group.has("cpu"):
        cgroups.set_bandwidth(group, now["global_period"], now["global_quota"])
    if domain.resource is not None and domain.resource.appid is not None:
        name_traffic(group, domain.resource.appid)
    return group


def name_traffic(group: Group, name: str, store: Path = _APPID_STORE) -> None:
    """Have Fibre Channel adapters mark what a group's processes send with a name, by which switches know a machine.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host has no such adapters, or refuses.
    """
    write(store, f"{group.inode():X}:{name}")


def of_status(status: Status) -> Group | None:
    """The group that a running machine was given; None where it has none."""
    return Group(status.group, mounted((*_NONE, "cpuacct", "pids", "devices"))) if status.group else None


def needed(status: Status, controller: str) -> Group:
    """The same, where a controller reaches it.

    Raises:
        VirtError: ``OPERATION_INVALID``, in libvirt's words.
    """
    group = of_status(status)
    if group is None or not group.has(controller):
        raise fault(ErrorCode.OPERATION_INVALID, _NONE[controller], ErrorDomain.QEMU)
    return group


def place_thread(group: Group, domain: Domain, kind: str, number: int, thread: int) -> None:
    """Put a thread of a machine into a group of its own, with the limits that the document has for its kind.

    Args:
        group: the machine's.
        domain: its document.
        kind: ``emulator``, ``vcpu`` or ``iothread``.
        number: the processor's, or the I/O thread's.
        thread: the host's number of it.

    Raises:
        VirtError: the host refuses.
    """
    if not (group.has("cpu") or group.has("cpuset")):
        return
    own = group.make_for_thread(_name(kind, number))
    if group.has("cpu"):
        now = limits.scheduler(domain)
        cgroups.set_bandwidth(own, now[f"{kind}_period"], now[f"{kind}_quota"])
    memory = domain.numatune.memory if domain.numatune is not None else None
    if group.has("cpuset") and memory is not None and memory.nodeset and memory.mode in ("strict", "restrictive"):
        cgroups.set_nodes(own, memory.nodeset)
    own.add_thread(thread)


def _name(kind: str, number: int) -> str:
    return kind if kind == "emulator" else f"{kind}{number}"


def threads(group: Group, domain: Domain, kind: str) -> Iterator[Group]:
    """The groups of a machine's threads of a kind."""
    most = domain.vcpu.value if domain.vcpu is not None else 1
    numbers = {"emulator": [0], "vcpu": [*range(most)], "iothread": [entry.id for entry in entries(domain)]}[kind]
    for number in numbers:
        own = group.thread(_name(kind, number))
        if own.has("cpu") or own.has("cpuset"):
            yield own


def scheduler(group: Group, domain: Domain) -> dict[str, int]:
    """Shares and time of processors that a running machine has."""
    found = {"cpu_shares": cgroups.shares(group)}
    for kind in ("vcpu", "emulator", "global", "iothread"):
        first = group if kind == "global" else next(threads(group, domain, kind), None)
        period, quota = cgroups.bandwidth(first) if first is not None else (0, 0)
        found |= {f"{kind}_period": period, f"{kind}_quota": quota}
    return found


def set_scheduler(group: Group, domain: Domain, given: Mapping[str, int]) -> None:
    """Change them; the parameters have been checked. Periods and quotas of 0 are left as they are."""
    for name, value in given.items():
        if name == "cpu_shares":
            cgroups.set_shares(group, value)
            continue
        kind, _, field = name.partition("_")
        for own in [group] if kind == "global" else threads(group, domain, kind):
            cgroups.set_bandwidth(own, value if field == "period" else 0, value if field == "quota" else 0)


def memory(group: Group) -> dict[str, int]:
    """Limits of memory that a running machine has, in KiB."""
    return {name: cgroups.memory(group, name) for name in MEMORY}


def set_memory(group: Group, domain: Domain, given: Mapping[str, int]) -> None:
    """Change them, the one first that has to be (``virDomainCgroupSetMemoryLimitParameters``)."""
    is_lower = given.get("hard_limit", limits.UNLIMITED) < limits.memory(domain)["hard_limit"]
    first, second = ("hard_limit", "swap_hard_limit") if is_lower else ("swap_hard_limit", "hard_limit")
    for name in ("soft_limit", first, second):
        if name in given:
            cgroups.set_memory(group, name, given[name])


def set_blkio(group: Group, given: Mapping[str, Any]) -> None:
    """Change shares and limits of disk traffic."""
    for name, value in given.items():
        if name == "weight":
            cgroups.set_weight(group, value)
            continue
        for path, number in limits.devices(name, value):
            cgroups.set_device(group, path, limits.DEVICES[name], number)


def set_nodes(group: Group, domain: Domain, nodes: str) -> None:
    """Take memory from other nodes (``qemuDomainSetNumaParamsLive``)."""
    for kind in ("emulator", "vcpu", "iothread"):
        for own in threads(group, domain, kind):
            cgroups.set_nodes(own, nodes)


def remove(status: Status) -> None:
    """Remove the group of a machine that has ended."""
    group = of_status(status)
    if group is not None:
        group.remove()
