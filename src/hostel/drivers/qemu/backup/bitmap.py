"""The bitmaps of a checkpoint: which nodes have them, and how they go, from images below overlays too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.command.disk import format_node, nodes
from hostel.drivers.qemu.plug.graph import without_none
from hostel.drivers.qemu.running import Running
from hostel.model.checkpoint import Checkpoint


def nodes_with(machine: Running, name: str) -> list[str]:
    """The nodes that have a bitmap of this name."""
    return [
        node["node-name"]
        for node in machine.ask("query-named-block-nodes", flat=True)
        if any(item.get("name") == name for item in node.get("dirty-bitmaps", []))
    ]


def remove(machine: Running, checkpoint: Checkpoint) -> None:
    """Remove a checkpoint's bitmaps from its disks, from all of them or from none.

    What lies below an overlay is open for reading only, and is opened for writing for that. Where a process died
    meanwhile the images stay so, until the same is done again.

    Raises:
        VirtError: QEMU refused.
    """
    name = checkpoint.name or ""
    wanted = {disk.name for disk in checkpoint.disks.disks if disk.checkpoint == "bitmap"}
    specs: dict[str, dict[str, Any]] = {}
    tops, below = [], []
    for disk in machine.domain.devices.disks:
        if disk.target.dev in wanted:
            specs |= {spec["node-name"]: spec for spec in nodes(disk)}
            first, *rest = [format_node(item.number) for item in images(disk)] or [""]
            tops.append(first)
            below += rest
    having = set(nodes_with(machine, name))
    closed = [node for node in below if node in having and node in _read_only(machine, below)]
    actions = [
        {"type": "block-dirty-bitmap-remove", "data": {"node": node, "name": name}}
        for node in (*tops, *below)
        if node in having
    ]
    try:
        _reopen(machine, [{**specs[node], "read-only": False} for node in closed])
        if actions:
            machine.ask("transaction", actions=actions)
    finally:
        if not machine.status.jobs:  # whose images may well be open for writing
            opened = set(below) - _read_only(machine, below)
            _reopen(machine, [specs[node] for node in below if node in opened])


def _read_only(machine: Running, names: Iterable[str]) -> set[str]:
    """Those of the nodes that nobody can write to."""
    known = {node["node-name"]: bool(node["ro"]) for node in machine.ask("query-named-block-nodes", flat=True)}
    return {name for name in names if known.get(name)}


def _reopen(machine: Running, specs: list[dict[str, Any]]) -> None:
    if specs:
        machine.ask("blockdev-reopen", options=[without_none(spec) for spec in specs])
