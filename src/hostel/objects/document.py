"""What may be given where a document is asked for: XML text, or a model that can write itself as XML."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Document(Protocol):
    """A model of a document, such as those of :mod:`hostel.model`."""

    def format(self) -> str:
        """The document as XML."""


def xml_of(document: str | Document) -> str:
    """The XML text of a document."""
    return document if isinstance(document, str) else document.format()
