"""Events: what the drivers tell, sent to the clients that have registered for it."""

from __future__ import annotations

import functools
import itertools
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.drivers.adapters import check_flags, uuid_text
from hostel.drivers.events import (
    DOMAIN_EVENTS,
    NETWORK_EVENTS,
    NODE_DEVICE_EVENTS,
    POOL_EVENTS,
    SECRET_EVENTS,
    Event,
    Listener,
    Subject,
)
from hostel.drivers.fault import fault
from hostel.drivers.messages import message_of, message_values
from hostel.errors import ErrorCode, ErrorDomain
from hostel.wire.rpc.connection import Call, ServerConnection
from hostel.wire.rpc.programs import QEMU, REMOTE

if TYPE_CHECKING:
    from hostel.daemon.client import Client
    from hostel.daemon.hosts import Host

_REGEX, _NO_CASE = 1, 2  # of virConnectDomainQemuMonitorEventRegisterFlags
_WAIT: Final = 1.0  # seconds between two looks at whether anybody is left who listens


class Registration(NamedTuple):
    """What a client wants to hear.

    Attributes:
        kind: which event.
        key: of which object, by UUID, or by name where it has none; of all where it is empty.
        named: a pattern for QEMU's names of events, in place of the kind.
        legacy: the message is the one without the number of the registration.
    """

    client: Client
    number: int
    subject: Subject
    kind: str
    key: str = ""
    legacy: bool = False
    named: re.Pattern[str] | None = None

    def is_about(self, event: Event) -> bool:
        """Whether an event is one of those."""
        if self.subject is not event.subject or self.key not in ("", event.uuid or event.name):
            return False
        return self.kind == event.kind if self.named is None else self.named.search(event.kind) is not None


