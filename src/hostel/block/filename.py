"""Image names: a path, or ``protocol:…``; and names relative to the image that holds them."""

from __future__ import annotations

import os
import re

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def protocol(name: str) -> str | None:
    """The protocol prefix of a name, or None for a plain path (``dir/a:b`` and ``./a:b`` are paths)."""
    match = _PROTOCOL.match(name)
    return match.group(1) if match else None


def resolve_backing(name: str, holder: str) -> str | None:
    """As :func:`resolve`; None for a relative path in an image that is no file of this host."""
    if protocol(name) is None and not os.path.isabs(name) and protocol(holder) not in (None, "file"):
        return None
    return resolve(name, holder)


def resolve(name: str, holder: str) -> str:
    """The name of a backing or data file as seen from where we run; relative names start at ``holder``'s directory.

    A holder that is no file of this host has no directory: then the name is left as it is.
    """
    if protocol(name) is not None or os.path.isabs(name) or not name or protocol(holder) not in (None, "file"):
        return name
    base = holder.removeprefix("file:") if protocol(holder) == "file" else holder
    if protocol(base) is not None:
        base = f"./{base}"  # what is left begins like a protocol, and is none
    return os.path.join(os.path.dirname(base), name)
