"""A disk that is full where documents are kept, for the length of a block: all are refused from some moment on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from hostel.drivers import store

Moment = Callable[[Path, str], bool]


@contextlib.contextmanager
def full(under: Path, since: Moment = lambda path, text: True) -> Iterator[list[Path]]:
    """Refuse documents under a directory for lack of room; yields those that were refused.

    Args:
        under: a directory.
        since: whether the disk is full by the time that a document, with its text, is to be written.
    """
    refused: list[Path] = []
    write = store.write_atomically

    def write_if_room(path: Path, text: str) -> None:
        if path.is_relative_to(under) and (refused or since(path, text)):
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    with mock.patch.object(store, "write_atomically", write_if_room):
        yield refused
