"""Sizes as QEMU and libvirt write them: parsing what people type, printing what they expect to read.

QEMU's sizes follow ``qemu_strtosz()`` and ``size_to_str()`` of its ``util/cutils.c``; libvirt's scaled integers follow
``virScaleInteger()``, where ``KB`` is 1000 and ``K``, ``KiB`` are 1024.
"""

from __future__ import annotations

import re
from typing import Final

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB
TiB: Final = 1024 * GiB

SECTOR: Final = 512
INT64_MAX: Final = 2**63 - 1

_QEMU_SUFFIXES: Final = {"B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
# Compiled when first used: most commands are given no size.
_SIZE: Final = r"[ \t\n\v\f\r]*\+?(?:(0[xX][0-9a-fA-F]+)|([0-9]+)(?:\.([0-9]*))?)(B?|[KMGTPE](?:I?B)?)"
_UINT64_MAX: Final = 2**64 - 1
_FRACTION_BITS: Final = 64
_HALF: Final = 1 << _FRACTION_BITS - 1
_SIZE_NAMES: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse_size(text: str, *, default_suffix: str = "B") -> int:
    """Parse a size as ``qemu-img`` does: ``10G``, ``1.5M``, ``0x10000``, ``512``; also ``2GB`` and ``64KiB``.

    Suffixes are powers of 1024 in either case. A fraction needs a unit larger than a byte, and no hexadecimal.

    Returns:
        Bytes, from 0 to 2**63 - 1.

    Raises:
        ValueError: the text is not a size; the message says why.
        OverflowError: the size is over 2**63 - 1 bytes.
    """
    match = re.fullmatch(_SIZE, text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError(f"'{text}' is {'negative' if text.startswith('-') else 'not a size'}")
    hexadecimal, whole, fraction, suffix = match.groups()
    # People write 2GB and 2GiB for 2G; QEMU itself refuses them, which helps nobody.
    unit = suffix[:1].upper() or default_suffix
    if hexadecimal and len(suffix) > 1:
        raise ValueError(f"'{text}' is not a size")
    number = int(hexadecimal, 16) if hexadecimal else int(whole)
    if number > _UINT64_MAX and suffix:  # QEMU reads no further than the number
        raise ValueError(f"'{text}' is not a size")
    scale = 1 << 10 * _QEMU_SUFFIXES[unit]
    part = _fixed_point(fraction)
    if part and scale == 1:
        raise ValueError(f"'{text}' is not a size")
    value = number * scale + (part * scale + _HALF >> _FRACTION_BITS)
    if value > INT64_MAX:
        raise OverflowError(f"'{text}' is too large: the limit is {INT64_MAX} bytes")
    return value


def _fixed_point(fraction: str | None) -> int:
    """The digits after a point in units of 2**-64, by way of a ``double`` as in QEMU: 0.1M rounds up."""
    return min(int(float(f"0.{fraction}") * 2.0**_FRACTION_BITS), _UINT64_MAX) if fraction else 0


def format_size(length: int) -> str:
    """Print bytes as ``qemu-img info`` does: three significant digits and a binary unit, such as ``1.27 MiB``."""
    # frexp in QEMU: the unit changes at 1000 of the smaller one, so "0.98 MiB" is printed, never "1000 KiB".
    index = 0
    value = float(length)
    while value >= 1000 and index < len(_SIZE_NAMES) - 1:
        value /= 1024
        index += 1
    return f"{_three_digits(value)} {_SIZE_NAMES[index]}B"


def _three_digits(value: float) -> str:
    """Format like C's ``%0.3g``."""
    return f"{value:0.3g}"


_LIBVIRT_UNITS: Final[dict[str, int]] = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{letter + tail: 1024**power for power, letter in enumerate("kmgtpe", 1) for tail in ("", "ib")},
    **{letter + "b": 1000**power for power, letter in enumerate("kmgtpe", 1)},
}


def scale_libvirt(value: int, unit: str) -> int:
    """Scale an integer by libvirt's unit: ``KB`` is 1000, ``K`` and ``KiB`` are 1024, ``b`` and ``bytes`` are 1.

    Returns:
        Bytes.

    Raises:
        ValueError: the unit is unknown.
        OverflowError: the result is over 2**63 - 1 bytes.
    """
    try:
        scale = _LIBVIRT_UNITS[unit.lower()]
    except KeyError:
        raise ValueError(f"unknown suffix '{unit}'") from None
    result = value * scale
    if result > INT64_MAX:
        raise OverflowError(f"value too large: {value}{unit}")
    return result
