"""Machines whose memory is kept in a file while they do not run."""

from __future__ import annotations

import enum
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef, DomainXmlFlag
from hostel.drivers.base.storage import Progress


class SaveFlag(enum.IntFlag):
    """``virDomainSaveRestoreFlags``."""

    NONE = 0
    BYPASS_CACHE = 1
    RUNNING = 2
    PAUSED = 4
    RESET_NVRAM = 8


@runtime_checkable
class SaveDriver(Protocol):
    """Saving and restoring; ``RUNNING`` and ``PAUSED`` say how the machine goes on, in place of how it was."""

    def domain_save_flags(
        self,
        domain: DomainRef,
        to: str,
        xml: str | None = None,
        flags: SaveFlag = SaveFlag.NONE,
        progress: Progress | None = None,
    ) -> None:
        """Write memory and document to a file, and end the machine."""

    def domain_restore_flags(self, source: str, xml: str | None = None, flags: SaveFlag = SaveFlag.NONE) -> DomainRef:
        """Start a machine from a file, which stays."""

    def domain_save_image_get_xml_desc(self, file: str, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document in a file."""

    def domain_save_image_define_xml(self, file: str, xml: str, flags: SaveFlag = SaveFlag.NONE) -> None:
        """Change the document in a file."""

    def domain_managed_save(
        self, domain: DomainRef, flags: SaveFlag = SaveFlag.NONE, progress: Progress | None = None
    ) -> None:
        """Save to a file of the driver's, which the next start of the domain goes on from."""

    def domain_has_managed_save_image(self, domain: DomainRef) -> bool:
        """Whether there is such a file."""

    def domain_managed_save_remove(self, domain: DomainRef) -> None:
        """Remove it: the next start is a boot."""

    def domain_managed_save_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document in it."""

    def domain_managed_save_define_xml(self, domain: DomainRef, xml: str, flags: SaveFlag = SaveFlag.NONE) -> None:
        """Change the document in it."""
