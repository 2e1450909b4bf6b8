"""Names of files in a ``.vmx`` file, which an ESX server resolves by its datastores."""

from __future__ import annotations

from typing import Protocol


class FileNames(Protocol):
    """Turns names in the file into those in the document, and back."""

    def read(self, name: str, *, may_be_missing: bool) -> str | None:
        """The document's name; None for a medium that is not there, where that may be.

        Raises:
            ModelError: there is no such file.
        """

    def write(self, source: str) -> str:
        """The file's name.

        Raises:
            ModelError: the document's is none that VMware could find.
        """


class PlainFileNames:
    """Names are the same on both sides: Workstation, Player and Fusion."""

    def read(self, name: str, *, may_be_missing: bool) -> str | None:
        """The same name."""
        return name

    def write(self, source: str) -> str:
        """The same name."""
        return source
