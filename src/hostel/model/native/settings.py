"""What a native configuration says, by name and as the type that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hostel.codec.assignments import Assignment, Value
from hostel.codec.xmlvalue import read_integer
from hostel.errors import ErrorCode, ModelError


def refused(name: str, reason: str, *, code: ErrorCode = ErrorCode.INTERNAL_ERROR) -> ModelError:
    """The error about one setting; its name is the path."""
    return ModelError(name, reason, code=code)


def whole_number(name: str, text: str, low: int = -(2**63), high: int = 2**63 - 1, *, base: int = 10) -> int:
    """Read a number that a setting has in its text; with ``base`` 0 as C writes numbers.

    Raises:
        ModelError: it is none, or not between ``low`` and ``high``.
    """
    try:
        number = read_integer(text, base) if len(text) <= 32 else None
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise refused(name, f"must represent an integer value, not '{text[:64]}'")
    return number


class Settings:
    """Assignments by name; of several with one name the first counts.

    Args:
        assignments: in the order of the file.
        ignores_case: whether names that differ in case only are one.
    """

    def __init__(self, assignments: Iterable[Assignment], *, ignores_case: bool = False) -> None:
        self._fold = str.lower if ignores_case else str
        self._all = list(assignments)
        self._first: dict[str, Assignment] = {}
        for item in self._all:
            self._first.setdefault(self._fold(item.name), item)

    def __iter__(self) -> Iterator[Assignment]:
        return iter(self._all)

    def names(self) -> Iterator[str]:
        """Every name once, as names are compared."""
        return iter(self._first)

    def value(self, name: str) -> Value | None:
        """What a name stands for; None where it is not there."""
        found = self._first.get(self._fold(name))
        return None if found is None else found.value

    def text(self, name: str) -> str | None:
        """A text.

        Raises:
            ModelError: it is a number or a list.
        """
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            raise refused(name, "must be a text in quotation marks", code=ErrorCode.CONF_SYNTAX)
        return value

    def needed_text(self, name: str) -> str:
        """A text that must be there.

        Raises:
            ModelError: it is not.
        """
        value = self.text(name)
        if value is None:
            raise refused(name, "Missing essential config entry")
        return value
