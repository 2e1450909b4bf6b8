"""What ends a thread in the middle of anything, such as Ctrl-C or what a signal handler raises, and whether it has."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
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


@contextlib.contextmanager
def failures_ignored() -> Iterator[None]:
    """As ``suppress(OSError)``, for a step whose failure changes nothing; what only came into it goes on."""
    try:
        yield
    except OSError as error:
        if breaks_in(error):
            raise
