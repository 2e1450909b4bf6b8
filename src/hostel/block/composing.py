"""The powers of formats whose images are more than one file, or take more than plain writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from hostel.block.options import Value
from hostel.errors import UnsupportedFeature

if TYPE_CHECKING:
    from hostel.block.node import BlockNode


class Surroundings:
    """What a new image may have besides its own file; here, nothing."""

    def new_file(self, name: str) -> BlockNode:
        """Create a file beside the image's own, open for writing; its name begins with the folder of that one.

        Raises:
            BlockError: the host refuses.
        """
        raise UnsupportedFeature(f"'{name}' cannot be created here: the image must lie in one file")

    def backing(self) -> BlockNode:
        """Open the image that the options name as backing file, without what it stands on.

        Raises:
            BlockError: it cannot be opened.
        """
        raise UnsupportedFeature("The backing file cannot be opened here")


@runtime_checkable
class Composing(Protocol):
    """A format whose new images look at more than their own file: the class itself has this power."""

    @classmethod
    def compose(cls, file: BlockNode, size: int, options: Mapping[str, Value], around: Surroundings) -> None:
        """As :meth:`Creatable.create`, with other files in reach."""

    @classmethod
    def parts(cls, filename: str, size: int, options: Mapping[str, Value]) -> list[str]:
        """The names of the files that :meth:`compose` makes beside the image's own, whose name is ``filename``."""


@runtime_checkable
class AlwaysCompressing(Protocol):
    """Knows whether it takes compressed clusters only."""

    @property
    def always_compresses(self) -> bool:
        """Whether a write is one whole cluster that is compressed, whatever was asked for."""
