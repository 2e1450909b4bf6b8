"""A file that gets a descriptor's number as soon as that is free, as whatever is opened next would."""

from __future__ import annotations

import os
from pathlib import Path


class Bystander:
    """The file of somebody who has nothing to do with what is tested.

    Args:
        path: where it is made.
        number: the descriptor that it is to get.
    """

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        path.write_bytes(b"bystander")
        self._number = number
        self._taken = False

    def __enter__(self) -> Bystander:
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken:
            os.close(self._number)

    def take(self) -> None:
        """Take the number, if it is free."""
        try:
            os.fstat(self._number)
        except OSError:
            own = os.open(self._path, os.O_RDWR)
            if own != self._number:
                os.dup2(own, self._number)
                os.close(own)
            self._taken = True

    def untouched(self) -> bool:
        """Whether nobody has written into the file, nor moved in it."""
        return self._path.read_bytes() == b"bystander" and (
            not self._taken or os.lseek(self._number, 0, os.SEEK_CUR) == 0
        )
