"""Modules of at most 600 lines, functions of at most 60, and no drawers of odds and ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.statements import statements

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hostel"
FOLDERS = sorted({path.parent for path in SOURCE.rglob("*.py")})
BESIDE = sorted({path.parent for folder in ("tests", "tools") for path in (ROOT / folder).rglob("*.py")})
DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


def name(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


@pytest.mark.parametrize("folder", FOLDERS + BESIDE, ids=name)
def test_modules_and_their_functions_are_small(folder: Path) -> None:
    for path in sorted(folder.glob("*.py")):
        text = path.read_text()
        assert text.count("\n") <= 600, f"{path} is too long: split it"
        assert path.name not in DRAWERS, f"{path} has no subject"
        for node in statements(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_no_stub_is_called_done(folder: Path) -> None:
    for path in sorted(folder.glob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for word in ("TODO", "FIXME", "XXX", "raise NotImplementedError"):
                assert word not in line, f"{path}:{number}: {word}"
