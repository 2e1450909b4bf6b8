"""Internal snapshots of an image."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

from hostel.block.node import BlockNode
from hostel.block.powers import SnapshotInfo, Snapshotting
from hostel.errors import BlockError, UnsupportedFeature

_MAX_NAME: Final = 255  # bytes that qemu-img keeps of a name


def _keeper(node: BlockNode) -> tuple[BlockNode, Snapshotting | None]:
    """The node that keeps an image's snapshots, and its driver: below a format that has none the protocol may."""
    while not isinstance(node.driver, Snapshotting) and node.file is not None and len(node.driver.children) == 1:
        node = node.file
    return node, node.driver if isinstance(node.driver, Snapshotting) else None


def snapshots(node: BlockNode) -> list[SnapshotInfo]:
    """All of them; none where neither the format nor the protocol has snapshots."""
    node, driver = _keeper(node)
    if driver is None:
        return []
    with node.lock():
        return driver.snapshots()


def create(node: BlockNode, name: str, *, icount: int | None = 0) -> None:
    """Keep the present state under a name.

    Args:
        node: the image.
        name: cut at 255 bytes, as by qemu-img.
        icount: instructions that the guest has run; None where it has none, and qemu-img writes 0.

    Raises:
        UnsupportedFeature: the format has no snapshots.
        BlockError: it cannot be kept; the image is as it was.
    """
    node, driver = _keeper(node)
    if driver is None:
        raise UnsupportedFeature("Block driver does not support snapshots")
    seconds, nanoseconds = divmod(time.time_ns() // 1000 * 1000, 10**9)
    kept = name.encode(errors="surrogateescape")[:_MAX_NAME].decode(errors="surrogateescape")
    with node.lock():
        driver.snapshot_create(kept, date=(seconds, nanoseconds), icount=icount)


def apply(node: BlockNode, id_or_name: str) -> None:
    """Go back to a snapshot's state.

    Raises:
        UnsupportedFeature: the format has no snapshots.
        BlockError: there is no such snapshot (ENOENT), or it cannot be applied; the image is as it was.
    """
    node, driver = _keeper(node)
    if driver is None:
        raise UnsupportedFeature("Block driver does not support snapshots")
    with node.lock():
        driver.snapshot_apply(id_or_name)


def delete(node: BlockNode, name: str) -> None:
    """Drop the first snapshot of a name; IDs do not count.

    Raises:
        BlockError: there is no such snapshot (ENOENT), or it cannot be dropped; the image is as it was.
    """
    _delete(node, next((snapshot for snapshot in snapshots(node) if snapshot.name == name), None))


def delete_by_id_or_name(node: BlockNode, wanted: str) -> None:
    """Drop the first snapshot of a name, or where none has it, the one of an ID.

    Raises:
        BlockError: as of :func:`delete`.
    """
    there = snapshots(node)
    named = (snapshot for snapshot in there if snapshot.name == wanted)
    _delete(node, next(named, None) or next((snapshot for snapshot in there if snapshot.id == wanted), None))


def _delete(node: BlockNode, found: SnapshotInfo | None) -> None:
    node, driver = _keeper(node)
    if found is None or driver is None:
        raise BlockError("snapshot not found", errno=errno.ENOENT)
    with node.lock():
        driver.snapshot_delete(found.id)


def load(node: BlockNode, id: str | None, name: str | None) -> None:
    """Let an image that is open for reading show a snapshot's content; both must fit where both are given.

    Raises:
        BlockError: there is no such snapshot, or the format cannot.
    """
    driver = node.driver
    if not isinstance(driver, Snapshotting):
        raise UnsupportedFeature(
            f"Block format '{node.format}' used by device '' does not support temporarily loading internal snapshots"
        )
    with node.lock():
        driver.snapshot_load(id, name)


def load_by_id_or_name(node: BlockNode, id_or_name: str) -> None:
    """The same for the snapshot of this id or, failing that, of this name.

    Raises:
        BlockError: there is no such snapshot, or the format cannot.
    """
    try:
        load(node, id_or_name, None)
    except BlockError as error:
        if error.errno != errno.ENOENT:
            raise
        load(node, None, id_or_name)


ACTIONS: Final[dict[str, Callable[[BlockNode, str], None]]] = {
    "create": create,
    "apply": apply,
    "delete": delete_by_id_or_name,
}
