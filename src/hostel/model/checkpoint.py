"""The document of a domain's checkpoint (``virDomainCheckpointDefFormat``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hostel.codec.xml import Element, attr, child, children, choice, integer, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk import is_empty
from hostel.model.moment import CREATION_TIME, DomainReference, MomentParent

# It becomes the name of a file: checkpointName in libvirt's domaincheckpoint.rng.
_NAME: Final = re.compile(r"[a-zA-Z0-9_\-][a-zA-Z0-9_\-.]*")


class CheckpointDisk(Element, tag="disk"):
    """Whether changes of a disk are written down, and in which bitmap; ``size`` in bytes, while it is known."""

    name: str = attr()
    checkpoint: str | None = attr(choice("no", "bitmap"), default=None)
    bitmap: str | None = attr(default=None)
    size: int | None = attr(integer(maximum=2**64 - 1), default=None)


class CheckpointDisks(Element, tag="disks", drop_empty=True):
    """The disks."""

    disks: list[CheckpointDisk] = children(CheckpointDisk, factory=list)


class Checkpoint(Element, tag="domaincheckpoint"):
    """A checkpoint; ``creation_time`` in seconds since 1970."""

    name: str | None = text(default=None)
    description: str | None = text(default=None)
    parent: MomentParent | None = child(MomentParent, default=None)
    creation_time: int | None = text(CREATION_TIME, tag="creationTime", default=None)
    disks: CheckpointDisks = child(CheckpointDisks, factory=CheckpointDisks)
    domain: Element | None = child(DomainReference, Domain, default=None)


def read_checkpoint(xml: str, *, now: int | None, redefine: bool = False) -> Checkpoint:
    """Read a checkpoint's document and complete it: a new one, made ``now``, or one that is defined again.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    checkpoint = Checkpoint.parse(xml, "domain_checkpoint")
    complete(checkpoint, now=now, redefine=redefine)
    validate(checkpoint, redefine=redefine)
    return checkpoint


def complete(checkpoint: Checkpoint, *, now: int | None, redefine: bool = False) -> None:
    """Say what was left out; what a new checkpoint cannot know yet is left out."""
    if not redefine:
        checkpoint.creation_time = now
        checkpoint.name = checkpoint.name or (None if now is None else str(now))
        checkpoint.parent = checkpoint.domain = None
    for disk in checkpoint.disks.disks:
        disk.checkpoint = disk.checkpoint or "bitmap"
        disk.size = None


def align(checkpoint: Checkpoint, disks: Sequence[Disk]) -> None:
    """Say of every disk of the domain whether its changes are written down (``virDomainCheckpointAlignDisks``).

    Raises:
        ModelError: a disk is not the domain's, is named twice, or has nothing that could change.
    """
    here = "/domaincheckpoint/disks"
    if len(checkpoint.disks.disks) > len(disks):
        raise _impossible(here, "too many disk checkpoint requests for domain")
    if not disks:
        raise _impossible(here, "domain must have at least one disk to perform checkpoints")
    asked: dict[str, CheckpointDisk] = {}
    for number, wanted in enumerate(checkpoint.disks.disks, 1):
        path = f"{here}/disk[{number}]"
        disk = next((each for each in disks if wanted.name in _names(each)), None)
        if disk is None:
            raise _impossible(path, f"no disk named '{wanted.name}'")
        if disk.target.dev in asked:
            raise _impossible(path, f"disk '{wanted.name}' specified twice")
        if _is_fixed(disk) and wanted.checkpoint != "no":
            raise _impossible(path, f"disk '{wanted.name}' is empty or readonly")
        wanted.name = disk.target.dev
        asked[disk.target.dev] = wanted
    default = "no" if asked else "bitmap"
    checkpoint.disks.disks = [
        asked.get(disk.target.dev)
        or CheckpointDisk(name=disk.target.dev, checkpoint="no" if _is_fixed(disk) else default)
        for disk in disks
    ]
    name_bitmaps(checkpoint)


def name_bitmaps(checkpoint: Checkpoint) -> None:
    """Bitmaps have the checkpoint's name, where no other is said."""
    for disk in checkpoint.disks.disks:
        if disk.checkpoint == "bitmap":
            disk.bitmap = disk.bitmap or checkpoint.name


def _is_fixed(disk: Disk) -> bool:
    return is_empty(disk) or disk.readonly


def _names(disk: Disk) -> tuple[str | None, ...]:
    source = disk.source
    return (disk.target.dev,) if source is None else (disk.target.dev, source.file, source.dev)


def _impossible(path: str, reason: str) -> ModelError:
    return ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def prepare_again(checkpoint: Checkpoint, uuid: str) -> None:
    """Complete a checkpoint that is defined again, of the domain of a UUID (``virDomainCheckpointRedefinePrep``).

    Raises:
        ModelError: it is another domain's, or says of its disks what cannot be.
    """
    if not isinstance(checkpoint.domain, Domain):
        name_bitmaps(checkpoint)
        return
    if checkpoint.domain.uuid not in (None, uuid):
        reason = f"definition for checkpoint {checkpoint.name} must use uuid {uuid}"
        raise ModelError("/domaincheckpoint/domain/uuid", reason, code=ErrorCode.INVALID_ARG)
    align(checkpoint, checkpoint.domain.devices.disks)


def validate(checkpoint: Checkpoint, *, redefine: bool = False) -> None:
    """Hold a completed checkpoint against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    here = "/domaincheckpoint"
    parent = checkpoint.parent.name if checkpoint.parent is not None else None
    for path, name in ((f"{here}/name", checkpoint.name), (f"{here}/parent/name", parent)):
        if name is not None and not _NAME.fullmatch(name):
            reason = f"the name '{name}' cannot be that of a file; write letters, digits, and _ - ."
            raise ModelError(path, reason, code=ErrorCode.XML_INVALID_SCHEMA)
    if redefine and checkpoint.name is None:
        raise ModelError(f"{here}/name", "a redefined checkpoint must have a name")
    if redefine and checkpoint.creation_time is None:
        reason = "missing creationTime from existing checkpoint"
        raise ModelError(f"{here}/creationTime", reason, code=ErrorCode.INTERNAL_ERROR)
