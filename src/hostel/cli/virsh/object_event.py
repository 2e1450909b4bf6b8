"""Events of pools, secrets and devices of the host, and what QEMU says by its own names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from hostel.cli.options import Args, Command, Option, flag, number, value
from hostel.cli.virsh.event import listen, timeout
from hostel.cli.virsh.session import CommandError, Session
from hostel.drivers.events import NODE_DEVICE_EVENTS, POOL_EVENTS, SECRET_EVENTS, Event, Subject
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode

_DETAILS: Final = ("seconds", "micros", "details")


class _Kind(NamedTuple):
    """Objects that have events.

    Attributes:
        subject: what their events are about.
        option: what names one of them.
        noun: what virsh calls them.
        events: the kinds of events.
        words: what happened, by a life-cycle event's number.
        find: the name of the one that an option names, or its UUID where events have that.
    """

    subject: Subject
    option: str
    noun: str
    events: Sequence[str]
    words: Sequence[str]
    find: Callable[[Session, str], str]


_KINDS: Final = {
    "pool-event": _Kind(
        Subject.POOL,
        "pool",
        "storage pool",
        POOL_EVENTS,
        ("Defined", "Undefined", "Started", "Stopped", "Created", "Deleted"),
        lambda session, word: session.pool(word).uuid,
    ),
    "secret-event": _Kind(
        Subject.SECRET,
        "secret",
        "secret",
        SECRET_EVENTS,
        ("Defined", "Undefined"),
        lambda session, word: session.secret.secret_lookup_by_uuid(word).uuid,
    ),
    "nodedev-event": _Kind(
        Subject.NODE_DEVICE,
        "device",
        "node device",
        NODE_DEVICE_EVENTS,
        ("Created", "Deleted", "Defined", "Undefined"),
        lambda session, word: session.node_device.node_device_lookup_by_name(word).name,
    ),
}


def _waiting(kind: _Kind) -> Callable[[Session, Args], None]:
    def run(session: Session, args: Args) -> None:
        if args.has("list"):
            for name in kind.events:
                session.output.line(name)
            return
        wanted = args.get("event")
        if wanted is None:
            raise CommandError("either --list or --event <type> is required")
        if wanted not in kind.events:
            raise CommandError(f"unknown event type {wanted}")
        seconds = timeout(args)
        word = args.get(kind.option)
        key = None if word is None else kind.find(session, word)

        def is_wanted(event: Event) -> bool:
            return event.subject is kind.subject and event.kind == wanted and key in (None, event.uuid or event.name)

        listen(session, args, seconds, is_wanted, lambda event: _described(kind, event))

    return run


def _described(kind: _Kind, event: Event) -> str:
    name = event.uuid if kind.subject is Subject.SECRET else event.name
    happened = event.detail.get("event", -1)
    shown = ""
    if event.kind == "lifecycle":
        shown = f": {kind.words[happened] if 0 <= happened < len(kind.words) else 'unknown'}"
    return f"event '{event.kind}' for {kind.noun} {name}{shown}"


def _monitor(session: Session, args: Args) -> None:
    seconds = timeout(args)
    text = args.get("event")
    domain = session.domain(args) if args.has("domain") else None
    pattern = "" if text is None else text if args.has("regex") else rf"\A{re.escape(text)}\Z"
    try:
        named = re.compile(pattern, re.IGNORECASE if args.has("no-case") else 0)
    except re.error as error:
        raise fault(ErrorCode.INVALID_ARG, f"failed to compile regex '{text}': {error}") from None
    if session.hypervisor.connect_get_type() != "QEMU":
        raise fault(ErrorCode.NO_SUPPORT, "virConnectDomainQemuMonitorEventRegister")
    hear: Callable[[], None] | None = getattr(getattr(session.connection, "events", None), "hear_monitors", None)
    if hear is not None:
        hear()

    def is_wanted(event: Event) -> bool:
        is_named = event.subject is Subject.MONITOR and named.search(event.kind) is not None
        return is_named and (domain is None or event.uuid == domain.uuid)

    def show(event: Event) -> str:
        detail: dict[str, Any] = dict(event.detail)
        said, micros, details = (detail.get(name) for name in _DETAILS)
        if args.has("pretty") and details:
            details = json.dumps(json.loads(details), indent=2)
        at = "" if args.has("timestamp") else f" at {said}.{micros:06}"
        return f"event {event.kind}{at} for domain '{event.name}': {'<null>' if details is None else details}"

    listen(session, args, seconds, is_wanted, show)


_COMMON: Final[tuple[Option, ...]] = (
    flag("loop", "go on after the first one"),
    number("timeout", "stop after so many seconds"),
    flag("list", "list the kinds of events"),
    flag("timestamp", "say when each happened"),
)


def _command(name: str) -> Command:
    kind = _KINDS[name]
    options = (
        value(kind.option, f"only of this {kind.noun}"),
        value("event", "this kind of event"),
        *_COMMON,
    )
    return Command(name, f"wait for events of a {kind.noun}", options, _waiting(kind))


COMMANDS = (
    *(_command(name) for name in _KINDS),
    Command(
        "qemu-monitor-event",
        "wait for what QEMU says by its own names",
        (
            value("domain", "only of this domain: name, id or uuid"),
            value("event", "only by this name"),
            flag("pretty", "print what belongs to it on several lines"),
            flag("loop", "go on after the first one"),
            number("timeout", "stop after so many seconds"),
            flag("regex", "the name is a regular expression"),
            flag("no-case", "capitals are as small letters"),
            flag("timestamp", "say when each came"),
        ),
        _monitor,
    ),
)
