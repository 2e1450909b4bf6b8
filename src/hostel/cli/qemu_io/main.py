"""``qemu-io``: options, the table of commands, and the loop that runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator
from typing import Final

from hostel.block import notice, objects
from hostel.block.driver import CACHE_MODES
from hostel.cli.qemu.failure import Answered, Failure, HelpAsked, VersionAsked
from hostel.cli.qemu.flag import HELP, VERSION, Flag, make_object, take
from hostel.cli.qemu.getopt import GetOpt
from hostel.cli.qemu.opening import image_options
from hostel.cli.qemu.output import Output
from hostel.cli.qemu.release import QEMU_VERSION
from hostel.cli.qemu_io import aio, look, request
from hostel.cli.qemu_io.command import BadUsage, Command, CommandError, Given, parse
from hostel.cli.qemu_io.session import WRITETHROUGH, Opening, Session
from hostel.errors import BlockError, UsageError


def _one_of(what: str, modes: Container[str]) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in modes:
            raise Failure(f"Invalid {what} option: {text}")

    return check


_FLAGS: Final = (
    HELP,
    VERSION,
    Flag("cmd", "c", "cmd", "STRING"),
    Flag("format", "f", "format", "FMT"),
    Flag("read-only", "r", "read-only"),
    Flag("snapshot", "s", "snapshot"),
    Flag("nocache", "n", "nocache"),
    Flag("copy-on-read", "C", "copy-on-read"),
    Flag("misalign", "m", "misalign"),
    Flag("native-aio", "k", "native-aio"),
    Flag("aio", "i", "aio", "MODE", _one_of("aio", look.AIO)),
    Flag("discard", "d", "discard", "MODE", _one_of("discard", look.DISCARD)),
    Flag("cache", "t", "cache", "MODE", _one_of("cache", CACHE_MODES)),
    Flag("trace", "T", "trace", "PATTERN"),
    Flag("object", long="object", value="OBJECTDEF", check=make_object),
    Flag("image-opts", long="image-opts"),
    Flag("force-share", "U", "force-share"),
)


def _help(session: Session, given: Given) -> None:
    if not given.operands:
        for command in sorted(COMMANDS, key=lambda each: each.name):
            session.text(f"{_synopsis(command)}\n")
        session.text("\nUse 'help commandname' for extended help.\n")
        return
    found = find(given.operands[0])
    if found is None:
        raise CommandError(f"command {given.operands[0]} not found")
    from hostel.cli.qemu_io.explanation import extended

    session.text(f"{_synopsis(found)}\n{extended(found.name)}")


def _synopsis(command: Command) -> str:
    words = f"{command.synopsis} " if command.synopsis is not None else ""
    return f"{command.name} {words}-- {command.summary}"


COMMANDS: Final = (
    *request.COMMANDS,
    *aio.COMMANDS,
    *look.COMMANDS,
    Command("help", "?", _help, "help for one or all commands", "", (0, 1), "[command]", False),
)


def find(name: str) -> Command | None:
    """The command of a name or of its short form."""
    return next((command for command in COMMANDS if name and name in (command.name, command.alias)), None)


def main(words: list[str], prog: str) -> int:
    """Run a command line; ``words`` follow the tool's name.

    Returns:
        The exit code: 1 when any command failed.
    """
    output = Output(prog)
    objects.clear()
    return output.end(_main(words, output))


def _main(words: list[str], output: Output) -> int:
    prog = output.prog
    try:
        options = GetOpt(_FLAGS, words)
        given, operands = list(take(options)), options.operands
        if len(operands) > 1:
            raise UsageError("")
        with notice.listening(output.noticed):
            return _run(output, given, operands)
    except HelpAsked:
        output.text(usage(prog))
        return 0
    except VersionAsked:
        from hostel import __version__

        output.text(f"{prog} version {QEMU_VERSION} (Hostel {__version__})\n")
        return 0
    except Answered as answered:
        output.text(answered.text)
        return 0
    except UsageError as error:
        if str(error):
            output.error(str(error))
        output.text(usage(prog))
        return 1
    except Failure as error:
        output.error(error.message, error.hint)
        return error.code
    except BlockError as error:
        output.failed(error)
        return 1
    except CommandError:
        return 1


def _run(output: Output, given: list[tuple[str, str]], operands: list[str]) -> int:
    values = dict(given)
    if "format" in values and "image-opts" in values:
        raise Failure("--image-opts and -f are mutually exclusive")
    session = Session(output, image_opts="image-opts" in values)
    cache = WRITETHROUGH
    for name, value in given:
        if name in ("cache", "nocache"):
            cache = CACHE_MODES[value or "none"]
    if operands:
        opening = Opening(
            None if session.image_opts else operands[0],
            values.get("format"),
            image_options(output, operands[0]) if session.image_opts else {},
            read_only="read-only" in values,
            force_share="force-share" in values,
            cache=cache,
            copy_on_read="copy-on-read" in values,
            snapshot="snapshot" in values,
        )
        aio = "native" if "native-aio" in values else values.get("aio")
        session.open(look.with_settings(opening, values.get("discard"), aio))
    commands = [value for name, value in given if name == "cmd"]
    failed = False
    try:
        for line in commands or _lines(session):
            failed = not execute(session, line) or failed
            if session.ended:
                break
    finally:
        session.close()
    return int(failed)


def _lines(session: Session) -> Iterator[str]:
    """The lines of standard input, each asked for with a prompt."""
    while True:
        session.text(f"{session.output.prog}> ")
        session.outstanding.settle()
        session.flush()
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


def execute(session: Session, line: str) -> bool:
    """Run one command line; whether it succeeded."""
    words = line.split()
    if not words:
        return True
    command = find(words[0])
    if command is None:
        session.output.diagnostic(f'command "{words[0]}" not found')
        return False
    if command.needs_image and not session.is_open:
        session.output.diagnostic("no file open, try 'help open'")
        return False
    least, most = command.operands
    count = len(words) - 1
    if count < least or (most >= 0 and count > most):
        session.output.diagnostic(f"bad argument count {count} to {words[0]}, {_expected(least, most)}")
        return False
    session.outstanding.tell()
    if command.writes:
        try:
            session.require_writable()
        except CommandError:
            return False
    try:
        if session.outstanding.suspended() and not command.patient:
            return session.outstanding.aside(lambda: _call(session, command, words))
        return _call(session, command, words)
    except CommandError as error:
        session.text(f"{error}\n")
        return False
    finally:
        session.outstanding.tell()


def _call(session: Session, command: Command, words: list[str]) -> bool:
    try:
        command.run(session, parse(command, words[1:]))
    except BadUsage as error:
        if str(error):
            session.output.diagnostic(f"{words[0]}: {error}")
        session.text(f"{command.usage()}\n")
        return False
    except CommandError as error:
        if str(error):
            session.text(f"{error}\n")
        return False
    return True


def _expected(least: int, most: int) -> str:
    if most < 0:
        return f"expected at least {least} arguments"
    return f"expected {least} arguments" if least == most else f"expected between {least} and {most} arguments"


def usage(prog: str) -> str:
    """What ``--help`` prints."""
    lines = [f"Usage: {prog} [OPTIONS]... [-c STRING]... [file]", "Read, write and look at a disk image", ""]
    for flag in _FLAGS:
        names = ", ".join(filter(None, (flag.short and f"-{flag.short}", flag.long and f"--{flag.long}")))
        lines.append(f"  {names}{' ' + flag.value if flag.value else ''}")
    lines += ["", f"'{prog} -c help' lists the commands."]
    return "\n".join(lines) + "\n"
