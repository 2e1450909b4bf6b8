"""What the libraries say that reach a pool's server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hostel.cause import sentence
from hostel.drivers.fault import fault, printable
from hostel.errors import BlockError, ErrorCode, ErrorDomain


@contextlib.contextmanager
def translating_library(doing: str, code: ErrorCode = ErrorCode.SYSTEM_ERROR) -> Iterator[None]:
    """Turn a library's errors into libvirt's; ``doing`` says what failed."""
    try:
        yield
    except BlockError as error:
        raise fault(code, f"{doing}: {printable(sentence(error))}", ErrorDomain.STORAGE) from error
