"""Callbacks: what a program wants to hear, and who is called when it happens."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from hostel.codec.xdr import Field
from hostel.libvirt import event
from hostel.libvirt.method import Handle, call, made
from hostel.libvirt.shape import typed
from hostel.wire.rpc.procedure import Procedure

# By the kind of object: how one registers, and what its structure is called.
_REGISTER: Final = {
    "domain": ("connect_domain_event_callback", "domain"),
    "network": ("connect_network_event", "network"),
    "storage_pool": ("connect_storage_pool_event", "pool"),
    "node_device": ("connect_node_device_event", "node_device"),
    "secret": ("connect_secret_event", "secret"),
}
_LIFECYCLE: Final = 0


class Callbacks:
    """Those of a connection. They are called from the event loop, which a descriptor wakes."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._known: dict[tuple[str, int], tuple[Callable[..., Any], Any]] = {}
        self._legacy: dict[Any, tuple[int, Any]] = {}
        self._close: tuple[Callable[..., Any], Any] | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._wake = -1
        self._watch = -1

    def _listen(self) -> None:
        if self._wake >= 0:
            return
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watch = event.virEventAddHandle(self._wake, 1, self._due, None)
        self._conn._caller.listen(self._heard, self._ended)

    def close(self) -> None:
        """Call nobody any more."""
        if self._wake >= 0:
            if self._watch >= 0:
                event.virEventRemoveHandle(self._watch)
            os.close(self._wake)
            self._wake = -1
        self._known.clear()

    def add(self, kind: str, subject: Handle | None, number: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Register for an event; the number of the registration."""
        self._listen()
        prefix, _ = _REGISTER[kind]
        wire = None if subject is None else subject._wire
        (callback,) = call(self._conn, f"{prefix}_register_any", number, wire)
        self._known[kind, callback] = (cb, opaque)
        return int(callback)

    def drop(self, kind: str, number: int) -> None:
        """Take a registration back."""
        prefix, _ = _REGISTER[kind]
        call(self._conn, f"{prefix}_deregister_any", number)
        self._known.pop((kind, number), None)

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
            return
        self._listen()
        call(self._conn, "connect_register_close_callback")
        self._close = (cb, opaque)

    # From the thread that reads.

    def _heard(self, procedure: Procedure, values: Sequence[Any]) -> None:
        fields = procedure.arguments.fields
        if not fields or fields[0].name != "callback_id":
            return
        kind = next((kind for kind in _REGISTER if procedure.name.startswith(f"{kind}_event")), "domain")
        self._put(lambda: self._tell(kind, fields, values))

    def _ended(self, reason: int) -> None:
        self._put(lambda: self._tell_end(reason))

    def _put(self, action: Callable[[], None]) -> None:
        self._waiting.append(action)
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    # From the event loop.

    def _due(self, watch: int, fd: int, events: int, opaque: Any) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.eventfd_read(fd)
        while self._waiting:
            self._waiting.popleft()()

    def _tell(self, kind: str, fields: Sequence[Field], values: Sequence[Any]) -> None:
        known = self._known.get((kind, values[0]))
        if known is None:
            return
        cb, opaque = known
        subject = made(self._conn, _REGISTER[kind][1], values[1])
        cb(self._conn, subject, *(_told(*pair) for pair in zip(fields[2:], values[2:], strict=True)), opaque)

    def _tell_end(self, reason: int) -> None:
        if self._close is not None:
            cb, opaque = self._close
            cb(self._conn, reason, opaque)


def _told(field: Field, value: Any) -> Any:
    """A member of a message, as a callback is given it."""
    if field.type.startswith("param<"):
        return typed(value)
    if field.type.startswith("domain_event_graphics_address"):
        return value._asdict()
    if field.type.startswith("domain_event_graphics_identity"):
        return [tuple(each) for each in value]
    return value
