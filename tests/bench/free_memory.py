"""Free memory that is as fast for one tool as for the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.rivals import MIB

_ORDER: Final = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_NEVER: Final = "11"  # larger than any block of free pages
_SPARE: Final = 2048 * MIB  # bytes of free memory that are left alone


@contextlib.contextmanager
def kept(folder: Path, need: int) -> Iterator[None]:
    """Let a virtual machine keep its free memory meanwhile, and touch what will be needed.

    A guest whose balloon reports free pages gives the memory of a deleted file back to its host at once. Who writes
    next waits for the host to bring it again, up to six seconds for 2 GiB, and with two tools in turns that is
    always the same one. Only root may change that; without, the times are what they are.

    Args:
        folder: where the files will be, in memory.
        need: how many bytes they will be at once.
    """
    try:
        before = _ORDER.read_text(encoding="ascii")
        _ORDER.write_text(_NEVER, encoding="ascii")
    except OSError:
        yield
        return
    try:
        _touch(folder, min(need, shutil.disk_usage(folder).free - _SPARE, _free() - _SPARE))
        yield
    finally:
        _ORDER.write_text(before, encoding="ascii")


def _touch(folder: Path, length: int) -> None:
    piece = bytes(MIB)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as stream:
        for _ in range(length // MIB):
            stream.write(piece)


def _free() -> int:
    """Bytes of memory that nothing uses."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
