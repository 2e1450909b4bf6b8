"""Callbacks: what a program wants to hear, and who is called when it happens."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from hostel.codec.xdr import Field
from hostel.daemon.access import api_name
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.libvirt import event
from hostel.libvirt.error import failed
from hostel.libvirt.method import Handle, call, invoke, made, wired
from hostel.libvirt.shape import typed
from hostel.net.waker import Waker
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import QEMU, REMOTE

# By the kind of object: how one registers, and what its structure is called.
_REGISTER: Final = {
    "domain": ("connect_domain_event_callback", "domain"),
    "network": ("connect_network_event", "network"),
    "storage_pool": ("connect_storage_pool_event", "pool"),
    "node_device": ("connect_node_device_event", "node_device"),
    "secret": ("connect_secret_event", "secret"),
}
_MONITOR: Final = "monitor"  # the kind of QEMU's own events, which have procedures of their own
_ADD_MONITOR: Final = QEMU.by_name["connect_domain_monitor_event_register"]
_DROP_MONITOR: Final = QEMU.by_name["connect_domain_monitor_event_deregister"]
_LIFECYCLE: Final = 0


class _Known(NamedTuple):
    """Who is called, about what connection."""

    conn: Handle
    cb: Callable[..., Any]
    opaque: Any


class Callbacks:
    """Those of a connection. They are called from the event loop, which a descriptor wakes.

    They keep the connection while there are any; without, it is gone with its last use.
    """

    def __init__(self, conn: Handle) -> None:
        self._weak = weakref.ref(conn)
        self._caller = conn._caller
        self._known: dict[tuple[str, int], _Known] = {}  # by the other side's numbers
        self._numbers = itertools.count()
        self._given: dict[int, tuple[str, int]] = {}  # by ours, which count from 0 in each connection
        self._legacy: dict[Any, tuple[int, Any]] = {}
        self._close: _Known | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._waker: Waker | None = None
        self._watch = -1

    @property
    def _conn(self) -> Handle:
        conn = self._weak()
        assert conn is not None  # whose method this is about
        return conn

    def _listen(self, what: str) -> None:
        if self._waker is not None:
            return
        if not event.is_registered():
            failed(fault(ErrorCode.INTERNAL_ERROR, "could not initialize domain event timer"), what)
        self._waker = Waker()
        self._watch = event.virEventAddHandle(self._waker.fileno(), 1, self._due, None)
        self._caller.listen(self._heard, self._ended)

    def close(self) -> int:
        """Call nobody any more; how many were."""
        count = len(self._known)
        self._known.clear()
        self._close = None
        self._rest()
        return count

    def _rest(self) -> None:
        """Leave the loop where nobody is to be called."""
        if self._known or self._close is not None or self._waker is None:
            return
        event.virEventRemoveHandle(self._watch)
        self._waker.close()
        self._waker = None

    def add(self, kind: str, subject: Handle | None, number: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Register for an event; the number of the registration."""
        wire = None if subject is None else wired(subject, _REGISTER[kind][1], "the subject")
        return self._add(kind, REMOTE.by_name[f"{_REGISTER[kind][0]}_register_any"], (number, wire), cb, opaque)

    def add_monitor(
        self, domain: Handle | None, name: str | None, flags: int, cb: Callable[..., Any], opaque: Any
    ) -> int:
        """Register for what QEMU itself says; the number of the registration."""
        wire = None if domain is None else wired(domain, "domain", "dom")
        return self._add(_MONITOR, _ADD_MONITOR, (wire, name, flags), cb, opaque)

    def _add(
        self, kind: str, procedure: Procedure, arguments: Sequence[Any], cb: Callable[..., Any], opaque: Any
    ) -> int:
        if not callable(cb):
            raise TypeError("the callback must be callable")
        self._listen(api_name(procedure.name))
        try:
            (callback,) = invoke(self._conn, procedure, arguments)
        except BaseException:
            self._rest()
            raise
        self._known[kind, callback] = _Known(self._conn, cb, opaque)
        given = next(self._numbers)
        self._given[given] = (kind, callback)
        return given

    def drop(self, kind: str, number: int) -> None:
        """Take a registration back."""
        procedure = _DROP_MONITOR if kind == _MONITOR else REMOTE.by_name[f"{_REGISTER[kind][0]}_deregister_any"]
        known = self._given.get(number)
        if known is None or known[0] != kind:
            # The C library's own drivers say it in other words than the one that asks a daemon.
            local = kind != _MONITOR and self._caller.is_test()
            what = f"could not find event callback {number} for deletion"
            error = fault(ErrorCode.INVALID_ARG, what if local else f"event callback id {number} not registered")
            failed(error, api_name(procedure.name))
        invoke(self._conn, procedure, (known[1],))
        del self._given[number]
        self._known.pop(known, None)
        self._rest()

    def add_legacy(self, cb: Callable[..., Any], opaque: Any) -> None:
        """Register for what becomes of domains."""
        self._legacy[cb] = (self.add("domain", None, _LIFECYCLE, cb, opaque), opaque)

    def drop_legacy(self, cb: Callable[..., Any]) -> None:
        """Take that back."""
        known = self._legacy.pop(cb, None)
        if known is not None:
            self.drop("domain", known[0])

    def on_close(self, cb: Callable[..., Any] | None, opaque: Any) -> None:
        """Let the end of the connection be told."""
        if cb is None:
            call(self._conn, "connect_unregister_close_callback")
            self._close = None
            self._rest()
            return
        if event.is_registered():  # without a loop there is nobody who could be called
            self._listen("virConnectRegisterCloseCallback")
        call(self._conn, "connect_register_close_callback")
        self._close = _Known(self._conn, cb, opaque)

    # From the thread that reads.

    def _heard(self, procedure: Procedure, values: Sequence[Any]) -> None:
        fields = procedure.arguments.fields
        if not fields or fields[0].name != "callback_id":
            return
        kinds = (kind for kind in (*_REGISTER, f"domain_{_MONITOR}") if procedure.name.startswith(f"{kind}_event"))
        kind = next(kinds, "domain").removeprefix("domain_")
        self._put(lambda: self._tell(kind, fields, values))

    def _ended(self, reason: int) -> None:
        self._put(lambda: self._tell_end(reason))

    def _put(self, action: Callable[[], None]) -> None:
        self._waiting.append(action)
        waker = self._waker
        if waker is not None:
            waker.wake()

    # From the event loop.

    def _due(self, watch: int, fd: int, events: int, opaque: Any) -> None:
        if self._waker is not None:
            self._waker.clear()
        while self._waiting:
            self._waiting.popleft()()

    def _tell(self, kind: str, fields: Sequence[Field], values: Sequence[Any]) -> None:
        known = self._known.get((kind, values[0]))
        if known is None:
            return
        subject = made(known.conn, "domain" if kind == _MONITOR else _REGISTER[kind][1], values[1])
        told = (_told(*pair) for pair in zip(fields[2:], values[2:], strict=True))
        known.cb(known.conn, subject, *told, known.opaque)

    def _tell_end(self, reason: int) -> None:
        if self._close is not None:
            self._close.cb(self._close.conn, reason, self._close.opaque)


def _told(field: Field, value: Any) -> Any:
    """A member of a message, as a callback is given it."""
    if field.type.startswith("param<"):
        return typed(value)
    if field.type.startswith("domain_event_graphics_address"):
        return value._asdict()
    if field.type.startswith("domain_event_graphics_identity"):
        return [tuple(each) for each in value]
    return value
