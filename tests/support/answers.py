"""What was found out about QEMU before in this test run, by whichever worker: in a cache, as a user has one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = "HOSTEL_TEST_ANSWERS"  # the variable that says where a run keeps it until its end


@contextlib.contextmanager
def remembered(folder: Path, kind: str) -> Iterator[None]:
    """Give a program what one before it has found out about QEMU, which takes two seconds an emulator.

    It holds that against the programs and the host, and asks again where they are others.

    Args:
        folder: where it keeps what it found.
        kind: of program: what one of root's finds is not what one of another user's does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = os.environ.get(FOLDER)
    if run is None:  # no tests run, but one of the tools that use what supports them
        yield
        return
    known = Path(run) / kind
    known.mkdir(exist_ok=True)
    _copy(known, folder)
    try:
        yield
    finally:
        _copy(folder, known)


def _copy(source: Path, target: Path) -> None:
    """Copy the files that are whole; each is there as a whole or not at all, since others read and write them."""
    for path in source.glob("[!.]*"):
        if path.is_file():
            whole = target / f".{path.name}.{os.getpid()}"
            whole.write_bytes(path.read_bytes())
            whole.replace(target / path.name)
