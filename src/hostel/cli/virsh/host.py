"""The connection, its host, and the shell itself."""

from __future__ import annotations

import os
from pathlib import Path

from hostel.cli.options import Args, Command, rest, value
from hostel.cli.virsh.session import CommandError, Session


def _help(session: Session, args: Args) -> None:
    from hostel.cli.virsh import registry

    name = args.get("command")
    if name is not None:
        session.output.text(registry.find(name, for_help=True).help())
        return
    for title, module in registry.GROUPS:
        session.output.line(f" {title}:")
        for command in registry.commands_of(module):
            session.output.line(f"    {command.name:<30} {command.summary}")
        session.output.line()


def _echo(session: Session, args: Args) -> None:
    session.output.text(" ".join(args.rest))


def _cd(session: Session, args: Args) -> None:
    if not session.interactive:
        raise CommandError("cd: command valid only in interactive mode")
    place = args.get("dir") or str(Path.home())
    try:
        os.chdir(place)
    except OSError as error:
        raise CommandError(f"cd: {place}: {error.strerror}") from error


def _quit(session: Session, _args: Args) -> None:
    session.finished = True


COMMANDS = (
    Command(
        "uri",
        "the connection's URI",
        (),
        lambda s, _: s.output.line(s.connection.uri),
    ),
    Command("hostname", "the host's name", (), lambda s, _: s.output.line(s.hypervisor.connect_get_hostname())),
    Command(
        "capabilities",
        "what the host can run",
        (),
        lambda s, _: s.output.text(s.hypervisor.connect_get_capabilities()),
    ),
    Command(
        "connect",
        "connect again, or to another URI",
        (value("name", "the URI", positional=True),),
        lambda s, a: s.reconnect(a.get("name")),
        connects=False,
    ),
    Command("cd", "change the working directory", (value("dir", "where to"),), _cd, connects=False),
    Command(
        "echo",
        "print words",
        (rest("string", "the words"),),
        _echo,
        connects=False,
    ),
    Command("exit", "leave", (), _quit, connects=False),
    Command("help", "this page, or a command's", (value("command", "the command"),), _help, connects=False),
    Command("pwd", "the working directory", (), lambda s, _: s.output.line(str(Path.cwd())), connects=False),
    Command("quit", "leave", (), _quit, connects=False),
)
