"""Numbers with units on the command line (``vshCommandOptScaledInt``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.cli.options import Args
from hostel.errors import UsageError
from hostel.units import scale_libvirt

_NUMBER: Final = re.compile(r"[ \t\n]*\+?([0-9]{1,20})(.*)", re.ASCII | re.DOTALL)
_SIGNED: Final = re.compile(r"[ \t\n]*([+-]?[0-9]{1,20})", re.ASCII)
_MOST: Final = 2**64 - 1


def scaled(args: Args, name: str, scale: int, *, called: str = "") -> int | None:
    """The value of an option in bytes; without a unit it is so many times ``scale``. None when it was not given.

    Raises:
        UsageError: it is no such number.
    """
    if not args.has(name):
        return None
    text = args.written(name)
    match = _NUMBER.fullmatch(text)
    cause = ""
    if match is not None and int(match[1]) <= _MOST:
        try:
            number = int(match[1])
            found = scale_libvirt(number, match[2]) if match[2] else number * scale
            if found <= _MOST:
                return found
            cause = f"\nnumerical overflow: value too large: {number}{match[2]}"
        except ValueError as error:
            cause = f"\ninvalid argument: {error}"
        except OverflowError as error:
            cause = f"\nnumerical overflow: {error}"
    raise UsageError(f"Scaled numeric value '{text}' for <{called or name}> option is malformed or out of range{cause}")


def integer(args: Args, name: str, *, most: int = 2**31 - 1) -> int | None:
    """The value of an option as a C ``int``, or a longer one by its greatest value; None when it was not given.

    Raises:
        UsageError: it is no such number.
    """
    text = args.get(name)
    if text is None:
        return None
    match = _SIGNED.fullmatch(text)
    found = int(match[1]) if match is not None else most + 1
    if not -most - 1 <= found <= most:
        raise UsageError(f"Numeric value '{text}' for <{name}> option is malformed or out of range")
    return found
