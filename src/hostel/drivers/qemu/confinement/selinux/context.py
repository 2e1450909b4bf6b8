"""Security contexts as text: ``user:role:type:range``."""

from __future__ import annotations

import random
import re
from collections.abc import Container
from typing import Final, NamedTuple

_PARTS: Final = re.compile(r"([^:\s]+):([^:\s]+):([^:\s]+)(?::([^\n]+))?")
_CATEGORIES: Final = re.compile(r"c(\d+)(?:\.c(\d+))?(?:,.*)?")
_LAST: Final = 1023  # category, where a process's range names none
_FEWEST: Final = 8  # categories, below which there are too few pairs
_TRIES: Final = 1000  # before pairs are gone through one by one


class Context(NamedTuple):
    """A security context.

    Attributes:
        user: the policy's user.
        role: the role.
        type: the type, of a process its domain.
        range: sensitivity and categories, ``s0:c12,c340`` or from one to another; None where the policy has none.
    """

    user: str
    role: str
    type: str
    range: str | None = None

    @classmethod
    def parse(cls, text: str) -> Context:
        """Read one.

        Raises:
            ValueError: it is none.
        """
        found = _PARTS.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"'{text}' is no security context")
        return cls(found[1], found[2], found[3], found[4])

    def __str__(self) -> str:
        return ":".join(part for part in self if part is not None)

    def for_machine(self, ours: Context, range: str, *, is_file: bool) -> Context:
        """This one as a machine's: with our user, our role for a process, and its range.

        Args:
            ours: of the process that starts the machine.
            range: the machine's.
            is_file: whether it is for files.
        """
        return Context(ours.user, self.role if is_file else ours.role, self.type, range)


class Categories(NamedTuple):
    """From which categories those of machines are taken.

    Attributes:
        sensitivity: the level that goes with them.
        first: the number of the first one.
        last: that of the last one.
    """

    sensitivity: str
    first: int
    last: int


def categories(range: str | None) -> Categories:
    """Those of a process that starts machines (``virSecuritySELinuxMCSGetProcessRange``).

    Where it has levels from one to another, the lower sensitivity counts, and the categories of the upper one.

    Raises:
        ValueError: it has none that pairs can be made of.
    """
    sensitivity, colon, rest = (range or "s0").partition(":")
    sensitivity = sensitivity.partition("-")[0]
    if not colon:
        return Categories(sensitivity, 0, _LAST)
    found = _CATEGORIES.fullmatch(rest.rpartition(":")[2])
    if found is None:
        raise ValueError(f"Cannot parse category in {rest}")
    if found[2] is None:
        raise ValueError("No category range available")
    first, last = int(found[1]), int(found[2])
    if last - first + 1 < _FEWEST:
        raise ValueError(f"Category range c{first}-c{last} too small")
    return Categories(sensitivity, first, last)


def choose_range(allowed: Categories, taken: Container[str]) -> str:
    """A range with two categories that no machine has.

    One category alone would be among those of other machines, which may then read its files.

    Raises:
        ValueError: all pairs are taken.
    """
    source = random.SystemRandom()
    numbers = range(allowed.first, allowed.last + 1)
    for _ in range(_TRIES):
        low, high = sorted(source.sample(numbers, 2))
        if (found := f"{allowed.sensitivity}:c{low},c{high}") not in taken:
            return found
    for low in numbers:
        for high in range(low + 1, allowed.last + 1):
            if (found := f"{allowed.sensitivity}:c{low},c{high}") not in taken:
                return found
    raise ValueError(f"all pairs of the categories c{allowed.first} to c{allowed.last} are in use")
