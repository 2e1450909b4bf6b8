"""``hostel guest``: put the built-in guest on a disk image, and read what it did there and what it said.

The guest is a boot sector that counts its boots on its disk and reports on the first serial port: the smallest proof
that an image, a bus and a machine work together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from hostel import guest
from hostel.block import graph
from hostel.errors import HostelError, UsageError
from hostel.units import format_size

if TYPE_CHECKING:
    import argparse

    from hostel.block.node import BlockNode

_MAX_LOG: Final = 64 << 20
_MODES: Final = """\
modes, which say what the guest does once it has reported:
  poweroff  switch the machine off (default)
  wait      echo the serial console, and switch off when the power button is pressed
  reboot    start over
  stay      echo the serial console whatever happens"""
_STATUS: Final = "exit status: 0 when the last guest found nothing wrong, else 1"


def main(words: list[str]) -> int:
    """Run a command line; returns the exit code."""
    arguments = _parser().parse_args(words)
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        """Raises what it finds wrong, for the entry point to print."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message}\nTry '{self.prog} --help' for more information.")

    def add(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, formatter_class=shape, epilog=epilog)
        made.set_defaults(run=_COMMANDS[name])
        return made

    shape = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="hostel guest", description=__doc__.partition("\n\n")[2], formatter_class=shape)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    write = add("write", "write the guest to the start of a disk image", _MODES)
    write.add_argument("--label", default="hostel", help="what it calls itself in its reports")
    write.add_argument("--mode", choices=[mode.name.lower() for mode in guest.Mode], default="poweroff")
    write.add_argument("--force", action="store_true", help="also where something else is")
    count = add("count", "print how often the guest on a disk image has booted")
    count.add_argument("--up", action="store_true", help="first do to the image what one more boot would")
    for command in (write, count):
        command.add_argument("-f", dest="format", metavar="FMT", help="the image's format")
        command.add_argument("image", metavar="IMAGE")
    report = add("report", "print what guests said, from the log of a serial port", _STATUS)
    report.add_argument("log", metavar="FILE")
    return parser


def _write(arguments: argparse.Namespace) -> int:
    program = guest.image(label=arguments.label, mode=guest.Mode[arguments.mode.upper()])
    with graph.open(arguments.image, arguments.format, read_only=False) as node:
        if node.length < len(program):
            raise UsageError(
                f"{arguments.image}: the guest needs {len(program)} bytes, and this image has {node.length}"
            )
        before = node.read(0, len(program))
        if any(before) and not arguments.force and not _has_guest(node):
            raise UsageError(f"{arguments.image}: something else is at the start of this disk; --force overwrites it")
        node.pwrite(0, program)
        node.flush()
    print(f"The guest '{arguments.label}', {len(program)} bytes, is on {arguments.image}")
    return 0


def _count(arguments: argparse.Namespace) -> int:
    print(f"{arguments.image}: booted {_times(boot_count(arguments.image, arguments.format, up=arguments.up))}")
    return 0


def boot_count(image: str, format: str | None, *, up: bool = False) -> int:
    """How often the guest on an image has booted; with ``up`` once more, as far as the image can tell.

    Raises:
        HostelError: the image cannot be opened, has no guest, or its counter is damaged.
    """
    with graph.open(image, format, read_only=not up) as node:
        if not _has_guest(node):
            raise HostelError(f"{image}: the guest is not on this disk; 'hostel guest write' puts it there")
        state = _state(node)
        if state.boot_count and not state.intact:
            raise HostelError(f"{image}: the sector of the boot counter, {state.boot_count}, is damaged")
        if not up:
            return state.boot_count
        node.pwrite(guest.state_offset(), guest.state_sector(state.boot_count + 1))
        node.flush()
        return _state(node).boot_count


def _has_guest(node: BlockNode) -> bool:
    start = guest.state_offset()
    return node.length >= start + guest.SECTOR and bytes(node.read(start, 8)) == guest.state_sector(0)[:8]


def _state(node: BlockNode) -> guest.State:
    return guest.read_state(bytes(node.read(guest.state_offset(), guest.SECTOR)))


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _report(arguments: argparse.Namespace) -> int:
    with Path(arguments.log).open("rb") as stream:
        text = stream.read(_MAX_LOG).decode("utf-8", "replace")
    reports = guest.parse_reports(text)
    if not reports:
        raise HostelError(f"{arguments.log}: no guest has spoken here")
    for report in reports:
        print(describe(report))
    return 0 if reports[-1].ok else 1


def describe(report: guest.Report) -> str:
    """One boot in a line."""
    boot = "" if report.boot is None else f": boot {report.boot}"
    where = f"from {report.medium} {report.drive.number:02x}h of {format_size(report.drive.size)}"
    wrote = {"ok": "wrote its disk and read it back", "none": "read its disk"}.get(report.write, report.write)
    parts = [f"{report.label}{boot}", where, wrote]
    parts += [f"{outcome.name} of {outcome.sectors} sectors: {outcome.result}" for outcome in report.outcomes]
    parts += [f"error: {error}" for error in report.errors]
    failures = report.failures
    parts.append("did not finish" if failures is None else f"{failures or 'no'} failure{'s' * (failures != 1)}")
    return ", ".join(parts)


_COMMANDS: Final = {"write": _write, "count": _count, "report": _report}
