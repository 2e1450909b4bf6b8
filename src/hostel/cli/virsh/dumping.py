"""Dumps of memory, how fast it changes, what follows when a guest ends, and what only other hypervisors have."""

from __future__ import annotations

import re
from typing import Final

from hostel.cli.options import Args, Command, Option, data, flag, number, rest, value
from hostel.cli.virsh import affect
from hostel.cli.virsh.saving import absolute, verbose
from hostel.cli.virsh.scaled import integer
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base.dumping import (
    ACTIONS,
    LIFECYCLES,
    DirtyRateDriver,
    DirtyRateMode,
    DumpDriver,
    DumpFlag,
    DumpFormat,
    LifecycleDriver,
    SignalDriver,
)
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, UsageError

FORMATS: Final = {
    "elf": DumpFormat.RAW, "kdump-zlib": DumpFormat.KDUMP_ZLIB, "kdump-lzo": DumpFormat.KDUMP_LZO,
    "kdump-snappy": DumpFormat.KDUMP_SNAPPY, "win-dmp": DumpFormat.WIN_DMP,
}  # fmt: skip
_FLAGS: Final = {
    "live": DumpFlag.LIVE, "crash": DumpFlag.CRASH, "bypass-cache": DumpFlag.BYPASS_CACHE, "reset": DumpFlag.RESET,
    "memory-only": DumpFlag.MEMORY_ONLY,
}  # fmt: skip
MODES: Final = {
    "page-sampling": DirtyRateMode.PAGE_SAMPLING, "dirty-bitmap": DirtyRateMode.DIRTY_BITMAP,
    "dirty-ring": DirtyRateMode.DIRTY_RING,
}  # fmt: skip
# virDomainProcessSignal: Linux's numbers, and those for real time from 32 on.
_NAMES: Final = (
    "nop hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop tstp ttin ttou "
    "urg xcpu xfsz vtalrm prof winch poll pwr sys"
)
SIGNALS: Final = {
    **{name: number for number, name in enumerate(_NAMES.split())},
    **{f"rt{place}": 32 + place for place in range(33)},
}
_NUMBER: Final = re.compile(r"[ \t\n]*[+-]?[0-9]{1,19}", re.ASCII)


def _dump(session: Session, args: Args) -> None:
    domain, file = session.domain(args), args["file"]
    flags = args.flags(DumpFlag.NONE, _FLAGS)
    name = args.get("format") or "elf"
    if args.has("format") and not args.has("memory-only"):
        raise CommandError("--format only works with --memory-only")
    if name not in FORMATS:
        known = "'kdump-zlib', 'kdump-lzo', 'kdump-snappy', 'win-dmp' or 'elf'"
        raise CommandError(f"format '{name}' is not supported, expecting {known}")
    with failing(f"Failed to core dump domain '{args['domain']}' to {file}"):
        driver = offered(session.hypervisor, DumpDriver, "virDomainCoreDump")
        driver.domain_core_dump_with_format(domain, absolute(file), FORMATS[name], flags, verbose(args, "Dump"))
    session.output.note(f"\nDomain '{args['domain']}' dumped to {file}")


def _send_signal(session: Session, args: Args) -> None:
    domain = session.domain(args)
    text = args["pid"]
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"Numeric value '{text}' for <pid> option is malformed or out of range")
    name = args["signame"].lower()
    signum = int(name) if name.isdecimal() else SIGNALS.get(name.removeprefix("sig_").removeprefix("sig"))
    if signum is None:
        raise CommandError(f"malformed signal name: {args['signame']}")
    driver = offered(session.hypervisor, SignalDriver, "virDomainSendProcessSignal")
    driver.domain_send_process_signal(domain, int(text), signum)


def _set_lifecycle(session: Session, args: Args) -> None:
    affect.check(args)
    for option, known in (("type", LIFECYCLES), ("action", ACTIONS)):
        if args[option] not in known:
            raise CommandError(f"Invalid lifecycle {option} '{args[option]}'.")
    domain = session.domain(args)
    with failing("Unable to change lifecycle action."):
        driver = offered(session.hypervisor, LifecycleDriver, "virDomainSetLifecycleAction")
        kind, action = LIFECYCLES.index(args["type"]), ACTIONS.index(args["action"])
        driver.domain_set_lifecycle_action(domain, kind, action, affect.affected(args))


def _dirty_rate(session: Session, args: Args) -> None:
    domain = session.domain(args)
    seconds = integer(args, "seconds")
    name = args.get("mode") or "page-sampling"
    if name not in MODES:
        raise CommandError(f"Unknown calculation mode '{name}'")
    driver = offered(session.hypervisor, DirtyRateDriver, "virDomainStartDirtyRateCalc")
    driver.domain_start_dirty_rate_calc(domain, 1 if seconds is None else seconds, MODES[name])
    session.output.note("Start to calculate domain's memory dirty rate successfully.")


def _attach(session: Session, args: Args) -> None:
    pid = integer(args, "pid")
    if pid is None or pid < 0:
        raise UsageError(f"Numeric value '{args['pid']}' for <pid> option is malformed or out of range")
    session.hypervisor  # noqa: B018 - it is connected to, as virsh does
    cause = fault(ErrorCode.NO_SUPPORT, "virDomainQemuAttach")
    raise CommandError(f"Failed to attach to pid {pid}", cause)


def _enter_namespace(session: Session, args: Args) -> None:
    session.domain(args)
    raise fault(ErrorCode.NO_SUPPORT, "virDomainLxcOpenNamespace")


def _required(option: Option) -> Option:
    return option._replace(required=True)


COMMANDS = (
    Command(
        "domdirtyrate-calc",
        "begin to measure how fast a domain's memory changes",
        (
            DOMAIN,
            number("seconds", "for so many seconds, 1 to 60"),
            value("mode", "page-sampling, dirty-bitmap or dirty-ring"),
        ),
        _dirty_rate,
    ),
    Command(
        "dump",
        "write a domain's memory to a file, for debuggers",
        (
            DOMAIN,
            data("file", "where to"),
            flag("live", "let it run meanwhile"),
            flag("crash", "end it afterwards, as if it had crashed"),
            flag("bypass-cache", "leave nothing of it in the host's cache"),
            flag("reset", "reset it afterwards"),
            flag("verbose", "show how far it is"),
            flag("memory-only", "without its devices"),
            value("format", "elf, kdump-zlib, kdump-lzo, kdump-snappy or win-dmp"),
        ),
        _dump,
    ),
    Command(
        "lxc-enter-namespace",
        "run a command in a container, which no hypervisor here has",
        (DOMAIN, flag("noseclabel", "under the label of its own"), _required(rest("cmd", "the command"))),
        _enter_namespace,
    ),
    Command("qemu-attach", "attach to a QEMU, which libvirt has given up", (data("pid", "its process"),), _attach),
    Command(
        "send-process-signal",
        "send a process of a container a signal",
        (DOMAIN, data("pid", "the process"), data("signame", "the signal, by number or by name")),
        _send_signal,
    ),
    Command(
        "set-lifecycle-action",
        "set what follows when a guest ends by itself",
        (
            DOMAIN,
            data("type", ", ".join(LIFECYCLES)),
            data("action", ", ".join(ACTIONS)),
            *affect.THREE,
        ),
        _set_lifecycle,
    ),
)
