"""Users and groups: as they are written in ``qemu.conf`` and in labels, and as processes have them."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.store import Directories
from hostel.drivers.tool import require
from hostel.errors import ErrorCode, ErrorDomain

USUAL: Final = "libvirt-qemu"  # user and group that Debian's package of libvirt makes for QEMU
_LARGEST: Final = 2**32 - 2  # the last one stands for no change of owner

TPM_USER: Final = "tss"  # likewise, of packages of TPMs, for programs that emulate them


class Owner(NamedTuple):
    """A user and a group, by number."""

    uid: int
    gid: int

    @property
    def label(self) -> str:
        """As libvirt writes it into documents and attributes: ``+64055:+64055``."""
        return f"+{self.uid}:+{self.gid}"


ROOT: Final = Owner(0, 0)


class Identity(NamedTuple):
    """Who the driver's machines are.

    Attributes:
        owner: who QEMU runs as, where a document says nothing else.
        gives: whether files are given to it.
        remembers: whether whose they were is kept with them.
        is_usual: whether a document that says nothing gets a label.
        is_named: whether ``qemu.conf`` says so; else a machine that could not run so runs as root.
        note: what is to be said in a machine's log.
    """

    owner: Owner
    gives: bool = True
    remembers: bool = True
    is_usual: bool = True
    is_named: bool = True
    note: str = ""


def user_id(name: str) -> int:
    """The number of a user by name; of one without that name by number, and behind a plus sign by number alone.

    Raises:
        VirtError: ``INVALID_ARG``: there is no such user, and it is no number (``virGetUserID``).
    """
    return _number(name, lambda: pwd.getpwnam(name).pw_uid, "user")


def group_id(name: str) -> int:
    """The number of a group, as of a user.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    return _number(name, lambda: grp.getgrnam(name).gr_gid, "group")


def _number(name: str, look_up: Callable[[], int], kind: str) -> int:
    digits = name.removeprefix("+")
    if digits == name:
        try:
            return look_up()
        except (KeyError, ValueError):
            pass
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 10 or int(digits) > _LARGEST:
        raise fault(ErrorCode.INVALID_ARG, f"Failed to parse {kind} '{name}'", ErrorDomain.QEMU)
    return int(digits)


def read_label(label: str) -> Owner:
    """A label of documents: a user and a group with a colon between them (``virParseOwnershipIds``).

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    user, colon, group = label.partition(":")
    if not colon:
        raise fault(ErrorCode.INVALID_ARG, f"Failed to parse uid and gid from '{label}'", ErrorDomain.QEMU)
    return Owner(user_id(user), group_id(group))


def identity(settings: Settings, directories: Directories) -> Identity | None:
    """Who the machines of a driver are; None where they are who started them, as in a session.

    Root's machines in directories of its own are root's, unless ``qemu.conf`` there names a user.

    Raises:
        VirtError: ``INVALID_ARG``: ``qemu.conf`` names nobody.
    """
    named = (settings.user, settings.group) != (None, None)
    if os.geteuid() != 0 or not (named or directories == Directories.system()):
        return None
    owner = _named(settings) if named else _known(USUAL, USUAL)
    gives, remembers, is_usual = settings.dynamic_ownership, settings.remember_owner, settings.is_confined_by_default
    if owner is not None:
        return Identity(owner, gives, remembers, is_usual, named)
    # Root needs nobody's files, and whoever had machines before a user was there has them still.
    note = f"there is no user '{USUAL}': QEMU runs as root, and files keep their owners; name a user in qemu.conf"
    return Identity(ROOT, False, remembers, is_usual, named, note)


def tpm_owner(settings: Settings, directories: Directories) -> Owner | None:
    """Who programs are that emulate TPMs; None where they are who starts them, as in a session.

    Root's are ``tss``, where the host has that user, in the system's directories (``virQEMUDriverConfigNew``).

    Raises:
        VirtError: ``INVALID_ARG``: ``qemu.conf`` names nobody.
    """
    named = (settings.tpm_user, settings.tpm_group) != (None, None)
    if os.geteuid() != 0 or not (named or directories == Directories.system()):
        return None
    user, group = _known(TPM_USER, "root"), _known(None, TPM_USER)
    found = Owner(user.uid if user is not None else 0, group.gid if group is not None else 0)
    if settings.tpm_user is not None:
        found = found._replace(uid=user_id(settings.tpm_user))
    if settings.tpm_group is not None:
        found = found._replace(gid=group_id(settings.tpm_group))
    return None if found == ROOT else found


def _named(settings: Settings) -> Owner:
    uid = user_id(USUAL if settings.user is None else settings.user)
    if settings.group is not None:
        return Owner(uid, group_id(settings.group))
    if (usual := _known(None, USUAL)) is not None:
        return Owner(uid, usual.gid)
    try:
        return Owner(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        raise fault(
            ErrorCode.INVALID_ARG, f"Failed to parse group '{USUAL}'; name a group in qemu.conf", ErrorDomain.QEMU
        ) from None


def _known(user: str | None, group: str) -> Owner | None:
    """A user and a group by their names; None where one is not there."""
    try:
        return Owner(pwd.getpwnam(user).pw_uid if user is not None else 0, grp.getgrnam(group).gr_gid)
    except KeyError:
        return None


def groups_of(owner: Owner) -> list[int]:
    """Every group that a process of this owner is in (``virGetGroupList``)."""
    try:
        known = pwd.getpwuid(owner.uid)
        found = os.getgrouplist(known.pw_name, known.pw_gid)
    except KeyError:
        found = []
    return found if owner.gid in found else [*found, owner.gid]


def as_user(owner: Owner, keeping: str = "") -> list[str]:
    """The words before a command that is to run as somebody else; none where that is root with all rights.

    Args:
        owner: who it is to be.
        keeping: the capability that it has nevertheless, as ``sys_rawio``.

    Raises:
        VirtError: the host has no setpriv(1).
    """
    if owner == ROOT:
        return []
    words = [require("setpriv", ErrorDomain.QEMU), f"--reuid={owner.uid}", f"--regid={owner.gid}"]
    words.append(f"--groups={','.join(map(str, groups_of(owner)))}")
    if keeping and owner.uid:
        words += [f"--inh-caps=+{keeping}", f"--ambient-caps=+{keeping}"]
    return words
