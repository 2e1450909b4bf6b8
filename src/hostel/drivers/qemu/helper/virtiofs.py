"""virtiofsd: a directory of the host for one guest, over vhost-user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.helper import vhost_user
from hostel.drivers.qemu.process import Helper
from hostel.drivers.qemu.settings import Settings
from hostel.model.domain.devices.filesystem import Filesystem, FilesystemBinary, FilesystemLock, FilesystemSource
from hostel.model.domain.domain import Domain

_BINARIES: Final = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")


def is_virtiofs(item: Filesystem) -> bool:
    """Whether a directory is served by a program, and not by QEMU."""
    return item.driver is not None and item.driver.type == "virtiofs"


def socket_name(item: Filesystem) -> str:
    """What the program's socket is called in the run's directory."""
    return f"{item.alias}-fs.sock"


def helpers(domain: Domain, run: Path, settings: Settings) -> list[Helper]:
    """What serves a document's directories, but for those that others serve already.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: there is no such directory, no program, or we may not run it.
    """
    return [
        _helper(item, run, debug=settings.directory_debug)
        for item in domain.devices.filesystems
        if is_virtiofs(item) and not (item.source is not None and item.source.socket)
    ]


def _helper(item: Filesystem, run: Path, *, debug: bool) -> Helper:
    binary = item.binary or FilesystemBinary()
    source = (item.source or FilesystemSource()).dir or ""
    if os.geteuid() != 0:
        raise unsupported("virtiofs is not supported in session mode: virtiofsd needs root; take <driver type='path'/>")
    if not os.path.isdir(source):
        raise unsupported(f"<filesystem>: the directory '{source}' is not there")
    if "," in source:
        raise unsupported(f"<filesystem>: virtiofsd takes no directory with a comma in its name: '{source}'")
    program = item.binary.path if item.binary is not None and item.binary.path is not None else find()
    words = [f"source={source}"]
    words += [f"cache={binary.cache}"] if binary.cache not in (None, "default") else []
    words += [f"sandbox={binary.sandbox}"] if binary.sandbox not in (None, "default") else []
    lock = binary.lock or FilesystemLock()
    for name, value in (("xattr", binary.xattr), ("flock", lock.flock), ("posix_lock", lock.posix)):
        words += [] if value is None else [name if value else f"no_{name}"]
    socket = run / socket_name(item)
    argv = [program, f"--socket-path={socket}", "-o", ",".join(words)]
    argv += [] if binary.thread_pool is None else [f"--thread-pool-size={binary.thread_pool}"]
    argv += ["-d"] if debug else []
    return Helper(f"virtiofsd of '{item.target}'", argv, socket)


def find() -> str:
    """The program that this host has for it.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it has none.
    """
    binary = vhost_user.find("fs") or next((path for path in _BINARIES if os.access(path, os.X_OK)), None)
    if binary is None:
        raise unsupported(
            "<driver type='virtiofs'/> needs virtiofsd, which is not there; install the package virtiofsd "
            "(in Debian 12, qemu-system-common)"
        )
    return binary
