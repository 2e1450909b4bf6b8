"""Lines of text from columns of numbers, tens of thousands at once: no Python runs for a single line.

Each line is laid out with all its numbers at full width and with what belongs to either kind of line, four bytes at a
time; then what a line does not have (leading zeroes, the other kind's text) is left out of all of them in one step.
Where all lines have each thing at the same place, as most have whose columns grow, the numbers are put into copies of
one line, and there is nothing to leave out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
_WORD: Final = np.dtype("<u4")  # four characters


class Part(NamedTuple):
    """A piece of a line: text, or a number.

    Attributes:
        text: what stands there; before a number, in front of it.
        column: which column's number, or None.
        base: 10 or 16; hexadecimal digits are small, and have ``0x`` before them where the number is not 0.
        width: the number is filled up to so many characters with blanks behind it.
        other: what lines of the other kind have instead of the text and the number; None: they have the same.
    """

    text: bytes = b""
    column: int | None = None
    base: int = 10
    width: int = 0
    other: bytes | None = None


class Scratch:
    """What lines are laid out in, kept from one call to the next: to get and give back memory takes time."""

    def __init__(self) -> None:
        self._words = np.empty(0, dtype=_WORD)

    def take(self, rows: int, words: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Two tables of so many rows; what they hold is of no meaning."""
        size = rows * words
        if len(self._words) < 2 * size:
            self._words = np.empty(2 * size, dtype=_WORD)
        return self._words[:size].reshape(rows, words), self._words[size : 2 * size].reshape(rows, words)


def render(
    parts: Sequence[Part], columns: Sequence[Numbers], kinds: NDArray[np.bool_], scratch: Scratch
) -> NDArray[np.uint8]:
    """Write a line for each row of the columns, which all have the length of ``kinds``, a line's kind each."""
    layout = _layout(parts, columns)
    if layout is not None:
        return _fill(layout, len(kinds))
    pieces = [piece for part in parts for piece in _pieces(part, columns, kinds)]
    text, kept = scratch.take(len(kinds), sum(piece.words for piece in pieces))
    at = 0
    for piece in pieces:
        end = at + piece.words
        text[:, at:end] = piece.text
        kept[:, at:end] = piece.kept
        at = end
    return text.view(np.uint8)[kept.view(np.bool_)]


class _Field(NamedTuple):
    """Characters at the same place of each line: where they begin, and what each line has there."""

    at: int
    text: NDArray[Any]


class _Layout(NamedTuple):
    """Lines of one length: what they have in common, and where they differ."""

    common: bytes
    fields: list[_Field]


def _layout(parts: Sequence[Part], columns: Sequence[Numbers]) -> _Layout | None:
    """What lines look like that all have each thing at the same place; None where they have not."""
    common, fields = b"", list[_Field]()
    for part in parts:
        if part.other is not None:
            return None
        common += part.text
        if part.column is None:
            continue
        values = columns[part.column]
        low, high = (
            f"{int(value):{'#x' if part.base == 16 and value else 'd'}}" for value in (values.min(), values.max())
        )
        if len(low) != len(high):
            return None
        if low != high:
            digits = len(low) - (2 if part.base == 16 else 0)
            fields += _places(values, digits, part.base, len(common) + len(low))
        common += low.encode().ljust(part.width)
    return _Layout(common, fields)


def _places(values: Numbers, digits: int, base: int, end: int) -> Iterator[_Field]:
    """Numbers of so many digits that end in the column ``end``: four digits at a time, the lowest first."""
    step = np.uint64(base**4)
    while digits > 4:
        above = values // step
        end, digits = end - 4, digits - 4
        yield _Field(end, _quads(base)[(values - above * step).astype(np.intp)])
        values = above
    yield _Field(end - digits, _leading(base, digits)[values.astype(np.intp)])


def _fill(layout: _Layout, rows: int) -> NDArray[np.uint8]:
    """So many copies of a line, with what differs put in."""
    lines = np.empty((rows, len(layout.common)), dtype=np.uint8)
    lines[:] = np.frombuffer(layout.common, dtype=np.uint8)
    for at, text in layout.fields:
        place = np.dtype({"names": ["text"], "formats": [text.dtype], "offsets": [at], "itemsize": lines.shape[1]})
        lines.view(place)["text"][:, 0] = text
    return lines.reshape(-1)


class _Piece(NamedTuple):
    """So many words of each line: the characters, and which are kept; one row stands for all lines."""

    words: int
    text: NDArray[Any]
    kept: NDArray[Any]


