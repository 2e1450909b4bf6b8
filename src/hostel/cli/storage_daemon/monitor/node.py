"""Commands about block nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block import objects
from hostel.block.draining import bypass_closed
from hostel.block.driver import FilterDriver
from hostel.block.filters.forward import ForwardDriver
from hostel.block.node import BlockNode
from hostel.block.nodes import JobFilter
from hostel.block.permission import Permission
from hostel.block.powers import BackingStore
from hostel.block.rewiring import unfiltered, writable
from hostel.block.tree import layers
from hostel.block.uses import by_device
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.naming import Names, filtered
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_PERMISSIONS: Final = {
    Permission.CONSISTENT_READ: "consistent-read",
    Permission.WRITE: "write",
    Permission.WRITE_UNCHANGED: "write-unchanged",
    Permission.RESIZE: "resize",
}
_PATIENCE: Final = 30.0  # seconds for requests under way to end
_PATIENCE_OF_QUERIES: Final = 5.0  # seconds likewise in one node, for who only looks: all other commands wait for that
_LIMITS: Final = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


def _add(daemon: Daemon, given: Mapping[str, Any]) -> None:
    daemon.nodes.add(given)


def _reopen(daemon: Daemon, given: Mapping[str, Any]) -> None:
    for index, tree in enumerate(given["options"]):
        if not isinstance(tree, Mapping):
            raise generic(f"Invalid parameter type for 'options[{index}]', expected: object")
    daemon.nodes.reopen(given["options"])


def _delete(daemon: Daemon, given: Mapping[str, Any]) -> None:
    daemon.nodes.remove(given["node-name"])


class _View(NamedTuple):
    """How nodes are looked at by one query.

    Attributes:
        names: what they are called.
        flat: the images below them are left out.
        until: when all that is in the way has to have ended, by the monotonic clock.
    """

    names: Names
    flat: bool
    until: float

    @contextlib.contextmanager
    def held(self, *nodes: BlockNode) -> Iterator[None]:
        """Have other threads' requests in none of the nodes.

        Raises:
            BlockError: EBUSY: one does not end; who asks, and all other monitors, are not to wait for it.
        """
        with contextlib.ExitStack() as stack:
            for node in nodes:
                left = max(0.0, self.until - time.monotonic())
                stack.enter_context(node.hold_within(min(_PATIENCE_OF_QUERIES, left)))
            yield


def _query(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    shown = [node for node in daemon.nodes.values() if not isinstance(node.driver, ForwardDriver)]
    view = _View(Names(), given.get("flat", False), time.monotonic() + _PATIENCE)
    filters = [_describe_filter(name, found, view) for name, found in daemon.nodes.filters.items()]
    return [*reversed(filters), *(_describe(node, view) for node in reversed(shown))]


def _describe_filter(name: str, found: JobFilter, view: _View) -> dict[str, Any]:
    """A job's filter, which shows what the node shows that it is in."""
    described = _describe(found.node, view._replace(flat=True))
    kept = ("virtual-size", "filename", "cluster-size", "actual-size", "dirty-flag")
    image = {key: value for key, value in described["image"].items() if key in kept}
    for key in ("dirty-bitmaps", "backing_file"):
        described.pop(key, None)
    return {
        **described,
        "node-name": name,
        "drv": found.driver,
        "detect_zeroes": "off",
        "image": {**image, "format": found.driver},
    }


def _describe(node: BlockNode, view: _View) -> dict[str, Any]:
    """A node as ``query-named-block-nodes`` shows it."""
    name, threshold, bitmaps = node.name, node.marks.threshold, _bitmaps(node, view)
    detect_zeroes = node.detect_zeroes  # which a job's filter has moved nowhere
    node = unfiltered(node)
    found: dict[str, Any] = {
        "node-name": name,
        "drv": node.format,
        "file": view.names.of(node),
        "ro": node.read_only,
        "encrypted": bool(node.driver.info().encrypted),
        "detect_zeroes": detect_zeroes,
        "write_threshold": threshold,
        "backing_file_depth": 0 if view.flat else sum(1 for _ in _layers(node)) - 1,
        "cache": {
            "writeback": not node.cache.writethrough,
            "direct": node.cache.direct,
            "no-flush": node.cache.no_flush,
        },
        "image": _image(node, view),
        **dict.fromkeys(_LIMITS, 0),
    }
    if filtered(node) is None and node.backing is not None:
        found["backing_file"] = view.names.of(node.backing)
    if bitmaps:
        found["dirty-bitmaps"] = bitmaps
    return found


def _bitmaps(node: BlockNode, view: _View) -> list[dict[str, Any]]:
    """What there is to be said of a node's bitmaps, of which its image keeps some."""
    from hostel.block.jobs.bitmaps import all_bitmaps

    path, image = [node], unfiltered(node)
    while path[-1] is not image and isinstance(driver := path[-1].driver, FilterDriver):
        path.append(driver.child)
    with view.held(*path):
        return [bitmap.info() for bitmap in all_bitmaps(node)]


def _layers(node: BlockNode) -> Iterator[BlockNode]:
    """A node and those that it shows something of, filters too; not what jobs and bitmaps have put in between."""
    return (each for each in layers(node) if unfiltered(each) is each)


def _image(node: BlockNode, view: _View) -> dict[str, Any]:
    from hostel.img.info import info

    shown: dict[str, Any] = {}
    for each in reversed([node] if view.flat else [*_layers(node)]):
        with view.held(each):
            found = info(each).to_json()
        found["filename"] = view.names.of(each)
        shown = {**found, "backing-image": shown} if shown else found
    return shown


