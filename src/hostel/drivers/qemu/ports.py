"""Whether a program of the guest has a channel open: QEMU is asked at the start, and whenever somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.model.domain.devices.character import ChannelTarget
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running

AGENT: Final = "org.qemu.guest_agent.0"
CONNECTED, DISCONNECTED = 1, 2  # states, as events of the agent have them
STARTED, CHANNEL = 1, 2  # and why they are told
_CODES: Final = {"connected": CONNECTED, "disconnected": DISCONNECTED}


def note(domain: Domain, told: Iterable[Mapping[str, Any]]) -> bool:
    """Write into the live document what ``query-chardev`` told; whether it is another then."""
    states = {item["label"]: "connected" if item["frontend-open"] else "disconnected" for item in told}
    changed = False
    for alias, target in _ports(domain):
        before, target.state = target.state, states.get(f"char{alias}", target.state)
        changed |= target.state != before
    return changed


def refresh(machine: Running) -> None:
    """Have the live document say it; what is there stays where QEMU refuses.

    Raises:
        VirtError: ``OPERATION_TIMEOUT``: QEMU does not answer.
    """
    if not _ports(machine.domain):
        return
    told = machine.attempt("query-chardev")
    if told is not None and note(machine.domain, told):
        machine.save()


def agent_state(domain: Domain) -> int | None:
    """Whether the guest's agent is there, as events have it; None where it has no channel, or nobody has looked."""
    return next((_CODES.get(target.state or "") for _, target in _ports(domain) if target.name == AGENT), None)


def _ports(domain: Domain) -> list[tuple[str | None, ChannelTarget]]:
    return [
        (channel.alias, channel.target)
        for channel in domain.devices.channels
        if channel.target is not None and channel.target.type == "virtio"
    ]
