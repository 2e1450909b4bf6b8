"""Modules of at most 600 lines, functions of at most 60, and no drawers of odds and ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hostel"
MODULES = sorted(SOURCE.rglob("*.py"))
BESIDE = sorted(path for folder in ("tests", "tools") for path in (ROOT / folder).rglob("*.py"))
DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT))


@pytest.mark.parametrize("path", MODULES + BESIDE, ids=name)
def test_module_and_its_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 600, f"{path} is too long: split it"
    assert path.name not in DRAWERS, f"{path} has no subject"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_stub_is_called_done(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for word in ("TODO", "FIXME", "XXX", "raise NotImplementedError"):
            assert word not in line, f"{path}:{number}: {word}"
