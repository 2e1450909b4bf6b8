"""Events as a stream: what happens to domains, pools and networks, whoever does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from hostel.drivers.events import Event, Listener


class EventStream:
    """Events since it was opened, oldest first; close it, or use it as a context manager.

    >>> with connection.listen(kinds=["lifecycle"]) as events:  # doctest: +SKIP
    ...     while (event := events.wait(60)) is not None:
    ...         print(event.name, event.detail)
    """

    def __init__(self, listener: Listener, is_wanted: Callable[[Event], bool]) -> None:
        self._listener = listener
        self._is_wanted = is_wanted

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, timeout: float) -> Event | None:
        """The next event; None when there was none for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            event = self._listener.get(max(0.0, deadline - time.monotonic()))
            if event is None or self._is_wanted(event):
                return event

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
