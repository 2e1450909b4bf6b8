"""The command line of virt-xml: what is done, and the options of virt-install that say to what."""

from __future__ import annotations

import argparse
from typing import Final

from hostel.cli.virt_install import registry
from hostel.cli.virt_install.arguments import EPILOG, GROUPS, VERSION

_ACTIONS: Final = (
    ("--edit", "change what is there: --edit --disk ..., --edit 2 --disk ..., --edit all, --edit target=vda"),
    ("--remove-device", "remove it: --remove-device --disk 1, --disk all, --disk /some/path"),
    ("--add-device", "add it: --add-device --disk ..."),
    ("--build-xml", "print what --add-device would add"),
)
NO_EDIT: Final = -1  # --edit was not given; without a value it is None


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="virt-xml",
        usage="%(prog)s [options]",
        description="Change a machine's XML with the options of virt-install.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=VERSION)
    made.add_argument("-c", "--connect", metavar="URI", help="the hypervisor: qemu:///session, test:///default")
    made.add_argument("domain", nargs="?", help="the machine's name, id or UUID; without one its XML is read")
    actions = made.add_argument_group("Actions")
    for flag, text in _ACTIONS:
        if flag == "--edit":
            actions.add_argument(flag, nargs="?", default=NO_EDIT, help=text)
        else:
            actions.add_argument(flag, action="store_true", help=text)
    _add_output(made)
    system = made.add_argument_group("Operating system")
    system.add_argument("--os-variant", "--osinfo", dest="os_variant", help="the system that gets the device")
    described = made.add_argument_group("XML options")
    for name, flags, explained in _described():
        described.add_argument(*flags, dest=name, action="append", help=explained)
    other = made.add_argument_group("Other options")
    other.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    other.add_argument("-d", "--debug", action="store_true", help="print what is done")
    return made


def _add_output(made: argparse.ArgumentParser) -> None:
    output = made.add_argument_group("Output")
    output.add_argument("--update", action="store_true", help="change the machine that runs, too")
    defines = output.add_mutually_exclusive_group()
    defines.add_argument("--define", action="store_true", help="keep the change, beside printing it")
    defines.add_argument("--no-define", dest="define", action="store_false", help="do not keep the change")
    defines.set_defaults(define=None)
    output.add_argument("--start", action="store_true", help="start the machine")
    output.add_argument("--print-diff", action="store_true", help="only print the change, as a diff")
    output.add_argument("--print-xml", action="store_true", help="only print the changed XML")
    output.add_argument("--confirm", action="store_true", help="ask before anything is done")


def _described() -> list[tuple[str, tuple[str, ...], str | None]]:
    """The options that describe a part of the machine, as virt-install has them."""
    known = registry.tables()
    found = []
    for _, options in GROUPS:
        for option in options:
            name = next((flag[2:] for flag in option.flags if flag.startswith("--") and flag[2:] in known), None)
            if name is not None:
                found.append((name.replace("-", "_"), option.flags, option.help))
    return found
