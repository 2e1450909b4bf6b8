"""A file system of a few MiB that is really full: what a guest meets on a thin pool or on a disk without room."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class SmallDisk(NamedTuple):
    """The file system."""

    folder: Path

    @contextlib.contextmanager
    def full_at(self, path: Path, offset: int) -> Iterator[None]:
        """Take the page around an offset away from a file, and all other room: the next write there finds none.

        In the end there is room again, and the page holds what it held.
        """
        start = offset - offset % mmap.PAGESIZE
        filler = self.folder / "filler"
        with path.open("r+b", buffering=0) as file:
            page = os.pread(file.fileno(), mmap.PAGESIZE, start)
            with filler.open("wb", buffering=0) as rest:
                hole = ["fallocate", "--punch-hole", "--offset", str(start), "--length", str(mmap.PAGESIZE), str(path)]
                subprocess.run(hole, check=True, timeout=20)
                try:
                    while True:
                        rest.write(bytes(mmap.PAGESIZE))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            try:
                yield
            finally:
                filler.unlink()
                os.pwrite(file.fileno(), page, start)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a file system of ``size`` bytes at a new directory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
