"""Domains that are started with open files, which containers are; QEMU's machines are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef, StartFlag


@runtime_checkable
class FilesDriver(Protocol):
    """The files are the caller's, and closed by it."""

    def domain_create_with_files(
        self, domain: DomainRef, files: Sequence[int], flags: StartFlag = StartFlag.NONE
    ) -> DomainRef:
        """Start a defined domain, which gets these descriptors."""

    def domain_create_xml_with_files(
        self, xml: str, files: Sequence[int], flags: StartFlag = StartFlag.NONE
    ) -> DomainRef:
        """Start a transient domain, which gets these descriptors."""


@runtime_checkable
class AssociationDriver(Protocol):
    """Keeps open files that stand for images."""

    def domain_fd_associate(self, domain: DomainRef, name: str, files: Sequence[int]) -> None:
        """Keep copies of open files for the images of a domain that name the group; the files are the caller's."""
