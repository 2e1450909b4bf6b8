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
    """Give a program what one before it has found out about QEMU, which takes libvirt two seconds an emulator.

    It holds that against the programs and itself, and asks again where they are others.

    Args:
        folder: where it keeps what it found.
        kind: of program: what one of root's finds is not what one of another user's does.
    """
    folder.mkdir(parents=True)
    run = os.environ.get(FOLDER)
    if run is None:  # no tests run, but one of the tools that use what supports them
        yield
        return
    known = Path(run) / kind
    known.mkdir(exist_ok=True)
    for path in known.glob("[!.]*"):
        (folder / path.name).write_bytes(path.read_bytes())
    try:
        yield
    finally:
        for path in folder.glob("[!.]*"):
            whole = known / f".{path.name}.{os.getpid()}"
            whole.write_bytes(path.read_bytes())
            whole.replace(known / path.name)
