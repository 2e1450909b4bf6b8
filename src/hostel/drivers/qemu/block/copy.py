"""``blockcopy``: a disk mirrored to another image, and gone over to when asked."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final

from hostel.codec.xmltext import parse
from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockCopyFlag
from hostel.drivers.document import reading
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.block.chain import Image, disk_of, find_disk, images
from hostel.drivers.qemu.block.create import create_image
from hostel.drivers.qemu.block.jobs import check_free
from hostel.drivers.qemu.blockjob import start, withdraw
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.command.disk import format_node, image_node, image_nodes, top_node
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.plug.graph import add_nodes
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.source import chain_behind, translate
from hostel.drivers.qemu.status import BlockJob
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.completing.disk import drop_other_places
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import BackingStore, ImageFormat, Mirror, SourceType

_LARGEST_BUFFER: Final = 2**31 - 1


class CopyCalls(Calls):
    """Copies; see :class:`hostel.drivers.base.block.BlockDriver`."""

    def domain_block_copy(
        self,
        domain: DomainRef,
        disk: str,
        xml: str,
        bandwidth: int = 0,
        granularity: int = 0,
        buf_size: int = 0,
        flags: BlockCopyFlag = BlockCopyFlag.NONE,
    ) -> None:
        """Mirror the disk to another image."""
        if granularity and granularity & (granularity - 1):
            raise _invalid_arg("granularity must be power of 2")
        if buf_size > _LARGEST_BUFFER:
            raise _invalid_arg("buf_size must be less than 2 GiB")
        wanted = _read(xml)
        translate(wanted, self._storage)
        with self._running(domain) as machine:
            found = find_disk(machine.domain, disk)
            check_free(machine, found)
            is_persistent = self._machines.definitions.has(domain.name)
            if is_persistent and not flags & BlockCopyFlag.TRANSIENT_JOB:
                raise invalid("domain is not transient; the job ends with the machine, which --transient-job allows")
            target = _target(machine, found, wanted, flags)
            job, overlay = _prepare(machine, found, target, flags)
            start(
                machine,
                job,
                "blockdev-mirror",
                device=top_node(found),
                replaces=image_node(found),  # and not what is on top of it
                target=format_node(target.number),
                sync="top" if overlay else "full",
                speed=bandwidth,
                granularity=granularity or None,
                buf_size=buf_size or None,
                copy_mode="write-blocking" if flags & BlockCopyFlag.SYNCHRONOUS_WRITES else None,
            )


def _read(xml: str) -> Disk:
    """Read a ``<disk>`` that is only a source and a format."""
    with reading(ErrorDomain.DOMAIN):
        node = parse(xml, "disk_definition")
        if node.tag != "disk":
            raise fault(ErrorCode.XML_ERROR, f"expecting root element of 'disk', not '{node.tag}'", ErrorDomain.XML)
        if node.find("target") is None:
            node.append(node.makeelement("target", {"dev": "copy"}))
        disk = Disk.from_node(node)
        drop_other_places(disk)
        return disk


def _target(machine: Running, disk: Disk, wanted: Disk, flags: BlockCopyFlag) -> Image:
    """The image that is copied to."""
    source = wanted.source
    if source is None:
        raise fault(ErrorCode.XML_ERROR, "missing <source> of the copy", ErrorDomain.DOMAIN)
    path = source.file or source.dev or ""
    if wanted.type in (SourceType.FILE, SourceType.BLOCK) and not path.startswith("/"):
        raise _invalid_arg("absolute path must be used as block copy target")
    top = next(images(disk))
    is_reused = bool(flags & BlockCopyFlag.REUSE_EXT)
    fmt = wanted.driver.type if wanted.driver is not None else None
    if fmt is None:
        fmt = _format_of(path) if is_reused and wanted.type in (SourceType.FILE, SourceType.BLOCK) else top.format
    return Image(machine.next_node(), wanted.type, source.copy(), fmt, None)


def _prepare(machine: Running, disk: Disk, target: Image, flags: BlockCopyFlag) -> tuple[BlockJob, bool]:
    """Make and open the target; returns the job's record and whether only the disk's own image is copied."""
    top = next(images(disk))
    below = list(images(disk))[1:]
    is_shallow = bool(flags & BlockCopyFlag.SHALLOW) and bool(below)
    is_reused = bool(flags & BlockCopyFlag.REUSE_EXT)
    if is_shallow and not is_reused and target.format == "raw":
        what = f"shallow copy of disk '{disk.target.dev}' into a raw file is not possible"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    is_made = _check_target(target, disk, is_reused=is_reused)
    mirror = Mirror(type=target.type, job="copy", image_format=ImageFormat(type=target.format), source=target.source)
    if target.type == SourceType.FILE:  # as older clients look for it
        mirror.file, mirror.format_name = target.path, target.format
    assert mirror.source is not None
    mirror.source.index = target.number
    if is_shallow:
        mirror.backing_store = disk.backing_store.copy() if disk.backing_store is not None else None
        if is_reused and target.type == SourceType.FILE:
            mirror.backing_store = _own_chain(machine, disk, target)
    elif target.format == "qcow2":
        mirror.backing_store = BackingStore()
    name = f"copy-{disk.target.dev}-libvirt-{top.number}-format"
    old, pool, volume = top.place
    job = BlockJob(name=name, kind="copy", disk=disk.target.dev, reuse=not is_made, old=old, pool=pool, volume=volume)
    job.stale = [target.file] if is_made and target.file is not None else []
    disk.mirror = mirror
    machine.save(jobs=(*machine.status.jobs, job))
    try:
        if is_made:
            size = _size(machine, top.number)
            create_image(target, size, machine.find_secret, backing=below[0] if is_shallow else None)
            if target.format != "raw":
                machine.note_written(target.number, target.file)
                machine.save()
        holding.hold_if_running(machine)
        with machine.supplied(disk_of(target, disk)):
            _open(machine, disk, target, mirror.backing_store)
    except BaseException:
        withdraw(machine, job)
        raise
    return job, is_shallow


def _check_target(target: Image, disk: Disk, *, is_reused: bool) -> bool:
    """Whether a file has to be made.

    Raises:
        VirtError: there is something in the way, or nothing to reuse.
    """
    if target.type not in (SourceType.FILE, SourceType.BLOCK):
        return False
    path = Path(target.path)
    try:
        there = path.exists()
        size = path.stat().st_size if there and path.is_file() else 0
    except OSError as error:
        raise system_fault(error, f"unable to access copy target '{path}'", ErrorDomain.QEMU) from error
    if not there and is_reused:
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        raise system_fault(missing, f"missing destination file for disk {disk.target.dev}: {path}", ErrorDomain.QEMU)
    if target.type == SourceType.BLOCK and there and (is_reused or not size):
        return False
    if there and not is_reused and size:
        what = f"external destination file for disk {disk.target.dev} already exists and is not a block device: {path}"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"{what}; give --reuse-external to write over it", ErrorDomain.QEMU)
    return not is_reused


def _format_of(path: str) -> str:
    """The format of an image that somebody made for the copy; no guest has written to it."""
    from hostel.drivers.storage.inspect import detect_format

    try:
        return detect_format(path) if Path(path).exists() else "raw"  # that it is missing is said below
    except OSError as error:
        raise system_fault(error, f"unable to access copy target '{path}'", ErrorDomain.QEMU) from error


def _own_chain(machine: Running, disk: Disk, target: Image) -> BackingStore | None:
    """What a target that was there before stands on, with numbers of its own."""
    chain = chain_behind(Path(target.path), target.format, disk.target.dev, target.source.slice)
    place = chain
    while place is not None and place.source is not None:
        place.index = machine.next_node()
        place = place.backing_store
    return chain


def _size(machine: Running, number: int) -> int:
    for node in machine.ask("query-named-block-nodes", flat=True):
        if node["node-name"] == format_node(number):
            return int(node["image"]["virtual-size"])
    raise fault(ErrorCode.INTERNAL_ERROR, f"QEMU has no image number {number}", ErrorDomain.QEMU)


def _open(machine: Running, disk: Disk, target: Image, below: BackingStore | None) -> None:
    """Add the target's nodes, on those of the chain where these are there already."""
    there = {node["node-name"] for node in machine.ask("query-named-block-nodes", flat=True)}
    specs = image_nodes(disk, target.type, target.source, target.format, target.number)
    if target.format == "qcow2":
        specs[-1]["backing"] = format_node(below.index) if below is not None and below.source is not None else None
    place = below
    lower: list[dict[str, Any]] = []
    while place is not None and place.source is not None and place.type is not None:
        fmt = place.image_format.type if place.image_format is not None else "raw"
        if format_node(place.index) not in there:
            nodes = image_nodes(disk, place.type, place.source, fmt, place.index)
            nodes[-1]["read-only"] = True
            behind = place.backing_store
            if fmt == "qcow2":
                nodes[-1]["backing"] = format_node(behind.index) if behind is not None and behind.source else None
            lower = nodes + lower
        place = place.backing_store
    add_nodes(machine, [*lower, *specs])


def _invalid_arg(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message, ErrorDomain.QEMU)
