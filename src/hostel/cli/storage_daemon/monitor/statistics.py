"""Commands about how nodes are used: how far they are written, and what became of discards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block.draining import bypass_closed
from hostel.block.driver import FilterDriver
from hostel.block.filters.forward import ForwardDriver
from hostel.block.node import BlockNode
from hostel.block.protocols.file import FileDriver
from hostel.block.rewiring import unfiltered
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

# What QEMU counts where a guest's device is, of which there is none here.
_OF_DEVICES: Final = (
    *(f"{what}_{how}" for what in ("rd", "wr", "unmap") for how in ("bytes", "operations", "merged", "total_time_ns")),
    *(f"{how}_{what}_operations" for what in ("rd", "wr", "flush", "unmap") for how in ("failed", "invalid")),
    "flush_operations",
    "flush_total_time_ns",
)


def _query(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    """What nodes count where ``query-nodes`` is set; without it devices, of which there are none."""
    if not given.get("query-nodes", False):
        return []
    shown = [node for node in daemon.nodes.values() if not isinstance(node.driver, ForwardDriver)]
    return [_describe(node) for node in shown]


def _describe(node: BlockNode) -> dict[str, Any]:
    image = unfiltered(node)
    found: dict[str, Any] = {
        "node-name": node.name,
        "stats": {
            **dict.fromkeys(_OF_DEVICES, 0),
            "wr_highest_offset": node.marks.highest,
            "timed_stats": [],
            "account_invalid": False,
            "account_failed": False,
        },
    }
    if isinstance(image.driver, FileDriver):
        discarded = image.driver.discarded
        found["driver-specific"] = {
            "driver": image.format,
            "discard-nb-ok": discarded.done,
            "discard-nb-failed": discarded.failed,
            "discard-bytes-ok": discarded.length,
        }
    if (parent := _holder(image)) is not None:
        found["parent"] = _describe(parent)
    return found


def _holder(image: BlockNode) -> BlockNode | None:
    """The one node that the data of an image lies in; None where several hold it."""
    children = image.driver.children
    if "raw" in children:  # of blkverify's two the one that is believed
        return children["raw"]
    if isinstance(image.driver, FilterDriver) and not image.driver.primary:
        return next(iter(children.values())) if len(children) == 1 else None
    return children.get("data-file", image.file)


def _set_threshold(daemon: Daemon, given: Mapping[str, Any]) -> None:
    node = daemon.nodes.get(given["node-name"])
    if node is None:
        raise generic(f"Device '{given['node-name']}' not found")
    with bypass_closed(node):
        node.marks.watch(given["write-threshold"])


COMMANDS: Final = (
    Command("query-blockstats", _query, (Parameter("query-nodes", Kind.BOOL),)),
    Command("block-set-write-threshold", _set_threshold, (needed("node-name"), needed("write-threshold", Kind.UINT64))),
)
