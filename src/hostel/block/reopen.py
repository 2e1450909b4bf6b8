"""Opening an image again with other options: which of them may change, as QEMU's ``bdrv_reopen`` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

from hostel.block.blockdev import NODE_OPTIONS
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Options

_EDGES: Final = ("file", "backing")
_FIXED: Final = ("driver", "node-name")


@runtime_checkable
class Joining(Protocol):
    """A driver whose options override each other: the class itself has this power."""

    @classmethod
    def joined_options(cls, before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The options of an image that is opened again, by their names: those of ``before``, and ``changes``."""


def changed_options(node: BlockNode, before: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """The options that an image is to be opened with: those of ``before``, changed.

    Args:
        node: the open image.
        before: the options that it was opened with, by their dotted names.
        changes: the new values, as text.

    Raises:
        OptionError: an option cannot change while the image is open, or its value is wrong.
    """
    _check(node, "", before, changes)
    kept = {name: value for name, value in changes.items() if name.rpartition(".")[2] not in _FIXED}
    if isinstance(node.driver, Joining):
        return node.driver.joined_options(before, kept)
    return {**before, **kept}


def _check(node: BlockNode, prefix: str, before: Mapping[str, Any], changes: Mapping[str, str]) -> None:
    """Check the changes of one node, whose options begin with ``prefix``, and of those below it."""
    children = {"file": node.file, "backing": node.backing}
    own = {
        name: value
        for name, value in changes.items()
        if not any(name.startswith(f"{edge}.") and children[edge] is not None for edge in _EDGES)
    }
    known: Options = NODE_OPTIONS + node.driver.options
    present = {"driver": node.format, "node-name": node.name}
    for name, value in own.items():
        if name in known and name not in _FIXED:
            known[name].convert(value)
        elif value != present.get(name, before.get(prefix + name)):
            raise OptionError(f"Cannot change the option '{name}'")
    for edge in _EDGES:
        below = children[edge]
        part = {name.removeprefix(f"{edge}."): value for name, value in changes.items() if name.startswith(f"{edge}.")}
        if below is not None and part:
            _check(below, f"{prefix}{edge}.", before, part)
