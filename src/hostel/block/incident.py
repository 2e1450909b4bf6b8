"""What happens in a node that its machine's owner should hear of, though a request may have succeeded.

Whoever runs nodes for others listens, and sends QEMU's event of the same name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Listener = Callable[[str, Mapping[str, Any]], None]

_listeners: list[Listener] = []


def tell(event: str, data: Mapping[str, Any]) -> None:
    """Tell whoever listens; ``event`` and its members are QEMU's. Any thread may."""
    for listener in tuple(_listeners):
        listener(event, data)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Be told meanwhile, by the thread whose request it happens in."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
