"""Events of a daemon, as those of our own drivers."""

from __future__ import annotations

import threading
from typing import Final

from hostel.drivers.adapters import uuid_text
from hostel.drivers.events import (
    DOMAIN_EVENTS,
    NETWORK_EVENTS,
    NODE_DEVICE_EVENTS,
    POOL_EVENTS,
    SECRET_EVENTS,
    Event,
    EventBus,
    Listener,
    Subject,
)
from hostel.drivers.messages import event_of, message_of
from hostel.drivers.remote.client import RpcClient
from hostel.errors import VirtError
from hostel.wire.rpc.connection import Message
from hostel.wire.rpc.programs import QEMU

_REGISTER: Final = (
    (Subject.DOMAIN, DOMAIN_EVENTS, "connect_domain_event_callback_register_any"),
    (Subject.POOL, POOL_EVENTS, "connect_storage_pool_event_register_any"),
    (Subject.NETWORK, NETWORK_EVENTS, "connect_network_event_register_any"),
    (Subject.SECRET, SECRET_EVENTS, "connect_secret_event_register_any"),
    (Subject.NODE_DEVICE, NODE_DEVICE_EVENTS, "connect_node_device_event_register_any"),
)
_MEANING: Final = {message_of(subject, kind): (subject, kind) for subject, kinds, _ in _REGISTER for kind in kinds}


class RemoteEvents:
    """An :class:`hostel.drivers.events.EventSource`: registers for everything when somebody first listens."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._bus = EventBus(None)
        self._lock = threading.Lock()
        self._registered = False
        client.message = self._told

    def listen(self) -> Listener:
        """Begin to listen."""
        listener = self._bus.listen()
        with self._lock:
            if not self._registered:
                self._registered = True
                self._register()
        return listener

    def hear_monitors(self) -> None:
        """Be told too what QEMU says, by its own names.

        Raises:
            VirtError: the daemon, or its driver, does not tell it.
        """
        self._client.call("connect_domain_monitor_event_register", None, None, 0, program=QEMU)

    def _register(self) -> None:
        for _, kinds, procedure in _REGISTER:
            for number in range(len(kinds)):
                try:
                    self._client.call(procedure, number, None)
                except VirtError:
                    if self._client.is_closed:
                        raise
                    # A kind that the daemon, or its driver, does not have.

    def _told(self, message: Message) -> None:
        if message.procedure.name == "domain_monitor_event":
            _, domain, name, seconds, micros, details = message.values
            said = {"seconds": seconds, "micros": micros, "details": details}
            self._bus.publish(Event(Subject.MONITOR, name, domain.name, uuid_text(domain.uuid), domain.id, said))
            return
        meaning = _MEANING.get(message.procedure.name)
        if meaning is not None:
            self._bus.publish(event_of(*meaning, message.procedure, message.values))
