"""Run ``hostel`` as on a system that is not POSIX, as far as its Python shows: ``python without_posix.py WORDS...``.

Modules and functions that Windows' Python does not have are taken away before anything of ours is loaded.
"""

from __future__ import annotations

import os
import socket
import subprocess  # noqa: F401 (it looks once at what the system is)
import sys
import tempfile  # noqa: F401

MODULES = frozenset(
    ("fcntl", "grp", "posix_ipc", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios", "tty")
)
FUNCTIONS = """
copy_file_range eventfd fork geteuid getegid getgid getpgid getuid killpg memfd_create mkfifo pidfd_open
posix_fallocate pread preadv pwrite pwritev readv register_at_fork sched_getaffinity sched_setaffinity sendfile setsid
statvfs sysconf uname writev O_CLOEXEC O_DIRECT O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH SEEK_DATA SEEK_HOLE
"""


class Absent:
    """An import hook that knows some modules not to be there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse them, and leave the others to who comes after."""
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected, as Windows' Python makes them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def leave_out() -> None:
    """Take away what is not there on other systems."""
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Absent())
    for name in FUNCTIONS.split():
        if hasattr(os, name):
            delattr(os, name)
    del socket.AF_UNIX
    socket.socketpair = socketpair  # type: ignore[assignment]


if __name__ == "__main__":
    leave_out()
    from hostel.cli.main import main

    sys.exit(main(sys.argv[1:]))
