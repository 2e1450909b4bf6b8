"""Paths as documents have them."""

from __future__ import annotations

import re
from typing import Final

_SLASHES: Final = re.compile("//+")


def clean_path(path: str) -> str:
    """Drop repeated slashes and one at the end; addresses of servers, and two slashes at the start, stay.

    ``..`` stays as well: it may lead elsewhere through a link (``virFileSanitizePath``).
    """
    scheme = path.find("://")
    if scheme >= 0 and path.find("/") > scheme:
        return path
    # POSIX leaves to the system what exactly two slashes mean.
    start = "//" if path.startswith("//") and not path.startswith("///") else ""
    rest = _SLASHES.sub("/", path[len(start) :])
    if len(start + rest) > 1:
        rest = rest.removesuffix("/")
    return start + rest
