"""The entries of Xen's configuration: truth values are numbers, and numbers may be texts."""

from __future__ import annotations

from typing import Final

from hostel.codec.assignments import Assignment, Dialect, Value, format_assignments, parse
from hostel.codec.xml import UUID
from hostel.errors import ErrorCode
from hostel.model.native.settings import Settings, refused, whole_number

_MOST: Final = 1024  # devices of a kind
_LONGEST: Final = 16384  # characters of one


class Entries(Settings):
    """A file's entries."""

    def number(self, name: str, default: int, high: int = 2**53) -> int:
        """A number that is not negative.

        Raises:
            ModelError: it is none.
        """
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, list):
            raise refused(name, f"config value {name} was malformed")
        return whole_number(name, str(value), 0, high)

    def boolean(self, name: str, *, default: bool) -> bool:
        """A truth value; in a text, 1 is true.

        Raises:
            ModelError: it is a list.
        """
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, list):
            raise refused(name, f"config value {name} was malformed")
        return value == "1" if isinstance(value, str) else bool(value)

    def texts(self, name: str) -> list[str]:
        """The texts of a list; none where it is no list.

        Raises:
            ModelError: something else is among them.
        """
        value = self.value(name)
        if not isinstance(value, list):
            return []
        if len(value) > _MOST or any(isinstance(item, str) and len(item) > _LONGEST for item in value):
            reason = f"more than {_MOST} entries, or one of more than {_LONGEST} characters"
            raise refused(name, reason, code=ErrorCode.CONF_SYNTAX)
        if not all(isinstance(item, str) for item in value):
            raise refused(name, "must be a list of texts", code=ErrorCode.CONF_SYNTAX)
        return [str(item) for item in value]

    def uuid(self, name: str) -> str | None:
        """An identifier.

        Raises:
            ModelError: it is none.
        """
        text = self.text(name)
        if text is None:
            return None
        try:
            return UUID.parse(text)
        except ValueError:
            raise refused(name, f"{text} not parseable", code=ErrorCode.CONF_SYNTAX) from None


def read_entries(text: str) -> Entries:
    """Read a file.

    Raises:
        ModelError: it is none.
    """
    return Entries(parse(text, Dialect.XEN))


def pairs(name: str, text: str) -> dict[str, str]:
    """The options of ``key=value,key=value``.

    Raises:
        ModelError: a value is missing.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip(" \t").partition("=")
        if not equals:
            raise refused(name, f"'{part}' of '{text}' has no value", code=ErrorCode.CONF_SYNTAX)
        found[key] = value
    return found


def no_comma(path: str, text: str) -> str:
    """A text that stands between commas.

    Raises:
        ModelError: it has one itself.
    """
    if "," in text:
        reason = f"'{text}' has a comma, which Xen's configuration cannot say"
        raise refused(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return text


class EntryWriter:
    """Entries that are written one after the other; a name is there once, with its last value."""

    def __init__(self) -> None:
        self._entries: dict[str, Value] = {}

    def add(self, name: str, value: str | int | bool | list[Value] | None) -> None:
        """Write an entry; nothing for None and for an empty list."""
        if value is None or value == []:
            return
        self._entries[name] = int(value) if isinstance(value, bool) else value

    def text(self) -> str:
        """The file.

        Raises:
            ModelError: a text has no spelling.
        """
        return format_assignments(Assignment(name, value) for name, value in self._entries.items())
