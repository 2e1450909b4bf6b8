"""Start of ``hostel virsh``: options before the command, one line of commands, or the interactive shell."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from hostel.cli.main import describe
from hostel.cli.options import Args, Command, split_line
from hostel.cli.output import Output
from hostel.cli.virsh import registry
from hostel.cli.virsh.session import DEFAULT_ESCAPE, CommandError, Connection, Session
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError

VERSION: Final = "9.0.0"  # the virsh whose command line this is
URI_VARIABLES: Final = ("VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI", "HOSTEL_URI")
DEFAULT_URI: Final = "qemu:///session"
USAGE: Final = """
virsh [options]... [<command_string>]
virsh [options]... <command> [args...]

  options:
    -c | --connect=URI      connect to this hypervisor
    -e | --escape <char>    leave a console by this character, such as ^]
    -h | --help             this page
    -q | --quiet            print only what programs read
    -r | --readonly         refuse every change
    -t | --timing           say how long each command took
    -v                      the version
    -V                      the version, at length
  'virsh help' lists the commands, 'virsh help COMMAND' explains one.
"""
_TAKES_VALUE: Final = {"c": "connect", "e": "escape"}
_FLAGS: Final = {"h": "help", "q": "quiet", "r": "readonly", "t": "timing", "v": "version", "V": "long-version"}
_KNOWN: Final = ("debug", "keepalive-interval", "keepalive-count", "log")


class Globals(NamedTuple):
    """What stands before the command."""

    options: Mapping[str, str]
    words: list[str]


def parse_globals(argv: list[str]) -> Globals:
    """Split the options of virsh itself from the command.

    Raises:
        UsageError: with virsh's message.
    """
    options: dict[str, str] = {}
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _long(word, words, options)
        else:
            _short(word[1:], words, options)
    return Globals(options, words)


def _long(word: str, words: list[str], options: dict[str, str]) -> None:
    name, equals, attached = word[2:].partition("=")
    short = next((letter for letter, long in _TAKES_VALUE.items() if long == name), None)
    if short is not None:
        if not equals and not words:
            raise UsageError(f"option '-{short}'/'--{name}' requires an argument")
        options[name] = attached if equals else words.pop(0)
    elif name in ("help", "quiet", "readonly", "timing") and not equals:
        options[name] = ""
    elif name == "version" and attached in ("", "short", "long"):
        options["long-version" if attached == "long" else "version"] = ""
    elif name in _KNOWN:
        raise UsageError(f"option --{name} is not implemented yet; docs/compatibility/virsh.md lists what is")
    else:
        raise UsageError(f"unsupported option '{word}'. See --help.")


def _short(letters: str, words: list[str], options: dict[str, str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _TAKES_VALUE:
            if not letters and not words:
                raise UsageError(f"option '-{letter}'/'--{_TAKES_VALUE[letter]}' requires an argument")
            options[_TAKES_VALUE[letter]] = letters or words.pop(0)
            return
        if letter in "dkKl":
            raise UsageError(f"option -{letter} is not implemented yet; docs/compatibility/virsh.md lists what is")
        if letter not in _FLAGS:
            raise UsageError(f"unsupported option '-{letter}'. See --help.")
        options[_FLAGS[letter]] = ""


def open_uri(uri: str, *, read_only: bool = False) -> Connection:
    """Open a connection.

    Raises:
        VirtError: no driver knows the URI, or this installation lacks it.
    """
    import hostel

    try:
        return hostel.open(uri, read_only=read_only)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("hostel."):
            raise
        raise VirtError(
            ErrorCode.NO_CONNECT, f"no connection driver available for {uri}: {error.name} is not installed"
        ) from error


def main(argv: list[str]) -> int:
    """Run virsh; returns its exit code."""
    output = Output()
    try:
        given = parse_globals(argv)
        escape = _escape(given.options)
    except UsageError as error:
        output.error(str(error))
        return 1
    if "help" in given.options:
        output.text(USAGE)
        return 0
    if "version" in given.options or "long-version" in given.options:
        output.line(VERSION if "version" in given.options else f"Virsh command line tool of libvirt {VERSION}")
        return 0
    output.quiet = "quiet" in given.options
    defaults = (os.environ.get(name) for name in URI_VARIABLES)
    uri = given.options.get("connect") or next(filter(None, defaults), DEFAULT_URI)
    session = Session(output, uri, open_uri, read_only="readonly" in given.options, escape=escape)
    session.timing = "timing" in given.options
    try:
        return run_words(session, given.words) if given.words else interact(session)
    finally:
        session.close()


def _escape(options: Mapping[str, str]) -> str:
    text = options.get("escape")
    if text is None:
        return DEFAULT_ESCAPE
    from hostel.cli.virsh.console import is_escape

    if not is_escape(text):
        raise UsageError(f"Invalid string '{text}' for escape sequence")
    return text


def run_words(session: Session, words: list[str]) -> int:
    """Run what stands on the command line: one word is a line of commands, several are one command."""
    try:
        commands = [parse(part) for part in (split_line(words[0]) if len(words) == 1 else [words])]
    except UsageError as error:
        session.output.error(str(error))
        return 1
    return 0 if run_all(session, commands) else 1


def parse(words: list[str]) -> tuple[Command, Args]:
    """Find the command and assign its options; ``--help`` asks for its page instead.

    Raises:
        UsageError: with virsh's message.
    """
    command = registry.find(words[0])
    args = command.parse(words[1:])
    if args.has("help"):
        return registry.find("help"), Args({"command": command.name})
    return command, args


def run_all(session: Session, commands: list[tuple[Command, Args]]) -> bool:
    """Run commands in order, whatever happens to each; returns whether the last one succeeded."""
    success = True
    for command, args in commands:
        before = time.monotonic()
        success = _run(session, command, args)
        if session.finished:
            break
        if session.timing:
            session.output.line(f"\n(Time: {(time.monotonic() - before) * 1000:.3f} ms)\n")
        else:
            session.output.note("")
    return success


def _run(session: Session, command: Command, args: Args) -> bool:
    try:
        if command.connects:
            _ = session.connection
        command.run(session, args)
    except BrokenPipeError:
        raise
    except (HostelError, OSError) as error:
        if message := describe(error):
            session.output.error(message)
        return False
    return True


def interact(session: Session) -> int:
    """Read lines and run them, until ``quit`` or the end of input."""
    session.interactive = True
    output = session.output
    output.note("Welcome to virsh, the virtualization interactive terminal.\n")
    output.note("Type:  'help' for help with commands\n       'quit' to quit\n")
    prompt = "virsh > " if session.read_only else "virsh # "
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  (gives input() its editing and history)
    while not session.finished:
        try:
            line = input(prompt) if terminal else _read_line(session, prompt)
        except EOFError:
            break
        except KeyboardInterrupt:
            output.line()
            continue
        try:
            commands = [parse(part) for part in split_line(line)]
        except (UsageError, CommandError) as error:
            output.error(str(error))
            continue
        run_all(session, commands)
    output.line()
    return 0


def _read_line(session: Session, prompt: str) -> str:
    """Read a line from what is no terminal, and show it as if it had been typed, as virsh's line editor does."""
    session.output.text(prompt)
    session.output.out.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    line = line.removesuffix("\n")
    session.output.line(line)
    return line
