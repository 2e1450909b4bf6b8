"""What a protocol other than ``file`` writes."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from hostel.block.driver import BlockDriver, OpenMode
from hostel.block.extent import Extent, Status
from hostel.block.options import OptionError, as_text


class Creation(enum.Enum):
    """What becomes of an image that is created."""

    NONE = "none"  # it is refused
    IN_PLACE = "in place"  # it is laid out in what is there, which keeps its size
    NEW = "new"  # a file is made, or emptied


class ProtocolDriver(BlockDriver):
    """A protocol other than ``file``: opened on what its options name.

    Attributes:
        filename: how QEMU calls what was opened.
        creation: what becomes of an image that is created under one of its names.
    """

    filename: str
    creation: ClassVar[Creation] = Creation.IN_PLACE

    @classmethod
    @abc.abstractmethod
    def parse_filename(cls, name: str) -> Mapping[str, Any]:
        """The options that a name with one of the protocol's schemes stands for.

        Raises:
            OptionError: it is no such name.
        """

    @classmethod
    @abc.abstractmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Open what the options name; ``creating`` to lay out an image in it.

        Raises:
            OptionError: an option is unknown, missing or wrong.
            BlockError: it cannot be opened.
        """

    @classmethod
    def converted(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options by their kinds, with the defaults of the others.

        Raises:
            OptionError: one is unknown or wrong.
        """
        for name in given:
            if name not in cls.options:
                raise OptionError(f"Block protocol '{cls.name}' doesn't support the option '{name}'")
        return dict(cls.options.convert({name: as_text(value) for name, value in given.items()}))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Nothing but data, each byte at its own place: most protocols tell no holes."""
        yield Extent(offset, length, Status.DATA | Status.ALLOCATED, offset)
