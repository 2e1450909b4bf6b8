"""The creation option ``preallocation``, as formats read it."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from hostel.block.options import Value
from hostel.block.powers import Preallocation
from hostel.errors import BlockError


def preallocation_of(options: Mapping[str, Value]) -> Preallocation:
    """The mode that creation options ask for.

    Raises:
        BlockError: there is no such mode.
    """
    text = str(options.get("preallocation", "off"))
    try:
        return Preallocation(text)
    except ValueError:
        raise BlockError(f"invalid parameter value: {text}", errno=errno.EINVAL) from None


def host_preallocation_of(options: Mapping[str, Value]) -> Preallocation:
    """The mode that creation options ask for, of a format without metadata that could be preallocated.

    Raises:
        BlockError: there is no such mode, or it is that of metadata.
    """
    mode = preallocation_of(options)
    if mode is Preallocation.METADATA:
        raise BlockError("Unsupported preallocation mode: metadata", errno=errno.ENOTSUP)
    return mode
