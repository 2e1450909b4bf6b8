"""``hostel link-tools``: the tools under their own names, as links in a directory of one's choice."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from hostel.cli.main import DROP_IN
from hostel.drivers.fault import printable
from hostel.errors import HostelError, UsageError

if TYPE_CHECKING:
    import argparse

_PROGRAM: Final = "hostel"
NAMES: Final = (*DROP_IN, "hosteld")
_EPILOG: Final = """\
A link is made for each of: {names}.
What is there under such a name, and is no link to hostel, is never touched: then no link is made at all."""


def main(words: list[str]) -> int:
    """Run a command line; returns the exit code."""
    arguments = _parser().parse_args(words)
    directory = Path(arguments.directory)
    others = [path for name in NAMES if not _is_free(path := directory / name)]
    if arguments.remove:
        _remove(directory)
        return 0
    if others:
        raise HostelError(
            printable(f"not made by hostel, and left alone: {', '.join(map(str, others))}; choose another directory")
        )
    _link(directory, _program())
    return 0


def _parser() -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        """Raises what it finds wrong, for the entry point to print."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{printable(message)} (try 'hostel link-tools --help')")

    parser = Parser(
        prog="hostel link-tools",
        description="Put the tools under their own names into a directory.",
        epilog=_EPILOG.format(names=", ".join(NAMES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", help="where the links are made; it is made where it is not there")
    parser.add_argument("--remove", action="store_true", help="remove the links to hostel instead")
    return parser


def _link(directory: Path, program: Path) -> None:
    """Make every link; one that leads to another hostel is exchanged at once, so that its name is never missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = directory / name
        new = directory / f".{name}.{os.getpid()}.new"
        try:
            new.symlink_to(program)
            if not _is_free(path):
                raise HostelError(printable(f"{path}: somebody else made it meanwhile, and it is left alone"))
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        print(printable(f"{path} -> {program}"))
    for line in _advice(directory):
        print(printable(line))


def _remove(directory: Path) -> None:
    """Remove the links to hostel, and nothing else."""
    for name in NAMES:
        path = directory / name
        if path.is_symlink() and _is_free(path):
            path.unlink()
            print(printable(f"removed {path}"))


def _is_free(path: Path) -> bool:
    """Whether a link may be made here: nothing is, or a link to a hostel, which may be gone meanwhile."""
    return not os.path.lexists(path) or (path.is_symlink() and path.readlink().name == _PROGRAM)


def _program() -> Path:
    """The command ``hostel`` of this installation.

    Raises:
        HostelError: it has none.
    """
    import sysconfig

    called = Path(sys.argv[0])
    if called.name == _PROGRAM and called.is_file():
        return called.absolute()
    program = Path(sysconfig.get_path("scripts")) / _PROGRAM
    if not program.is_file():
        raise HostelError(f"{program}: there is no command to link to; install hostel with pip")
    return program


def _advice(directory: Path) -> list[str]:
    """What is left to do for the names to be found, and to mean these tools."""
    places = [os.path.realpath(place) for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place]
    if os.path.realpath(directory) not in places:
        return [f"To use them: export PATH={directory.absolute()}:$PATH"]
    found = {name: shutil.which(name) for name in NAMES}
    hidden = [name for name, path in found.items() if path and Path(path).parent.resolve() != directory.resolve()]
    return [f"Found before these in PATH: {', '.join(str(found[name]) for name in hidden)}"] if hidden else []
