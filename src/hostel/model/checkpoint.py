"""The document of a domain's checkpoint (``virDomainCheckpointDefFormat``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.codec.xml import Element, attr, child, children, choice, integer, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.domain import Domain
from hostel.model.moment import INTEGER_64, DomainReference, MomentParent

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
    creation_time: int | None = text(integer(-INTEGER_64, INTEGER_64), tag="creationTime", default=None)
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
