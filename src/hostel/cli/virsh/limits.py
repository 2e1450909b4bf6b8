"""Shares and limits of domains: processors, memory, disks, nodes, networks, and counters of events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hostel.cli.options import UINT, Args, Command, data, number, rest, value
from hostel.cli.virsh import affect
from hostel.cli.virsh.scaled import integer
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.offered import offered
from hostel.drivers.base.tuning import LimitsDriver
from hostel.drivers.fault import fault
from hostel.drivers.tuning.limits import MODES, UNLIMITED
from hostel.drivers.tuning.parameter import TYPES, ParameterType
from hostel.errors import ErrorCode, UsageError
from hostel.units import scale_libvirt

_SIZE: Final = re.compile(r"[ \t\n]*([+-]?[0-9]{1,19})([A-Za-z]*)", re.ASCII)
_INTEGER: Final = re.compile(r"[ \t\n]*[+-]?([0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})", re.ASCII)
_MOST: Final = 2**63 - 1
_RATES: Final = ("average", "peak", "burst", "floor")
_ULLONG: Final = 2**64 - 1
_LIMITS: Final = {
    "hard-limit": "hard_limit", "soft-limit": "soft_limit", "swap-hard-limit": "swap_hard_limit",
    "min-guarantee": "min_guarantee",
}  # fmt: skip
_DEVICES: Final = {
    "device-weights": "device_weight",
    "device-read-iops-sec": "device_read_iops_sec",
    "device-write-iops-sec": "device_write_iops_sec",
    "device-read-bytes-sec": "device_read_bytes_sec",
    "device-write-bytes-sec": "device_write_bytes_sec",
}
_WORDS: Final = {
    ParameterType.INT: "int", ParameterType.UINT: "unsigned int", ParameterType.LLONG: "long long",
    ParameterType.ULLONG: "unsigned long long",
}  # fmt: skip


def _limits(session: Session, api: str) -> LimitsDriver:
    return offered(session.hypervisor, LimitsDriver, api)


def _show(session: Session, parameters: Mapping[str, Any]) -> None:
    for name, amount in parameters.items():
        session.output.line(f"{name:<15}: {amount}")


def _schedinfo(session: Session, args: Args) -> None:
    affect.check(args)
    which = affect.affected(args)
    asked = Affect.CURRENT if which == Affect.LIVE | Affect.CONFIG else which
    domain = session.domain(args)
    calls = _limits(session, "virDomainGetSchedulerType")
    try:
        kind = calls.domain_get_scheduler_type(domain)
    except Exception:
        session.output.line(f"{'Scheduler':<15}: Unknown")
        raise
    session.output.line(f"{'Scheduler':<15}: {kind.type}")
    if not kind.total:
        raise CommandError("")
    found = calls.domain_get_scheduler_parameters_flags(domain, asked)
    wanted = [word.partition("=") for word in args.rest]
    if any(not equals for _, equals, _ in wanted):
        raise CommandError("Invalid syntax for --set, expecting name=value")
    changes = [(name, text) for name, _, text in wanted]
    changes += [(name, args[name]) for name in ("cap", "weight") if args.has(name)]
    updates = {name: _scheduled(name, text, found) for name, text in changes}
    if updates:
        calls.domain_set_scheduler_parameters_flags(domain, updates, which)
        found = calls.domain_get_scheduler_parameters_flags(domain, asked)
    elif which == Affect.LIVE | Affect.CONFIG:
        raise CommandError("cannot query both live and config at once")
    _show(session, found)


def _scheduled(name: str, text: str, known: Mapping[str, Any]) -> int:
    if name not in known:
        raise CommandError(f"invalid scheduler option: {name}")
    kind = TYPES.get(name, ParameterType.ULLONG)
    is_signed = kind in (ParameterType.INT, ParameterType.LLONG)
    most = UINT if kind is ParameterType.UINT else _ULLONG
    found = int(text) if re.fullmatch(r"[ \t\n]*[+-]?[0-9]{1,20}", text, re.ASCII) else None
    if found is not None and found < 0 and not is_signed and -found <= most:
        found += most + 1  # as C reads it
    if found is None or (found < 0 and not is_signed) or found > most:
        raise fault(ErrorCode.INVALID_ARG, f"Invalid value for field '{name}': expected {_WORDS[kind]}")
    return found


def _memtune(session: Session, args: Args) -> None:
    affect.check(args)
    domain, which = session.domain(args), affect.affected(args)
    given = {name: _size(args, option) for option, name in _LIMITS.items() if args.has(option)}
    if given:
        with failing("Unable to change memory parameters"):
            calls = _limits(session, "virDomainSetMemoryParameters")
            calls.domain_set_memory_parameters(domain, given, which)
        return
    with failing("Unable to get number of memory parameters"):
        found = _limits(session, "virDomainGetMemoryParameters").domain_get_memory_parameters(domain, which)
    _show(session, {name: "unlimited" if limit == UNLIMITED else limit for name, limit in found.items()})


def _size(args: Args, option: str) -> int:
    """A size in KiB; any that is negative is no limit."""
    tried = f"Unable to parse integer parameter {option}"
    match = _SIZE.fullmatch(args.get(option) or "")
    if match is None or abs(int(match[1])) > _MOST:
        raise CommandError(tried)
    amount = int(match[1])
    if amount < 0:
        return UNLIMITED
    if not match[2]:
        return amount
    try:
        return -(-scale_libvirt(amount, match[2]) // 1024)
    except ValueError as error:
        raise CommandError(tried, fault(ErrorCode.INVALID_ARG, str(error))) from None
    except OverflowError as error:
        raise CommandError(tried, fault(ErrorCode.OVERFLOW, str(error))) from None


def _numatune(session: Session, args: Args) -> None:
    affect.check(args)
    domain, which = session.domain(args), affect.affected(args)
    given: dict[str, Any] = {}
    if (nodeset := args.get("nodeset")) is not None:
        given["numa_nodeset"] = nodeset
    if (mode := args.get("mode")) is not None:
        if mode not in MODES and not _INTEGER.fullmatch(mode):
            raise CommandError(f"Invalid mode: {mode}")
        given["numa_mode"] = MODES.index(mode) if mode in MODES else int(mode, 0)
    if given:
        with failing("Unable to change numa parameters"):
            _limits(session, "virDomainSetNumaParameters").domain_set_numa_parameters(domain, given, which)
        return
    with failing("Unable to get number of memory parameters"):
        found = dict(_limits(session, "virDomainGetNumaParameters").domain_get_numa_parameters(domain, which))
    _show(session, {**found, "numa_mode": MODES[found["numa_mode"]]})


def _blkiotune(session: Session, args: Args) -> None:
    affect.check(args)
    domain, which = session.domain(args), affect.affected(args)
    given: dict[str, Any] = {}
    if (weight := integer(args, "weight")) is not None:
        if weight <= 0:
            raise CommandError(f"Invalid value of {weight} for I/O weight")
        given["weight"] = weight
    for option, name in _DEVICES.items():
        try:
            text = args.get(option)
        except UsageError:
            raise CommandError("Unable to parse string parameter") from None
        if text is not None:
            given[name] = text
    if given:
        with failing("Unable to change blkio parameters"):
            _limits(session, "virDomainSetBlkioParameters").domain_set_blkio_parameters(domain, given, which)
        return
    with failing("Unable to get number of blkio parameters"):
        found = _limits(session, "virDomainGetBlkioParameters").domain_get_blkio_parameters(domain, which)
    _show(session, found)


def _domiftune(session: Session, args: Args) -> None:
    affect.check(args)
    domain, which, device = session.domain(args), affect.affected(args), args["interface"]
    inbound, outbound = args.get("inbound"), args.get("outbound")
    given: dict[str, int] = {}
    if inbound is not None:
        rates = _rates(inbound, "inbound")
        if not rates["average"] and (rates["burst"] or rates["peak"]) and not rates["floor"]:
            raise CommandError("either inbound average or floor is mandatory")
        given |= {f"inbound.{name}": rate for name, rate in rates.items() if rate or name == "average"}
    if outbound is not None:
        rates = _rates(outbound, "outbound")
        if not rates["average"] and (rates["burst"] or rates["peak"]):
            raise CommandError("outbound average is mandatory")
        if rates["floor"]:
            raise CommandError("outbound floor is unsupported yet")
        given |= {f"outbound.{name}": rate for name, rate in rates.items() if rate or name == "average"}
    if given:
        with failing("Unable to set interface parameters"):
            calls = _limits(session, "virDomainSetInterfaceParameters")
            calls.domain_set_interface_parameters(domain, device, given, which)
        return
    # virsh asks twice, and libvirt's test driver looks for the interface the second time only.
    number = "" if session.hypervisor.connect_get_type() == "TEST" else "number of "
    with failing(f"Unable to get {number}interface parameters"):
        calls = _limits(session, "virDomainGetInterfaceParameters")
        found = calls.domain_get_interface_parameters(domain, device, which)
    _show(session, found)


def _rates(text: str, way: str) -> dict[str, int]:
    words = text.split(",")
    if len(words) > len(_RATES):
        raise CommandError(f"Rate string '{text}' has too many fields")
    found = dict.fromkeys(_RATES, 0)
    for name, word in zip(_RATES, words, strict=False):
        if word and not re.fullmatch(r"[ \t\n]*\+?[0-9]{1,20}", word, re.ASCII):
            raise CommandError(f"field '{name}' is malformed")
        found[name] = int(word or "0")
    if any(rate > UINT for rate in found.values()):
        raise CommandError(f"{way} rate larger than maximum {UINT}")
    return found


def _events(args: Args, option: str) -> list[str]:
    return [name for name in (args.get(option) or "").split(",") if name]


def _perf(session: Session, args: Args) -> None:
    affect.check(args)
    which = affect.affected(args)
    named = [(name, option == "enable") for option in ("enable", "disable") for name in _events(args, option)]
    given = dict(named)
    domain = session.domain(args)
    if len(given) < len(named):
        names = [name for name, _ in named]
        what = f"parameter '{next(name for name in names if names.count(name) > 1)}' occurs multiple times"
        raise CommandError("Unable to enable/disable perf events", fault(ErrorCode.INVALID_ARG, what))
    found: Mapping[str, bool] = given
    if given:
        with failing("Unable to enable/disable perf events"):
            _limits(session, "virDomainSetPerfEvents").domain_set_perf_events(domain, given, which)
    else:
        with failing("Unable to get perf events"):
            found = _limits(session, "virDomainGetPerfEvents").domain_get_perf_events(domain, which)
    for name, is_counted in found.items():
        session.output.note(f"{name:<15}: {'enabled' if is_counted else 'disabled'}")


COMMANDS = (
    Command(
        "blkiotune",
        "show or set a domain's shares of disk traffic",
        (
            DOMAIN,
            number("weight", "its weight"),
            value("device-weights", "its weights on devices: PATH,WEIGHT,..."),
            value("device-read-iops-sec", "reads a second: PATH,NUMBER,..."),
            value("device-write-iops-sec", "writes a second: PATH,NUMBER,..."),
            value("device-read-bytes-sec", "bytes read a second: PATH,NUMBER,..."),
            value("device-write-bytes-sec", "bytes written a second: PATH,NUMBER,..."),
            *affect.THREE,
        ),
        _blkiotune,
    ),
    Command(
        "domiftune",
        "show or set how an interface's traffic is shaped",
        (
            DOMAIN,
            data("interface", "its name on the host, or its hardware address"),
            value("inbound", "what the guest receives: AVERAGE,PEAK,BURST,FLOOR in KiB"),
            value("outbound", "what it sends: AVERAGE,PEAK,BURST in KiB"),
            *affect.THREE,
        ),
        _domiftune,
    ),
    Command(
        "memtune",
        "show or set a domain's limits of memory",
        (
            DOMAIN,
            number("hard-limit", "the most, in KiB unless it has a unit"),
            number("soft-limit", "the most while memory is scarce"),
            number("swap-hard-limit", "the most with swap"),
            number("min-guarantee", "the least"),
            *affect.THREE,
        ),
        _memtune,
    ),
    Command(
        "numatune",
        "show or set which nodes a domain's memory comes from",
        (DOMAIN, value("mode", ", ".join(MODES)), value("nodeset", "the nodes"), *affect.THREE),
        _numatune,
    ),
    Command(
        "perf",
        "show or set which events are counted of a domain",
        (
            DOMAIN,
            value("enable", "events to count, with commas"),
            value("disable", "events not to count"),
            *affect.THREE,
        ),
        _perf,
    ),
    Command(
        "schedinfo",
        "show or set a domain's shares of processors",
        (
            DOMAIN,
            number("weight", "the weight, where the scheduler has one")._replace(positional=False),
            number("cap", "the cap, where it has one")._replace(positional=False),
            affect.CURRENT,
            affect.CONFIG,
            affect.LIVE,
            rest("set", "NAME=VALUE"),
        ),
        _schedinfo,
    ),
)
