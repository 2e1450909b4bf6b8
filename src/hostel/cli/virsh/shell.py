"""virsh's own commands: the shell, its help and its connection."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from hostel.cli.options import Args, Command, flag, rest, split_list, value
from hostel.cli.virsh import registry
from hostel.cli.virsh.session import CommandError, Session

# What a shell takes for itself (virBufferEscapeShell).
_QUOTED: Final = re.compile(r"[^A-Za-z0-9_%+,./:=@-]")

_XML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;"})


def _help(session: Session, args: Args) -> None:
    name = args.get("command")
    if name is None:
        session.output.text("Grouped commands:\n\n")
        for group in registry.GROUPS:
            _group(session, group)
            session.output.line()
        return
    found = registry.find_group(name)
    if found is not None:
        _group(session, found)
    else:
        session.output.text(registry.find(name, for_help=True).help())


def _group(session: Session, group: registry.Group) -> None:
    session.output.line(f" {group.title} (help keyword '{group.keyword}'):")
    for command in registry.commands_of(group):
        session.output.line(f"    {command.name:<30} {command.summary}")


def _connect(session: Session, args: Args) -> None:
    session.reconnect(args.get("name"), read_only=args.has("readonly"))


def _echo(session: Session, args: Args) -> None:
    args.exclude("shell", "xml")
    args.exclude("shell", "split")
    args.exclude("xml", "split")
    words = []
    for word in args.rest:
        if args.has("xml"):
            words.append(word.translate(_XML))
        elif args.has("shell"):
            words.append(_quote(word))
        elif args.has("split"):
            words.append("".join(f"{part}\n" for part in split_list(word)))
        else:
            words.append(word)
    if not words:
        return
    text = " ".join(words)
    if args.has("err"):
        session.output.error(text)
    else:
        session.output.text(text)


def _quote(word: str) -> str:
    if word and not _QUOTED.search(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def _cd(session: Session, args: Args) -> None:
    if not session.interactive:
        raise CommandError("cd: command valid only in interactive mode")
    place = args.get("dir") or str(Path.home())
    try:
        os.chdir(place)
    except OSError as error:
        raise CommandError(f"cd: {error.strerror}: {place}") from error


def _complete(session: Session, args: Args) -> None:
    from hostel.cli.virsh.completion.offer import offers

    if not args.rest:
        raise CommandError("")
    found = offers(
        session, " ".join(filter(None, args.rest[:-1])) + " " * (len(args.rest) > 1) + args.rest[-1], args.rest[-1]
    )
    for text in found:
        session.output.line(text)
    if not found:
        raise CommandError("")


def _quit(session: Session, _args: Args) -> None:
    session.finished = True


COMMANDS = (
    Command("cd", "change the working directory", (value("dir", "where to"),), _cd, connects=False),
    Command(
        "echo",
        "print words",
        (
            flag("shell", "quoted for a shell"),
            flag("xml", "escaped for XML"),
            flag("split", "split at commas"),
            flag("err", "on standard error"),
            rest("string", "the words"),
        ),
        _echo,
        connects=False,
    ),
    Command("complete", "what a line may become", (rest("string", "its words"),), _complete),
    Command("exit", "leave", (), _quit, connects=False),
    Command("help", "these pages", (value("command", "a command, or a group's keyword"),), _help, connects=False),
    Command("pwd", "the working directory", (), lambda s, _: s.output.line(str(Path.cwd())), connects=False),
    Command("quit", "leave", (), _quit, connects=False),
    Command(
        "connect",
        "connect again, or to another URI",
        (value("name", "the URI"), flag("readonly", "refuse every change")),
        _connect,
        connects=False,
    ),
)
