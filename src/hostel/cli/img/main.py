"""``qemu-img``: standard options, the table of commands, and how their errors end."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

from hostel.block import notice, objects
from hostel.cli.img.arguments import Command, CommandHelpAsked, parse
from hostel.cli.qemu.failure import Answered, Failure, HelpAsked, VersionAsked
from hostel.cli.qemu.flag import HELP, VERSION, Flag
from hostel.cli.qemu.output import Output
from hostel.cli.qemu.release import release
from hostel.errors import BlockError, UsageError

# Each module has COMMAND, its arguments.Command, and run(arguments, output), which returns the exit code.
COMMANDS: Final = {
    "amend": "hostel.cli.img.amend",
    "bench": "hostel.cli.img.bench",
    "bitmap": "hostel.cli.img.bitmap",
    "check": "hostel.cli.img.check",
    "commit": "hostel.cli.img.commit",
    "compare": "hostel.cli.img.compare",
    "convert": "hostel.cli.img.convert",
    "create": "hostel.cli.img.create",
    "dd": "hostel.cli.img.dd",
    "info": "hostel.cli.img.info",
    "map": "hostel.cli.img.map",
    "measure": "hostel.cli.img.measure",
    "rebase": "hostel.cli.img.rebase",
    "resize": "hostel.cli.img.resize",
    "snapshot": "hostel.cli.img.snapshot",
}


_STANDARD: Final = (
    HELP,
    VERSION,
    Flag("trace", "T", "trace", "pattern"),
)
_WORKING: Final = frozenset({"amend", "bitmap", "commit", "convert", "create", "dd", "rebase", "resize"})


def main(words: list[str], prog: str) -> int:
    """Run a command line; ``words`` follow the tool's name.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold any bytes, and is printed as it is.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    output = Output(prog)
    code = _guarded(words, output)
    command = next((word for word in words if word in COMMANDS), "")
    # What was done to an image is done, whoever hears of it; and of a comparison 1 says that the images differ.
    return output.end(code, failed=0 if command in _WORKING else 2 if command == "compare" else 1)


def _guarded(words: list[str], output: Output) -> int:
    try:
        with notice.listening(output.noticed):
            return _main(words, output)
    except CommandHelpAsked as asked:
        output.text(command_help(asked.command))
        return 0
    except HelpAsked:
        output.text(usage())
        return 0
    except VersionAsked:
        output.text(version())
        return 0
    except Answered as answered:
        output.text(answered.text)
        return 0
    except UsageError as error:
        output.error(str(error), f"Try '{output.prog} --help' for more information")
        return 1
    except Failure as error:
        output.error(error.message, error.hint)
        return error.code
    except BlockError as error:
        output.failed(error)
        return 1


def _main(words: list[str], output: Output) -> int:
    if not words:
        raise UsageError("Not enough arguments")
    _, rest = parse(_STANDARD, words, permute=False)
    if not rest:
        return 0
    name = rest[0]
    if name not in COMMANDS:
        raise UsageError(f"Command not found: {name}")
    module = _command(name)
    objects.clear()
    arguments = module.COMMAND.parse(rest[1:])
    output.quiet = arguments.has("quiet")
    return int(module.run(arguments, output))


def _command(name: str) -> Any:
    return importlib.import_module(COMMANDS[name])


def version() -> str:
    """What ``--version`` prints: the first number is the QEMU release that this tool stands in for."""
    from hostel import __version__

    return f"qemu-img version {release()} (Hostel {__version__})\n"


def command_help(command: Command) -> str:
    """What ``--help`` of a command prints."""
    from hostel.cli.img.help import command_help

    return command_help(command)


def usage() -> str:
    """What ``--help`` prints."""
    from hostel.block.registry import FILES, FILTERS, FORMATS, PROTOCOLS

    lines = [
        "usage: qemu-img [standard options] command [command options]",
        "Create, inspect, convert and check disk images",
        "",
        "    '-h', '--help'       show this page",
        "    '-V', '--version'    show the version",
        "    '-T', '--trace'      accepted for scripts that trace QEMU; nothing is traced",
        "",
        "Command syntax:",
        *(f"  {_command(name).COMMAND.synopsis()}" for name in COMMANDS),
        "",
        _PARAMETERS,
        f"Supported formats: {' '.join(sorted((*FORMATS, *PROTOCOLS, *FILES, *FILTERS)))}",
    ]
    return version() + "\n".join(lines) + "\n"


_PARAMETERS: Final = """\
Command parameters:
  filename      an image: a path, or with --image-opts options such as driver=qcow2,file.filename=PATH
  fmt           the image's format; guessed from its first bytes when it is not given
  size          bytes, or a number with k, M, G, T, P or E (powers of 1024)
  options       name=value,...; '-o help' lists what a format takes; ',,' stands for a comma
  cache         none, writeback, writethrough, directsync or unsafe
  objectdef     a QEMU object, such as secret,id=ID,file=PATH
  ofmt          human or json
  -b, -F        the backing file and its format
  -u            do not look at the backing file: what it is expected to hold is not checked
  -U            open the image even where another process uses it (what is read may be out of date)
  -p            show progress
  -q            print errors only
  -r            repair: 'leaks' frees lost clusters, 'all' also rewrites wrong metadata
  -l, -a, -c, -d  list snapshots, apply one, create one, delete one
"""
