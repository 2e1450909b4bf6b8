"""The command lines of virt-manager's tests, read from ``tests/test_cli.py`` where it is.

The module is run for the tables that it builds. What it imports besides is virt-manager itself, libvirt and libosinfo:
stand-ins that answer nothing take their place.
"""

from __future__ import annotations

import importlib
import shlex
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

_STAND_INS = (
    "gi", "gi.repository", "libvirt", "pytest", "argcomplete", "virtinst", "virtinst.uri", "virtinst.cli",
    "virtinst.xmlutil", "virtinst.install", "virtinst.buildconfig",
)  # fmt: skip
_TOOLS = {"vinst": "virt-install", "vixml": "virt-xml", "vclon": "virt-clone"}


class Command(NamedTuple):
    """One command line, and what must come of it.

    Attributes:
        tool: ``virt-install``, ``virt-xml`` or ``virt-clone``.
        name: what it is called: the name of its file, or the line itself.
        words: its arguments, with the URI in its place.
        succeeds: whether it ends with 0.
        expect: the file with what it prints; None where only a piece of that is looked for.
        grep: a piece of what it prints.
        nogrep: one that it does not print.
        given: a file that is its standard input.
        answers: what is typed, instead.
        environment: variables of the environment.
    """

    tool: str
    name: str
    words: list[str]
    succeeds: bool
    expect: Path | None
    grep: str | None
    nogrep: str | None
    given: Path | None
    answers: str | None
    environment: dict[str, str]


def commands(tree: Path) -> list[Command]:
    """Every command line of a source tree."""
    with _imported(tree) as module:
        return [_command(tree, tool, each) for name, tool in _TOOLS.items() for each in getattr(module, name).cmds]


def _command(tree: Path, tool: str, each: Any) -> Command:
    expect = None if each.compare_file is None else tree / each.compare_file
    words = shlex.split(each.cmdstr.split(" ", 1)[1])
    name = expect.stem if expect is not None else " ".join(word.replace(str(tree), "") for word in words)
    given = None if each.input_file is None else tree / each.input_file
    answers = None if each.input_text is None else f"{each.input_text}\n"
    return Command(
        tool, name, words, each.check_success, expect, each.grep, each.nogrep, given, answers, each.env or {}
    )


@contextmanager
def _imported(tree: Path) -> Iterator[types.ModuleType]:
    saved, path = dict(sys.modules), list(sys.path)
    package = types.ModuleType("tests")
    package.__path__ = [str(tree / "tests")]
    for name in ("setup_logging", "virtinstall", "virtclone", "virtxml"):
        setattr(package, name, MagicMock())
    try:
        for name in _STAND_INS:
            sys.modules[name] = MagicMock()
        sys.modules["tests"] = package
        package.utils = importlib.import_module("tests.utils")  # type: ignore[attr-defined]
        yield importlib.import_module("tests.test_cli")
    finally:
        for name in set(sys.modules) - set(saved):
            if name in _STAND_INS or name.partition(".")[0] == "tests":
                del sys.modules[name]
        sys.modules.update(saved)
        sys.path[:] = path
