"""Events of domains, as they happen."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hostel.cli.options import Args, Command, flag, number, value
from hostel.cli.virsh.session import CommandError, Session
from hostel.drivers.events import DOMAIN_EVENTS, Event, EventSource, Listener, Subject
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, UsageError

_LIFECYCLE: Final = (
    ("Defined", ("Added", "Updated", "Renamed", "Snapshot")),
    ("Undefined", ("Removed", "Renamed")),
    ("Started", ("Booted", "Migrated", "Restored", "Snapshot", "Event wakeup")),
    (
        "Suspended",
        (
            "Paused", "Migrated", "I/O Error", "Watchdog", "Restored", "Snapshot", "API error", "Post-copy",
            "Post-copy Error",
        ),
    ),
    ("Resumed", ("Unpaused", "Migrated", "Snapshot", "Post-copy", "Post-copy Error")),
    ("Stopped", ("Shutdown", "Destroyed", "Crashed", "Migrated", "Saved", "Failed", "Snapshot")),
    ("Shutdown", ("Finished", "Finished after guest request", "Finished after host request")),
    ("PMSuspended", ("Memory", "Disk")),
    ("Crashed", ("Panicked", "Crashloaded")),
)  # fmt: skip
_JOBS: Final = ("Unknown job", "Block Pull", "Block Copy", "Block Commit", "Active Block Commit", "Backup")
_JOB_ENDS: Final = ("completed", "failed", "canceled", "ready")
_IO_ACTIONS: Final = ("none", "pause", "report")
_WATCHDOG: Final = ("none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi")
_PHASES: Final = ("connect", "initialize", "disconnect")
_FAMILIES: Final = ("IPv4", "IPv6", "unix")
_AGENT_STATES: Final = ("unknown", "connected", "disconnected")
_AGENT_REASONS: Final = ("unknown", "domain started", "channel event")
_LONGEST: Final = (2**31 - 1) // 1000  # seconds
_METADATA: Final = ("description", "title", "element")

Detail = Mapping[str, Any]


def _word(words: tuple[str, ...], index: object) -> str:
    return words[index] if isinstance(index, int) and 0 <= index < len(words) else "unknown"


def _null(text: object) -> str:
    return "<null>" if text is None else str(text)


def _lifecycle(detail: Detail) -> str:
    event = detail["event"]
    if not 0 <= event < len(_LIFECYCLE):
        return ": unknown unknown"
    word, details = _LIFECYCLE[event]
    return f": {word} {_word(details, detail['detail'])}"


def _graphics(detail: Detail) -> str:
    ends = [detail[name] for name in ("local", "remote")]
    shown = [f"{_word(_FAMILIES, end['family'])} {end['node']} {end['service']}" for end in ends]
    text = f": {_word(_PHASES, detail['phase'])} local[{shown[0]}] remote[{shown[1]}] {detail['authScheme']}"
    return text + "".join(f"\n\t{item['type']}={item['name']}" for item in detail["subject"])


def _parameters(detail: Detail) -> str:
    return ":" + "".join(f"\n\t{name}: {amount}" for name, amount in detail.items())


def _job(detail: Detail) -> str:
    return f": {_word(_JOBS, detail['type'])} for {detail['disk']} {_word(_JOB_ENDS, detail['status'])}"


def _io_error(detail: Detail) -> str:
    return f": {detail['srcPath']} ({detail['devAlias']}) {_word(_IO_ACTIONS, detail['action'])}"


# What comes after "event 'KIND' for domain 'NAME'".
_SHOWN: Final[Mapping[str, Callable[[Detail], str]]] = {
    "lifecycle": _lifecycle,
    "rtc-change": lambda detail: f": {detail['utcoffset']}",
    "watchdog": lambda detail: f": {_word(_WATCHDOG, detail['action'])}",
    "io-error": _io_error,
    "io-error-reason": lambda detail: f"{_io_error(detail)} due to {detail['reason']}",
    "graphics": _graphics,
    "block-job": _job,
    "block-job-2": _job,
    "disk-change": lambda detail: (
        f" disk {detail['alias']}: {_null(detail['old'])} -> {_null(detail['new'])}: "
        f"{_word(('changed', 'dropped'), detail['reason'])}"
    ),
    "tray-change": lambda detail: f" disk {detail['alias']}: {_word(('opened', 'closed'), detail['reason'])}",
    "balloon-change": lambda detail: f": {detail['actual']}KiB",
    "device-removed": lambda detail: f": {detail['alias']}",
    "device-added": lambda detail: f": {detail['alias']}",
    "device-removal-failed": lambda detail: f": {detail['alias']}",
    "tunable": _parameters,
    "job-completed": _parameters,
    "agent-lifecycle": lambda detail: (
        f": state: '{_word(_AGENT_STATES, detail['state'])}' reason: '{_word(_AGENT_REASONS, detail['reason'])}'"
    ),
    "migration-iteration": lambda detail: f": iteration: '{detail['iteration']}'",
    "metadata-change": lambda detail: f": type {_word(_METADATA, detail['type'])}, uri {_null(detail['uri'])}",
    "block-threshold": lambda detail: (
        f": dev: {detail['dev']}({_null(detail['path'])}) {detail['threshold']} {detail['excess']}"
    ),
    "memory-failure": lambda detail: (
        f":\nrecipient: {_word(('hypervisor', 'guest'), detail['recipient'])}\n"
        f"action: {_word(('ignore', 'inject', 'fatal', 'reset'), detail['action'])}\n"
        f"flags:\n\taction required: {detail['flags'] & 1}\n\trecursive: {detail['flags'] >> 1 & 1}"
    ),
    "memory-device-size-change": lambda detail: f":\nalias: {detail['alias']}\nsize: {detail['size']}",
}


def describe(event: Event) -> str:
    """An event as virsh prints it."""
    shown = _SHOWN.get(event.kind)
    return f"event '{event.kind}' for domain '{event.name}'" + (shown(event.detail) if shown is not None else "")


def _event(session: Session, args: Args) -> None:
    for one, other in (("all", "event"), ("list", "all"), ("list", "event")):
        args.exclude(one, other)
    if args.has("list"):
        for name in DOMAIN_EVENTS:
            session.output.line(name)
        return
    wanted = args.get("event")
    if wanted is None and not args.has("all"):
        raise CommandError("one of --list, --all, or --event <type> is required")
    if wanted is not None and wanted not in DOMAIN_EVENTS:
        raise CommandError(f"unknown event type {wanted}")
    seconds = timeout(args)
    domain = session.domain(args) if args.has("domain") else None

    def is_wanted(event: Event) -> bool:
        return (
            event.subject == Subject.DOMAIN
            and wanted in (None, event.kind)
            and (domain is None or event.uuid == domain.uuid)
        )

    listen(session, args, seconds, is_wanted, describe)


def timeout(args: Args) -> int | None:
    """``--timeout`` in seconds; None where it was not given.

    Raises:
        UsageError: it is no number above 0.
    """
    seconds = args.number("timeout", most=_LONGEST)
    if args.has("timeout") and not seconds:
        raise UsageError(f"Numeric value '{args.get('timeout')}' for <timeout> option is malformed or out of range")
    return seconds


def listen(
    session: Session,
    args: Args,
    seconds: int | None,
    is_wanted: Callable[[Event], bool],
    show: Callable[[Event], str],
) -> None:
    """Print events until one came, or with ``--loop`` until the time is over or the user interrupts.

    Raises:
        CommandError: none came.
        VirtError: ``NO_SUPPORT`` where the connection has no events.
    """
    source: EventSource | None = getattr(session.connection, "events", None)
    if source is None:
        raise fault(ErrorCode.NO_SUPPORT, "virConnectDomainEventRegisterAny")
    with source.listen() as listener:
        count = _print(session, args, seconds, is_wanted, show, listener)
    session.output.line(f"events received: {count}")
    if not count:
        raise CommandError("")


def _print(
    session: Session,
    args: Args,
    seconds: int | None,
    is_wanted: Callable[[Event], bool],
    show: Callable[[Event], str],
    listener: Listener,
) -> int:
    count, deadline = 0, None if seconds is None else time.monotonic() + seconds
    try:
        while True:
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            event = listener.get(max(0.0, left))
            if event is None:
                if deadline is not None and time.monotonic() >= deadline:
                    session.output.line("event loop timed out")
                    return count
                continue
            if is_wanted(event):
                stamp = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "+0000: "
                session.output.line((stamp if args.has("timestamp") else "") + show(event))
                session.output.out.flush()
                count += 1
                if not args.has("loop"):
                    return count
    except KeyboardInterrupt:
        session.output.line("event loop interrupted")
        return count


COMMANDS = (
    Command(
        "event",
        "wait for events of domains",
        (
            value("domain", "only of this domain: name, id or uuid"),
            value("event", "only this kind of event"),
            flag("all", "every kind of event"),
            flag("loop", "go on after the first one"),
            number("timeout", "stop after so many seconds"),
            flag("list", "list the kinds of events"),
            flag("timestamp", "say when each happened"),
        ),
        _event,
    ),
)
