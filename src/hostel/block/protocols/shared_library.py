"""Libraries of this host that are called without a module of their own."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from hostel.errors import UnsupportedFeature


def load(protocol: str, names: Sequence[str], signatures: Mapping[str, tuple[Any, ...]], hint: str) -> ctypes.CDLL:
    """Load the first of some versions of a library that is here.

    Args:
        protocol: which needs it.
        names: file names with the version of the interface, the best one first.
        signatures: the functions that are called; the type of each one's result and those of its arguments.
        hint: what to install.

    Raises:
        UnsupportedFeature: none is here.
    """
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, (result, *arguments) in signatures.items():
            found = getattr(library, function)
            found.restype, found.argtypes = result, arguments
        return library
    raise UnsupportedFeature(f"{protocol} needs {' or '.join(names)}", hint=hint)
