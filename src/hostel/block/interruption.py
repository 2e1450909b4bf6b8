"""What ends a thread in the middle of anything, such as Ctrl-C, and whether it has."""

from __future__ import annotations

import sys
from typing import Final

INTERRUPTIONS: Final = (KeyboardInterrupt, SystemExit)


def is_interrupted() -> bool:
    """Whether this thread clears up behind an interruption, or behind what has failed of that."""
    error = sys.exception()
    while error is not None and not isinstance(error, INTERRUPTIONS):
        error = error.__context__
    return error is not None
