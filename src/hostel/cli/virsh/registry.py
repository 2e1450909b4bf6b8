"""Which module has which command; a module is imported when one of its commands is used."""

from __future__ import annotations

import importlib
from typing import Final, cast

from hostel.cli.options import Command, Kind, Option
from hostel.cli.virsh.session import CommandError
from hostel.errors import UsageError

GROUPS: Final = (
    ("Domain management", "domain"),
    ("Domain monitoring", "domain_monitor"),
    ("Storage pools", "pool"),
    ("Storage volumes", "volume"),
    ("Networks", "network"),
    ("Host and shell", "host"),
)
MODULES: Final = {
    "domain": "define create start shutdown reboot reset suspend resume destroy undefine autostart dumpxml",
    "domain_monitor": "list dominfo domstate domid domname domuuid domblklist vncdisplay ttyconsole",
    "pool": "pool-define pool-create pool-build pool-start pool-destroy pool-delete pool-undefine pool-refresh "
    "pool-autostart pool-list pool-info pool-dumpxml pool-name pool-uuid",
    "volume": "vol-create vol-list vol-info vol-dumpxml vol-path vol-key vol-name vol-delete vol-resize",
    "network": "net-define net-undefine net-start net-destroy net-dumpxml net-name net-uuid",
    "host": "uri hostname capabilities connect cd echo exit help pwd quit",
}
COMMANDS: Final = {name: module for module, names in MODULES.items() for name in names.split()}


def commands_of(module: str) -> tuple[Command, ...]:
    """The commands of one module, in its order."""
    return cast("tuple[Command, ...]", importlib.import_module(f"hostel.cli.virsh.{module}").COMMANDS)


def _completed(command: Command) -> Command:
    """Add what virsh's command takes and ours does not yet, so that it is refused by name and takes its data."""
    from hostel.cli.virsh.missing import OPTIONS

    later = [
        Option(
            word.rstrip("="),
            "not implemented yet",
            Kind.STRING if word.endswith("=") else Kind.FLAG,
            positional=word.endswith("="),
            implemented=False,
        )
        for word in OPTIONS.get(command.name, "").split()
    ]
    return command._replace(options=(*command.options, *later)) if later else command


def find(name: str, *, for_help: bool = False) -> Command:
    """The command of this name.

    Raises:
        UsageError: virsh has no such command, or we do not have it yet; the message says which.
        CommandError: the same, when ``help`` asks.
    """
    module = COMMANDS.get(name)
    if module is not None:
        return _completed(next(command for command in commands_of(module) if command.name == name))
    from hostel.cli.virsh.missing import NAMES

    if name in NAMES:
        raise UsageError(f"command '{name}' is not implemented yet; docs/compatibility/virsh.md lists what is")
    if for_help:
        raise CommandError(f"command or command group '{name}' doesn't exist")
    raise UsageError(f"unknown command: '{name}'")
