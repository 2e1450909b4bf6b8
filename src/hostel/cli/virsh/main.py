"""Start of ``hostel virsh``: options before the command, one line of commands, or the interactive shell."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from hostel.cli.main import describe
from hostel.cli.options import Args, Command, Kind, Option, split_line
from hostel.cli.output import Output
from hostel.cli.virsh import registry
from hostel.cli.virsh.globals import Globals, debug_level, parse_globals
from hostel.cli.virsh.session import CommandError, Connection, KeepAlive, Session
from hostel.cli.virsh.trace import Level, Trace, TracedOutput
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError

VERSION: Final = "9.0.0"  # the virsh whose command line this is
URI_VARIABLES: Final = ("VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI", "HOSTEL_URI")
DEFAULT_URI: Final = "qemu:///session"
USAGE: Final = """
virsh [options]... [<command_string>]
virsh [options]... <command> [args...]

  options:
    -c | --connect=URI      connect to this hypervisor
    -d | --debug=NUM        say what virsh itself does, from this level on: 0 is everything, 4 is errors
    -e | --escape <char>    leave a console by this character, such as ^]
    -h | --help             this page
    -k | --keepalive-interval=NUM
                            ask a silent daemon after so many seconds; 0 does not ask
    -K | --keepalive-count=NUM
                            take it for gone after so many questions without an answer
    -l | --log=FILE         keep errors, and what -d shows, in a file
    -q | --quiet            print only what programs read
    -r | --readonly         refuse every change
    -t | --timing           say how long each command took
    -v                      the version
    -V                      the version, at length
         --version[=TYPE]   one of the two: short or long
  commands, where one is given:

"""
LONG_VERSION: Final = f"""Virsh command line tool of libvirt {VERSION}
See web site at https://libvirt.org/

Compiled with support for:
 Hypervisors: QEMU/KVM Test
 Networking: Remote Network Bridging Interface udev Nwfilter
 Storage: Dir Disk Filesystem SCSI Multipath iSCSI iSCSI-direct LVM RBD Gluster
 Miscellaneous: Daemon Nodedev Secrets Debug Readline
"""


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
        trace = _trace(given)
    except UsageError as error:
        output.error(str(error))
        return 1
    for complaint in given.complaints:
        output.error(complaint)
    if given.shows:
        output.text({"help": usage(), "version": f"{VERSION}\n"}.get(given.shows, LONG_VERSION))
        return 0
    output = TracedOutput(trace)
    output.quiet = given.quiet
    defaults = (os.environ.get(name) for name in URI_VARIABLES)
    uri = given.uri or next(filter(None, defaults), DEFAULT_URI)
    session = Session(output, uri, open_uri, read_only=given.read_only, escape=given.escape)
    session.timing = given.timing
    session.trace = trace
    session.keepalive = KeepAlive(given.interval, given.count)
    session.is_named = given.uri is not None
    try:
        if given.words:
            return run_words(session, given.words)
        from hostel.cli.virsh.interactive import interact

        return interact(session, lambda line: run_line(session, line))
    except CommandError as error:
        output.error(str(error))
        return 1
    finally:
        session.close()
        trace.close()


def usage() -> str:
    """The page that ``--help`` prints."""
    lines = []
    for group in registry.GROUPS:
        lines.append(f" {group.title} (help keyword '{group.keyword}')")
        lines += [f"    {command.name:<30} {command.summary}" for command in registry.commands_of(group)]
        lines.append("")
    ends = ("\n  (specify help <group> for the commands of a group)", "\n  (specify help <command> for a command)\n")
    return USAGE + "\n".join((*lines, *ends)) + "\n"


def _trace(given: Globals) -> Trace:
    """Where virsh says what it does: as the command line has it, or else the environment.

    Raises:
        UsageError: the file cannot be written.
    """
    level = given.debug
    text = os.environ.get("VIRSH_DEBUG")
    if level in (None, Level.ERROR) and text is not None:
        level = debug_level(text)
        if level is None:
            given.complaints.append("VIRSH_DEBUG not set with a valid numeric value")
    path = given.log or os.environ.get("VIRSH_LOG_FILE")
    try:
        return Trace(sys.stdout, Level.ERROR if level is None else level, Path(path) if path else None)
    except OSError as error:
        raise UsageError(f"failed to open the log file. check the log file path\n{path}: {error.strerror}") from error


def run_words(session: Session, words: list[str]) -> int:
    """Run what stands on the command line: one word is a line of commands, several are one command."""
    if len(words) == 1:
        session.trace.say(Level.INFO, f'commands: "{words[0]}"')
    try:
        commands = [parse(session, part) for part in (split_line(words[0]) if len(words) == 1 else [words])]
    except UsageError as error:
        session.output.error(str(error))
        return 1
    session.greet()
    return 0 if run_all(session, commands) else 1


def parse(session: Session, words: list[str]) -> tuple[Command, Args]:
    """Find the command and assign its options; ``--help`` asks for its page instead.

    Raises:
        UsageError: with virsh's message.
    """
    command = registry.find(words[0])
    args = command.parse(words[1:])
    for option in command.options:
        if args.has(option.name):
            _trace_option(session, command, option, args)
    if args.has("help"):
        return registry.find("help"), Args({"command": command.name})
    return command, args


def _trace_option(session: Session, command: Command, option: Option, args: Args) -> None:
    kind = "bool" if option.kind is Kind.FLAG else "optdata"
    for text in args.rest if option.kind is Kind.REST else ("(none)" if kind == "bool" else args.written(option.name),):
        session.trace.say(Level.INFO, f"{command.name}: {option.name}({kind}): {text}")


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
    session.command = command.name
    try:
        if command.connects:
            session.revive()
        command.run(session, args)
    except BrokenPipeError:
        raise
    except (HostelError, OSError) as error:
        if message := describe(error):
            session.output.error(message)
        return False
    return True


def run_line(session: Session, line: str) -> None:
    """Run a line of the shell."""
    try:
        commands = [parse(session, part) for part in split_line(line)]
    except (UsageError, CommandError) as error:
        session.output.error(str(error))
        return
    run_all(session, commands)
