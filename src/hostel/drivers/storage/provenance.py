"""Volumes whose bytes came from outside, until somebody vouches for them.

An upload is bytes, and is stored as they are. What its header says is another matter: an image that names
``/etc/shadow`` as its backing file would show it to whoever uploaded it, as soon as a machine or a clone follows the
name. So a file that was uploaded, and names others, is marked with an extended attribute, and what is marked is not
followed. The mark goes with the file, wherever it is moved, and goes away with it.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from hostel.drivers.fault import fault, printable
from hostel.errors import BlockError, ErrorCode, ErrorDomain, VirtError

ATTRIBUTE: Final = "user.hostel.untrusted"
_WITHOUT: Final = (errno.EOPNOTSUPP, errno.ENOSPC, errno.EPERM, errno.EDQUOT)
_ROLES: Final = {"backing": "backing file", "data-file": "external data file", "extent": "extent"}


def mark(descriptor: int) -> bool:
    """Say that nobody vouches for a file; whether its file system can keep that."""
    try:
        os.setxattr(descriptor, ATTRIBUTE, b"upload")
    except OSError as error:
        if error.errno in _WITHOUT:
            return False
        raise
    return True


def clear(descriptor: int) -> None:
    """Somebody vouches for a file, or there is nothing in it to be careful about."""
    try:
        os.removexattr(descriptor, ATTRIBUTE)
    except OSError as error:
        if error.errno not in (errno.ENODATA, *_WITHOUT):
            raise


def is_marked(path: str) -> bool:
    """Whether a file was uploaded, named other files then, and nobody has vouched for it."""
    try:
        os.getxattr(path, ATTRIBUTE)
    except OSError:
        return False
    return True


def named(path: str) -> str | None:
    """What the image at a path names first, for people; None where it names nothing."""
    from hostel.img.inspect import inspect

    try:
        claims = inspect(path).names
    except (BlockError, OSError):
        return None
    if not claims:
        return None
    first = claims[0]
    return printable(f"the {_ROLES.get(first.role, first.role)} '{first.filename}'")


def refuse_unvouched(path: str, what: str) -> None:
    """Refuse to follow what an uploaded file names.

    Args:
        path: the file.
        what: names it in the message, such as ``volume 'a'``.

    Raises:
        VirtError: ``OPERATION_INVALID``: it is marked, and names other files still.
    """
    if is_marked(path) and (name := named(path)) is not None:
        raise fault(
            ErrorCode.OPERATION_INVALID,
            f"{what} was uploaded and names {name}, which is not followed: if you trust who made it, "
            "upload it again with 'virsh vol-upload --trust'",
            ErrorDomain.STORAGE,
        )


def unmarkable(what: str, name: str) -> VirtError:
    """The failure of an upload that names other files, where the file system cannot keep the mark."""
    return fault(
        ErrorCode.OPERATION_FAILED,
        f"{what} now names {name}, and its file system cannot record that nobody vouches for that: delete it, "
        "or upload it with --trust if you trust who made it",
        ErrorDomain.STORAGE,
    )
