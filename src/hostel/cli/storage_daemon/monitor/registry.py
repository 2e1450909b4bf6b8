"""All commands by their names; a group's module is imported when the monitor is first used."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Final

from hostel.cli.storage_daemon.monitor.command import Command

# Modules of this package with a tuple COMMANDS, in the order in which query-commands lists them.
GROUPS: Final = (
    "object",
    "qom",
    "control",
    "schema",
    "chardev",
    "export",
    "node",
    "creation",
    "statistics",
    "job",
    "block_job",
    "drive_job",
    "bitmap",
    "snapshot",
    "transaction",
)


@functools.cache
def commands() -> Mapping[str, Command]:
    """The table."""
    found: dict[str, Command] = {}
    for group in GROUPS:
        module = importlib.import_module(f"hostel.cli.storage_daemon.monitor.{group}")
        found.update((command.name, command) for command in module.COMMANDS)
    return found
