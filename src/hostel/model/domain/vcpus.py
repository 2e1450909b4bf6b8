"""Processors one by one: which of them a machine begins with, and which may be taken out (``virDomainVcpuDef``)."""

from __future__ import annotations

from collections.abc import Iterable

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.cpu import Vcpu, VcpuEntry, Vcpus
from hostel.model.domain.domain import Domain


def states(domain: Domain) -> list[VcpuEntry]:
    """Every processor that the machine may have; where the document does not list them, the first ones are there."""
    vcpu = domain.vcpu or Vcpu(value=1)
    if domain.vcpus is None:
        now = vcpu.current or vcpu.value
        return [VcpuEntry(id=number, enabled=number < now, hotpluggable=number >= now) for number in range(vcpu.value)]
    listed = {entry.id: entry for entry in domain.vcpus.vcpus}
    return [listed.get(number) or VcpuEntry(id=number, enabled=False) for number in range(vcpu.value)]


def is_at_start(entry: VcpuEntry) -> bool:
    """Whether the machine begins with a processor, and keeps it."""
    return entry.enabled and not entry.hotpluggable


def plugged_in(domain: Domain) -> list[VcpuEntry]:
    """The processors that are plugged in before the machine runs, in their order."""
    found = [entry for entry in states(domain) if entry.enabled and entry.hotpluggable]
    return sorted(found, key=lambda entry: entry.order or 0)


def complete(domain: Domain) -> None:
    """Say of every processor what it is, where the document lists some (``virDomainDefPostParseCommon``).

    Raises:
        ModelError: one that is not there cannot be plugged in.
    """
    if domain.vcpus is None:
        return
    found = states(domain)
    if any(entry.id >= len(found) for entry in domain.vcpus.vcpus):
        return  # it is refused as it is
    for entry in found:
        if entry.hotpluggable is None:
            entry.hotpluggable = not entry.enabled
        elif not entry.hotpluggable and not entry.enabled:
            reason = f"vcpu '{entry.id}' is both offline and not hotpluggable"
            raise ModelError("/domain/vcpus/vcpu", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    write(domain, found)


def write(domain: Domain, entries: Iterable[VcpuEntry]) -> None:
    """Put a list of all processors into a document, and their number."""
    domain.vcpus = Vcpus(vcpus=list(entries))
    domain.vcpu = domain.vcpu or Vcpu(value=1)
    now = sum(entry.enabled for entry in domain.vcpus.vcpus)
    domain.vcpu.current = now if now not in (0, domain.vcpu.value) else None


def check(domain: Domain) -> None:
    """Hold the list against what QEMU can do (``qemuDomainDefVcpusPostParse``).

    Raises:
        ModelError: in libvirt's words.
    """
    if domain.vcpus is None:
        return
    first, *others = states(domain)
    reason = (
        "vcpu 0 can't be offline" if not first.enabled
        else "vcpu0 can't be hotpluggable" if first.hotpluggable
        else "vcpu0 must be enabled first" if first.order not in (None, 1)
        else _broken(first, others)
    )  # fmt: skip
    if reason:
        raise ModelError("/domain/vcpus/vcpu", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _broken(before: VcpuEntry, others: Iterable[VcpuEntry]) -> str:
    has_order = before.order is not None
    for entry in others:
        if entry.enabled and (entry.order is not None) != has_order:
            return "all vcpus must have either set or unset order"
        if not entry.hotpluggable:
            if before.hotpluggable:
                return "online non-hotpluggable vcpus need to be ordered prior to hotplugable vcpus"
            if (before.order or 0) > (entry.order or 0):
                return "online non-hotpluggable vcpus must be ordered in ascending order"
        before = entry
    return ""


def check_orders(domain: Domain) -> None:
    """Each order is one processor's (``qemuProcessValidateHotpluggableVcpus``).

    Raises:
        ModelError: in libvirt's words.
    """
    seen: set[int] = set()
    entries = states(domain)
    for entry in entries if domain.vcpus is not None else []:
        if entry.order is None:
            continue
        reason = (
            f"duplicate vcpu order '{entry.order}'" if entry.order in seen
            else f"vcpu order '{entry.order}' exceeds vcpu count" if entry.order > len(entries)
            else ""
        )  # fmt: skip
        if reason:
            raise ModelError("/domain/vcpus/vcpu/@order", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        seen.add(entry.order)


def set_count(domain: Domain, count: int, *, hotpluggable: bool) -> None:
    """Change how many processors a definition begins with (``qemuDomainSetVcpusConfig``).

    Args:
        domain: the definition.
        count: how many; no more than there may be.
        hotpluggable: whether those that come in may be taken out again.
    """
    entries, listed = states(domain), domain.vcpus is not None
    now = sum(entry.enabled for entry in entries)
    for entry in entries:
        entry.order = None
        if not entry.enabled and now < count:
            entry.enabled, entry.hotpluggable, now = True, hotpluggable, now + 1
            listed = listed or hotpluggable
        elif entry.enabled and entry.hotpluggable:
            hotpluggable = True  # those that stay come first
    for entry in reversed(entries):
        if entry.enabled and now > count:
            entry.enabled, entry.hotpluggable, now = False, True, now - 1
    write(domain, entries)
    if not listed:
        domain.vcpus = None


def change(domain: Domain, numbers: Iterable[int], *, is_on: bool) -> None:
    """Have a definition begin with processors, or without them (``qemuDomainSetVcpuConfig``)."""
    entries, chosen = states(domain), set(numbers)
    for entry in entries:
        entry.order = None
        if entry.id in chosen:
            entry.enabled, entry.hotpluggable = is_on, True
    write(domain, entries)
