"""Permission denied: which directory or file, whose it is, who asked, and what the owner can do."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shlex
import stat
import struct
from typing import Final

from hostel.cause import path as paths
from hostel.cause.mount import Mount, mount_of
from hostel.cause.path import Stop, Why

_LETTERS: Final = ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x"))
_SYSTEMS: Final = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr")
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS
_IMMUTABLE: Final = 0x10
_APPEND: Final = 0x20


def denied(path: str, *, write: bool | None) -> str | None:
    """Say what denies this process a file.

    Args:
        path: the file's name, which may be that of one which is to be made.
        write: it was to be written, too; None where it is not known what was tried.
    """
    stop = paths.walk(path)
    if stop.why is Why.CLOSED:
        return _closed(stop.place, os.X_OK, stop)
    if stop.why is Why.MISSING:
        return _denied_in(os.path.dirname(stop.place), stop) if stop.is_last else None
    if stop.why is not Why.FOUND or not stop.is_last:
        return None
    # What may be read and was denied was not only to be read.
    needed = os.R_OK | (os.W_OK if write or (write is None and paths.allowed(stop.place, os.R_OK)) else 0)
    if needed & os.W_OK and (held := _attribute(stop.place)):
        return held
    if not paths.allowed(stop.place, needed):
        return _closed(stop.place, needed, stop)
    folder = os.path.dirname(stop.place)
    if write is None and not paths.allowed(folder, os.W_OK | os.X_OK):
        return _closed(folder, os.W_OK | os.X_OK, stop)
    return (_protected(stop.place) if needed & os.W_OK else None) or _otherwise(stop.place)


def removal_denied(path: str) -> str | None:
    """Say what denies this process removing or renaming a file."""
    folder = os.path.dirname(paths.absolute(path))
    stop = paths.walk(folder)
    if stop.why is not Why.FOUND or not stop.is_last:
        return denied(folder, write=None)
    try:
        outer, inner = os.stat(stop.place), os.lstat(path)
    except OSError:
        return _denied_in(stop.place, stop)
    if held := _attribute(stop.place) or _attribute(path):
        return held
    if not paths.allowed(stop.place, os.W_OK | os.X_OK):
        return _closed(stop.place, os.W_OK | os.X_OK, stop)
    if outer.st_mode & stat.S_ISVTX and os.geteuid() not in (0, outer.st_uid, inner.st_uid):
        return (
            f"'{path}' ({owner_and_mode(inner)}) is another user's in '{stop.place}' "
            f"({owner_and_mode(outer)}), where only owners may remove their files."
        )
    return _otherwise(stop.place)


def _denied_in(folder: str, stop: Stop) -> str | None:
    """What denies making a file in a directory."""
    if held := _attribute(folder):
        return held
    if not paths.allowed(folder, os.W_OK | os.X_OK):
        return _closed(folder, os.W_OK | os.X_OK, stop)
    return _otherwise(folder)


def user_name(uid: int) -> str:
    """A user for people: ``user 'web' (uid 1000)``."""
    try:
        return f"user '{pwd.getpwuid(uid).pw_name}' (uid {uid})"
    except KeyError:
        return f"the user with uid {uid}"


def label_of(path: str) -> str | None:
    """A file's SELinux label; None where it has none."""
    try:
        return os.getxattr(path, "security.selinux").rstrip(b"\0").decode(errors="replace")
    except OSError:
        return None


def confinement() -> str | None:
    """What confines this process: its SELinux label or its AppArmor profile; None where nothing does."""
    try:
        with open("/proc/self/attr/current", encoding="ascii", errors="replace") as stream:
            found = stream.read().rstrip("\0\n")
    except OSError:
        return None
    return None if found in ("", "unconfined") or ":unconfined_t:" in found else found


def owner_and_mode(status: os.stat_result) -> str:
    """Whose a file is and what it allows: ``root:kvm, mode 0660``."""
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    return f"{user}:{_group(status.st_gid)}, mode {stat.S_IMODE(status.st_mode):04o}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _closed(place: str, needed: int, stop: Stop) -> str | None:
    """What is denied by owner, mode or ACL."""
    try:
        status = os.stat(place)
    except OSError:
        return None
    uid = os.geteuid()
    is_directory = stat.S_ISDIR(status.st_mode)
    kind = "The directory " if is_directory else ""
    through = f", where the link '{stop.link}' leads," if stop.link else ""
    text = f"{kind}'{place}' ({owner_and_mode(status)}{_seen_label(place)}){through} does not let {user_name(uid)} "
    lacking = needed & ~sum(bit for bit, _ in _LETTERS if needed & bit and paths.allowed(place, bit))
    text += _verbs(lacking, is_directory=is_directory)
    mount = mount_of(place)
    if uid == 0:
        return f"{text}{_root(mount)}."
    if mount is not None and mount.kind.startswith("fuse") and not _is_ours(mount, uid):
        return f"{text}: it is {mount}, which another user mounted without -o allow_other."
    return f"{text}; to allow it: {_remedy(place, status, lacking, uid)}"


def _verbs(lacking: int, *, is_directory: bool) -> str:
    if is_directory:
        return "make or remove files in it" if lacking & os.W_OK else "through"
    return " or ".join(word for bit, word in ((os.R_OK, "read it"), (os.W_OK, "write it")) if lacking & bit)


