"""Commands about character devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.storage_daemon.chardev import TYPES
from hostel.cli.storage_daemon.monitor.command import Command

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon


def _query(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    used = {monitor.label for monitor in daemon.monitors}
    return [
        {"frontend-open": label in used, "filename": device.filename, "label": label}
        for label, device in daemon.devices.items()
    ]


def _query_backends(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return [{"name": name} for name in TYPES]


COMMANDS: Final = (Command("query-chardev-backends", _query_backends), Command("query-chardev", _query))
