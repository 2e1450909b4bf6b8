"""A monitor on a character device: one client after the other, each with the events that happen meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.storage_daemon.monitor.session import Session
from hostel.units import KiB

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.chardev import Channel, CharacterDevice
    from hostel.cli.storage_daemon.daemon import Daemon

_PORTION: Final = 64 * KiB
_END_TIMEOUT: Final = 20.0  # seconds for the thread to end


class MonitorServer:
    """Serves a character device's clients in a thread of its own.

    Attributes:
        label: the device's id.
    """

    def __init__(self, daemon: Daemon, device: CharacterDevice, *, pretty: bool = False) -> None:
        self.label = device.label
        self._daemon = daemon
        self._device = device
        self._pretty = pretty
        self._lock = threading.Lock()  # nothing is sent between the parts of a message
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def emit(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Send events to the client, where there is one that has agreed on capabilities; nothing comes between them."""
        with self._lock:
            session = self._session
            if session is not None and self._channel is not None and session.ready:
                self._channel.send(b"".join(session.event(name, data) for name, data in events))

    def stop(self) -> None:
        """End the client's connection, and wait for the thread unless it is the caller."""
        self._device.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_END_TIMEOUT)

    def _run(self) -> None:
        while (channel := self._device.accept()) is not None:
            try:
                self._serve(channel)
            finally:
                channel.close()

    def _serve(self, channel: Channel) -> None:
        session = Session(self._daemon, pretty=self._pretty)
        channel.send(session.greeting())
        with self._lock:
            self._session, self._channel = session, channel
        try:
            while data := channel.receive(_PORTION):
                for answer in session.receive(data):
                    with self._lock:
                        channel.send(answer)
                    if self._daemon.stopping:
                        self._daemon.wake()
        finally:
            with self._lock:
                self._session = self._channel = None
