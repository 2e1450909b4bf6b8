"""What looking at an image finds: findings by level, and all that is known of the image."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, NamedTuple

from hostel.block.content import Content
from hostel.block.node import BlockNode
from hostel.img.foreign import Claim


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
