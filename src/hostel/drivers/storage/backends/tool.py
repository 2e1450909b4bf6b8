"""Running the tools that pools are managed with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hostel.drivers import tool
from hostel.drivers.tool import PACKAGES, TIMEOUT, Ended, find, settle
from hostel.errors import ErrorDomain, VirtError

__all__ = ["PACKAGES", "Ended", "failure", "find", "require", "run", "settle"]


def require(name: str) -> str:
    """Where a tool is.

    Raises:
        VirtError: ``SYSTEM_ERROR``; it is not installed.
    """
    return tool.require(name, ErrorDomain.STORAGE)


def run(
    command: Sequence[str], *, expected: Collection[int] = (0,), secret: str = "", timeout: float = TIMEOUT
) -> Ended:
    """Run a tool to its end; see :func:`hostel.drivers.tool.run`.

    Raises:
        VirtError: it is not installed, it failed, or it did not end.
    """
    return tool.run(command, ErrorDomain.STORAGE, expected=expected, secret=secret, timeout=timeout)


def failure(shown: str, ended: Ended) -> VirtError:
    """A tool's failure as libvirt tells of it, with all that the tool said."""
    return tool.failure(shown, ended, ErrorDomain.STORAGE)
