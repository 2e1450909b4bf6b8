"""Processors that are plugged into a running machine and out of it, by their number or one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.counting import vcpus
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.qemu.tuning import threads
from hostel.drivers.qemu.tuning.groups import of_status
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain import vcpus as vcpu_states
from hostel.model.domain.cpu import VcpuEntry
from hostel.model.domain.domain import Domain
from hostel.model.numberset import parse_numbers

_UNPLUG_SECONDS: Final = 5.0
Slot = dict[str, Any]


class VcpuCalls(Calls):
    """See :class:`hostel.drivers.base.machine.VcpuDriver`."""

    def domain_set_vcpu(self, domain: DomainRef, cpumap: str, state: int, affect: Affect = Affect.CURRENT) -> None:
        """Plug processors in or out by their numbers: of a running machine one at a time."""
        if state not in (0, 1):
            raise VirtError(
                ErrorCode.INVALID_ARG,
                "unsupported state value",
                domain=ErrorDomain.QEMU,
                details=("qemuDomainSetVcpu", "state", None, 0, 0),
            )
        try:
            numbers = parse_numbers(cpumap)
        except ValueError:
            raise _wrong(f"Failed to parse bitmap '{cpumap}'") from None
        if not numbers:
            raise _wrong("no vcpus selected for modification")
        with self._both(domain, affect) as both:
            live = None if both.running is None else both.running.domain
            for document, name in ((both.definition, "persistent"), (live, "live")):
                if document is not None and max(numbers) >= vcpus(document, VcpuFlag.MAXIMUM):
                    raise _wrong(f"vcpu {max(numbers)} is not present in {name} config")
            known = [] if both.running is None else slots(both.running)
            chosen = None if both.running is None else _chosen(known, numbers, is_on=bool(state))
            if both.definition is not None:
                _check_change(both.definition, numbers)
                vcpu_states.change(both.definition, numbers, is_on=bool(state))
            if both.running is not None and chosen is not None:
                if not state and not _can_leave(known[chosen]):
                    what = f"vcpu '{min(numbers)}' can't be unplugged"
                    raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
                _set(both.running, chosen, known[chosen], is_on=bool(state))
            if both.definition is not None:
                self._define(both.definition)


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)


def _chosen(known: Sequence[Slot], numbers: frozenset[int], *, is_on: bool) -> int:
    """Which slot has the processors that are selected; it must be one (``qemuDomainFilterHotplugVcpuEntities``)."""
    per_slot = int(known[0]["vcpus-count"]) if known else 1
    for number in sorted(numbers):
        slot = known[number // per_slot]
        if ("qom-path" in slot) is is_on:
            raise _wrong(f"vcpu '{number}' is already in requested state")
    chosen = {number // per_slot for number in numbers}
    if len(chosen) != 1 or len(numbers) != per_slot:
        what = "only one hotpluggable entity can be selected"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    return chosen.pop()


def _check_change(definition: Domain, numbers: frozenset[int]) -> None:
    """Those that stay in a machine are its first ones (``qemuDomainVcpuValidateConfig``)."""
    if 0 in numbers:
        raise _wrong("vCPU '0' can't be modified")
    first = min(numbers)
    for entry in vcpu_states.states(definition):
        if entry.id > first and entry.id not in numbers and vcpu_states.is_at_start(entry):
            raise _wrong(f"vcpu '{first}' can't be modified as it is followed by non-hotpluggable online vcpus")


def _settle(machine: Running) -> None:
    """Have the threads of new processors where they belong."""
    status, apart = machine.status, read_settings(machine.machines.directories).cores
    threads.settle(machine.advised, machine.qmp, status.pid, of_status(status), apart=apart)


def _set(machine: Running, index: int, slot: Slot, *, is_on: bool) -> None:
    try:
        if is_on:
            _plug(machine, index, slot)
            _settle(machine)
        else:
            _unplug(machine, slot)
    finally:
        _count(machine)


def set_count(machine: Running, count: int) -> None:
    """Plug processors in or out until there are ``count``; what could not be done is undone by nobody, and told.

    Raises:
        VirtError: QEMU or the guest refused.
    """
    known = slots(machine)
    used = [slot for slot in known if "qom-path" in slot]
    free = [slot for slot in known if "qom-path" not in slot]
    wanted = count // (int(known[0]["vcpus-count"]) if known else 1)
    leaving = [slot for slot in reversed(used) if _can_leave(slot)][: max(0, len(used) - wanted)]
    if len(used) - len(leaving) > wanted:
        what = "failed to find appropriate hotpluggable vcpus to reach the desired target vcpu count"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    try:
        for slot in free[: max(0, wanted - len(used))]:
            _plug(machine, known.index(slot), slot)
        if wanted > len(used):
            _settle(machine)
        for slot in leaving:
            _unplug(machine, slot)
    finally:
        _count(machine)


def plug_in(domain: Domain, qmp: Monitor) -> None:
    """Plug in what a machine begins with and may lose again, before it runs (``qemuProcessSetupHotpluggableVcpus``).

    Raises:
        QmpError: QEMU refuses.
    """
    wanted = vcpu_states.plugged_in(domain)
    known = _sorted(qmp.execute("query-hotpluggable-cpus")) if wanted else []
    per_slot = int(known[0]["vcpus-count"]) if known else 1
    for index in dict.fromkeys(entry.id // per_slot for entry in wanted):
        slot = known[index]
        qmp.execute("device_add", driver=slot["type"], id=f"vcpu{index}", **slot["props"])


def slots(machine: Running) -> list[Slot]:
    """Where processors are or can be, in the order of their numbers."""
    return _sorted(machine.ask("query-hotpluggable-cpus"))


def _sorted(found: list[Slot]) -> list[Slot]:
    return sorted(found, key=lambda slot: sorted(slot["props"].items()))


def _name(slot: Slot) -> str:
    return str(slot["qom-path"]).rpartition("/")[2]


def _can_leave(slot: Slot) -> bool:
    """Whether the processors in a slot have been plugged in, not been there when QEMU was started."""
    return _name(slot).startswith("vcpu")


def _plug(machine: Running, index: int, slot: Slot) -> None:
    machine.ask("device_add", driver=slot["type"], id=f"vcpu{index}", **slot["props"])


def _unplug(machine: Running, slot: Slot) -> None:
    machine.ask("device_del", id=_name(slot))
    event = machine.qmp.wait(_UNPLUG_SECONDS, "DEVICE_DELETED", "ACPI_DEVICE_OST")
    if event is None or event["event"] != "DEVICE_DELETED":
        raise failed("vcpu unplug request timed out. Unplug result must be manually inspected in the domain")


def _count(machine: Running) -> None:
    """Write down which there are now, and in which order they came."""
    known = slots(machine)
    before = {entry.id: entry.order for entry in vcpu_states.states(machine.domain) if entry.enabled}
    most = vcpus(machine.domain, VcpuFlag.MAXIMUM)
    entries = [VcpuEntry(id=number, enabled=False, hotpluggable=True) for number in range(most)]
    for index, slot in enumerate(known):
        width = int(slot["vcpus-count"])
        for entry in entries[index * width : (index + 1) * width] if "qom-path" in slot else []:
            entry.enabled, entry.hotpluggable = True, _can_leave(slot)
            entry.order = before.get(entry.id)
    last = max((entry.order or 0 for entry in entries), default=0)
    for entry in entries:
        if entry.enabled and entry.order is None:
            last += 1
            entry.order = last
    vcpu_states.write(machine.domain, entries)
    machine.save()
