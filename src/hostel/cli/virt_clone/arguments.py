"""The command line of virt-clone."""

from __future__ import annotations

import argparse

from hostel.cli.virt_install.arguments import VERSION


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="virt-clone",
        usage="%(prog)s --original [NAME] ...",
        description="Copy a machine: its XML with what must be its own, and its disks. Nothing inside is changed.",
    )
    made.add_argument("--version", action="version", version=VERSION)
    made.add_argument("--connect", metavar="URI", help="the hypervisor: qemu:///session, test:///default")
    general = made.add_argument_group("General options")
    general.add_argument("-o", "--original", help="name of the machine to copy")
    general.add_argument("--original-xml", help="file with the XML of the machine to copy")
    general.add_argument("--auto-clone", action="store_true", help="choose the name, and where the disks are")
    general.add_argument("-n", "--name", help="name of the new machine")
    general.add_argument("-u", "--uuid", help=argparse.SUPPRESS)
    general.add_argument("--reflink", action="store_true", help="share the data with the original until one writes it")
    storage = made.add_argument_group("Storage")
    storage.add_argument("-f", "--file", action="append", help="where the next disk is copied to")
    storage.add_argument("--force-copy", action="append", help="copy this target too: --force-copy=hdc")
    storage.add_argument("--skip-copy", action="append", help="share this target: --skip-copy=vda")
    storage.add_argument("--nonsparse", action="store_false", dest="sparse", help="write every byte")
    storage.add_argument("--preserve-data", action="store_true", dest="preserve", help="the files are there; keep them")
    storage.add_argument("--nvram", help="where the firmware's variables are")
    network = made.add_argument_group("Network")
    network.add_argument("-m", "--mac", action="append", help="address of the next interface; random where left out")
    other = made.add_argument_group("Other options")
    other.add_argument("--prompt", action="store_true", help=argparse.SUPPRESS)
    other.add_argument("--force", action="store_true", help=argparse.SUPPRESS)
    other.add_argument("--replace", action="store_true", help="first remove a machine that has the name")
    other.add_argument("--print-xml", action="store_true", help="only print the XML")
    other.add_argument("--check", action="append", help="leave a check out: --check path_in_use=off, --check all=off")
    other.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    other.add_argument("-d", "--debug", action="store_true", help="print what is done")
    return made