class Events:
    """All registrations, and the threads that listen to drivers while there are any.

    Args:
        send: calls a function in the loop.
    """

    def __init__(self, send: Callable[[Callable[[], None]], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._registrations: dict[int, Registration] = {}
        self._listeners: dict[str, Listener] = {}

    def register(self, registration: Registration) -> int:
        """Add a registration, whose number is ours to say; the number."""
        number = next(self._numbers)
        host = registration.client.host
        assert host is not None
        with self._lock:
            self._registrations[number] = registration._replace(number=number)
            if host.key not in self._listeners and host.drivers.events is not None:
                listener = self._listeners[host.key] = host.drivers.events.listen()
                threading.Thread(target=self._listen, args=(host.key, listener), name="events", daemon=True).start()
        return number

    def deregister(self, client: Client, chosen: Callable[[Registration], bool]) -> int:
        """Drop a client's registrations; how many there were."""
        with self._lock:
            gone = [number for number, known in self._registrations.items() if known.client is client and chosen(known)]
            for number in gone:
                del self._registrations[number]
            return len(gone)

    def forget(self, client: Client, host: Host) -> None:
        """Drop all registrations of a client that lets go of a host; stop listening where nobody else does.

        The listener has to go with the host: one that is in memory has another bus when it is opened next.
        """
        self.deregister(client, lambda known: True)
        with self._lock:
            if any(known.client.host is host for known in self._registrations.values()):
                return
            listener = self._listeners.pop(host.key, None)
        if listener is not None:
            listener.close()

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            listeners = list(self._listeners.values())
            self._listeners.clear()
            self._registrations.clear()
        for listener in listeners:
            listener.close()

    def _listen(self, key: str, listener: Listener) -> None:
        while self._listeners.get(key) is listener:
            event = listener.get(_WAIT)
            if event is not None:
                self._send(functools.partial(self.deliver, key, event))

    def deliver(self, key: str, event: Event) -> None:
        """Tell everybody who wants to know; called in the loop."""
        with self._lock:
            wanted = [
                known
                for known in self._registrations.values()
                if known.is_about(event) and known.client.host is not None and known.client.host.key == key
            ]
        for known in wanted:
            program = QEMU if event.subject is Subject.MONITOR else REMOTE
            procedure = program.by_name[message_of(event.subject, event.kind, legacy=known.legacy)]
            values = message_values(procedure, known.number, event)
            known.client.send(ServerConnection.message(program, procedure, values))


# The calls.


def _add(client: Client, subject: Subject, kinds: Sequence[str], number: int, key: str = "") -> Sequence[Any]:
    if not 0 <= number < len(kinds):
        raise fault(ErrorCode.INVALID_ARG, f"unsupported event ID {number}")
    return (client.daemon.events.register(Registration(client, 0, subject, kinds[number], key)),)


def _add_monitor(client: Client, call: Call) -> Sequence[Any]:
    domain, text, flags = call.arguments
    check_flags(flags, _REGEX | _NO_CASE, "virConnectDomainQemuMonitorEventRegister")
    pattern = "" if text is None else text if flags & _REGEX else rf"\A{re.escape(text)}\Z"
    try:
        named = re.compile(pattern, re.IGNORECASE if flags & _NO_CASE else 0)
    except re.error as error:
        raise fault(ErrorCode.INVALID_ARG, f"failed to compile regex '{text}': {error}") from None
    assert client.host is not None
    if client.host.drivers.hypervisor.connect_get_type() != "QEMU":
        raise fault(ErrorCode.NO_SUPPORT, "virConnectDomainQemuMonitorEventRegister")
    known = Registration(client, 0, Subject.MONITOR, "", _of(domain), named=named)
    return (client.daemon.events.register(known),)


def _drop(subject: Subject, called: str) -> Callable[[Client, Call], Sequence[Any]]:
    """Drops a registration of a kind of object, by its number."""

    def answer(client: Client, call: Call) -> Sequence[Any]:
        (number,) = call.arguments[:1]
        if not client.daemon.events.deregister(
            client, lambda known: known.number == number and known.subject is subject
        ):
            what = f"{called} event callback {number} not registered"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.RPC)
        return ()

    return answer


def _of(reference: Any) -> str:
    return uuid_text(reference.uuid) if reference is not None else ""


def _add_legacy(client: Client, number: int) -> None:
    if not 0 <= number < len(DOMAIN_EVENTS):
        raise fault(ErrorCode.INVALID_ARG, f"unsupported event ID {number}")
    client.daemon.events.register(Registration(client, 0, Subject.DOMAIN, DOMAIN_EVENTS[number], legacy=True))


def _register_legacy(client: Client, call: Call) -> Sequence[Any]:
    _add_legacy(client, 0)
    return (1,)


def _register_any_legacy(client: Client, call: Call) -> Sequence[Any]:
    _add_legacy(client, call.arguments[0])
    return ()


def _drop_legacy(client: Client, call: Call) -> Sequence[Any]:
    number = call.arguments[0] if call.arguments else 0
    kind = DOMAIN_EVENTS[number] if 0 <= number < len(DOMAIN_EVENTS) else ""
    if not client.daemon.events.deregister(client, lambda known: known.legacy and known.kind == kind):
        raise fault(ErrorCode.INVALID_ARG, f"domain event {number} not registered")
    return (0,) if call.procedure.result.fields else ()


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "connect_domain_event_callback_register_any": lambda client, call: _add(
        client, Subject.DOMAIN, DOMAIN_EVENTS, call.arguments[0], _of(call.arguments[1])
    ),
    "connect_domain_event_callback_deregister_any": _drop(Subject.DOMAIN, "domain"),
    "connect_domain_event_register": _register_legacy,
    "connect_domain_event_register_any": _register_any_legacy,
    "connect_domain_event_deregister": _drop_legacy,
    "connect_domain_event_deregister_any": _drop_legacy,
    "connect_network_event_register_any": lambda client, call: _add(
        client, Subject.NETWORK, NETWORK_EVENTS, call.arguments[0], _of(call.arguments[1])
    ),
    "connect_network_event_deregister_any": _drop(Subject.NETWORK, "network"),
    "connect_storage_pool_event_register_any": lambda client, call: _add(
        client, Subject.POOL, POOL_EVENTS, call.arguments[0], _of(call.arguments[1])
    ),
    "connect_storage_pool_event_deregister_any": _drop(Subject.POOL, "storage pool"),
    "connect_secret_event_register_any": lambda client, call: _add(
        client, Subject.SECRET, SECRET_EVENTS, call.arguments[0], _of(call.arguments[1])
    ),
    "connect_secret_event_deregister_any": _drop(Subject.SECRET, "secret"),
    "connect_node_device_event_register_any": lambda client, call: _add(
        client, Subject.NODE_DEVICE, NODE_DEVICE_EVENTS, call.arguments[0], getattr(call.arguments[1], "name", "")
    ),
    "connect_node_device_event_deregister_any": _drop(Subject.NODE_DEVICE, "node device"),
}
# Those of the program QEMU.
QEMU_ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "connect_domain_monitor_event_register": _add_monitor,
    "connect_domain_monitor_event_deregister": _drop(Subject.MONITOR, "qemu monitor"),
}
