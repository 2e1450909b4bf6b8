"""The entries of a ``.vmx`` file: every value is a text, names do not depend on case, and some are escaped."""

from __future__ import annotations

import re
from typing import Final

from hostel.codec.assignments import Dialect, parse
from hostel.errors import ErrorCode
from hostel.model.native.settings import Settings, refused, whole_number

_UUID_BYTES: Final = 16


class Entries(Settings):
    """A file's entries."""

    def number(self, name: str, default: int) -> int:
        """A number; ``unlimited`` is -1.

        Raises:
            ModelError: it is none.
        """
        text = self.text(name)
        if text is None:
            return default
        return -1 if text.lower() == "unlimited" else whole_number(name, text)

    def needed_number(self, name: str) -> int:
        """A number that must be there.

        Raises:
            ModelError: it is not, or is none.
        """
        self.needed_text(name)
        return self.number(name, 0)

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false.

        Raises:
            ModelError: it is neither.
        """
        text = self.text(name)
        if text is None:
            return default
        if text.lower() not in ("true", "false"):
            raise refused(name, f"must represent a boolean value (true|false), not '{text}'")
        return text.lower() == "true"

    def uuid(self, name: str) -> str | None:
        """An identifier in its usual spelling.

        Raises:
            ModelError: it is none.
        """
        text = self.text(name)
        return None if text is None else parse_uuid(name, text)


def read_entries(text: str) -> Entries:
    """Read a file, in the encoding that it names.

    Args:
        text: the file's bytes as UTF-8, with surrogates where they are none.

    Raises:
        ModelError: it is no such file, or its encoding is not known.
    """
    entries = Entries(parse(text, Dialect.VMX), ignores_case=True)
    encoding = entries.text(".encoding") or "UTF-8"
    if encoding.lower() == "utf-8":
        return entries
    try:
        decoded = text.encode("utf-8", "surrogateescape").decode(encoding)
    except (LookupError, UnicodeError):
        raise refused(".encoding", f"Could not convert from {encoding} to UTF-8 encoding") from None
    return Entries(parse(decoded, Dialect.VMX), ignores_case=True)


def unescape(name: str, text: str, mark: str) -> str:
    """Undo :func:`escape`.

    Raises:
        ModelError: two hexadecimal digits are missing after a mark.
    """
    parts = text.encode("utf-8", "surrogateescape").split(mark.encode())
    result = bytearray(parts[0])
    for part in parts[1:]:
        digits = part[:2].decode("latin-1")
        if not re.fullmatch("[0-9a-fA-F]{2}", digits):
            raise refused(name, f"contains invalid escape sequence after '{mark}'")
        result += bytes.fromhex(digits) + part[2:]
    return result.decode("utf-8", "surrogateescape")


def escape(text: str, mark: str, special: str) -> str:
    """Write a mark and two hexadecimal digits for the mark itself and for special characters."""
    return "".join(f"{mark}{ord(char):02x}" if char == mark or char in special else char for char in text)


def parse_uuid(name: str, text: str) -> str:
    """Read an identifier as VMware writes it: pairs of digits with blanks, and a hyphen in the middle.

    Raises:
        ModelError: it is none.
    """
    digits = re.sub("[ -]", "", text).lower()
    if not re.fullmatch("[0-9a-f]{32}", digits):
        raise refused(name, f"Could not parse UUID from string '{text}'")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def format_uuid(uuid: str) -> str:
    """Write an identifier as VMware does."""
    digits = uuid.replace("-", "")
    pairs = [digits[at : at + 2] for at in range(0, 2 * _UUID_BYTES, 2)]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])


class EntryWriter:
    """Entries that are written one after the other."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, value: str | int | bool) -> None:
        """Write an entry.

        Raises:
            ModelError: the value has a quotation mark or a line end, for which the format has no spelling.
        """
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if any(char in text for char in '"\r\n'):
            reason = f"cannot be written: {text!r} has a quotation mark or a line end"
            raise refused(name, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        self._lines.append(f'{name} = "{text}"\n')

    def text(self) -> str:
        """The file."""
        return "".join(self._lines)
