"""QEMU's block nodes beside the document: adding an image's, and removing what no image of the document has."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from hostel.drivers.qemu.command.disk import FILTER, format_node, nodes, top_node
from hostel.drivers.qemu.pause import Pause
from hostel.drivers.qemu.running import Running
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import BackingStore

_NODE: Final = re.compile(r"libvirt-([0-9]+)-(format|slice-sto|storage)")
_BACKEND: Final = re.compile(r"libvirt-([0-9]+)-backend")
# Secrets, credentials and helpers for reservations have their names from nodes.
_OBJECT: Final = re.compile(r"(?:obj|pr-helper-)?libvirt-([0-9]+)-(?:format|storage).*")


def without_none(properties: dict[str, Any]) -> dict[str, Any]:
    """What QMP takes: an option that is None is left out, but for ``backing``, where it says that there is none."""
    return {key: value for key, value in properties.items() if value is not None or key == "backing"}


def device_of(entry: Mapping[str, Any]) -> str:
    """The alias of the device that an entry of ``query-block`` or ``query-blockstats`` is about."""
    parts = str(entry.get("qdev", "")).split("/")
    # What holds the medium may be a part of the device: /machine/peripheral/virtio-disk0/virtio-backend.
    return parts[3] if parts[:3] == ["", "machine", "peripheral"] and len(parts) > 3 else parts[-1]


def add_nodes(machine: Running, specs: Iterable[dict[str, Any]]) -> None:
    """Add block nodes of images that the machine's state names, bottom first.

    Raises:
        VirtError: QEMU refused one; those before it are there.
    """
    machine.give_files()
    for spec in specs:
        machine.ask("blockdev-add", **without_none(spec))


def sync(machine: Running, disk: Disk, number: int) -> None:
    """Have QEMU store what was written to an image of a disk's chain, which is open for writing.

    Of its commands only the one that opens an image anew, here as it is, syncs it and says whether that went well.

    Raises:
        VirtError: QEMU refused, or the host.
    """
    spec = next(item for item in nodes(disk) if item["node-name"] == format_node(number))
    machine.ask("blockdev-reopen", options=[without_none({**spec, "read-only": False})])


def images_inside(machine: Running) -> dict[str, str]:
    """The node of the image that each device has, by the device's alias; of an empty drive there is none."""
    found = {}
    for entry in machine.ask("query-blockstats"):
        name = entry.get("node-name", "")
        if name.startswith(FILTER):  # it is on top of the image
            name = entry["parent"]["node-name"]
        if name:
            found[device_of(entry)] = str(name)
    return found


def numbers_of(disk: Disk) -> Iterator[int]:
    """The numbers of the images that a disk has, the target of a copy with them."""
    if disk.source is not None and disk.source.index is not None:
        yield disk.source.index
    yield from _numbers_below(disk.backing_store)
    if disk.mirror is not None:
        if disk.mirror.source is not None and disk.mirror.source.index is not None:
            yield disk.mirror.source.index
        yield from _numbers_below(disk.mirror.backing_store)


def _numbers_below(backing: BackingStore | None) -> Iterator[int]:
    while backing is not None:
        if backing.index is not None:
            yield backing.index
        if backing.source is not None and backing.source.index is not None:
            yield backing.source.index
        backing = backing.backing_store


def sweep_nodes(machine: Running, *, patience: float = 0, settled: Collection[str] = ()) -> None:
    """Remove the nodes of images that the document does not have, and what opened these.

    What QEMU still needs stays for the next time.

    Whoever leaves a mark takes it away after this, not before: else nobody would come back for what is left.

    Args:
        machine: the machine.
        patience: seconds to wait for QEMU to let go of a node, which it does a moment after a device is gone.
        settled: aliases of disks whose images are no longer being exchanged.
    """
    disks = list(machine.domain.devices.disks)
    disks += [it.disk for it in machine.status.plugs if it.disk is not None and it.alias not in settled]
    kept = {number for disk in disks for number in numbers_of(disk)}
    kept |= {job.base for job in machine.status.jobs if job.kind == "backup" and not job.ended}
    filters = {top_node(disk) for disk in disks}
    nodes = machine.attempt("query-named-block-nodes", flat=True) or []
    left = []
    for node in nodes:
        name = node["node-name"]
        found = _NODE.fullmatch(name)
        if found is not None and int(found[1]) not in kept:
            left.append((found[2], name))
        if name.startswith(FILTER) and name not in filters:
            left.append(("", name))
    left.sort()  # what is on an image before it, and formats before what they are stored on
    deadline, pause = time.monotonic() + patience, Pause()
    while left:
        refused = [item for item in left if machine.attempt("blockdev-del", **{"node-name": item[1]}) is None]
        if len(refused) == len(left):
            if time.monotonic() >= deadline:
                break
            pause()
        left = refused
    for item in machine.attempt("qom-list", path="/objects") or []:
        found = _OBJECT.fullmatch(item["name"])
        if found is not None and int(found[1]) not in kept:
            machine.attempt("object-del", id=item["name"])


def free_backend(machine: Running) -> int:
    """A number for the node of a SCSI device of the host that is about to be plugged in."""
    used = (int(found[1]) for name in _node_names(machine) if (found := _BACKEND.fullmatch(name)) is not None)
    return max((*used, machine.status.nodes)) + 1


def sweep_backends(machine: Running, *, patience: float = 0) -> None:
    """Remove the nodes of SCSI devices of the host that no device of QEMU is on, with their secrets.

    Args:
        machine: the machine.
        patience: seconds to wait for QEMU to let go of a node, which it does a moment after a device is gone.
    """
    deadline, pause = time.monotonic() + patience, Pause()
    used = {item.get("inserted", {}).get("node-name") for item in machine.attempt("query-block") or []}
    left = [name for name in _node_names(machine) if _BACKEND.fullmatch(name) and name not in used]
    while left:
        for name in list(left):
            if machine.attempt("blockdev-del", **{"node-name": name}) is not None:
                machine.attempt("object-del", id=f"{name}-secret0")
                left.remove(name)
        if time.monotonic() >= deadline:
            return
        if left:
            pause()


def _node_names(machine: Running) -> list[str]:
    return [str(node["node-name"]) for node in machine.attempt("query-named-block-nodes", flat=True) or []]
