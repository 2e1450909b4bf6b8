"""What the block layer notices while it works and no error tells: an image found corrupt, one repaired by opening it.

>>> with listening(print):
...     tell("qcow2: Image is corrupt: ...")
qcow2: Image is corrupt: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Listener = Callable[[str], None]

_listeners: list[Listener] = []


def tell(text: str) -> None:
    """Tell whoever listens; ``text`` is one line without its end."""
    for listener in tuple(_listeners):
        listener(text)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear what is noticed in this process meanwhile, from any thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
