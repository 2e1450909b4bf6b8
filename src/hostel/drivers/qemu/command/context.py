"""What building a command line needs besides the document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Context(NamedTuple):
    """Facts that are not in the document.

    Attributes:
        emulator: QEMU's path.
        monitor: where QEMU makes its QMP socket.
        bridge: the host bridge of a virtual network, or None where it is user-mode.
        port_free: whether a TCP port can be listened on (address, port).
    """

    emulator: str
    monitor: Path
    bridge: Callable[[str], str | None]
    port_free: Callable[[str, int], bool]


def escape(value: str) -> str:
    """Escape a value for QEMU's ``key=value`` options: a comma is doubled."""
    return value.replace(",", ",,")
