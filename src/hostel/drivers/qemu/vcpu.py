"""Processors that are plugged into a running machine and out of it, by their number or one by one."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.counting import vcpus
from hostel.drivers.fault import fault
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.machines import failed, invalid
from hostel.drivers.qemu.running import Calls, Running
from hostel.drivers.qemu.tuning import threads
from hostel.drivers.qemu.tuning.groups import of_status
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.cpu import Vcpu
from hostel.model.domain.domain import Domain
from hostel.model.numberset import parse_numbers

_UNPLUG_SECONDS: Final = 5.0
Slot = dict[str, Any]


class VcpuCalls(Calls):
    """See :class:`hostel.drivers.base.machine.VcpuDriver`."""

    def domain_set_vcpu(self, domain: DomainRef, cpumap: str, state: int, affect: Affect = Affect.CURRENT) -> None:
        """Plug processors in or out by their numbers: of a running machine one at a time."""
        if state not in (0, 1):
            raise _wrong("unsupported state value")
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
            slot = None if both.running is None else _chosen(both.running, numbers, is_on=bool(state))
            if both.definition is not None:
                _change(both.definition, numbers, is_on=bool(state))
            if both.running is not None and slot is not None:
                _set(both.running, slot, is_on=bool(state))
            if both.definition is not None:
                self._define(both.definition)


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)


def _chosen(machine: Running, numbers: frozenset[int], *, is_on: bool) -> int:
    """The slot of the processors that are selected, which must be one (``qemuDomainFilterHotplugVcpuEntities``)."""
    known = slots(machine)
    per_slot = int(known[0]["vcpus-count"]) if known else 1
    for number in sorted(numbers):
        slot = known[number // per_slot]
        if ("qom-path" in slot) is is_on:
            raise _wrong(f"vcpu '{number}' is already in requested state")
    chosen = {number // per_slot for number in numbers}
    if len(chosen) != 1 or len(numbers) != per_slot:
        what = "only one hotpluggable entity can be selected"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    index = chosen.pop()
    if not is_on and not _name(known[index]).startswith("vcpu"):
        what = f"vcpu '{min(numbers)}' can't be unplugged"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    return index


def _change(definition: Domain, numbers: frozenset[int], *, is_on: bool) -> None:
    """Change which processors a machine begins with: with us always the first ones."""
    if 0 in numbers:
        raise _wrong("vCPU '0' can't be modified")
    vcpu = definition.vcpu = definition.vcpu or Vcpu(value=1)
    now = set(range(vcpu.current or vcpu.value))
    online = now | numbers if is_on else now - numbers
    if online != set(range(len(online))):
        raise unsupported("a machine begins with its first processors; choose the next ones, or the last that it has")
    vcpu.current = len(online) if len(online) != vcpu.value else None


def _set(machine: Running, index: int, *, is_on: bool) -> None:
    slot = slots(machine)[index]
    try:
        if is_on:
            _plug(machine, index, slot)
            threads.settle(machine.domain, machine.qmp, machine.status.pid, of_status(machine.status))
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
    try:
        for slot in free[: max(0, wanted - len(used))]:
            _plug(machine, known.index(slot), slot)
        if wanted > len(used):
            threads.settle(machine.domain, machine.qmp, machine.status.pid, of_status(machine.status))
        for slot in reversed(used[wanted:]):
            _unplug(machine, slot)
    finally:
        _count(machine)


def slots(machine: Running) -> list[Slot]:
    """Where processors are or can be, in the order of their numbers."""
    found: list[Slot] = machine.ask("query-hotpluggable-cpus")
    return sorted(found, key=lambda slot: sorted(slot["props"].items()))


def _name(slot: Slot) -> str:
    return str(slot["qom-path"]).rpartition("/")[2]


def _plug(machine: Running, index: int, slot: Slot) -> None:
    machine.ask("device_add", driver=slot["type"], id=f"vcpu{index}", **slot["props"])


def _unplug(machine: Running, slot: Slot) -> None:
    name = _name(slot)
    if not name.startswith("vcpu"):
        raise invalid("a processor that the machine was started with cannot be taken out")
    machine.ask("device_del", id=name)
    event = machine.qmp.wait(_UNPLUG_SECONDS, "DEVICE_DELETED", "ACPI_DEVICE_OST")
    if event is None or event["event"] != "DEVICE_DELETED":
        raise failed("vcpu unplug request timed out. Unplug result must be manually inspected in the domain")


def _count(machine: Running) -> None:
    """Write down how many there are now."""
    now = sum(int(slot["vcpus-count"]) for slot in slots(machine) if "qom-path" in slot)
    vcpu = machine.domain.vcpu
    if vcpu is not None:
        vcpu.current = now if now != vcpu.value else None
    machine.save()