def _resize(daemon: Daemon, given: Mapping[str, Any]) -> None:
    from hostel.img.resize import resize

    # Devices have names of their own in QEMU, and there are none here.
    node = daemon.nodes.get(given.get("node-name", ""))
    if node is None:
        device, name = given.get("device", ""), given.get("node-name", "")
        raise generic(f"Cannot find device='{device}' nor node-name='{name}'")
    size = given["size"]
    if size < 0:
        raise generic("Parameter 'size' expects a >0 size")
    if daemon.nodes.is_backing(node) or any(use.is_job for use in daemon.nodes.uses(node)):
        # What lies above would read other bytes, or a job go by a length that is not true any more.
        raise generic(f"Device '{given.get('device', '(null)')}' is in use")
    use = by_device(Permission.RESIZE)
    daemon.nodes.hold(node, use)
    try:
        if node.read_only:
            raise generic("Image is read-only")
        with bypass_closed(node, timeout=_PATIENCE):
            resize(node, size)
    finally:
        daemon.nodes.release(node, use)


def _change_backing_file(daemon: Daemon, given: Mapping[str, Any]) -> None:
    """Record another name of the image that an overlay stands on; what it stands on does not change."""
    root = daemon.nodes.find(given["device"], given["device"])
    daemon.nodes.require_root(root)
    named = daemon.nodes.find(given["image-node-name"])
    image = unfiltered(named)
    if image.backing is None:
        raise generic("not allowing backing file change on an image without a backing file")
    root.require_unblocked()
    if not any(layer is named or layer is image for layer in root.chain()):
        raise generic(f"'{given['device']}' and image file are not in the same chain")
    name = given["backing-file"]
    if not isinstance(image.driver, BackingStore):
        raise generic(f"Could not change backing file to '{name}': Operation not supported")
    with writable(image):
        try:
            with image.lock():
                # QEMU records the overlay's own format, with which nobody can open what is of another one.
                image.driver.change_backing(name, unfiltered(image.backing).format)
            image.flush()
        except OSError as error:
            raise generic(f"Could not change backing file to '{name}': {error.strerror or error}") from None


def _change(daemon: Daemon, given: Mapping[str, Any]) -> None:
    """Take a node in among the copies of a quorum, or leave one of them out."""
    parent = daemon.nodes.find(given["parent"], given["parent"])
    child, name = given.get("child"), given.get("node")
    if child is not None and name is not None:
        raise generic("The parameters child and node are in conflict")
    if child is not None:
        daemon.nodes.detach(parent, child)
    elif name is None:
        raise generic("Either child or node must be specified")
    elif name not in daemon.nodes:
        raise generic(f"Node '{name}' not found")
    else:
        daemon.nodes.attach(parent, name)


def _set_iothread(daemon: Daemon, given: Mapping[str, Any]) -> None:
    """Say which thread requests are made in: here those of whoever makes them, wherever that is."""
    name, thread = given["node-name"], given["iothread"]
    if thread is not None and not isinstance(thread, str):
        raise generic("Invalid parameter type for 'iothread', expected: StrOrNull")
    node = daemon.nodes.get(name)
    if node is None:
        raise generic(f"Failed to find node with node-name='{name}'")
    if not given.get("force", False) and any(use.edge == "root" for use in daemon.nodes.uses(node)):
        raise generic(
            f"Node {name} is associated with a BlockBackend and could be in use (use force=true to override this check)"
        )
    if thread is not None and objects.find(thread) != "iothread":
        raise generic(f"Cannot find iothread {thread}")


def _query_block(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    """Devices of a guest, of which a storage daemon has none."""
    return []


def _query_graph(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    """The nodes, and who uses what of which."""
    numbers = {name: number for number, name in enumerate(daemon.nodes, 1)}
    nodes: list[dict[str, Any]] = [
        {"id": number, "type": "block-driver", "name": name} for name, number in numbers.items()
    ]
    edges: list[dict[str, Any]] = []
    for node in daemon.nodes.values():
        for use in daemon.nodes.uses(node):
            parent = use.by.removeprefix("node '").removesuffix("'") if use.edge != "root" else None
            number = numbers.get(parent or "", 0)
            if parent is None:
                number = len(nodes) + 1
                nodes.append({"id": number, "type": "block-backend", "name": ""})
            edges.append(
                {
                    "parent": number,
                    "child": numbers[node.name],
                    "name": use.edge,
                    "perm": _names(use.used),
                    "shared-perm": _names(use.shared),
                }
            )
    return {"nodes": nodes, "edges": edges}


def _names(permissions: Permission) -> list[str]:
    return [name for permission, name in _PERMISSIONS.items() if permission & permissions]


COMMANDS: Final = (
    Command("blockdev-del", _delete, (needed("node-name"),)),
    Command("blockdev-add", _add, None),
    Command("blockdev-reopen", _reopen, (needed("options", Kind.ARRAY),)),
    Command(
        "change-backing-file",
        _change_backing_file,
        (needed("device"), needed("image-node-name"), needed("backing-file")),
    ),
    Command("x-blockdev-change", _change, (needed("parent"), Parameter("child"), Parameter("node"))),
    Command(
        "x-blockdev-set-iothread",
        _set_iothread,
        (needed("node-name"), needed("iothread", Kind.ANY), Parameter("force", Kind.BOOL)),
    ),
    Command("query-block", _query_block),
    Command("x-debug-query-block-graph", _query_graph),
    Command("query-named-block-nodes", _query, (Parameter("flat", Kind.BOOL),)),
    Command("block_resize", _resize, (Parameter("device"), Parameter("node-name"), needed("size", Kind.INT))),
)
