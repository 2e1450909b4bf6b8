"""Command lines as text: split as libvirt splits bhyve's, and quoted for a shell."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode, ModelError

_LIMIT: Final = 1024 * 1024  # characters
_CONTINUED: Final = re.compile(r"\\(\r\n|\r|\n)")
_WORD: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"|(\S+)")
_SPECIAL: Final = re.compile(r"[\r\t\n !\"#$&'()*;<>?\[\\\]^`{|}~]")


def split_commands(text: str) -> list[list[str]]:
    """Split a script into commands, and these into words; a backslash goes on in the next line.

    Raises:
        ModelError: it is too long.
    """
    if len(text) > _LIMIT:
        raise ModelError("", f"the command lines have more than {_LIMIT} characters", code=ErrorCode.OPERATION_FAILED)
    lines = re.split(r"[\r\n]+", _CONTINUED.sub("", text))
    commands = [[next(word for word in found if word is not None) for found in _words(line)] for line in lines]
    return [command for command in commands if command]


def _words(line: str) -> list[tuple[str | None, ...]]:
    return [found.groups() for found in _WORD.finditer(line)]


def quote(word: str) -> str:
    """Write a word so that a shell takes it as it is (``virBufferEscapeShell``)."""
    if word and not _SPECIAL.search(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def join(words: list[str]) -> str:
    """Write a command."""
    return " ".join(quote(word) for word in words)
