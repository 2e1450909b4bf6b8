"""Which files this process opens meanwhile, as the interpreter itself tells."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_recording: list[set[str]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _recording and event == "open" and isinstance(arguments[0], str | bytes):
        for paths in _recording:
            paths.add(os.path.abspath(os.fsdecode(arguments[0])))


sys.addaudithook(_hear)  # an audit hook cannot be taken away: it stays, and hears nothing most of the time


@contextlib.contextmanager
def recorded() -> Iterator[set[str]]:
    """The paths that are opened in the block."""
    paths: set[str] = set()
    _recording.append(paths)
    try:
        yield paths
    finally:
        _recording.remove(paths)
