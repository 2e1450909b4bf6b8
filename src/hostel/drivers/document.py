"""Reading libvirt's documents in a driver: the model's errors become libvirt's."""

from __future__ import annotations

import contextlib
import re
import uuid as uuids
from collections.abc import Iterator, Mapping
from pathlib import Path

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError

# What libvirt says of an element's value in place of its general words: the code and the message.
Words = Mapping[str, tuple[ErrorCode, str]]

_POSITION = re.compile(r"\[[0-9]+\]")
# What libvirt's own reader of XML says, whatever the document is of.
_SHAPE = re.compile("expecting root element of |Missing required attribute |Invalid value for attribute ")


@contextlib.contextmanager
def reading(domain: ErrorDomain, words: Words | None = None) -> Iterator[None]:
    """Turn a :class:`ModelError` into a :class:`VirtError`; ``words`` are by the name of the element.

    Raises:
        VirtError: with the code that the model's error has.
    """
    try:
        yield
    except ModelError as error:
        name = _POSITION.sub("", error.path.rpartition("/")[2])
        if words is not None and name in words:
            code, message = words[name]
            raise fault(code, message, domain) from error
        if error.code is ErrorCode.XML_DETAIL:
            raise VirtError(error.code, error.reason, domain=ErrorDomain.XML) from error
        if _SHAPE.match(error.reason):
            raise fault(error.code, error.reason, ErrorDomain.XML) from error
        # The reason names the element, as libvirt's does; where it is in the document libvirt does not say.
        raise fault(error.code, error.reason, domain) from error


@contextlib.contextmanager
def reading_file(path: Path, domain: ErrorDomain) -> Iterator[None]:
    """Turn a :class:`ModelError` into a :class:`VirtError` that names the file; nobody has given a document.

    Raises:
        VirtError: ``INTERNAL_ERROR``.
    """
    try:
        yield
    except ModelError as error:
        raise fault(ErrorCode.INTERNAL_ERROR, f"'{path}' is broken: {error}", domain) from error


def canonical_uuid(written: str) -> str | None:
    """The canonical form of a UUID that may be without dashes or in capitals; None when it is none."""
    digits = written.strip().replace("-", "")
    if len(digits) != 32 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return None
    return str(uuids.UUID(digits))
