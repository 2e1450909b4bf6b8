"""The statements of a module, without its expressions: most of a tree is these, and takes long to walk through."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

_BLOCKS: Final = ("body", "orelse", "handlers", "finalbody", "cases")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement of a module, class or function, however deep, with the parts that hold others."""
    for block in _BLOCKS:
        for inner in getattr(node, block, ()):
            yield inner
            yield from statements(inner)
