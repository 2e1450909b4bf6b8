"""Where tools print: standard output and error, tables as virsh draws them, sizes as virsh writes them."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

from hostel.drivers.fault import printable

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Output:
    """The two streams of a tool; ``quiet`` drops what only a person reads."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, quiet: bool = False) -> None:
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr
        self.quiet = quiet

    def line(self, text: str = "") -> None:
        """Print a line that programs may read."""
        self.out.write(text + "\n")

    def text(self, text: str) -> None:
        """Print text as it is."""
        self.out.write(text)

    def note(self, text: str, end: str = "\n") -> None:
        """Print a line for people: dropped when quiet."""
        if not self.quiet:
            self.out.write(text + end)

    def error(self, message: str) -> None:
        """Print each line of an error as virsh does, after what was printed before it; empty ones stay empty."""
        self.out.flush()
        for line in message.split("\n"):
            self.err.write(f"error: {line}\n" if line else "\n")
        self.err.flush()

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table; when quiet, without its header."""
        self.text(format_table(header, rows, with_header=not self.quiet))


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, with_header: bool = True) -> str:
    """Draw a table as virsh does: a space before a cell, two after, a line of dashes under the header."""
    body = [[printable(cell) for cell in row] for row in rows]
    shown = [list(header), *body] if with_header else body
    widths = [max((display_width(row[i]) for row in shown), default=0) for i in range(len(header))]
    lines = [_row(row, widths) for row in shown]
    if with_header:
        lines.insert(1, "-" * sum(width + 3 for width in widths))
    return "".join(line + "\n" for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [f" {cell}{' ' * (width - display_width(cell) + 2)}" for cell, width in zip(cells, widths, strict=True)]
    return "".join([*padded[:-1], f" {cells[-1]}"])


def display_width(text: str) -> int:
    """How many terminal cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pretty_size(length: int) -> str:
    """Write bytes as virsh does, such as ``100.00 GiB``."""
    scaled = float(length)
    for unit in _UNITS:
        if scaled < 1024 or unit == _UNITS[-1]:
            return f"{scaled:.2f} {unit}"
        scaled /= 1024
    raise AssertionError
