"""Overlays: disks that go on in files of their own, all of them at one moment.

The marks in the machine's state say what each disk will be. QEMU exchanges all of them or none, so one look at it tells
which it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from hostel.drivers.qemu.backup import carrying
from hostel.drivers.qemu.block.chain import Image, Place, disk_of, images, over, replace_source
from hostel.drivers.qemu.block.create import create_image, length_of
from hostel.drivers.qemu.command.context import alias_of
from hostel.drivers.qemu.command.disk import format_node, image_node, image_nodes
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.plug.graph import add_nodes, images_inside, sweep_nodes
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Plug
from hostel.errors import VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.snapshot import SnapshotDisk


def image_of(wanted: SnapshotDisk, number: int = 0) -> Image:
    """The overlay that a snapshot's document asks for."""
    fmt = (wanted.driver.type if wanted.driver is not None else None) or "qcow2"
    source = wanted.source.copy() if wanted.source is not None else DiskSource()
    return Image(number, wanted.type or SourceType.FILE, source, fmt, None)


def take(machine: Running, external: list[tuple[Disk, SnapshotDisk]], *, reuse: bool) -> None:
    """Put the disks of a running machine on overlays, all at one moment; the marks stay for the caller to take away.

    Raises:
        VirtError: nothing is changed then, but for the marks.
    """
    marks = []
    for disk, wanted in external:
        after = over(disk, image_of(wanted, machine.next_node()))
        marks.append(Plug(way="overlay", alias=alias_of(disk), disk=after, made=not reuse))
    machine.save(plugs=(*machine.status.plugs, *marks))
    sizes = {name: int(node["image"]["virtual-size"]) for name, node in carrying.known_nodes(machine).items()}
    actions = []
    for (disk, _), mark in zip(external, marks, strict=True):
        assert mark.disk is not None
        below, top = image_node(disk), next(images(mark.disk))
        if below is None:
            raise failed(f"disk '{disk.target.dev}' has no image")
        if not reuse:
            create_image(top, sizes[below], machine.find_secret, backing=next(images(disk)))
            if top.format != "raw":
                machine.note_written(top.number, top.file)
        specs = image_nodes(mark.disk, top.type, top.source, top.format, top.number)
        specs[-1]["backing"] = None  # the exchange puts it on what the disk was
        with machine.supplied(disk_of(top, disk)):
            add_nodes(machine, specs)
        carrying.clear(machine, format_node(top.number))
        actions.append({"type": "blockdev-snapshot", "data": {"node": below, "overlay": image_node(mark.disk)}})
    machine.save()
    nodes = carrying.known_nodes(machine)
    for (disk, _), mark in zip(external, marks, strict=True):
        assert mark.disk is not None
        target = format_node(next(images(mark.disk)).number)
        for more in carrying.carry(nodes, carrying.chain_of(disk), target):
            actions += more
    holding.hold_if_running(machine)
    machine.ask("transaction", actions=actions)


def settle_overlays(machine: Running) -> bool:
    """Bring document, definition and files into line with what QEMU has; whether the disks are on the overlays."""
    marks = [plug for plug in machine.status.plugs if plug.way == "overlay" and plug.disk is not None]
    tops = images_inside(machine)
    taken = all(plug.disk is not None and tops.get(plug.alias) == image_node(plug.disk) for plug in marks)
    if taken:
        after = {plug.alias: plug.disk for plug in marks}
        before = {disk.alias: disk for disk in machine.domain.devices.disks}
        old = {alias: next(images(before[alias])).place for alias in after}
        disks = machine.domain.devices.disks
        disks[:] = [after.get(disk.alias or "") or disk for disk in disks]
        machine.save()
        for alias, disk in after.items():
            if disk is not None:
                _redefine(machine, disk, _base(disk, old[alias]))
    sweep_nodes(machine, settled=[plug.alias for plug in marks])
    if not taken:
        remove(plug.disk.source.file for plug in marks if plug.made and plug.disk is not None and plug.disk.source)
    return taken


def _base(disk: Disk, place: Place) -> Place:
    """What the definition was on: what the overlay stands on."""
    chain = list(images(disk))
    return chain[1].place if len(chain) > 1 else place


def _redefine(machine: Running, disk: Disk, old: Place) -> None:
    top = next(images(disk))
    machine.redefine(lambda definition: replace_source(definition, disk.target.dev, old, top, machine.resolved))


def drop_marks(machine: Running) -> None:
    """The last step: nothing more follows from the overlays."""
    machine.save(plugs=tuple(plug for plug in machine.status.plugs if plug.way != "overlay"))
    holding.settle(machine)


def remove(paths: Iterable[str | None]) -> None:
    """Remove files that were made and are not needed."""
    for path in paths:
        if path:
            with contextlib.suppress(OSError):
                os.unlink(path)


def is_overlay(image: Image, below: Image | None) -> bool:
    """Whether an image is there and whole.

    Args:
        image: the overlay.
        below: what it was made on, where it was made here: one whose maker died is not as large yet.
    """
    try:
        length = length_of(image)
        return below is None or length == length_of(below)
    except VirtError:
        return False
