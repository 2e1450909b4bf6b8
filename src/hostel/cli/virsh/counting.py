"""How many processors domains have, and whether anybody answers for them."""

from __future__ import annotations

from typing import Final

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.virsh.affect import CONFIG, CURRENT, LIVE, affected
from hostel.cli.virsh.session import DOMAIN, CommandError, Session
from hostel.drivers.base.counting import ControlState, CountingDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuDriver, VcpuFlag
from hostel.drivers.base.offered import offered
from hostel.errors import ErrorCode, VirtError

_STATES: Final = ("ok", "background job", "occupied", "error")
_REASONS: Final = ("no error", "unknown", "monitor failure", "internal (locking) error")


def _calls(session: Session, api: str) -> CountingDriver:
    return offered(session.hypervisor, CountingDriver, api)


def _vcpucount(session: Session, args: Args) -> None:
    args.exclude("live", "config")
    if args.has("maximum") or args.has("active"):  # alone, --current is what --active is now
        args.exclude("current", "live")
        args.exclude("current", "config")
    args.exclude("active", "maximum")
    args.exclude("guest", "config")
    domain = session.domain(args)
    calls = _calls(session, "virDomainGetVcpusFlags")
    if any(args.has(name) for name in ("maximum", "active", "current", "config", "live", "guest")):
        affect = (Affect.LIVE if args.has("live") else Affect.CURRENT) | (
            Affect.CONFIG if args.has("config") else Affect.CURRENT
        )
        which = args.flags(VcpuFlag.NONE, {"maximum": VcpuFlag.MAXIMUM, "guest": VcpuFlag.GUEST})
        try:
            count = calls.domain_get_vcpus_flags(domain, affect, which)
        except VirtError as error:
            if args.has("guest") and error.code is ErrorCode.INVALID_ARG:
                raise CommandError("Failed to retrieve vCPU count from the guest", error) from error
            raise
        session.output.line(str(count))
        return
    driver = session.hypervisor
    there = {
        "config": (Affect.CONFIG, driver.domain_is_persistent(domain)),
        "live": (Affect.LIVE, domain.id != -1),
    }
    for word, which in (("maximum", VcpuFlag.MAXIMUM), ("current", VcpuFlag.NONE)):
        for name, (affect, is_there) in there.items():
            if is_there:
                session.output.line(f"{word:<12} {name:<12} {calls.domain_get_vcpus_flags(domain, affect, which):3}")


def _setvcpu(session: Session, args: Args) -> None:
    args.exclude("enable", "disable")
    args.exclude("current", "live")
    args.exclude("current", "config")
    if not (args.has("enable") or args.has("disable")):
        raise CommandError("one of --enable, --disable is required")
    domain = session.domain(args)
    driver = offered(session.hypervisor, VcpuDriver, "virDomainSetVcpu")
    driver.domain_set_vcpu(domain, args["vcpulist"], int(args.has("enable")), affected(args))


def _domcontrol(session: Session, args: Args) -> None:
    info = _calls(session, "virDomainGetControlInfo").domain_get_control_info(session.domain(args))
    word = _STATES[info.state]
    if info.state not in (ControlState.OK, ControlState.ERROR):
        word = f"{word} ({info.state_time / 1000:.3f}s)"
    elif info.state == ControlState.ERROR and info.details:
        word = f"{word}: {_REASONS[info.details]}"
    session.output.line(word)


COMMANDS = (
    Command(
        "setvcpu",
        "give a domain processors, or take them",
        (
            DOMAIN,
            data("vcpulist", "ids of vcpus to manipulate"),
            flag("enable", "give them"),
            flag("disable", "take them"),
            CONFIG,
            LIVE,
            CURRENT,
        ),
        _setvcpu,
    ),
    Command("domcontrol", "whether a running domain can be told anything", (DOMAIN,), _domcontrol),
    Command(
        "vcpucount",
        "how many processors a domain has, and may have",
        (
            DOMAIN,
            flag("maximum", "may have"),
            flag("active", "has"),
            LIVE,
            CONFIG,
            CURRENT,
            flag("guest", "as the guest says"),
        ),
        _vcpucount,
    ),
)
