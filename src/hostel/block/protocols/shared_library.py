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
        UnsupportedFeature: none is here, or it is too old.
    """
    for name in names:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        for function, (result, *arguments) in signatures.items():
            try:
                found = getattr(library, function)
            except AttributeError:
                raise UnsupportedFeature(f"{protocol} needs a newer {name}, with {function}()", hint=hint) from None
            found.restype, found.argtypes = result, arguments
        return library
    raise UnsupportedFeature(f"{protocol} needs {' or '.join(names)}", hint=hint)


def memory(view: memoryview) -> Any:
    """What a library takes for the address of a buffer's bytes; of a buffer that nobody may write it is a copy's."""
    return view.tobytes() if view.readonly else (ctypes.c_char * len(view)).from_buffer(view)
