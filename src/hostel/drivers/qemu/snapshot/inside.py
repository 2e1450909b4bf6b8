"""Snapshots inside qcow2 images: by QEMU's jobs while it runs, by our block layer while it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.block.naming import backing_name
from hostel.drivers.qemu.command.disk import format_node
from hostel.drivers.qemu.command.firmware import VARIABLES
from hostel.drivers.qemu.firmware.nvram import file_of
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.running import Running
from hostel.errors import BlockError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.block.node import BlockNode

_SECONDS: Final = 600.0


class Kept(NamedTuple):
    """An image that keeps a snapshot: of a disk, or of UEFI's variables.

    Attributes:
        node: its node in QEMU.
        path: its file or device.
        format: its format.
    """

    node: str
    path: str
    format: str


def kept(domain: Domain, disks: Iterable[Disk], usual: Path) -> list[Kept]:
    """The images that keep a snapshot of these disks of a domain; variables last, where they can be kept so.

    Args:
        domain: what says where variables are.
        disks: of the domain, with files in place of volumes.
        usual: where its variables are when it does not say.
    """
    tops = (next(images(disk), None) for disk in disks)
    found = [Kept(format_node(top.number), backing_name(top), top.format) for top in tops if top is not None]
    path = file_of(domain.os, usual)
    nvram = domain.os.nvram if domain.os is not None else None
    if found and path is not None and nvram is not None and nvram.format_name == "qcow2":
        found.append(Kept(VARIABLES, str(path), "qcow2"))
    return found


def save(machine: Running, tops: list[Kept], name: str) -> None:
    """Keep disks and memory; the first image takes the memory.

    Raises:
        VirtError: ``OPERATION_FAILED``; QEMU has taken back what it had begun.
    """
    nodes = [top.node for top in tops]
    machine.ask("snapshot-save", **{"job-id": _job("save", name), "tag": name, "vmstate": nodes[0], "devices": nodes})
    _wait(machine, _job("save", name), f"unable to save snapshot '{name}'")


def load(machine: Running, tops: list[Kept], name: str) -> None:
    """Take disks and memory from a snapshot; the guest is stopped afterwards.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    nodes = [top.node for top in tops]
    machine.ask("snapshot-load", **{"job-id": _job("load", name), "tag": name, "vmstate": nodes[0], "devices": nodes})
    _wait(machine, _job("load", name), f"unable to load snapshot '{name}'")


def drop(machine: Running, tops: Iterable[Kept], name: str) -> None:
    """Remove a snapshot from the images that have it.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    having = tags(machine, name)
    nodes = [top.node for top in tops if top.node in having]
    if nodes:
        machine.ask("snapshot-delete", **{"job-id": _job("drop", name), "tag": name, "devices": nodes})
        _wait(machine, _job("drop", name), f"unable to delete snapshot '{name}'")


def _job(word: str, name: str) -> str:
    return f"snapshot-{word}-" + "".join(char if char.isalnum() and char.isascii() else "_" for char in name)


def _wait(machine: Running, job: str, words: str) -> None:
    """Wait for a job of ours, and have QEMU forget it."""
    deadline = time.monotonic() + _SECONDS
    while True:
        found = next((item for item in machine.ask("query-jobs") if item["id"] == job), None)
        if found is None:
            raise failed(f"{words}: QEMU does not know the job")
        if found["status"] == "concluded":
            machine.ask("job-dismiss", id=job)
            if "error" in found:
                raise failed(f"{words}: {found['error']}")
            return
        if time.monotonic() >= deadline:
            machine.attempt("job-cancel", id=job)
            raise failed(f"{words}: QEMU has not done it within {_SECONDS:.0f} seconds")
        machine.qmp.wait(0.5, "JOB_STATUS_CHANGE")


def finish_jobs(machine: Running) -> None:
    """Wait for the end of what a process began that died."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        jobs = [job for job in machine.ask("query-jobs") if str(job["id"]).startswith("snapshot-")]
        for job in jobs:
            if job["status"] == "concluded":
                machine.attempt("job-dismiss", id=job["id"])
        if all(job["status"] == "concluded" for job in jobs):
            return
        machine.qmp.wait(0.5, "JOB_STATUS_CHANGE")


def tags(machine: Running, name: str) -> set[str]:
    """The nodes whose images have a snapshot of this name."""
    return {
        node["node-name"]
        for node in machine.ask("query-named-block-nodes", flat=True)
        if any(item["name"] == name for item in node["image"].get("snapshots", []))
    }


def has_stored(top: Kept, name: str) -> bool:
    """Whether an image, which others may read meanwhile, has a snapshot of this name.

    Raises:
        VirtError: it cannot be opened.
    """
    return name in _names(top)


def has_any(top: Kept) -> bool:
    """Whether an image, which QEMU may have open, has snapshots inside.

    Raises:
        VirtError: it cannot be opened.
    """
    return bool(_names(top))


def _names(top: Kept) -> list[str]:
    from hostel.block import graph
    from hostel.img import snapshot

    try:
        with graph.open(top.path, top.format, no_io=True, force_share=True) as node:
            return [item.name for item in snapshot.snapshots(node)]
    except (BlockError, OSError) as error:
        raise failed(f"cannot open '{top.path}': {error}") from error


def create_stored(tops: list[Kept], name: str) -> None:
    """Keep the disks of a machine that does not run; none of them where one fails.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    from hostel.img import snapshot

    done: list[Kept] = []
    try:
        for top in tops:
            _each([top], lambda node: snapshot.create(node, name))
            done.append(top)
    except BaseException:
        drop_stored(done, name)
        raise


def apply_stored(tops: list[Kept], name: str) -> None:
    """Go back to a snapshot of the disks of a machine that does not run.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    from hostel.img import snapshot

    def go_back(node: BlockNode) -> None:
        found = next((item.id for item in snapshot.snapshots(node) if item.name == name), name)
        snapshot.apply(node, found)  # an id is looked for before a name

    _each(tops, go_back)


def drop_stored(tops: Iterable[Kept], name: str) -> None:
    """Remove a snapshot from the images that have it.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    from hostel.img import snapshot

    def drop_from(node: BlockNode) -> None:
        if _has(node, name):
            snapshot.delete(node, name)

    _each(tops, drop_from)


def keep_only(top: Kept, name: str, *, applied: bool) -> None:
    """Drop what a copy of an image has inside, but for one snapshot; that one too once it is ``applied``.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    from hostel.img import snapshot

    if applied:
        apply_stored([top], name)

    def drop_others(node: BlockNode) -> None:
        for item in snapshot.snapshots(node):
            if applied or item.name != name:
                snapshot.delete(node, item.name)

    _each([top], drop_others)


def _has(node: BlockNode, name: str) -> bool:
    from hostel.img import snapshot

    return any(item.name == name for item in snapshot.snapshots(node))


def _each(tops: Iterable[Kept], act: Callable[[BlockNode], object]) -> None:
    from hostel.block import graph

    for top in tops:
        try:
            with graph.open(top.path, top.format, read_only=False) as node:
                act(node)
        except (BlockError, OSError) as error:
            raise failed(f"snapshot of '{top.path}': {error}") from error