def _pieces(part: Part, columns: Sequence[Numbers], kinds: NDArray[np.bool_]) -> Iterator[_Piece]:
    if part.other is not None:
        yield _either(part.text, part.other, kinds)
    elif part.text:
        yield _piece(_words(part.text), _kept(len(part.text)))
    if part.column is not None:
        for piece in _number(columns[part.column], part.base, part.width):
            yield piece if part.other is None else piece._replace(kept=_choose(piece.kept, kinds))


def _either(text: bytes, other: bytes, kinds: NDArray[np.bool_]) -> _Piece:
    """One of two texts, one over the other."""
    size = max(len(text), len(other))
    both = _words(other.ljust(size, b"\0") + bytes(-size % 4) + text.ljust(size, b"\0")).reshape(2, -1)
    kept = _words(_mask(len(other), size) + bytes(-size % 4) + _mask(len(text), size)).reshape(2, -1)
    chosen = kinds.astype(np.intp)
    return _Piece(both.shape[1], both[chosen], kept[chosen])


def _number(values: Numbers, base: int, width: int) -> Iterator[_Piece]:
    counts = _digit_counts(values, base)
    taken = counts
    if base == 16:
        yield _piece(_words(b"0x"), _choose(_kept(2), values != 0))
        taken = counts + 2 * (values != 0)
    yield _digits(values, counts, base)
    if width:
        yield _piece(_words(b" " * width), _prefixes(width)[np.maximum(width - taken, 0)])


def _piece(text: NDArray[Any], kept: NDArray[Any]) -> _Piece:
    return _Piece(text.shape[-1], text, kept)


def _words(text: bytes) -> NDArray[Any]:
    return np.frombuffer(text.ljust(-(-len(text) // 4) * 4, b"\0"), dtype=_WORD)


def _mask(count: int, size: int) -> bytes:
    """Of ``size`` characters the first ``count``."""
    return (b"\1" * count).ljust(size, b"\0")


def _kept(count: int) -> NDArray[Any]:
    return _words(_mask(count, count))


def _choose(kept: NDArray[Any], lines: NDArray[np.bool_]) -> NDArray[Any]:
    """Keep something in these lines only."""
    return np.where(lines[:, None], kept, _WORD.type(0))


def _digits(values: Numbers, counts: NDArray[Any], base: int) -> _Piece:
    """The numbers' digits, four to a word, the highest first; leading zeroes are not kept."""
    low, high = int(counts.min()), int(counts.max())
    words = -(-high // 4)
    text = np.empty((len(values), words), dtype=_WORD)
    table, step = _quads(base), np.uint64(base**4)
    rest = values
    for at in range(words - 1, 0, -1):
        above = rest // step
        text[:, at] = table[(rest - above * step).astype(np.intp)]
        rest = above
    text[:, 0] = table[rest.astype(np.intp)]
    suffixes = _suffixes(words * 4)
    return _Piece(words, text, suffixes[high] if low == high else suffixes[counts])


def _digit_counts(values: Numbers, base: int) -> NDArray[Any]:
    """How many digits each number has; 0 has one."""
    lowest, highest = (max(1, int(values.min())), int(values.max()))
    powers = [base**exponent for exponent in range(1, 20) if base**exponent <= min(highest, (1 << 64) - 1)]
    known = sum(power <= lowest for power in powers)
    counts = np.full(len(values), known + 1, dtype=np.intp)
    for power in powers[known:]:
        counts += values >= np.uint64(power)
    return counts


@cache
def _quads(base: int) -> NDArray[Any]:
    """All numbers of four digits as text, each a word."""
    form = "%04x" if base == 16 else "%04d"
    return np.frombuffer("".join(form % value for value in range(base**4)).encode(), dtype=_WORD)


@cache
def _leading(base: int, digits: int) -> NDArray[Any]:
    """All numbers of up to so many digits, four at most, each as text of that many."""
    quads = _quads(base)[: base**digits].copy().view("S1").reshape(-1, 4)
    return quads[:, 4 - digits :].copy().view(f"S{digits}").reshape(-1)


@cache
def _suffixes(width: int) -> NDArray[Any]:
    """For each count up to ``width``: the last so many characters are kept."""
    return np.stack([_words(bytes(width - count) + b"\1" * count) for count in range(width + 1)])


@cache
def _prefixes(width: int) -> NDArray[Any]:
    """For each count up to ``width``: the first so many characters are kept."""
    return np.stack([_words(_mask(count, width)) for count in range(width + 1)])