def _remedy(place: str, status: os.stat_result, lacking: int, uid: int) -> str:
    """A command that gives this user what is lacking, and nobody more than that."""
    quoted = shlex.quote(place)
    # An entry for a user replaces what the mode gives all others: it must keep what he has.
    letters = "".join(letter for bit, letter in _LETTERS if lacking & bit or paths.allowed(place, bit))
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    if status.st_uid == uid:
        return f"chmod u+{letters} {quoted}"
    if stat.S_ISDIR(status.st_mode) and lacking & os.W_OK and _is_the_systems(place):
        return "be root, or choose a directory of your own"
    by_group = sum(bit for bit, _ in _LETTERS if status.st_mode >> 3 & bit)
    if status.st_gid != 0 and by_group & lacking == lacking and status.st_gid not in (*os.getgroups(), os.getegid()):
        return f"usermod -aG {shlex.quote(_group(status.st_gid))} {name}, and log in again"
    if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return "be root, or have a rule of udev's give it to you"
    return f"setfacl -m u:{name}:{letters} {quoted}"


def _is_the_systems(folder: str) -> bool:
    """Whether a directory is one that nobody should open to a user for the sake of an image."""
    top = folder.split("/")[1]
    return folder.count("/") == 1 or top in _SYSTEMS


def _is_ours(mount: Mount, uid: int) -> bool:
    return f"user_id={uid}" in mount.options or "allow_other" in mount.options


def _root(mount: Mount | None) -> str:
    """Why root may not either."""
    if mount is not None and mount.kind.startswith("nfs"):
        return f": it is {mount}, and its server takes root for nobody (root_squash): change owner or mode there"
    if mount is not None and mount.kind.startswith("fuse"):
        return f": it is {mount}, which a user mounted without -o allow_other or allow_root"
    return ": this process has not the capability CAP_DAC_OVERRIDE, as in a container or a confined service"


def _protected(place: str) -> str | None:
    """Sticky directories keep others' files from being opened by who would make them (fs.protected_regular)."""
    folder = os.path.dirname(place)
    try:
        outer, inner = os.stat(folder), os.stat(place)
    except OSError:
        return None
    if not outer.st_mode & stat.S_ISVTX or not outer.st_mode & 0o022 or inner.st_uid in (outer.st_uid, os.geteuid()):
        return None
    return (
        f"'{place}' ({owner_and_mode(inner)}) is another user's in '{folder}', which all may write to: the kernel lets "
        "nobody else write over it there (sysctl fs.protected_regular). Remove it first, or choose another directory."
    )


def _otherwise(place: str) -> str | None:
    """What denies where owner and mode allow."""
    status = os.stat(place)
    if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return (
            f"Owner and mode of the device '{place}' ({owner_and_mode(status)}) allow it: the container's or the "
            "service's list of devices does not (DeviceAllow=, --device)."
        )
    mount = mount_of(place)
    if os.geteuid() == 0 and mount is not None and mount.kind.startswith(("nfs", "fuse")):
        return f"'{place}' ({owner_and_mode(status)}) is denied to root{_root(mount)}."
    confined = confinement()
    if confined is None:
        return None
    label = label_of(place)
    shown = f", label {label}" if label else ""
    text = f"Owner and mode of '{place}' ({owner_and_mode(status)}{shown}) allow it, and what confines this process "
    search = "ausearch -m avc -ts recent" if label else "journalctl -k -g apparmor"
    fix = f"; restorecon {shlex.quote(place)} sets the label that its place has" if label else ""
    return f"{text}({confined}) does not: {search} shows the rule{fix}."


def kept_from(path: str, kept: str) -> str | None:
    """Say that the kernel keeps a QEMU from a file which owners and modes do not; None where nobody sees the file.

    Args:
        path: the file's name, which may be that of one which is to be made.
        kept: what QEMU is kept to: an SELinux context, or a profile of AppArmor.
    """
    stop = paths.walk(path)
    try:
        place = stop.place if stop.why is Why.FOUND else os.path.dirname(stop.place)
        status = os.stat(place)
    except OSError:
        return None
    is_selinux = kept.count(":") > 1
    shown = (_seen_label(place) or ", without a label") if is_selinux else ""
    search = "ausearch -m avc -ts recent" if is_selinux else "journalctl -k -g apparmor"
    return (
        f"'{place}' ({owner_and_mode(status)}{shown}) is not for QEMU, which the kernel keeps to {kept}: "
        f"{search} shows the rule."
    )


def _seen_label(place: str) -> str:
    label = label_of(place)
    return f", label {label}" if label else ""


def _attribute(place: str) -> str | None:
    """What attribute of a file on ext4 and the like keeps even root from writing; None where it has none."""
    try:
        mode = os.stat(place).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        (flags,) = struct.unpack("=l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4)))
    except OSError:  # not every file system has them
        return None
    finally:
        os.close(descriptor)
    for bit, name, letter in ((_IMMUTABLE, "immutable", "i"), (_APPEND, "append only", "a")):
        if flags & bit:
            return f"'{place}' has the attribute '{name}'; to take it away: chattr -{letter} {shlex.quote(place)}"
    return None
