"""Expecting one of libvirt's errors, whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from hostel.errors import ErrorCode, VirtError


@contextlib.contextmanager
def refused(code: ErrorCode, message: str) -> Iterator[None]:
    """The block ends in a :class:`VirtError` of this code and message."""
    with pytest.raises(VirtError) as caught:
        yield
    assert (caught.value.code, str(caught.value)) == (code, message)
