"""Where ``qemu-img`` prints, and how its errors, warnings and JSON look."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

from hostel.errors import BlockError

_BUCKETS: Final = 512
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Output:
    """The two streams of the tool.

    Standard output is not flushed before an error is written, as in QEMU: where both go to one pipe, errors come first.

    Attributes:
        prog: the tool's name, which begins every message.
        quiet: drops what :meth:`note` prints.
    """

    def __init__(self, prog: str, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.prog = prog
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr
        self.quiet = False

    def text(self, text: str) -> None:
        """Print text as it is."""
        self.out.write(text)

    def line(self, text: str = "") -> None:
        """Print a line."""
        self.out.write(text + "\n")

    def note(self, text: str) -> None:
        """Print a line that ``-q`` drops."""
        if not self.quiet:
            self.out.write(text + "\n")

    def error(self, message: str, hint: str | None = None) -> None:
        """Report an error: each line of the message with the tool's name, the hint as it is."""
        for line in message.split("\n"):
            self.err.write(f"{self.prog}: {line}\n")
        if hint:
            self.err.write(hint.rstrip("\n") + "\n")

    def failed(self, error: OSError, prefix: str = "") -> None:
        """Report an error of the block layer or of the host."""
        self.error(prefix + reason(error), error.hint if isinstance(error, BlockError) else None)

    def warning(self, message: str) -> None:
        """Report what deserves attention and stops nothing."""
        self.err.write(f"{self.prog}: warning: {message}\n")

    def diagnostic(self, text: str) -> None:
        """Print a line on standard error as it is."""
        self.err.write(text + "\n")


def reason(error: OSError) -> str:
    """What an error says, for the end of a message: a block error's text, or the host's own."""
    if isinstance(error, BlockError):
        return error.message
    return error.strerror or str(error)


def hash_order(value: Mapping[str, Any]) -> list[str]:
    """The keys in the order in which QEMU walks a QDict.

    QEMU keeps them in 512 buckets by a hash of the name, and the newest comes first within a bucket.
    """
    newest_first = list(value)
    newest_first.reverse()
    return sorted(newest_first, key=_bucket)


def _bucket(key: str) -> int:
    data = key.encode("utf-8", "surrogateescape")
    value = 0x238F13AF * len(data)
    for index, byte in enumerate(data):
        value += byte << (index * 5 % 24)
    return (1103515243 * (value & 0xFFFFFFFF) + 12345 & 0xFFFFFFFF) % _BUCKETS


def pretty_json(value: object, depth: int = 0) -> str:
    """Write a value as QEMU's pretty JSON: four spaces a level, keys in its hash order, ASCII only."""
    inner = "\n" + "    " * (depth + 1)
    outer = "\n" + "    " * depth
    if isinstance(value, Mapping):
        items = [f"{quote(key)}: {pretty_json(value[key], depth + 1)}" for key in hash_order(value)]
        return "{" + ",".join(inner + item for item in items) + outer + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(inner + pretty_json(item, depth + 1) for item in value) + outer + "]"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.17g}"
    return str(value)


def quote(text: str) -> str:
    """Write a JSON string as QEMU does; what is not UTF-8 becomes U+FFFD."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if 0x20 <= code < 0x7F:
        return char
    if 0xD800 <= code < 0xE000:
        return "\\uFFFD"
    if code > 0xFFFF:
        return f"\\u{0xD800 + (code - 0x10000 >> 10):04X}\\u{0xDC00 + (code - 0x10000 & 0x3FF):04X}"
    return f"\\u{code:04X}"


def dump(value: Mapping[str, Any] | list[Any], depth: int) -> str:
    """Write a value for people, as under ``Format specific information``."""
    if isinstance(value, Mapping):
        items = [(key.replace("-", " "), value[key]) for key in hash_order(value)]
    else:
        items = [(f"[{index}]", item) for index, item in enumerate(value)]
    lines = []
    for name, item in items:
        start = f"{'    ' * depth}{name}:"
        if isinstance(item, Mapping | list):
            lines.append(f"{start}\n{dump(item, depth + 1)}")
        else:
            shown = ("true" if item else "false") if isinstance(item, bool) else item
            lines.append(f"{start} {shown}\n")
    return "".join(lines)
