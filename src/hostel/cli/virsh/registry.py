"""Which module has which command; a module is imported when one of its commands is used."""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple, cast

from hostel.cli.options import Command
from hostel.cli.virsh.session import CommandError
from hostel.errors import UsageError


class Group(NamedTuple):
    """Commands that belong together: virsh's title and keyword for them, their module and their names."""

    title: str
    keyword: str
    module: str
    names: str


GROUPS: Final = (
    Group(
        "Domain Management",
        "domain",
        "domain",
        "autostart console create define destroy domid domname domuuid dumpxml reboot reset resume shutdown start "
        "suspend ttyconsole undefine vncdisplay",
    ),
    Group("Domain Monitoring", "monitor", "domain_monitor", "domblklist dominfo domstate list"),
    Group("Host and Hypervisor", "host", "host", "capabilities hostname uri version"),
    Group(
        "Networking",
        "network",
        "network",
        "net-autostart net-create net-define net-destroy net-dumpxml net-info net-list net-name net-start "
        "net-undefine net-uuid",
    ),
    Group(
        "Secret",
        "secret",
        "secret",
        "secret-define secret-dumpxml secret-get-value secret-list secret-set-value secret-undefine",
    ),
    Group(
        "Storage Pool",
        "pool",
        "pool",
        "find-storage-pool-sources-as find-storage-pool-sources pool-autostart pool-build pool-capabilities "
        "pool-create-as pool-create pool-define-as pool-define pool-delete pool-destroy pool-dumpxml "
        "pool-info pool-list pool-name pool-refresh pool-start pool-undefine pool-uuid",
    ),
    Group(
        "Storage Volume",
        "volume",
        "volume",
        "vol-clone vol-create-as vol-create vol-create-from vol-delete vol-download vol-dumpxml vol-info vol-key "
        "vol-list vol-name vol-path vol-pool vol-resize vol-upload vol-wipe",
    ),
    Group("Virsh itself", "virsh", "shell", "cd echo exit help pwd quit connect"),
)
COMMANDS: Final = {name: group for group in GROUPS for name in group.names.split()}


def find_group(keyword: str) -> Group | None:
    """The group of a keyword."""
    return next((group for group in GROUPS if group.keyword == keyword), None)


def commands_of(group: Group) -> tuple[Command, ...]:
    """The commands of a group, in its order."""
    return cast("tuple[Command, ...]", importlib.import_module(f"hostel.cli.virsh.{group.module}").COMMANDS)


def find(name: str, *, for_help: bool = False) -> Command:
    """The command of this name.

    Raises:
        UsageError: virsh has no such command, or we do not have it yet; the message says which.
        CommandError: the same, when ``help`` asks.
    """
    group = COMMANDS.get(name)
    if group is not None:
        return next(command for command in commands_of(group) if command.name == name)
    from hostel.cli.virsh.missing import NAMES

    if name in NAMES:
        raise UsageError(f"command '{name}' is not implemented yet; docs/compatibility/virsh.md lists what is")
    if for_help:
        raise CommandError(f"command or command group '{name}' doesn't exist")
    raise UsageError(f"unknown command: '{name}'")
