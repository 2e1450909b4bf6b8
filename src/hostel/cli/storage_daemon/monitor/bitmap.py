"""Commands about dirty bitmaps, which a transaction can do too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block.jobs import atomic
from hostel.block.jobs.bitmaps import find_bitmap
from hostel.block.node import BlockNode
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_Make = Callable[["Daemon", Mapping[str, Any]], atomic.Action]


def _add(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    return atomic.AddBitmap(
        daemon.nodes.find(given["node"], given["node"]),
        given["name"],
        given.get("granularity"),
        persistent=given.get("persistent", False),
        recording=not given.get("disabled", False),
    )


def _remove(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    return atomic.RemoveBitmap(lambda: _node(daemon, given), given["name"])


def _clear(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    return atomic.ClearBitmap(_node(daemon, given), given["name"])


def _enable(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    return atomic.SetRecording(_node(daemon, given), given["name"], recording=True)


def _disable(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    return atomic.SetRecording(_node(daemon, given), given["name"], recording=False)


def _merge(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    node = _node(daemon, given)
    sources: list[tuple[BlockNode, str]] = []
    for index, source in enumerate(given["bitmaps"]):
        if isinstance(source, str):
            sources.append((node, source))
        elif isinstance(source, Mapping):
            external = check(_PLACE, source, path=f"bitmaps[{index}].")
            sources.append((_node(daemon, external), external["name"]))
        else:
            raise generic(f"Invalid parameter type for 'bitmaps[{index}]', expected: string")
    return atomic.MergeBitmaps(node, given["target"], sources)


def _node(daemon: Daemon, given: Mapping[str, Any]) -> BlockNode:
    found = daemon.nodes.get(given["node"])
    if found is None:
        raise generic(f"Node '{given['node']}' not found")
    return found


_PLACE: Final = (needed("node"), needed("name"))
ACTIONS: Final[Mapping[str, tuple[_Make, tuple[Parameter, ...]]]] = {
    "block-dirty-bitmap-add": (
        _add,
        (
            *_PLACE,
            Parameter("granularity", Kind.UINT32),
            Parameter("persistent", Kind.BOOL),
            Parameter("disabled", Kind.BOOL),
        ),
    ),
    "block-dirty-bitmap-remove": (_remove, _PLACE),
    "block-dirty-bitmap-clear": (_clear, _PLACE),
    "block-dirty-bitmap-enable": (_enable, _PLACE),
    "block-dirty-bitmap-disable": (_disable, _PLACE),
    "block-dirty-bitmap-merge": (
        _merge,
        (needed("node"), needed("target"), Parameter("bitmaps", Kind.ARRAY, True)),
    ),
}


def _alone(make: _Make) -> Callable[[Daemon, Mapping[str, Any]], Any]:
    return lambda daemon, given: atomic.run([make(daemon, given)])


def _sum(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    """The sum of the bits, as QEMU has them in memory: whole words of 64."""
    import hashlib

    bits = bytes(find_bitmap(_node(daemon, given), given["name"]).bits.bits)
    return {"sha256": hashlib.sha256(bits.ljust(max(1, -(-len(bits) // 8)) * 8, b"\0")).hexdigest()}


COMMANDS: Final = (
    *(Command(name, _alone(make), known) for name, (make, known) in ACTIONS.items()),
    Command("x-debug-block-dirty-bitmap-sha256", _sum, _PLACE),
)
