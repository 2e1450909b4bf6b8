"""What checkpoints know of a disk, carried along when its guest goes on in another image.

The bitmaps of a disk's own image say by themselves what has changed since each checkpoint: an overlay gets those of
what it is put on, and the target of a copy or of a commit those of what it takes the place of. libvirt keeps in each
image of a chain only what changed while that was the top; such chains are understood, and made one before images go.

Each step may be cut off: what a bitmap says too much makes a backup larger, and no less right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.command.disk import format_node
from hostel.drivers.qemu.running import Running
from hostel.model.domain.devices.disk import Disk

_OLD: Final = "0.10"  # of qcow2, which keeps no bitmaps

Nodes = Mapping[str, Mapping[str, Any]]


def known_nodes(machine: Running) -> Nodes:
    """QEMU's nodes, by name.

    Raises:
        VirtError: QEMU does not answer.
    """
    return {str(node["node-name"]): node for node in machine.ask("query-named-block-nodes", flat=True)}


def sources(nodes: Nodes, chain: Sequence[str], name: str) -> list[str]:
    """The nodes of a chain whose bitmaps of a name say together what changed; none where that is not known.

    As ``qemuBlockBitmapChainIsValid`` has it: from the top down without a gap, each closed well and kept up to date.
    An image of another size than the top is none of them.
    """
    found: list[str] = []
    is_over = False
    for node in chain:
        bitmap = _bitmap(nodes, node, name)
        if bitmap is None:
            is_over = True
            continue
        is_sound = bitmap.get("recording") and bitmap.get("persistent") and not bitmap.get("inconsistent")
        if is_over or not is_sound or _size(nodes, node) != _size(nodes, chain[0]):
            return []
        found.append(node)
    return found


def _bitmap(nodes: Nodes, node: str, name: str) -> Mapping[str, Any] | None:
    return next((item for item in _bitmaps(nodes, node) if item["name"] == name), None)


def _bitmaps(nodes: Nodes, node: str) -> list[Mapping[str, Any]]:
    return [item for item in nodes.get(node, {}).get("dirty-bitmaps", []) if item.get("name")]


def is_passing(nodes: Nodes, node: str, name: str) -> bool:
    """Whether a node has a bitmap of a name that its image does not keep: a backup's, where a checkpoint's is kept."""
    bitmap = _bitmap(nodes, node, name)
    return bitmap is not None and not bitmap.get("persistent")


def _size(nodes: Nodes, node: str) -> int:
    return int(nodes[node]["image"]["virtual-size"])


def chain_of(disk: Disk) -> list[str]:
    """The nodes of a disk's images, top first."""
    return [format_node(image.number) for image in images(disk)]


def carry(nodes: Nodes, chain: Sequence[str], target: str) -> Iterator[list[dict[str, Any]]]:
    """What of a transaction has ``target`` know what ``chain`` knows, for each bitmap that can be kept there.

    Whatever is written to the target from then on, it writes down by itself.
    """
    data = nodes[target]["image"].get("format-specific", {}).get("data", {})
    if (
        nodes[target].get("drv") != "qcow2"
        or data.get("compat") == _OLD
        or _size(nodes, target) != _size(nodes, chain[0])
    ):
        return
    for bitmap in _bitmaps(nodes, chain[0]):
        name = str(bitmap["name"])
        if found := sources(nodes, chain, name):
            yield [*_add(nodes, target, bitmap), _merge(target, name, found)]


def clear(machine: Running, target: str) -> None:
    """Have an image that was there before, and that a disk is about to be on, say nothing of its former life.

    Raises:
        VirtError: QEMU refused.
    """
    for bitmap in _bitmaps(known_nodes(machine), target):
        machine.ask("block-dirty-bitmap-remove", node=target, name=bitmap["name"])


def _add(nodes: Nodes, target: str, bitmap: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = str(bitmap["name"])
    if _bitmap(nodes, target, name) is not None:
        return []
    data = {"node": target, "name": name, "persistent": True, "granularity": bitmap["granularity"]}
    return [{"type": "block-dirty-bitmap-add", "data": data}]


def _merge(target: str, name: str, found: Sequence[str]) -> dict[str, Any]:
    merged = [{"node": node, "name": name} for node in found]
    return {"type": "block-dirty-bitmap-merge", "data": {"node": target, "target": name, "bitmaps": merged}}


def go_over(machine: Running, disk: Disk, target: str) -> None:
    """Have the image that a job is about to bring a guest to know what the disk's own knows.

    A bitmap that cannot be kept there is not: the next backup since its checkpoint is a full one.

    Raises:
        VirtError: QEMU refused; the guest must stay where it is.
    """
    chain = chain_of(disk)
    if target in chain:
        chain = chain[: chain.index(target)]
    else:
        clear(machine, target)
    for actions in carry(known_nodes(machine), chain, target):
        machine.attempt("transaction", actions=actions)


def make_one(machine: Running, disk: Disk) -> None:
    """Have a disk's own image know all that its chain knows, before images go out of that.

    Raises:
        VirtError: QEMU refused; nothing must go.
    """
    nodes, chain = known_nodes(machine), chain_of(disk)
    actions = []
    for bitmap in _bitmaps(nodes, chain[0]):
        name = str(bitmap["name"])
        if below := sources(nodes, chain, name)[1:]:
            actions.append(_merge(chain[0], name, below))
    if actions:
        machine.ask("transaction", actions=actions)
