"""Which locks a machine's document stands for, and which machine of this host has one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from hostel.cause.holder import describe
from hostel.codec.xmltext import parse
from hostel.drivers.qemu.block.chain import Image, images, mirror_image
from hostel.drivers.qemu.lockmanager.manager import Claim, LockManager, Owner
from hostel.drivers.qemu.status import BlockJob, Plug
from hostel.errors import ModelError, VirtError
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain

_LOCKED: Final = (SourceType.FILE, SourceType.BLOCK, SourceType.DIR)  # what is on this host, and has a path


def claims_of(
    manager: LockManager, domain: Domain, plugs: Sequence[Plug] = (), jobs: Sequence[BlockJob] = ()
) -> Iterator[Claim]:
    """The locks that a machine needs while its guest may run: its leases, and each image that is written to.

    Args:
        manager: who keeps them.
        domain: the live document.
        plugs: what is on its way, as images that are about to be a disk's.
        jobs: block jobs, which write to images that are no disk's own.

    Raises:
        VirtError: a lease is not one for this lock manager.
    """
    for lease in domain.devices.leases:
        yield manager.of_lease(lease)
    disks = [*domain.devices.disks, *(plug.disk for plug in plugs if plug.disk is not None)]
    found = [(disk, image) for disk in disks for image in _written(disk, jobs)]
    seen: set[tuple[str, bool]] = set()
    for disk, image in found:
        if image.type in _LOCKED and image.path and (image.path, disk.shareable) not in seen:
            seen.add((image.path, disk.shareable))
            claim = manager.of_image(image.path, shared=disk.shareable)
            if claim is not None:
                yield claim


def has_disks_of_its_own(domain: Domain) -> bool:
    """Whether a machine writes to disks that no other may have."""
    return any(
        image.type in _LOCKED and image.path and not disk.shareable
        for disk in domain.devices.disks
        for image in _written(disk, ())
    )


def _written(disk: Disk, jobs: Iterable[BlockJob]) -> Iterator[Image]:
    """The images of a disk that are written to."""
    if disk.readonly or disk.device == DiskDevice.CDROM:
        return
    chain = list(images(disk))
    yield from chain[:1]
    if (mirror := mirror_image(disk)) is not None:
        yield mirror
    for job in jobs:
        if job.kind == "commit" and job.disk == disk.target.dev and not job.ended:
            over = next((index for index, image in enumerate(chain) if image.number == job.top), 0)
            yield from chain[max(over - 1, 1) : max(over, 1)]  # which gets another one below
            yield from (image for image in chain if image.number == job.base)


def holder_of(manager: LockManager, claim: Claim, owner: Owner, folders: Iterable[Path]) -> str:
    """Say which machine of this host has a lock, as far as states of machines tell, ours and libvirt's.

    Args:
        manager: who keeps it.
        claim: the lock.
        owner: who wanted it.
        folders: where states of machines are.
    """
    found = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.xml"))):
        with contextlib.suppress(OSError, ValueError, ModelError, VirtError):
            node = parse(path.read_text(), "domstatus")
            pid, domain = int(node.get("pid") or 0), node.find("domain")
            if pid in (0, owner.pid) or domain is None or not Path(f"/proc/{pid}").exists():
                continue
            others = claims_of(manager, Domain.from_node(domain))
            if any((other.space, other.name) == (claim.space, claim.name) for other in others):
                found.append(describe(pid))
    if found:
        return f"it is held by {', '.join(found)}"
    return "no machine of this host is seen to hold it: another host may, or a program that is none"
