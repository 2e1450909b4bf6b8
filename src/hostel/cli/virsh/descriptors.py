"""Open files that commands hand on: ``--pass-fds``."""

from __future__ import annotations

import re
from typing import Final

from hostel.cli.options import Args
from hostel.cli.virsh.session import CommandError

_DESCRIPTOR: Final = re.compile(r"[ \t\n]*[+-]?[0-9]{1,9}", re.ASCII)


def descriptors(args: Args) -> list[int]:
    """The descriptors that ``--pass-fds`` names.

    Raises:
        CommandError: one is no number.
    """
    files: list[int] = []
    for text in (args.get("pass-fds") or "").split(",") if args.has("pass-fds") else ():
        if not _DESCRIPTOR.fullmatch(text):
            raise CommandError(f"Unable to parse FD number '{text}'")
        files.append(int(text))
    return files
