"""Why the host refused: from an errno and a path to the directory, the holder or the file system that it is about.

An errno says what happened, and not to which part of a path, by whom, or what to do about it. Each function here looks
that up once a call has failed, and answers with a sentence for the end of an error, or with None where there is no more
to say. They only look: nothing is opened for writing, locked or waited for, and what cannot be looked at is left out.
"""

from __future__ import annotations

import errno
from typing import Any

from hostel.errors import BlockError, NetworkError


def explain(
    code: int | None, path: str, *, write: bool | None = None, removing: bool = False, needed: int = 0
) -> str | None:
    """Say what is behind the errno that a call with a path failed with.

    Args:
        code: the errno.
        path: the file's name, as the call had it.
        write: whether it was to be written, or only to be read; None where that is not known.
        removing: it was to be removed or renamed, about which its directory decides.
        needed: bytes that were to be written, where that is known.
    """
    from hostel.cause import limit, space
    from hostel.cause import path as paths

    if "\0" in path:
        return None
    if code in (errno.EACCES, errno.EPERM):
        from hostel.cause import access

        return access.removal_denied(path) if removing else access.denied(path, write=write)
    if code in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return paths.broken(path)
    if code == errno.EROFS:
        return space.read_only(path)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return space.full(path, needed, is_quota=code == errno.EDQUOT)
    if code == errno.EFBIG:
        return limit.file_size(path)
    if code in (errno.EMFILE, errno.ENFILE):
        return limit.open_files()
    if code in (errno.EBUSY, errno.ETXTBSY):
        from hostel.cause import holder

        holders = [*holder.find_holders(path), *holder.kernel_holders(path)]
        return f"It is used by {', '.join(holders)}." if holders else None
    return None


def hint_of(error: Exception, *, removing: bool = False) -> str | None:
    """What an error has to say besides its message: its own hint, or what is behind the host's refusal.

    Args:
        error: any error.
        removing: as for :func:`explain`.
    """
    if isinstance(error, BlockError | NetworkError):
        return error.hint
    if isinstance(error, OSError) and isinstance(name_of(error), str):
        is_entry = removing or error.filename2 is not None
        return explain(error.errno, name_of(error), removing=is_entry)
    return None


def name_of(error: OSError) -> Any:
    """The file that an error of the host's is about: of a link or a renaming, the new one."""
    return error.filename if error.filename2 is None else error.filename2


def beyond_errno(error: OSError) -> str | None:
    """What is known of an error whose errno alone is told: the block layer's message, or what is behind the errno."""
    return error.message if isinstance(error, BlockError) else hint_of(error)


def failed(what: str, error: OSError) -> BlockError:
    """QEMU's error, which says no more than the errno; what the driver found out becomes the hint."""
    import os

    code = error.errno or errno.EIO
    return BlockError(f"{what}: {os.strerror(code)}", errno=code, hint=beyond_errno(error))


def sentence(error: OSError, *, removing: bool = False) -> str:
    """The host's reason for an error as one line: the errno's text, and what is behind it.

    Args:
        error: any error of the host or the block layer.
        removing: as for :func:`explain`.
    """
    import os

    # A block error's own text is complete; the host's errors mostly have a number only.
    is_hosts = type(error).__module__ == "builtins"
    reason = error.strerror or os.strerror(error.errno) if is_hosts and error.errno else str(error)
    hint = hint_of(error, removing=removing)
    return f"{reason}; {in_line(hint)}" if hint else reason


def in_line(hint: str) -> str:
    """A hint for the end of a line: its own lines become one, which does not begin or end like a sentence."""
    text = " ".join(hint.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
