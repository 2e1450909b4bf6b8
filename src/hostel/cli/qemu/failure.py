"""How reading or running a command line ends before its end."""

from __future__ import annotations

from hostel.errors import HostelError


class HelpAsked(HostelError):
    """``-h`` or ``--help`` was met: what follows it is not looked at."""

    def __init__(self) -> None:
        super().__init__("help")


class VersionAsked(HostelError):
    """``-V`` or ``--version`` was met: what follows it is not looked at."""

    def __init__(self) -> None:
        super().__init__("version")


class Failure(HostelError):
    """A command cannot go on; reported as ``qemu-img: MESSAGE``.

    Attributes:
        message: one line, or several that each begin with the tool's name.
        code: the exit code.
        hint: a line that follows, without the tool's name.
    """

    def __init__(self, message: str, code: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


class Answered(HostelError):
    """An option asked what there is: that is the answer, and nothing else is done.

    Attributes:
        text: what is printed.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
