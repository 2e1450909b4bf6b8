"""Those who want to hear of something that happens anywhere in this process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Listeners(Generic[P]):
    """Functions that are called with what is told, by the thread that tells it.

    >>> listeners = Listeners[[str]]()
    >>> with listeners.listening(print):
    ...     listeners.tell("now")
    now
    """

    def __init__(self) -> None:
        self._all: list[Callable[P, None]] = []

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell whoever listens; any thread may, in the middle of a change too: what a listener raises is only shown."""
        for listener in tuple(self._all):
            try:
                listener(*args, **kwargs)
            except Exception:
                sys.excepthook(*sys.exc_info())

    @contextlib.contextmanager
    def listening(self, listener: Callable[P, None]) -> Iterator[None]:
        """Be told meanwhile."""
        self._all.append(listener)
        try:
            yield
        finally:
            self._all.remove(listener)
