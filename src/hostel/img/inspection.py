"""What looking at an image finds: findings by level, and all that is known of the image."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, NamedTuple

from hostel.block.content import Content
from hostel.block.node import BlockNode
from hostel.img.foreign import Claim
from hostel.img.ova import Disk


class Level(enum.Enum):
    """How much a finding matters."""

    UNSAFE = "unsafe"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """Something that was found.

    Attributes:
        level: whether it makes the image unsafe.
        code: a fixed word that programs match on; ``docs/inspect.md`` lists them.
        message: for people. Names in it are the image's own bytes: whoever prints it escapes them.
    """

    level: Level
    code: str
    message: str


class Inside(NamedTuple):
    """What is in a compressed file.

    Attributes:
        wrapper: what it is packed with.
        format: what the first bytes are of; ``raw`` where nothing is recognised.
        size: bytes, by what the file says of itself; None where it does not.
        largest: bytes that it can hold at most; None where only unpacking tells.
        virtual_size: bytes of the disk, by the header of the image inside.
    """

    wrapper: str
    format: str
    size: int | None
    largest: int | None
    virtual_size: int | None


class ArchivedDisk(NamedTuple):
    """A disk in an archive.

    Attributes:
        disk: what the description says, and where it lies.
        format: by its content.
        virtual_size: bytes; None where unknown.
    """

    disk: Disk
    format: str
    virtual_size: int | None

    def options(self, path: str) -> str:
        """How ``--image-opts`` calls it."""
        name = path.replace(",", ",,")
        place = f"file.driver=raw,file.offset={self.disk.offset},file.size={self.disk.window}"
        return f"driver={self.format},{place},file.file.filename={name}"

    def to_json(self, path: str) -> dict[str, Any]:
        """The same for programs; what is unknown is left out."""
        found = {
            "filename": self.disk.name,
            "format": self.format,
            "offset": self.disk.offset,
            "size": self.disk.window,
            "capacity": self.disk.capacity,
            "virtual-size": self.virtual_size,
            "image-opts": self.options(path),
        }
        return {key: value for key, value in found.items() if value is not None}


class Inspection(NamedTuple):
    """What is known of an image.

    Attributes:
        filename: as given.
        format: by content; ``raw`` where no format is recognised.
        expected: the format that it should be of; None where the caller did not say.
        formats: every format that it can be taken for, besides raw.
        file_size: bytes of the file.
        actual_size: bytes that it occupies on the host.
        virtual_size: bytes that a guest would see; None where unknown.
        names: the other files that it names.
        snapshots: internal ones; None where unknown.
        encrypted: its data is.
        content: what the guest's first bytes are; None where they were not looked at.
        inside: what a compressed file holds; None for any other.
        disks: those of an OVA; None for any other file.
        findings: the unsafe ones first.
    """

    filename: str
    format: str
    expected: str | None
    formats: tuple[str, ...]
    file_size: int
    actual_size: int
    virtual_size: int | None
    names: tuple[Claim, ...]
    snapshots: int | None
    encrypted: bool
    content: Content | None
    inside: Inside | None
    disks: tuple[ArchivedDisk, ...] | None
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Level:
        """The level of the worst finding; ``NOTE`` for an image that is safe without reserve."""
        return self.findings[0].level if self.findings else Level.NOTE

    @property
    def ratio(self) -> int | None:
        """How many times larger than the file the disk is, rounded up: what a full copy of it would take."""
        return -(-self.virtual_size // max(1, self.file_size)) if self.virtual_size is not None else None

    def to_json(self) -> dict[str, Any]:
        """The same for programs; what is unknown is left out."""
        content = self.content or Content()
        found = {
            "filename": self.filename,
            "verdict": {Level.NOTE: "safe"}.get(self.verdict, self.verdict.value),
            "format": self.format,
            "expected-format": self.expected,
            "matching-formats": self.formats,
            "file-size": self.file_size,
            "actual-size": self.actual_size,
            "virtual-size": self.virtual_size,
            "size-ratio": self.ratio,
            "references": [
                {key: value for key, value in each._asdict().items() if value is not None} for each in self.names
            ],
            "snapshots": self.snapshots,
            "encrypted": self.encrypted,
            "partition-table": content.table,
            "partitions": content.partitions if content.table else None,
            "filesystem": content.filesystem,
            "first-partition-filesystem": content.first_filesystem,
            "wrapper": self.inside and self.inside.wrapper,
            "inner-format": self.inside and self.inside.format,
            "inner-virtual-size": self.inside and self.inside.virtual_size,
            "unpacked-size": self.inside and self.inside.size,
            "largest-unpacked-size": self.inside and self.inside.largest,
            "disks": None if self.disks is None else [each.to_json(self.filename) for each in self.disks],
            "findings": [each._asdict() | {"level": each.level.value} for each in self.findings],
        }
        return {key: value for key, value in found.items() if value is not None}


class Look:
    """One look at one file: what is known so far."""

    def __init__(self, file: BlockNode) -> None:
        self.file = file
        self.length = file.length
        self.findings: list[Finding] = []
        self.names: list[Claim] = []
        self.virtual_size: int | None = None
        self.snapshots: int | None = None
        self.snapshot_size = 0  # the largest virtual size that a snapshot records
        self.encrypted = False
        self.content: Content | None = None

    def add(self, level: Level, code: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, code, message))

    def read(self, offset: int, length: int) -> bytes:
        """Read the file; fewer bytes where it ends."""
        length = max(0, min(length, self.length - offset))
        return bytes(self.file.read(offset, length)) if length else b""

    def name(self, claims: Iterable[Claim]) -> None:
        """Add what the image names."""
        self.names += [claim for claim in claims if claim not in self.names]

    @property
    def is_safe(self) -> bool:
        """Whether nothing unsafe has been found yet; to name another file is unsafe."""
        return not self.names and all(each.level is not Level.UNSAFE for each in self.findings)
