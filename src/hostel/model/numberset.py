"""Sets of numbers as libvirt writes them: ``0-3,^2,8`` (``virBitmapParse``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.codec.xml import Kind

_LIMIT: Final = 16384  # VIR_DOMAIN_CPUMASK_LEN
_PART: Final = re.compile(r"(\^?)(\d+)(?:-(\d+))?", re.ASCII)


def parse_numbers(text: str) -> frozenset[int]:
    """Read a set.

    Raises:
        ValueError: it is none, or a number is over the limit.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part.strip())
        if found is None or (found[1] and found[3]):
            raise ValueError("Write numbers and ranges, such as 0-3,^2,8")
        first, last = int(found[2]), int(found[3] or found[2])
        if last < first or last >= _LIMIT:
            raise ValueError(f"Write ranges that go up, and numbers below {_LIMIT}")
        if found[1]:
            numbers.discard(first)
        else:
            numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_numbers(numbers: frozenset[int]) -> str:
    """Write a set, in ranges."""
    parts: list[str] = []
    start = previous = -2
    for number in [*sorted(numbers), -1]:
        if number == previous + 1 and number >= 0:
            previous = number
            continue
        if start >= 0:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
        start = previous = number
    return ",".join(parts)


def _some(text: str) -> str:
    numbers = parse_numbers(text)
    if not numbers:
        raise ValueError("Write at least one number")
    return format_numbers(numbers)


def _any(text: str) -> str:
    return format_numbers(parse_numbers(text))


# A set, always in its shortest spelling; one of no number is refused, or is an empty text.
NUMBERS: Final = Kind(_some, str)
NUMBERS_OR_NONE: Final = Kind(_any, str)
