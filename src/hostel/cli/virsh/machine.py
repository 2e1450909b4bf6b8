"""Domain management and monitoring: memory, processors, keys and pictures of running domains, and QEMU's monitor."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hostel.cli.options import UINT, Args, Command, Option, data, flag, number, rest, value
from hostel.cli.virsh.affect import THREE, affected, check
from hostel.cli.virsh.descriptors import descriptors
from hostel.cli.virsh.scaled import integer, scaled
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import MachineDriver, MemoryFlag, StatsFlag, VcpuFlag
from hostel.drivers.base.offered import offered
from hostel.drivers.base.rename import RenameDriver
from hostel.errors import UsageError

_CODESETS: Final = {
    "linux": 0, "xt": 1, "atset1": 2, "atset2": 3, "atset3": 4, "os_x": 5, "xt_kbd": 6, "usb": 7, "win32": 8,
    "qnum": 9, "rfb": 9,
}  # fmt: skip
_MOST_KEYS: Final = 16
_NUMBER: Final = re.compile("0[xX][0-9a-fA-F]+|[0-9]+")
_MEMORY: Final = (
    "actual", "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available", "usable", "last_update",
    "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail", "rss",
)  # fmt: skip
_STATS: Final = {
    "state": StatsFlag.STATE, "cpu-total": StatsFlag.CPU_TOTAL, "balloon": StatsFlag.BALLOON,
    "vcpu": StatsFlag.VCPU, "interface": StatsFlag.INTERFACE, "block": StatsFlag.BLOCK, "perf": StatsFlag.PERF,
    "iothread": StatsFlag.IOTHREAD, "memory": StatsFlag.MEMORY, "dirtyrate": StatsFlag.DIRTYRATE, "vm": StatsFlag.VM,
}  # fmt: skip


def _machines(session: Session, api: str) -> MachineDriver:
    return offered(session.hypervisor, MachineDriver, api)


def _live(args: Args) -> Affect:
    """What old calls without flags change: the running domain."""
    has_choice = any(args.has(option.name) for option in THREE)
    return affected(args) if has_choice else Affect.LIVE


def _set_memory(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    size = scaled(args, "size", 1024) or 0
    machines = _machines(session, "virDomainSetMemoryFlags")
    machines.domain_set_memory_flags(domain, -(-size // 1024), _live(args))


def _set_most_memory(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    size = scaled(args, "size", 1024) or 0
    with failing("Unable to change MaxMemorySize"):
        machines = _machines(session, "virDomainSetMaxMemory")
        machines.domain_set_memory_flags(domain, -(-size // 1024), affected(args), MemoryFlag.MAXIMUM)


def _set_vcpus(session: Session, args: Args) -> None:
    check(args)
    args.exclude("guest", "config")
    if args.has("maximum") and not args.has("config"):
        raise UsageError("Option --config is required by option --maximum")
    domain = session.domain(args)
    count = args.number("count", most=UINT) or 0
    if not count:
        raise CommandError("Can't set 0 processors for a VM")
    flags = args.flags(
        VcpuFlag.NONE, {"maximum": VcpuFlag.MAXIMUM, "guest": VcpuFlag.GUEST, "hotpluggable": VcpuFlag.HOTPLUGGABLE}
    )
    affect = affected(args) if flags else _live(args)
    _machines(session, "virDomainSetVcpusFlags").domain_set_vcpus_flags(domain, count, affect, flags)


def _send_key(session: Session, args: Args) -> None:
    domain = session.domain(args)
    name = args.get("codeset") or "linux"
    hold = args.number("holdtime", most=UINT) or 0
    if name not in _CODESETS:
        raise CommandError(f"unknown codeset: '{name}'")
    if len(args.rest) > _MOST_KEYS:
        raise CommandError("too many keycodes")
    codes = [_key(word, name) for word in args.rest]
    _machines(session, "virDomainSendKey").domain_send_key(domain, _CODESETS[name], hold, codes)


def _key(word: str, codeset: str) -> int:
    if _NUMBER.fullmatch(word):
        code = int(word, 0) if not word.startswith("0") or word[1:2] in ("x", "X") or word == "0" else int(word, 8)
        if 0 < code <= 0xFFFF:
            return code
    if codeset == "linux":
        from hostel.drivers.qemu.keyboard import CODES

        if word in CODES:
            return CODES[word]
    raise CommandError(f"invalid keycode: '{word}'")


def _screenshot(session: Session, args: Args) -> None:
    domain = session.domain(args)
    screen = args.number("screen", most=UINT) or 0
    with failing(f"could not take a screenshot of {domain.name}"):
        picture = _machines(session, "virDomainScreenshot").domain_screenshot(domain, screen)
    file = args.get("file")
    if file is None:
        ending = {"image/x-portable-pixmap": ".ppm", "image/png": ".png"}.get(picture.mime, "")
        file = f"{domain.name}-{datetime.datetime.now():%Y-%m-%d-%H:%M:%S}{ending}"
    with failing(f"cannot create file {file}"):
        Path(file).write_bytes(picture.content)
    if not session.output.quiet:
        session.output.text(f"Screenshot saved to {file}, with type of {picture.mime}")


def _nmi(session: Session, args: Args) -> None:
    _machines(session, "virDomainInjectNMI").domain_inject_nmi(session.domain(args))


def _monitor(session: Session, args: Args) -> None:
    args.exclude("hmp", "pretty")
    args.exclude("hmp", "return-value")
    domain = session.domain(args)
    human = args.has("hmp")
    command = " ".join(args.rest) if human else _wrapped(args.rest)
    machines = _machines(session, "virDomainQemuMonitorCommand")
    files = descriptors(args)
    answer = machines.domain_qemu_monitor_command(domain, command, human=human, files=files)
    if not args.has("pretty") and not args.has("return-value"):
        session.output.line(answer)
        return
    shown: Any = json.loads(answer)
    if args.has("return-value"):
        if "return" not in shown:
            raise CommandError("'return' member missing")
        shown = shown["return"]
    indent = 2 if args.has("pretty") else None
    separators = None if args.has("pretty") else (",", ":")
    session.output.text(json.dumps(shown, indent=indent, separators=separators))


def _wrapped(words: Sequence[str]) -> str:
    """A whole QMP command, or the name of one followed by its arguments, each of them JSON or joined to one object."""
    joined = " ".join(words)
    try:
        found = json.loads(joined)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return joined
    if len(words) == 1:
        return json.dumps({"execute": words[0]})
    try:
        arguments = json.loads(" ".join(words[1:]))
    except ValueError as error:
        raise CommandError(f"arguments of '{words[0]}' are no JSON: {error}") from None
    return json.dumps({"execute": words[0], "arguments": arguments})


def _memory(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    machines = _machines(session, "virDomainMemoryStats")
    period = integer(args, "period")
    if period is not None:
        if period < 0:
            raise CommandError(f"Invalid collection period value '{period}'")
        with failing("Unable to change balloon collection period."):
            machines.domain_set_memory_stats_period(domain, period, affected(args))
        return
    with failing(f"Failed to get memory statistics for domain {domain.name}"):
        found = machines.domain_memory_stats(domain)
    for name in _MEMORY:
        if name in found:
            session.output.line(f"{name} {found[name]}")


def _statistics(session: Session, args: Args) -> None:
    stats = args.flags(StatsFlag.ALL, _STATS)
    if args.rest:
        domains = [session.domain(Args({"domain": word})) for word in args.rest]
    else:
        domains = session.hypervisor.connect_list_all_domains()
        domains.sort(key=lambda ref: (ref.id == -1, ref.id, ref.name))
    domains = _let_through(session, args, domains)
    if not domains:
        return
    machines = _machines(session, "virConnectGetAllDomainStats")
    found = machines.connect_get_all_domain_stats(
        domains, stats, backing=args.has("backing"), enforce=args.has("enforce")
    )
    for position, (domain, numbers) in enumerate(found):
        if position:
            session.output.line()
        session.output.line(f"Domain: '{domain.name}'")
        for name, amount in numbers.items():
            session.output.line(f"  {name}={amount}")


def _let_through(session: Session, args: Args, domains: list[DomainRef]) -> list[DomainRef]:
    """The domains that the ``--list-`` options let through."""
    hypervisor = session.hypervisor
    for one, other, test in (
        ("list-active", "list-inactive", lambda ref: ref.id != -1),
        ("list-persistent", "list-transient", hypervisor.domain_is_persistent),
    ):
        if args.has(one) != args.has(other):
            domains = [ref for ref in domains if test(ref) == args.has(one)]
    states = {"list-running": {1}, "list-paused": {3}, "list-shutoff": {5}, "list-other": {0, 2, 4, 6, 7}}
    wanted = {state for name, numbers in states.items() if args.has(name) for state in numbers}
    if wanted:
        domains = [ref for ref in domains if hypervisor.domain_get_state(ref).state in wanted]
    return domains


def _required(option: Option) -> Option:
    return option._replace(required=True)


SIZE = _required(number("size", "in KiB unless it has a unit"))


def _rename(session: Session, args: Args) -> None:
    domain = session.domain(args)
    offered(session.hypervisor, RenameDriver, "virDomainRename").domain_rename(domain, args["new-name"])
    session.output.note("Domain successfully renamed")


COMMANDS = (
    Command("inject-nmi", "send a non-maskable interrupt", (DOMAIN,), _nmi),
    Command(
        "qemu-monitor-command",
        "give QEMU a command",
        (
            DOMAIN,
            flag("hmp", "the command is one for people"),
            flag("pretty", "print the answer on several lines"),
            flag("return-value", "print only what is returned"),
            value("pass-fds", "descriptors N,M,... that go along with it", positional=False),
            _required(rest("cmd", "the command")),
        ),
        _monitor,
    ),
    Command(
        "screenshot",
        "take a picture of the screen",
        (DOMAIN, value("file", "where to"), number("screen", "which screen")),
        _screenshot,
    ),
    Command(
        "send-key",
        "press keys together",
        (
            DOMAIN,
            value("codeset", "linux, xt or qnum", positional=False),
            number("holdtime", "how many milliseconds")._replace(positional=False),
            _required(rest("keycode", "the keys, by number or by name: KEY_ENTER")),
        ),
        _send_key,
    ),
    Command("setmaxmem", "set the most memory that a domain may have", (DOMAIN, SIZE, *THREE), _set_most_memory),
    Command("setmem", "set the memory that a domain has", (DOMAIN, SIZE, *THREE), _set_memory),
    Command(
        "setvcpus",
        "set how many processors a domain has",
        (
            DOMAIN,
            _required(number("count", "how many")),
            flag("maximum", "how many it may have, from the next start on"),
            *THREE,
            flag("guest", "how many of them the guest uses"),
            flag("hotpluggable", "they can be taken out again"),
        ),
        _set_vcpus,
    ),
    Command(
        "dommemstat",
        "a domain's memory in numbers",
        (DOMAIN, number("period", "ask the guest every so many seconds")._replace(positional=False), *THREE),
        _memory,
    ),
    Command(
        "domstats",
        "statistics of domains",
        (
            *(flag(name, f"of {name}") for name in _STATS),
            flag("list-active", "of domains that run"),
            flag("list-inactive", "of domains that do not"),
            flag("list-persistent", "of domains with a definition"),
            flag("list-transient", "of domains without one"),
            flag("list-running", "of domains whose CPUs run"),
            flag("list-paused", "of domains whose CPUs are stopped"),
            flag("list-shutoff", "of domains that are shut off"),
            flag("list-other", "of domains in any other state"),
            flag("raw", "as they are, which is always so here"),
            flag("enforce", "none where one that is asked for is not known to the hypervisor"),
            flag("backing", "of the images that disks stand on too"),
            flag("nowait", "do not wait for a domain that is held, which nobody does for long here"),
            rest("domain", "only of these"),
        ),
        _statistics,
    ),
    Command(
        "domrename",
        "give a domain that does not run another name",
        (data("domain", "domain name or uuid"), data("new-name", "the name")),
        _rename,
    ),
)
