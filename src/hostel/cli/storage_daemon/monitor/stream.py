"""JSON values out of a stream of bytes, each as soon as it is complete; QMP puts nothing between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from hostel.codec.qobject import parse_json
from hostel.units import MiB

LIMIT: Final = 64 * MiB  # bytes of one value, as QEMU's
MAX_DEPTH: Final = 1024
_INTERESTING: Final = re.compile(rb"[\[\]{}\"'\\]|\s+")


class JsonStream:
    """Takes bytes, gives values.

    A value ends where its brackets are balanced; one without brackets ends at white space. What is malformed costs the
    value it is in and not the connection.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # of the value that is being looked for
        self._position = 0  # up to which it was looked at
        self._depth = 0
        self._quote = 0

    def receive(self, data: bytes) -> Iterator[Any]:
        """Add bytes; values come out, and a :class:`ValueError` in the place of one that is none."""
        self._buffer += data
        while (end := self._end()) is not None:
            if self._depth > MAX_DEPTH:
                self._reset()
                yield ValueError("JSON nesting depth limit exceeded")
                return
            text = bytes(self._buffer[self._start : end]).strip()
            self._start = end
            if text:
                yield _parse(text)
        del self._buffer[: self._start]
        self._position -= self._start
        self._start = 0
        if len(self._buffer) > LIMIT:
            self._reset()
            yield ValueError("JSON token size limit exceeded")

    def _end(self) -> int | None:
        """Where the next value ends; None where more bytes are needed."""
        while (match := _INTERESTING.search(self._buffer, self._position)) is not None:
            char = match[0][0]
            if char == 0x5C and match.end() == len(self._buffer):  # a backslash whose character is to come
                self._position = match.start()
                return None
            self._position = match.end()
            if self._quote:
                if char == self._quote:
                    self._quote = 0
                    if not self._depth:
                        return self._position
                elif char == 0x5C:
                    self._position += 1
            elif char in b"\"'":
                self._quote = char
            elif char in b"[{":
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    return self._position
            elif char in b"]}":
                self._depth = max(0, self._depth - 1)
                if not self._depth:
                    return self._position
            elif not self._depth and char not in b"\\":
                return self._position
        self._position = len(self._buffer)
        return None

    def _reset(self) -> None:
        self._buffer.clear()
        self._start = self._position = self._depth = self._quote = 0


def _parse(text: bytes) -> Any:
    try:
        return parse_json(text.decode("utf-8"))
    except UnicodeDecodeError:
        return ValueError("JSON parse error, invalid UTF-8 sequence in string")
    except ValueError as error:
        return error
