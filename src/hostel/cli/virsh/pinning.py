"""Where a domain's threads run, and its I/O threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hostel.cli.options import UINT, Args, Command, data, flag, number, value
from hostel.cli.virsh import affect
from hostel.cli.virsh.scaled import integer
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainRef, DomainState
from hostel.drivers.base.counting import CountingDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.offered import offered
from hostel.drivers.base.tuning import IoThreadDriver, PinningDriver
from hostel.drivers.fault import fault
from hostel.drivers.tuning.cpumap import cpumap, cpus_of
from hostel.errors import ErrorCode, UsageError, VirtError
from hostel.model.numberset import format_numbers, parse_numbers

_STATES: Final = ("offline", "running", "blocked")
_CPUS: Final = 1024  # that a list may name
_AT_ONCE: Final = 128  # CPUs
_TIMES: Final = ("cpu_time", "vcpu_time", "user_time", "system_time")
_BILLION: Final = 1_000_000_000


def _pinning(session: Session, api: str) -> PinningDriver:
    return offered(session.hypervisor, PinningDriver, api)


def _iothreads(session: Session, api: str) -> IoThreadDriver:
    return offered(session.hypervisor, IoThreadDriver, api)


def _most_cpus(session: Session) -> int:
    return len(session.host.node_get_cpu_map())


def _width(session: Session) -> int:
    """How many bytes a set of the host's CPUs takes."""
    return -(-_most_cpus(session) // 8)


def _cpulist(session: Session, text: str) -> bytes:
    most = _most_cpus(session)
    if text.startswith("r"):
        return cpumap(range(most))
    try:
        cpus = parse_numbers(text)
    except ValueError:
        cause = fault(ErrorCode.INVALID_ARG, f"Failed to parse bitmap '{text}'")
        raise CommandError(f"Invalid cpulist '{text}'", cause) from None
    if not cpus or max(cpus) >= _CPUS:
        raise CommandError(f"Invalid cpulist '{text}'")
    if max(cpus) >= most:
        raise CommandError(f"CPU {max(cpus)} in cpulist '{text}' exceed the maxcpu {most}")
    return cpumap(cpus)


def _split(raw: bytes, width: int) -> Iterable[frozenset[int]]:
    return (cpus_of(raw[at : at + width]) for at in range(0, len(raw), width))


def _vcpupin(session: Session, args: Args) -> None:
    affect.check(args)
    text = args.written("cpulist") if args.has("cpulist") else None
    if text is None:
        args.exclude("live", "config")
    vcpu = args.number("vcpu", most=UINT)
    if text is not None and vcpu is None:
        raise CommandError("vcpupin: Missing vCPU number in pin mode.")
    domain = session.domain(args)
    calls = _pinning(session, "virDomainPinVcpu")
    if text is None:
        _show_vcpupin(session, domain, vcpu, affect.affected(args))
    elif affect.affected(args) or args.has("current"):
        calls.domain_pin_vcpu_flags(domain, vcpu or 0, _cpulist(session, text), affect.affected(args))
    else:
        calls.domain_pin_vcpu(domain, vcpu or 0, _cpulist(session, text))


def _show_vcpupin(session: Session, domain: DomainRef, vcpu: int | None, which: Affect) -> None:
    if which & Affect.LIVE and domain.id == -1:
        raise CommandError("cannot get vcpupin for offline domain")
    if which & Affect.CONFIG and not session.hypervisor.domain_is_persistent(domain):
        raise CommandError("cannot get vcpupin for transient domain")
    counting = offered(session.hypervisor, CountingDriver, "virDomainGetVcpusFlags")
    count = counting.domain_get_vcpus_flags(domain, which, VcpuFlag.MAXIMUM)
    if vcpu is not None and vcpu >= count:
        is_live = bool(which & Affect.LIVE) or (not which & Affect.CONFIG and domain.id != -1)
        kind = "live" if is_live else "persistent"
        raise CommandError(f"vcpu {vcpu} is out of range of {kind} cpu count {count}")
    width = _width(session)
    calls = _pinning(session, "virDomainGetVcpuPinInfo")
    maps = _split(calls.domain_get_vcpu_pin_info(domain, count, width, which).cpumaps, width)
    rows = [(str(at), format_numbers(cpus)) for at, cpus in enumerate(maps) if vcpu in (None, at)]
    session.output.table(("VCPU", "CPU Affinity"), rows)


def _vcpuinfo(session: Session, args: Args) -> None:
    domain = session.domain(args)
    most, width = _most_cpus(session), _width(session)
    count = session.hypervisor.domain_get_info(domain).vcpus
    try:
        found = _pinning(session, "virDomainGetVcpus").domain_get_vcpus(domain, count, width)
    except VirtError:
        if session.hypervisor.domain_get_state(domain).state != DomainState.SHUTOFF:
            raise
        _show_defined(session, domain, args, most, width)
        return
    for position, (vcpu, cpus) in enumerate(zip(found.info, _split(found.cpumaps, width), strict=True)):
        if position:
            session.output.line()
        state = _STATES[vcpu.state] if vcpu.state < len(_STATES) else "no state"
        _say(session, "VCPU:", vcpu.number)
        _say(session, "CPU:", vcpu.cpu)
        _say(session, "State:", state)
        if vcpu.cpu_time:
            _say(session, "CPU time:", f"{vcpu.cpu_time / _BILLION:.1f}s")
        _say(session, "CPU Affinity:", _affinity(cpus, most, args))


def _show_defined(session: Session, domain: DomainRef, args: Args, most: int, width: int) -> None:
    """What is known of virtual CPUs that do not run."""
    counting = offered(session.hypervisor, CountingDriver, "virDomainGetVcpusFlags")
    count = counting.domain_get_vcpus_flags(domain, Affect.CONFIG)
    calls = _pinning(session, "virDomainGetVcpuPinInfo")
    maps = calls.domain_get_vcpu_pin_info(domain, count, width, Affect.CONFIG).cpumaps
    for number_, cpus in enumerate(_split(maps, width)):
        if number_:
            session.output.line()
        for name, shown in (("VCPU:", number_), ("CPU:", "N/A"), ("State:", "N/A"), ("CPU time", "N/A")):
            _say(session, name, shown)
        _say(session, "CPU Affinity:", _affinity(cpus, most, args))


def _say(session: Session, name: str, shown: object) -> None:
    session.output.line(f"{name:<15} {shown}")


def _affinity(cpus: frozenset[int], most: int, args: Args) -> str:
    if args.has("pretty"):
        return f"{format_numbers(cpus)} (out of {most})"
    return "".join("y" if cpu in cpus else "-" for cpu in range(most))


def _emulatorpin(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    text, which = args.written("cpulist") if args.has("cpulist") else None, affect.affected(args)
    if text is not None:
        cpus = _cpulist(session, text)
        chosen = which or args.has("current")
        calls = _pinning(session, "virDomainPinEmulator")
        calls.domain_pin_emulator(domain, cpus, which if chosen else Affect.LIVE)
        return
    found = _pinning(session, "virDomainGetEmulatorPinInfo").domain_get_emulator_pin_info(
        domain, _width(session), which
    )
    session.output.note("emulator: CPU Affinity")
    session.output.note("----------------------------------")
    head = "" if session.output.quiet else "       *: "
    session.output.line(head + format_numbers(cpus_of(found.cpumaps)))


def _cpu_stats(session: Session, args: Args) -> None:
    domain = session.domain(args)
    start, count = integer(args, "start"), integer(args, "count")
    if start is not None and start < 0:
        raise CommandError("Invalid value for start CPU")
    if count is not None and count < 0:
        raise CommandError("Invalid value for number of CPUs to show")
    each = start is not None or count is not None
    with failing(f"Failed to retrieve CPU statistics for domain '{domain.name}'"):
        has_shown = (each or not args.has("total")) and _show_each(session, domain, start or 0, count)
        if args.has("total") or not each:
            _show_total(session, domain)
        elif not has_shown:
            raise CommandError("")


def _show_each(session: Session, domain: DomainRef, first: int, count: int | None) -> bool:
    """Numbers of each CPU; whether there are any."""
    calls = _pinning(session, "virDomainGetCPUStats")
    most = calls.domain_get_cpu_stats(domain, 0, 0, 0).total
    if first >= most:
        raise CommandError(f"Start CPU {first} is out of range (min: 0, max: {most - 1})")
    if count is None or count > most:
        if count is not None:
            session.output.line(f"Only {most} CPUs available to show")
        count = most - first
    width = calls.domain_get_cpu_stats(domain, 0, 0, 1).total
    if not width:
        session.output.text("No per-CPU stats available")
        return False
    for at in range(first, first + count, _AT_ONCE):
        found = calls.domain_get_cpu_stats(domain, width, at, min(_AT_ONCE, first + count - at)).parameters
        for cpu in range(len(found) // width):
            session.output.line(f"CPU{at + cpu}:")
            _show_times(session, found[cpu * width : (cpu + 1) * width])
    return True


def _show_total(session: Session, domain: DomainRef) -> None:
    calls = _pinning(session, "virDomainGetCPUStats")
    width = calls.domain_get_cpu_stats(domain, 0, -1, 1).total
    if not width:
        session.output.text("No total stats available")
        raise CommandError("")
    found = calls.domain_get_cpu_stats(domain, width, -1, 1).parameters
    session.output.line("Total:")
    _show_times(session, found)


def _show_times(session: Session, parameters: Iterable[tuple[str, Any]]) -> None:
    for name, amount in parameters:
        shown = f"{amount // _BILLION:9}.{amount % _BILLION:09} seconds" if name in _TIMES else str(amount)
        session.output.line(f"\t{name:<12} {shown}")


def _iothreadinfo(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    with failing("Unable to get domain IOThreads information"):
        calls = _iothreads(session, "virDomainGetIOThreadInfo")
        found = calls.domain_get_iothread_info(domain, affect.affected(args)).info
    if not found:
        if not session.output.quiet:
            session.output.text("No IOThreads found for the domain")
        return
    rows = [(str(thread.number), format_numbers(cpus_of(thread.cpumap))) for thread in found]
    session.output.table(("IOThread ID", "CPU Affinity"), rows)


def _iothreadpin(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    thread = args.number("iothread", most=UINT) or 0
    cpus = _cpulist(session, args["cpulist"])
    _iothreads(session, "virDomainPinIOThread").domain_pin_iothread(domain, thread, cpus, affect.affected(args))


def _thread_id(args: Args) -> int:
    found = integer(args, "id") or 0
    if found <= 0:
        raise CommandError(f"Invalid IOThread id value: '{found}'")
    return found


def _iothreadadd(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    calls = _iothreads(session, "virDomainAddIOThread")
    calls.domain_add_iothread(domain, _thread_id(args), affect.affected(args))


def _iothreaddel(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    calls = _iothreads(session, "virDomainDelIOThread")
    calls.domain_del_iothread(domain, _thread_id(args), affect.affected(args))


def _iothreadset(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    thread = _thread_id(args)
    parameters: dict[str, int] = {}
    for name in ("poll-max-ns", "poll-grow", "poll-shrink", "thread-pool-min", "thread-pool-max"):
        found = integer(args, name) if name.startswith("thread") else args.number(name)
        if found is not None and name in ("poll-grow", "poll-shrink") and found >= 2**32:
            raise UsageError(f"Numeric value '{found}' for <{name}> option is malformed or out of range")
        if found is not None:
            parameters[name.replace("-", "_")] = found
    if not parameters:
        raise CommandError("Not enough arguments passed, nothing to set")
    calls = _iothreads(session, "virDomainSetIOThreadParams")
    calls.domain_set_iothread_params(domain, thread, parameters, affect.affected(args))


_CPULIST: Final = "the host's CPUs, such as 0-3,^2; r for all"
_ID: Final = number("id", "its number")._replace(required=True)

COMMANDS = (
    Command(
        "cpu-stats",
        "how long a domain has used the host's CPUs",
        (
            DOMAIN,
            flag("total", "only of all together"),
            number("start", "from this CPU on"),
            number("count", "of so many"),
        ),
        _cpu_stats,
    ),
    Command(
        "emulatorpin",
        "show or set where a domain's emulator runs",
        (DOMAIN, value("cpulist", _CPULIST), *affect.THREE),
        _emulatorpin,
    ),
    Command("iothreadadd", "add an I/O thread", (DOMAIN, _ID, *affect.THREE), _iothreadadd),
    Command("iothreaddel", "take an I/O thread away", (DOMAIN, _ID, *affect.THREE), _iothreaddel),
    Command("iothreadinfo", "show a domain's I/O threads", (DOMAIN, *affect.THREE), _iothreadinfo),
    Command(
        "iothreadpin",
        "set where an I/O thread runs",
        (
            DOMAIN,
            number("iothread", "its number")._replace(required=True),
            data("cpulist", _CPULIST),
            *affect.THREE,
        ),
        _iothreadpin,
    ),
    Command(
        "iothreadset",
        "change how an I/O thread polls, and its pool of threads",
        (
            DOMAIN,
            _ID,
            number("poll-max-ns", "the most nanoseconds that it polls"),
            number("poll-grow", "how fast that time grows"),
            number("poll-shrink", "how fast it shrinks"),
            number("thread-pool-min", "the fewest threads of its pool"),
            number("thread-pool-max", "the most"),
            *affect.THREE,
        ),
        _iothreadset,
    ),
    Command("vcpuinfo", "show a domain's processors", (DOMAIN, flag("pretty", "CPUs as numbers")), _vcpuinfo),
    Command(
        "vcpupin",
        "show or set where a domain's processors run",
        (DOMAIN, number("vcpu", "which processor"), value("cpulist", _CPULIST), *affect.THREE),
        _vcpupin,
    ),
)
