"""``virt-ssh-helper``: what libvirt's clients run over ssh, to be connected with a daemon on this host."""

from __future__ import annotations

import os
import selectors
import socket
import sys
from pathlib import Path
from typing import Final

from hostel.errors import NetworkError, UsageError
from hostel.net.address import UnixAddress, connect

_PORTION: Final = 1 << 16
_INPUT: Final = 0
_OUTPUT: Final = 1
_CONNECT_SECONDS: Final = 30.0


def main(words: list[str]) -> int:
    """Run a command line; ``words`` follow the tool's name.

    Returns:
        The exit code.
    """
    from urllib.parse import urlsplit

    read_only = False
    rest = []
    for word in words:
        if word in ("-r", "--readonly"):
            read_only = True
        elif word in ("-V", "--version"):
            print("9.0.0")
            return 0
        elif word in ("-h", "--help") or word.startswith("-"):
            print("Usage:\n  virt-ssh-helper [-r] URI\n\nConnect standard input and output with the daemon of a URI.")
            return 0 if word in ("-h", "--help") else 1
        else:
            rest.append(word)
    if len(rest) != 1:
        raise UsageError("expected a URI")
    uri = urlsplit(rest[0])
    if "+" in uri.scheme or uri.netloc:
        raise UsageError(f"unexpected URI {rest[0]}: the daemon is on this host")
    try:
        daemon = connect(UnixAddress(_socket_path(uri.path, read_only=read_only)), _CONNECT_SECONDS)
    except NetworkError as error:
        raise UsageError(str(error)) from None
    with daemon:
        _carry(daemon)
    return 0


def _socket_path(path: str, *, read_only: bool) -> str:
    """Where the daemon of a URI with this path listens."""
    if path == "/session" and os.geteuid() != 0:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        folder = Path(runtime) if runtime else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return str(folder / "libvirt" / "libvirt-sock")
    return f"/var/run/libvirt/libvirt-sock{'-ro' if read_only else ''}"


def _carry(daemon: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(daemon, selectors.EVENT_READ)
        try:
            selector.register(_INPUT, selectors.EVENT_READ)
        except PermissionError:  # a file: there is nothing to wait for
            daemon.sendall(sys.stdin.buffer.read())
            daemon.shutdown(socket.SHUT_WR)
        while True:
            for key, _ in selector.select():
                if key.fileobj is daemon:
                    data = daemon.recv(_PORTION)
                    if not data:
                        return
                    _write_all(data)
                else:
                    data = os.read(_INPUT, _PORTION)
                    if not data:
                        return
                    daemon.sendall(data)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_OUTPUT, view) :]
