"""A file system of a few MiB that is really full: what a guest meets on a thin pool or on a disk without room."""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hostel.block.protocols.file_space import fallocate

_PUNCH_HOLE: Final = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


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
        with path.open("r+b", buffering=0) as file, filler.open("wb", buffering=0) as rest:
            page = os.pread(file.fileno(), mmap.PAGESIZE, start)
            _fill(rest)
            for _ in range(100):  # the guest may be the first to get the page again
                fallocate(file.fileno(), str(path), _PUNCH_HOLE, start, mmap.PAGESIZE)
                _fill(rest)
                if os.lseek(file.fileno(), start, os.SEEK_HOLE) == start:
                    break
            else:
                raise AssertionError("the guest takes the page each time")
            try:
                yield
            finally:
                rest.truncate(0)
                filler.unlink()
                os.pwrite(file.fileno(), page, start)


def _fill(file: io.FileIO) -> None:
    try:
        while True:
            file.write(bytes(mmap.PAGESIZE))
    except OSError as error:
        assert error.errno == errno.ENOSPC


@contextlib.contextmanager
def small_disk(folder: Path, size: int, *, is_free: bool = True) -> Iterator[SmallDisk]:
    """Mount a file system of ``size`` bytes at a new directory.

    In the end it ``is_free``, which is checked, unless a guest may have a file of it open still.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True, timeout=30).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", *([] if is_free else ["-l"]), folder], check=True, timeout=30)
