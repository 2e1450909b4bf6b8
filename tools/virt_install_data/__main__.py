"""Run virt-manager's own tests of virt-install, virt-xml and virt-clone on ours.

They are no part of this repository: they are taken from Debian's source package of virt-manager 4.1 into
.cache/virt-install-data. tests/virt_install_data/TOOL.txt lists the command lines that come out otherwise on purpose,
with the reason.

    make virt-install-data                              every tool: a table
    make virt-install-data TESTS="virt-xml"             one tool: every command line that does not come out right
    make virt-install-data TESTS="virt-xml add-sound"   some of them, and what differs
    make virt-install-data TESTS="--tests DIR"          a source that is unpacked already

Ends with 1 where a command line comes out otherwise without a reason beside it.
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import os
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

from libvirt_data.source import ROOT
from virt_install_data import source
from virt_install_data.commands import Command, commands
from virt_install_data.ours import run
from virt_install_data.standin import Hypervisors, hypervisors

LISTS = ROOT / "tests" / "virt_install_data"
TOOLS = ("virt-install", "virt-xml", "virt-clone")
# Files that the tests expect, and those that they make.
_EXISTING = ("exist1.img", "exist2.img")
_PREFIX = "/tmp/__virtinst_cli_"


class Ended(NamedTuple):
    """How a command line came out: whether as virt-manager's does, and what differs."""

    command: Command
    is_right: bool
    words: str


def judge(command: Command, tree: Path, hypervisors: Hypervisors, home: Path) -> Ended:
    """Run a command line; whatever it raises that is no error of its own counts against us."""
    for path in Path("/tmp").glob(f"{Path(_PREFIX).name}*"):
        if path.name.removeprefix(Path(_PREFIX).name) not in _EXISTING:
            path.unlink()
    try:
        code, printed = run(command, hypervisors, home)
    except Exception:
        return Ended(command, False, traceback.format_exc())
    if (code == 0) is not command.succeeds:
        return Ended(command, False, f"ended with {code}:\n{printed}\n")
    if command.grep is not None and command.grep not in printed:
        return Ended(command, False, f"without {command.grep!r}:\n{printed}\n")
    if command.nogrep is not None and command.nogrep in printed:
        return Ended(command, False, f"with {command.nogrep!r}:\n{printed}\n")
    if command.expect is None:
        return Ended(command, True, "")
    theirs = command.expect.read_text().rstrip("\n")
    ours = _comparable(printed, command, tree)
    if ours == theirs:
        return Ended(command, True, "")
    lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), "virt-manager", "ours", lineterm="")
    return Ended(command, False, "\n".join(lines) + "\n")


def _comparable(printed: str, command: Command, tree: Path) -> str:
    """What is compared: a diff without its header and the numbers of its lines, paths without where the tests are."""
    text = printed.rstrip("\n")
    if "--print-diff" in command.words and text.count("\n") > 3:
        text = "\n".join("@@" if line.startswith("@@") else line for line in text.splitlines()[3:])
    text = re.sub(r"/[^\s<>\"]*/boot/virtinst-\w+/", "/VIRTINST-TESTSUITE/", text)
    return text.replace(f'"{tree}/', '"TESTSUITE_SCRUBBED/')


def reasons(tool: str) -> dict[str, str]:
    """The command lines that come out otherwise on purpose, each (a pattern of names) with why."""
    path = LISTS / f"{tool}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.rpartition(" # ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


def _rate(some: list[Ended]) -> str:
    rights = sum(each.is_right for each in some)
    return f"{rights}/{len(some)} ({100 * rights / len(some):.0f}%)" if some else ""


def judge_tool(
    tool: str, every: list[Command], tree: Path, hypervisors: Hypervisors, arguments: argparse.Namespace
) -> int:
    """Run a tool's command lines, and print its row; returns how many came out otherwise without a reason."""
    known, used, surprises = reasons(tool), set(), 0
    chosen = [each for each in every if not arguments.cases or any(case in each.name for case in arguments.cases)]
    with tempfile.TemporaryDirectory() as home:
        ended = [judge(each, tree, hypervisors, Path(home) / str(number)) for number, each in enumerate(chosen)]
    for each in (each for each in ended if not each.is_right):
        name = each.command.name
        pattern = next((pattern for pattern in known if fnmatch.fnmatchcase(name, f"*{pattern}*")), None)
        used.add(pattern)
        surprises += pattern is None
        if arguments.tool:
            print(f"{name}{'  # ' + known[pattern] if pattern else ''}")
            if arguments.cases or arguments.diff:
                print(each.words)
    for pattern in set(known) - used if not arguments.cases else ():
        print(f"{tool}: nothing comes out otherwise for the reason of: {pattern}")
        surprises += 1
    compared = [each for each in ended if each.command.expect is not None]
    taken = [each for each in ended if each.command.expect is None and each.command.succeeds]
    refused = [each for each in ended if not each.command.succeeds and each.command.expect is None]
    print(f"| {tool} | {len(ended)} | {_rate(compared)} | {_rate(taken)} | {_rate(refused)} |")
    return surprises


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make virt-install-data", description=__doc__)
    parser.add_argument("tool", nargs="?", choices=TOOLS)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--tests", type=Path, help="the source of virt-manager, where it is unpacked already")
    parser.add_argument("--diff", action="store_true", help="what differs, of every command line")
    arguments = parser.parse_args()
    tree = (arguments.tests or source.tree()).resolve()
    os.chdir(tree)
    os.environ |= {"HOME": "/tmp", "DISPLAY": ":3.4"}
    found = commands(tree)
    for name in _EXISTING:
        Path(f"{_PREFIX}{name}").touch()
    try:
        print(
            "| tool | command lines | XML as virt-manager's | taken, of those to take | refused, of those to refuse |"
        )
        print("|---|---|---|---|---|")
        tools = [arguments.tool] if arguments.tool else list(TOOLS)
        with hypervisors(tree) as opened:
            surprises = [
                judge_tool(tool, [each for each in found if each.tool == tool], tree, opened, arguments)
                for tool in tools
            ]
        return int(any(surprises))
    finally:
        for path in Path("/tmp").glob(f"{Path(_PREFIX).name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    sys.exit(main())
