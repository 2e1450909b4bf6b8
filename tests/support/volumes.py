"""Documents of storage volumes."""

from __future__ import annotations

from hostel.units import MiB


def xml(
    name: str, capacity: int | None = MiB, *, format: str = "", allocation: int | None = 0, target: str = "",
    backing: str = "",
) -> str:  # fmt: skip
    """A volume of ``capacity`` and ``allocation`` bytes; ``target`` and ``backing`` are XML."""
    parts = [f"<name>{name}</name>"]
    if capacity is not None:
        parts.append(f"<capacity>{capacity}</capacity>")
    if allocation is not None:
        parts.append(f"<allocation>{allocation}</allocation>")
    kind = f"<format type='{format}'/>" if format else ""
    return f"<volume>{''.join(parts)}<target>{kind}{target}</target>{backing}</volume>"


def over(path: str, format: str = "") -> str:
    """What makes a volume an overlay."""
    kind = f"<format type='{format}'/>" if format else ""
    return f"<backingStore><path>{path}</path>{kind}</backingStore>"
