"""What nodes tell: events that may come as often as a disk is read come once a second at most, the last of a kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

_PERIOD: Final = 1.0  # seconds, QEMU's
_PACED: Final = frozenset({"QUORUM_REPORT_BAD", "QUORUM_FAILURE"})

Data = Mapping[str, Any]


class Pacing:
    """Sends a kind's first event at once, and what comes in the second after it at the second's end, the last only.

    Args:
        send: sends an event, by its name and members; any thread may call it.
    """

    def __init__(self, send: Callable[[str, Data], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._held: dict[tuple[str, object], Data | None] = {}
        self._timers: dict[tuple[str, object], threading.Timer] = {}

    def tell(self, event: str, data: Data) -> None:
        """Send an event, or hold it back; events about different nodes are of different kinds."""
        if event not in _PACED:
            self._send(event, data)
            return
        key = (event, data.get("node-name"))
        with self._lock:
            if key in self._held:
                self._held[key] = data
                return
            self._start(key)
        self._send(event, data)

    def _start(self, key: tuple[str, object]) -> None:
        self._held[key] = None
        timer = self._timers[key] = threading.Timer(_PERIOD, self._next, (key,))
        timer.daemon = True
        timer.start()

    def _next(self, key: tuple[str, object]) -> None:
        with self._lock:
            data = self._held.pop(key, None)
            self._timers.pop(key, None)
            if data is not None:
                self._start(key)
        if data is not None:
            self._send(key[0], data)

    def close(self) -> None:
        """Send nothing more: what is held back is left out."""
        with self._lock:
            for timer in self._timers.values():
                timer.cancel()
            self._held.clear()
