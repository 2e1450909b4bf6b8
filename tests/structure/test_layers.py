"""A module imports its own package and lower layers, never a sibling or a layer above."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from support.statements import statements

SOURCE = Path(__file__).parents[2] / "src" / "hostel"

# From the bottom up; what shares a row are siblings.
LAYERS = [
    {"errors", "units"},
    {"cause"},
    {"codec"},
    {"guest"},
    {"wire"},
    {"net"},
    {"block"},
    {"img", "export", "model"},
    {"drivers"},
    {"objects"},
    {"daemon", "console"},
    {"libvirt"},
    {"cli"},
]
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
FOLDERS = sorted({path.parent for path in SOURCE.rglob("*.py")})


def part_of(path: Path) -> str:
    """The layer's name: the first folder below the package, or a root module's own name."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every layer that a module imports, with the line."""
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            if node.module == "hostel":
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif node.module and node.module.startswith("hostel."):
                yield node.module.split(".")[1], node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("hostel."):
                    yield alias.name.split(".")[1], node.lineno


def modules_of(folder: Path, doors: Container[str]) -> list[Path]:
    """A folder's modules without the package's front doors."""
    return [path for path in sorted(folder.glob("*.py")) if part_of(path) not in doors]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(SOURCE)))
def test_modules_import_only_downwards(folder: Path) -> None:
    for path in modules_of(folder, ("__init__", "__main__")):
        here = part_of(path)
        for there, line in imported(ast.parse(path.read_text())):
            if there == "__version__":
                continue
            assert there in LEVEL, f"{path}:{line} imports hostel.{there}, which is no layer"
            assert there == here or LEVEL[there] < LEVEL[here] or LEVEL[here] == 0, (
                f"{path}:{line}: {here} may not import {there}"
            )


def test_every_folder_is_a_known_layer() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(LEVEL)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(SOURCE)))
def test_only_the_command_line_prints_and_reads_the_environment(folder: Path) -> None:
    for path in modules_of(folder, ("cli", "__init__", "__main__")):
        if path != SOURCE / "libvirt" / "opening.py":
            check_surroundings(path)


def check_surroundings(path: Path) -> None:
    text = path.read_text()
    if not any(word in text for word in ("print", "argv", "getenv", "environ")):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path}:{node.lineno} prints"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            assert name not in ("sys.argv", "os.getenv"), f"{path}:{node.lineno} uses {name}"
            # What a child process inherits is not our configuration: reading it to pass it on is allowed there.
            if name == "os.environ":
                assert part_of(path) == "drivers", f"{path}:{node.lineno} reads the environment"
