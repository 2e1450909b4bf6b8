"""QEMU's ``keyval``: ``driver=qcow2,file.driver=file,file.filename=a.qcow2`` as the tree that it stands for."""

from __future__ import annotations

import re
from typing import Any, Final

from hostel.block.options import split_commas
from hostel.cli.qemu.failure import Failure
from hostel.codec.qobject import parse_json

_KEY: Final = re.compile(r"[0-9]+|[A-Za-z_][A-Za-z0-9_.-]*|__[a-z0-9.-]+_[A-Za-z0-9_-]*", re.ASCII)


def parse(text: str, implied: str | None = None) -> tuple[dict[str, Any], bool]:
    """Read an option's argument; a first part without a name is the value of ``implied``.

    Returns:
        The tree, and whether its values are text, as they are where the argument is no JSON.

    Raises:
        Failure: it is malformed; the text is QEMU's.
    """
    if text.startswith("{"):
        try:
            tree = parse_json(text)
        except ValueError as error:
            raise Failure(str(error)) from None
        return dict(tree), False
    root: dict[str, Any] = {}
    for index, part in enumerate(split_commas(text)):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if part in ("help", "?"):
            raise Failure("Help is not available for this option")
        if not equals and (index or implied is None):
            raise Failure(f"Expected '=' after parameter '{name}'")
        if not equals:
            assert implied is not None
            name, value = implied, part
        _put(root, name, value)
    return _lists(root), True


def _put(root: dict[str, Any], name: str, value: str) -> None:
    parts = name.split(".")
    for part in parts:
        if not _KEY.fullmatch(part):
            raise Failure(f"Invalid parameter '{name}'")
    inner = root
    for index, part in enumerate(parts[:-1]):
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise Failure(f"Parameters '{'.'.join(parts[: index + 1])}.*' used inconsistently")
    if isinstance(inner.get(parts[-1]), dict):
        raise Failure(f"Parameters '{name}.*' used inconsistently")
    inner[parts[-1]] = value


def _lists(tree: Any, name: str = "") -> Any:
    """Objects whose members are numbered are lists."""
    if not isinstance(tree, dict):
        return tree
    inner = {key: _lists(value, f"{name}{key}.") for key, value in tree.items()}
    numbered = [key for key in inner if key.isdigit()]
    if not numbered:
        return inner
    if len(numbered) != len(inner):
        raise Failure(f"Parameters '{name}*' used inconsistently")
    for index in range(len(inner)):
        if str(index) not in inner:
            raise Failure(f"Parameter '{name}{index}' missing")
    return [inner[str(index)] for index in range(len(inner))]
