"""How long the images are that a snapshot left as they were: one of another length is not what it kept.

Where it is the same, nobody can tell an image from another one that was put in its place; libvirt never looks.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.block.create import length_of
from hostel.drivers.qemu.snapshot.catalog import Catalog
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot

if TYPE_CHECKING:
    from hostel.drivers.qemu.snapshot.calls import SnapshotCalls


class Length(NamedTuple):
    """What the guest's disk was long, and in which image.

    Attributes:
        disk: the disk's target.
        path: the image.
        length: in bytes.
    """

    disk: str
    path: str
    length: int


def remember(catalog: Catalog, snapshot: str, disks: Iterable[Disk]) -> None:
    """Write down how long the images of disks are, which a snapshot leaves as they are; where it can be told."""
    with contextlib.suppress(VirtError):
        tops = [(disk.target.dev, top) for disk in disks for top in itertools.islice(images(disk), 1)]
        if found := [(name, top.path, length_of(top)) for name, top in tops]:
            catalog.set_lengths(snapshot, found)


def check(calls: SnapshotCalls, catalog: Catalog, snapshot: Snapshot, *, force: bool) -> None:
    """Make sure before a machine is stopped that there is what it is to go on from.

    Raises:
        VirtError: an image is not there, or is none of its format; ``SNAPSHOT_REVERT_RISKY``: it is not as long as it
            was, unless that is to be passed over.
    """
    names = {disk.name for disk in snapshot.disks.disks if disk.snapshot == "external"}
    known = {disk: Length(disk, path, length) for disk, path, length in catalog.lengths(snapshot.name or "")}
    assert isinstance(snapshot.domain, Domain)
    for disk in calls.resolved_disks(snapshot.domain, names):
        top = next(images(disk), None)
        if top is None:
            continue
        length, was = length_of(top), known.get(disk.target.dev)
        if was is not None and was.path == top.path and was.length != length and not force:
            what = f"'{top.path}' of disk '{disk.target.dev}' has {length} bytes, and had {was.length} when snapshot "
            what += f"'{snapshot.name}' was taken: it was resized, or another image was put in its place"
            raise VirtError(ErrorCode.SNAPSHOT_REVERT_RISKY, f"revert requires force: {what}", domain=ErrorDomain.QEMU)
