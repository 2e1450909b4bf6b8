"""What ends a thread in the middle of anything, such as Ctrl-C or what a signal handler raises, and whether it has."""

from __future__ import annotations

import sys
from typing import Final

from hostel.errors import Reentered

INTERRUPTIONS: Final = (KeyboardInterrupt, SystemExit)


def is_interrupted() -> bool:
    """Whether this thread clears up behind an interruption, or behind what has failed of that."""
    error = sys.exception()
    while error is not None and not isinstance(error, INTERRUPTIONS):
        error = error.__context__
    return error is not None


def breaks_in(error: BaseException) -> bool:
    """Whether an error came into the middle of a driver from elsewhere: all that drivers raise has an errno.

    That is Ctrl-C, what else a signal handler raises (``raise TimeoutError``), an error of ours, memory that is out.
    """
    return not isinstance(error, OSError) or error.errno is None or isinstance(error, Reentered)
