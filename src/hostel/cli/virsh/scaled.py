"""Numbers with units on the command line (``vshCommandOptScaledInt``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.cli.options import Args
from hostel.errors import UsageError
from hostel.units import scale_libvirt

_NUMBER: Final = re.compile(r"[ \t\n]*\+?([0-9]{1,20})([A-Za-z]*)", re.ASCII)
_SIGNED: Final = re.compile(r"[ \t\n]*([+-]?[0-9]{1,11})", re.ASCII)
_MOST: Final = 2**64 - 1


def scaled(args: Args, name: str, scale: int) -> int | None:
    """The value of an option in bytes; without a unit it is so many times ``scale``. None when it was not given.

    Raises:
        UsageError: it is no such number.
    """
    text = args.get(name)
    if text is None:
        return None
    match = _NUMBER.fullmatch(text)
    cause = ""
    try:
        if match is not None:
            number = int(match[1])
            found = scale_libvirt(number, match[2]) if match[2] else number * scale
            if found <= _MOST:
                return found
    except ValueError as error:
        cause = f"\ninvalid argument: {error}"
    except OverflowError as error:
        cause = f"\nnumerical overflow: {error}"
    raise UsageError(f"Scaled numeric value '{text}' for <{name}> option is malformed or out of range{cause}")


def integer(args: Args, name: str) -> int | None:
    """The value of an option as a C ``int``; None when it was not given.

    Raises:
        UsageError: it is no such number.
    """
    text = args.get(name)
    if text is None:
        return None
    match = _SIGNED.fullmatch(text)
    found = int(match[1]) if match is not None else 2**31
    if not -(2**31) <= found < 2**31:
        raise UsageError(f"Numeric value '{text}' for <{name}> option is malformed or out of range")
    return found
