"""What a protocol other than ``file`` writes."""

from __future__ import annotations

import abc
import enum
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

from hostel.block.driver import BlockDriver, OpenMode
from hostel.block.extent import Extent, Status
from hostel.block.options import Kind, Option, OptionError, Options, as_text

SIZE: Final = Option("size", Kind.SIZE, "Virtual disk size")
_INDEX: Final = r"\.\d+(?=\.|$)"
_NO_PREALLOCATION: Final = "Preallocation mode (allowed values: off)"


class Creation(enum.Enum):
    """What becomes of an image that is created."""

    NONE = "none"  # it is refused
    IN_PLACE = "in place"  # it is laid out in what is there, which keeps its size
    NEW = "new"  # a file is made, or emptied


def items(values: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list among options, ``name.0.key`` or ``name.0``, whose items are then of one key, which is empty.

    Raises:
        OptionError: a number is left out.
    """
    found: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        if key.startswith(f"{name}."):
            number, _, rest = key.removeprefix(f"{name}.").partition(".")
            if number.isdecimal():
                found.setdefault(int(number), {})[rest] = value
    numbers = sorted(found)
    if numbers != list(range(len(numbers))):
        raise OptionError(f"List indices are not contiguous, saw {len(found)} elements but {numbers[-1]} largest index")
    return [found[index] for index in numbers]


class ProtocolDriver(BlockDriver):
    """A protocol other than ``file``: opened on what its options name.

    Attributes:
        filename: how QEMU calls what was opened.
        creation: what becomes of an image that is created under one of its names.
        create_options: what can be asked for then, beside the format's own options.
        options: at run time; of a list (``server.0.host``, ``server.1.host``) the first item's are declared.
        unknown: what is said of an option that is none of these.
    """

    filename: str
    creation: ClassVar[Creation] = Creation.IN_PLACE
    create_options: ClassVar[Options] = Options(SIZE, Option("preallocation", Kind.STRING, _NO_PREALLOCATION))
    unknown: ClassVar[str] = "Block protocol '{protocol}' doesn't support the option '{name}'"

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
        """Open what the options name; ``creating`` to lay out an image in it, with what ``mode.options`` ask for.

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
        values: dict[str, Any] = {
            option.name: option.convert(option.default) for option in cls.options if option.default is not None
        }
        for name, value in given.items():
            declared = re.sub(_INDEX, ".0", name, flags=re.ASCII)
            if declared not in cls.options:
                raise OptionError(cls.unknown.format(protocol=cls.name, name=name))
            values[name] = cls.options[declared]._replace(name=name).convert(as_text(value))
        return values

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Nothing but data, each byte at its own place: most protocols tell no holes."""
        yield Extent(offset, length, Status.DATA | Status.ALLOCATED, offset)
