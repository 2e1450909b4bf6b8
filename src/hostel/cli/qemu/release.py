"""Which release of QEMU the output is that of.

Options of later releases are always understood. What they print is another matter: programs that read 7.2's output get
just that, unless ``HOSTEL_QEMU_VERSION`` names a later one, such as ``10.1``.
"""

from __future__ import annotations

import os
from typing import Final

from hostel.errors import UsageError

QEMU_VERSION: Final = "7.2.22"
_VARIABLE: Final = "HOSTEL_QEMU_VERSION"


def release() -> str:
    """The release, such as ``7.2.22``.

    Raises:
        UsageError: the variable holds no version.
    """
    text = os.environ.get(_VARIABLE) or QEMU_VERSION
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{_VARIABLE}='{text}' is no version of QEMU, such as {QEMU_VERSION}")
    return text


def is_from(major: int, minor: int) -> bool:
    """Whether the output is that of this release or of a later one."""
    return tuple(map(int, release().split("."))) >= (major, minor)
