"""How much memory a guest has now: what its balloon leaves, and what of memory on demand is plugged in.

A guest gives memory back when its driver does so, so QEMU is asked whenever somebody wants to know; what it said last
is in the live document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostel.drivers.qemu.monitor import Monitor
from hostel.errors import QmpError
from hostel.model.domain.devices.address import DimmAddress
from hostel.model.domain.devices.platform import MemoryCurrent
from hostel.model.domain.domain import Domain
from hostel.model.domain.memory import CurrentMemory

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running


def has_balloon(domain: Domain) -> bool:
    """Whether the guest can give memory back."""
    return domain.devices.memballoon is not None and domain.devices.memballoon.model != "none"


def begin(domain: Domain, qmp: Monitor, *, comes: bool) -> None:
    """Ask the guest for what it is not to have from the start, and have it asked for its statistics.

    Args:
        domain: the live document.
        qmp: its QEMU.
        comes: whether the guest goes on from memory that is read: how much it has is in there.

    Raises:
        QmpError: QEMU refused.
    """
    device = domain.devices.memballoon
    if device is not None and has_balloon(domain):
        if device.stats_period:
            qmp.execute("qom-set", **polling(device.alias), value=device.stats_period)
        if domain.current_memory is not None:
            _ask(qmp, "balloon", value=domain.current_memory.to_kib() << 10)
    if not comes:
        _look(domain, qmp)


def polling(alias: str | None) -> dict[str, Any]:
    """The property of a balloon that says how often the guest is asked, in seconds."""
    return {"path": f"/machine/peripheral/{alias}", "property": "guest-stats-polling-interval"}


def refresh(machine: Running) -> None:
    """Write into the live document how much memory the guest has; what is there stays where QEMU refuses.

    Raises:
        VirtError: ``OPERATION_TIMEOUT``: QEMU does not answer.
    """
    try:
        changed = _look(machine.domain, machine.qmp)
    except QmpError as error:
        if error.error_class == "Timeout":
            raise machine.translated(error, "query-balloon") from error
        return
    if changed:
        machine.save()


def _look(domain: Domain, qmp: Monitor) -> bool:
    """As ``qemuProcessRefreshBalloonState``; whether the document is another then."""
    before = _known(domain)
    plugged = _find_plugged(domain, qmp)
    now = domain.memory.to_kib() if domain.memory is not None else 0
    told = _ask(qmp, "query-balloon") if has_balloon(domain) else None
    if told is not None:
        now = (int(told["actual"]) >> 10) + plugged
    domain.current_memory = CurrentMemory(unit="KiB", value=now)
    return _known(domain) != before


def _ask(qmp: Monitor, command: str, **arguments: Any) -> Any:
    """Run a command of the balloon's; None where this host's QEMU has one that gives nothing back."""
    try:
        return qmp.execute(command, **arguments)
    except QmpError as error:
        if error.error_class in ("DeviceNotActive", "KVMMissingCap"):
            return None
        raise


def _known(domain: Domain) -> list[str | None]:
    told = [domain.current_memory, *domain.devices.memories]
    return [element.format() if element is not None else None for element in told]


def _find_plugged(domain: Domain, qmp: Monitor) -> int:
    """How much of memory on demand is plugged in, in KiB; each device's document says it, and where modules are."""
    devices = {memory.alias: memory for memory in domain.devices.memories}
    total = 0
    for entry in qmp.execute("query-memory-devices") if devices else []:
        device = devices.get(str(entry["data"].get("id")))
        if device is not None and device.model == "virtio-mem":
            size = int(entry["data"]["size"]) >> 10
            device.target.current = MemoryCurrent(unit="KiB", value=size)
            total += size
        elif device is not None and isinstance(device.address, DimmAddress):
            device.address.slot, device.address.base = int(entry["data"]["slot"]), int(entry["data"]["addr"])
    return total
