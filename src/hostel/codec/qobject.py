"""QEMU's objects as text: its JSON, printed and read as QEMU does.

QEMU keeps an object's members in a hash table and prints them in the table's order, which is neither the order of
insertion nor the alphabet's; programs that compare texts rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_BUCKETS: Final = 512
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


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


def compact_json(value: object) -> str:
    """Write a value on one line, as in QEMU's ``json:`` names."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quote(key)}: {compact_json(value[key])}" for key in hash_order(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(compact_json, value)) + "]"
    return pretty_json(value)


def parse_json(text: str) -> Any:
    """Read JSON, in which strings may also stand in single quotes.

    Raises:
        ValueError: with QEMU's words; a key that is there twice and half a surrogate pair are mistakes too.
    """
    import json
    import re

    def double(match: re.Match[str]) -> str:
        found = match.group()
        if "\\u" in found:
            _check_escapes(found)
        if found[0] == '"':
            return found
        return '"' + re.sub(r'\\?"', r'\\"', found[1:-1].replace("\\'", "'")) + '"'

    try:
        return json.loads(
            re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', double, text),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError("JSON nesting depth limit exceeded") from None
    except _Constant:
        raise ValueError(f"JSON parse error, stray '{_stray(text)}'") from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise ValueError("Expecting a JSON value") from None
        if error.msg == "Extra data":
            raise ValueError("Expecting at most one JSON value") from None
        if (stray := _stray(text)) is not None:
            raise ValueError(f"JSON parse error, stray '{stray}'") from None
        raise ValueError(f"JSON parse error, {_mistake(error.msg, error.doc, error.pos)}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("JSON parse error, duplicate key")
    return found


class _Constant(Exception):
    """A number of Python's that is none of JSON's."""


def _refuse_constant(word: str) -> None:
    raise _Constant(word)


def _stray(text: str) -> str | None:
    """What no word of JSON begins with, in the first value of a text that is none: QEMU tells of it before all else."""
    import re

    word = re.compile(
        r"""(?P<wrong>-(?:[^0-9]|\Z)|-?0[0-9]|-?(?:0|[1-9][0-9]*)\.(?:[^0-9]|\Z)
            |-?(?:0\.[0-9]+|[1-9][0-9]*(?:\.[0-9]+)?)[eE](?:[+-](?:[^0-9]|\Z)|[^0-9+-]|\Z))
            |-?(?:0(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?)?|[1-9][0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
            |"(?:\\[^\0-\x1f]|[^"\\\0-\x1f])*"|'(?:\\[^\0-\x1f]|[^'\\\0-\x1f])*'|[a-z]+|[][{},:]|[ \t\r\n]+
            |(?P<open>"(?:\\[^\0-\x1f]|[^"\\\0-\x1f])*|'(?:\\[^\0-\x1f]|[^'\\\0-\x1f])*)
            |(?P<other>.)""",
        re.VERBOSE | re.DOTALL,
    )
    depth = 0
    for match in word.finditer(text):
        found = match.group()
        if match["open"]:
            return text[match.start() : match.end() + 1]
        if match["wrong"] or match["other"]:
            return found
        depth += (found in ("{", "[")) - (found in ("}", "]"))
        if depth <= 0 and not found.isspace():
            return None
    return None


def _check_escapes(string: str) -> None:
    """Refuse half of a surrogate pair among a string's escapes: it is no text, and no file's name."""
    import re

    half = "[0-9a-fA-F]{2}"
    escapes = rf"\\(?:u[dD][89abAB]{half}\\u[dD][c-fC-F]{half}|(u[dD][89a-fA-F]{half})|.)"
    for match in re.finditer(escapes, string, re.DOTALL):
        if match.group(1):
            raise ValueError(f"JSON parse error, \\{match.group(1)} is not a valid Unicode character")


def _mistake(told: str, text: str, place: int) -> str:
    """What QEMU's parser calls a mistake at a place in the text."""
    rest = text[place:]
    if not rest:
        return "premature EOI"
    if told.startswith("Expecting property name") and rest[0].isdigit():
        return "key is not a string in object"
    if told.startswith("Expecting ':'"):
        return "missing : in object pair"
    if told.startswith("Expecting ','"):
        return f"expected separator in {'dict' if _is_in_object(text[:place]) else 'list'}"
    if told.startswith("Invalid \\escape"):
        return "invalid escape sequence in string"
    if told.startswith("Illegal trailing comma"):  # as Python 3.13 and later tell of it
        return "expecting value"
    if told.startswith(("Expecting value", "Expecting property name")) and rest[0] in "}],:":
        return "expecting value"
    if rest[0].islower():
        return f"invalid keyword '{rest[: next((i for i, char in enumerate(rest) if not char.isalpha()), len(rest))]}'"
    return f"stray '{rest[0]}'"


def _is_in_object(head: str) -> bool:
    """Whether what was opened last in the beginning of a JSON text, and is not closed, is an object."""
    import re

    opened = []
    for sign in re.sub(r'"(?:\\.|[^"\\])*"', "", head):
        if sign in "{[":
            opened.append(sign)
        elif sign in "}]":
            opened.pop()
    return opened[-1:] == ["{"]
