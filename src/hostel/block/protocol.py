"""What a protocol other than ``file`` writes."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from hostel.block.driver import BlockDriver, OpenMode


class ProtocolDriver(BlockDriver):
    """A protocol other than ``file``: opened on what its options name.

    Attributes:
        filename: how QEMU calls what was opened.
        creates: an image can be created in it, or in place of what is there.
    """

    filename: str
    creates: ClassVar[bool] = True

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
