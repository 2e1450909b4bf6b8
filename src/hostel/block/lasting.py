"""Syncs whose failure lasts: who could not store what was written may have dropped it."""

from __future__ import annotations

from collections.abc import Callable


class LastingSync:
    """Syncs one file, until that fails: from then on it always does, with the same error.

    Linux, and what servers run on it, forgets pages that it could not write, and says that all is well the next time.
    """

    __slots__ = ("_failure",)

    def __init__(self) -> None:
        self._failure: OSError | None = None

    def __call__(self, sync: Callable[[], object]) -> None:
        """Call ``sync``, unless it has failed before.

        Raises:
            OSError: it fails, or has.
        """
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        try:
            sync()
        except OSError as error:
            self._failure = error
            raise

    def fail(self, error: OSError) -> None:
        """Let every sync from now on fail with an error that came otherwise, unless one has failed before."""
        self._failure = self._failure or error
