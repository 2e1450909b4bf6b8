"""``domstats --block``: of each disk what its guest asked for, and how large the image is.

The sizes of a running machine are QEMU's: ``allocation`` is the end of what it has written of the image, by which an
image on a block device is known to need more room, ``physical`` what the image takes on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from hostel.drivers.qemu.block.chain import Image, images
from hostel.drivers.qemu.block.sizes import counters, stored_info
from hostel.drivers.qemu.command.disk import format_node, storage_node
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Status
from hostel.errors import VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain

_COUNTERS: Final = {
    "rd_operations": "rd.reqs", "rd_bytes": "rd.bytes", "rd_total_times": "rd.times", "wr_operations": "wr.reqs",
    "wr_bytes": "wr.bytes", "wr_total_times": "wr.times", "flush_operations": "fl.reqs",
    "flush_total_times": "fl.times",
}  # fmt: skip
_LOCAL: Final = frozenset({SourceType.FILE, SourceType.BLOCK, SourceType.DIR, SourceType.VOLUME})

Row = dict[str, int | str]


class _Told(NamedTuple):
    """What QEMU says: counters by alias of the device, bytes written up to by node, nodes by name."""

    counters: dict[str, dict[str, int]]
    highest: dict[str, int]
    nodes: dict[str, dict[str, Any]]
    status: Status

    @classmethod
    def of(cls, machine: Running) -> _Told:
        highest = {
            item["node-name"]: int(item.get("parent", {}).get("stats", {}).get("wr_highest_offset", 0))
            for item in machine.ask("query-blockstats", **{"query-nodes": True})
            if "node-name" in item
        }
        nodes = {item["node-name"]: item for item in machine.ask("query-named-block-nodes", flat=True)}
        return cls(counters(machine), highest, nodes, machine.status)


def block_statistics(machine: Running | None, document: Domain, *, backing: bool) -> dict[str, int | str]:
    """The statistics of all disks, as ``qemuDomainGetStatsBlock`` has them.

    Args:
        machine: where the domain runs.
        document: the domain's.
        backing: also of what the images stand on, and are copied and backed up to.
    """
    told = _Told.of(machine) if machine is not None else None
    rows = [
        row
        for disk in document.devices.disks
        for row in _rows(disk, told, _others(machine, disk) if backing else (), backing=backing)
    ]
    found: dict[str, int | str] = {"block.count": len(rows)}
    for number, row in enumerate(rows):
        found |= {f"block.{number}.{name}": value for name, value in row.items()}
    return found


def _rows(disk: Disk, told: _Told | None, others: tuple[Image, ...], *, backing: bool) -> Iterator[Row]:
    chain = list(images(disk))
    first: Row = _head(disk, chain[0]) if chain else {"name": disk.target.dev}
    if disk.type == SourceType.VHOSTUSER:
        yield first
        return
    if told is not None:
        asked = told.counters.get(disk.alias or "", {})
        first |= {name: asked[word] for word, name in _COUNTERS.items() if word in asked}
    yield first | (_sizes(chain[0], told) if chain else {})
    for image in (*(chain[1:] if backing else ()), *others):
        yield _head(disk, image) | _sizes(image, told)


def _head(disk: Disk, image: Image) -> Row:
    found: Row = {"name": disk.target.dev}
    if image.type in _LOCAL and image.path:
        found["path"] = image.path
    if image.number:
        found["backingIndex"] = image.number
    return found


def _sizes(image: Image, told: _Told | None) -> Row:
    """The sizes that are known of an image."""
    if told is None:
        try:
            sizes = stored_info(image)._asdict()
        except VirtError:  # it is not there, or on a server
            return {}
        return {name: sizes[name] for name in ("allocation", "capacity", "physical") if sizes[name]}
    node = told.nodes.get(format_node(image.number))
    if node is None:
        return {}
    found: Row = {
        "allocation": max(told.highest.get(format_node(image.number), 0), told.status.written_to(image.number)),
        "capacity": int(node["image"]["virtual-size"]),
        "physical": int(node["image"].get("actual-size", 0)),
    }
    threshold = told.nodes.get(storage_node(image.number), {}).get("write_threshold", 0)
    return found | ({"threshold": int(threshold)} if threshold else {})


def _others(machine: Running | None, disk: Disk) -> tuple[Image, ...]:
    """What a disk is copied to, and what a backup of it writes."""
    backup = machine.status.backup if machine is not None else None
    found = [
        Image(item.index or 0, item.type or SourceType.FILE, item.store, "", None)
        for item in (backup.disks.disks if backup is not None else ())
        if item.name == disk.target.dev and item.store is not None
    ]
    mirror = disk.mirror
    if mirror is not None and mirror.job == "copy" and mirror.source is not None:
        found.insert(0, Image(mirror.source.index or 0, mirror.type or SourceType.FILE, mirror.source, "", None))
    return tuple(found)
