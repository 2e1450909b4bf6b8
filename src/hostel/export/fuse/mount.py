"""Mounting over a file, and taking that back: by the kernel where we may, and by ``fusermount3`` where we may not."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import shutil
import socket
import stat
from typing import Any, Final

from hostel.errors import BlockError, UnsupportedFeature
from hostel.units import MiB

_DEVICE: Final = "/dev/fuse"
_HELPERS: Final = ("fusermount3", "fusermount")
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT: Final = 20.0  # seconds for the helper
_MS_NOSUID, _MS_NODEV = 2, 4
_MNT_DETACH: Final = 2
_MAX_READ: Final = MiB


def check_mountpoint(path: str) -> None:
    """Refuse what cannot be mounted over.

    Raises:
        BlockError: it is no regular file, or not to be had; the text is QEMU's.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        hint = None
        if error.errno == errno.ENOTCONN:
            hint = f"An export that was killed has left its mount there; end that with: fusermount3 -u {path}"
        raise BlockError(f"Failed to stat '{path}': {error.strerror}", errno=error.errno, hint=hint) from None
    except ValueError as error:
        raise BlockError(f"Failed to stat '{path}': {error}", errno=errno.EINVAL) from None
    if not stat.S_ISREG(mode):
        raise BlockError(f"'{path}' is not a regular file", errno=errno.EINVAL)


def mount(path: str, *, allow_other: bool) -> int:
    """Mount over a file.

    Returns:
        The descriptor on which the kernel asks; it does not block.

    Raises:
        UnsupportedFeature: the kernel has no FUSE, or the helper is missing and needed.
        BlockError: it cannot be mounted.
    """
    if not os.path.exists(_DEVICE):
        raise UnsupportedFeature(f"FUSE exports need {_DEVICE}", hint="Load it with: modprobe fuse")
    options = ["default_permissions", f"max_read={_MAX_READ}"] + ["allow_other"] * allow_other
    if os.geteuid() == 0:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        data = [f"fd={fd}", f"rootmode={stat.S_IFREG:o}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
        code = _mount(path, ",".join(data + options))
        if not code:
            return fd
        os.close(fd)
        if code != errno.EPERM:
            raise BlockError(f"Failed to mount FUSE session to export: {os.strerror(code)}", errno=code)
    return _ask_helper(path, [*options, "nosuid", "nodev", "fsname=hostel", "subtype=hostel"])


def unmount(path: str) -> None:
    """Take a mount back: at once, or where the file is in use as soon as it is not.

    Raises:
        BlockError: it cannot be.
    """
    if os.geteuid() == 0:
        code = _unmount(path, 0)
        if code == errno.EBUSY:
            code = _unmount(path, _MNT_DETACH)
        if code in (0, errno.EINVAL, errno.ENOENT):  # or somebody else has done it
            return
        if code != errno.EPERM:
            raise BlockError(f"Failed to unmount '{path}': {os.strerror(code)}", errno=code)
    for lazily in ((), ("-z",)):
        failure = _run_helper(["-u", "-q", *lazily, "--", path])
        if failure is None:
            return
    raise BlockError(f"Failed to unmount '{path}': {failure}")


def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _mount(path: str, data: str) -> int:
    """``mount(2)``; the errno, or 0."""
    import ctypes

    arguments = b"hostel", os.fsencode(path), b"fuse.hostel", ctypes.c_ulong(_MS_NOSUID | _MS_NODEV), data.encode()
    return ctypes.get_errno() if _libc().mount(*arguments) else 0


def _unmount(path: str, flags: int) -> int:
    """``umount2(2)``; the errno, or 0."""
    import ctypes

    return ctypes.get_errno() if _libc().umount2(os.fsencode(path), flags) else 0


def _helper() -> str:
    for name in _HELPERS:
        if (found := shutil.which(name, path=_PATH)) is not None:
            return found
    raise UnsupportedFeature(
        "FUSE exports of a user who is not root need fusermount3", hint="Install the package fuse3."
    )


def _ask_helper(path: str, options: list[str]) -> int:
    """Let the helper mount, which hands the descriptor over on a socket."""
    import subprocess

    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [_helper(), "-o", ",".join(options), "--", path]
        environment = {"_FUSE_COMMFD": str(theirs.fileno()), "PATH": _PATH}
        process = subprocess.Popen(
            words, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        theirs.close()
        ours.settimeout(_TIMEOUT)
        try:
            with contextlib.suppress(TimeoutError):
                _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
                for level, kind, sent in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(sent) >= 4:
                        fd = array.array("i", sent[:4])[0]
                        os.set_blocking(fd, False)
                        return fd
            process.kill()
            said = process.communicate(timeout=_TIMEOUT)[1].decode(errors="replace").strip()
        finally:
            process.wait(_TIMEOUT)
            if process.stderr is not None:
                process.stderr.close()
    raise BlockError(f"Failed to mount FUSE session to export: {said or 'the helper does not answer'}")


def _run_helper(words: list[str]) -> str | None:
    """Run the helper; what it says where it fails."""
    import subprocess

    ended = subprocess.run([_helper(), *words], capture_output=True, timeout=_TIMEOUT, check=False, text=True)
    return None if ended.returncode == 0 else ended.stderr.strip() or f"status {ended.returncode}"
