"""What another user than this process may do with a file, by owner, mode and ACL (acl(5)): QEMU often is one."""

from __future__ import annotations

import os
import shlex
import stat
import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from hostel.cause import path as paths
from hostel.cause.access import owner_and_mode, user_name

_ACL: Final = "system.posix_acl_access"
_ENTRY: Final = struct.Struct("<HHI")
_USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 2, 4, 8, 16, 32
_LETTERS: Final = ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x"))


class User(NamedTuple):
    """A user and all of its groups, by number."""

    uid: int
    groups: Collection[int]


def rights(place: str, user: User) -> int:
    """What a user may do with a file, in the bits of access(2).

    Raises:
        OSError: it is not there.
    """
    status = os.stat(place)
    mode = status.st_mode
    if user.uid == 0:
        return os.R_OK | os.W_OK | os.X_OK
    if status.st_uid == user.uid:
        return mode >> 6 & 7
    entries = list(_entries(place))
    mask = next((bits for tag, bits, _ in entries if tag == _MASK), 7)
    for tag, bits, number in entries:
        if tag == _USER and number == user.uid:
            return bits & mask
    mine = [bits for tag, bits, number in entries if tag == _GROUP and number in user.groups]
    if status.st_gid in user.groups:
        mine += [bits for tag, bits, _ in entries if tag == _GROUP_OWNER] if entries else [mode >> 3 & 7]
    if mine:
        return mask & (mine[0] if len(mine) == 1 else _union(mine))
    return mode & 7


def _union(bits: list[int]) -> int:
    found = 0
    for some in bits:
        found |= some
    return found


def _entries(place: str) -> Iterator[tuple[int, int, int]]:
    """The entries of a file's ACL: tag, permissions and number; none where it has no ACL."""
    try:
        value = os.getxattr(place, _ACL)
    except OSError:
        return
    yield from _ENTRY.iter_unpack(value[4 : len(value) - (len(value) - 4) % _ENTRY.size])


def closed_way(path: str, user: User) -> str | None:
    """The first directory on the way to a file through which a user does not come; None where it comes there."""
    real = os.path.realpath(path)
    for folder in reversed([*_parents(real)]):
        try:
            if not rights(folder, user) & os.X_OK:
                return folder
        except OSError:
            return None
    return None


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def denied_to(path: str, user: User) -> str | None:
    """Say what denies a user a file, and what can be done; None where owners and modes deny nothing."""
    closed = closed_way(path, user)
    if closed is not None:
        return _said(closed, user, os.X_OK)
    try:
        lacking = (os.R_OK | os.W_OK) & ~rights(path, user)
    except OSError:
        folder = os.path.dirname(os.path.realpath(path))
        if paths.walk(folder).why is not paths.Why.FOUND or not (os.W_OK & ~rights(folder, user)):
            return None
        return _said(folder, user, os.W_OK)
    return _said(path, user, lacking) if lacking else None


def _said(place: str, user: User, lacking: int) -> str:
    status = os.stat(place)
    is_directory = stat.S_ISDIR(status.st_mode)
    kind = "The directory " if is_directory else ""
    what = "write it" if lacking == os.W_OK else "read it" if lacking & os.R_OK else "use it"
    if is_directory:
        what = "make files in it" if lacking & os.W_OK else "through"
    given = "".join(letter for bit, letter in _LETTERS if (lacking | rights(place, user)) & bit)
    fix = f"setfacl -m u:{user.uid}:{given} {shlex.quote(place)}"
    return (
        f"{kind}'{place}' ({owner_and_mode(status)}) does not let {user_name(user.uid)} {what}, who QEMU runs as; "
        f"to allow it: {fix}, or name another user in qemu.conf"
    )
