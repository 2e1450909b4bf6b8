"""Who wants to know that a disk has another size: exports, whose clients go by the size that they were told.

>>> with listening(lambda: print("look again")):
...     tell()
look again
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Listener = Callable[[], None]

_listeners: list[Listener] = []


def tell() -> None:
    """Tell whoever listens that some node's size may be another one; any thread may."""
    for listener in tuple(_listeners):
        listener()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Be told meanwhile, by the thread that has changed a size: formats do so with their files while they write."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
