"""Commands about the daemon itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.storage_daemon.monitor import registry
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.session import NEGOTIATION, version

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon


def _quit(daemon: Daemon, _: Mapping[str, Any]) -> None:
    """End; the monitor wakes the daemon once the answer is on its way."""
    daemon.stopping = True


def _query_version(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return version()


def _query_commands(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return [{"name": name} for name in (NEGOTIATION, *registry.commands())]


COMMANDS: Final = (
    Command("quit", _quit),
    Command("query-commands", _query_commands),
    Command("query-version", _query_version),
)
