"""What ``--object help`` and ``--object TYPE,help`` print."""

from __future__ import annotations

from collections.abc import Sequence

from hostel.cli.qemu.object_types import sayable


def object_help(kind: str, types: Sequence[str]) -> str:
    """What is said of a type: its properties, or of what is none of ``types``: which there are."""
    if kind not in types:
        return "List of user creatable objects:\n" + "".join(f"  {name}\n" for name in sorted(types))
    # Sorted with the sign that follows them, as in QEMU.
    lines = sorted(f"  {each.name}=<{each.type}>\n" for each in sayable(kind) if not each.fixed)
    return f"{kind} options:\n" + "".join(lines)
