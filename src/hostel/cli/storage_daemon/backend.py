"""Character devices as ``chardev-add`` describes them; those that keep what they are given can be read and written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.storage_daemon.chardev import CharacterDevice, inherited_socket, open_at, open_pipe
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_DEFAULT_RING: Final = 65536  # bytes
_COMMON: Final = (Parameter("logfile"), Parameter("logappend", Kind.BOOL))
_RING: Final = (*_COMMON, Parameter("size", Kind.INT))
_DEVICE: Final = (*_COMMON, needed("device"))
_PARAMETERS: Final[Mapping[str, tuple[Parameter, ...]]] = {
    "file": (
        *_COMMON,
        Parameter("in"),
        needed("out"),
        Parameter("append", Kind.BOOL),
    ),
    "memory": _RING,
    "null": _COMMON,
    "pipe": _DEVICE,
    "pty": _COMMON,
    "ringbuf": _RING,
    "socket": (
        *_COMMON,
        needed("addr", Kind.OBJECT),
        Parameter("tls-creds"),
        Parameter("tls-authz"),
        Parameter("server", Kind.BOOL),
        Parameter("wait", Kind.BOOL),
        Parameter("nodelay", Kind.BOOL),
        Parameter("telnet", Kind.BOOL),
        Parameter("tn3270", Kind.BOOL),
        Parameter("websocket", Kind.BOOL),
        Parameter("reconnect", Kind.INT),
    ),
}
# What QEMU has and nothing here could use.
_UNUSED: Final = ("serial", "parallel", "udp", "mux", "msmouse", "wctablet", "testdev", "stdio", "vc")
_LEFT_OUT: Final = ("tls-creds", "telnet", "tn3270", "websocket")
_BACKEND: Final = (needed("type"), needed("data", Kind.OBJECT))


class RingDevice(CharacterDevice):
    """Keeps the last bytes that were written to it, until they are read.

    Args:
        size: how many bytes, a power of two.
    """

    def __init__(self, label: str, kind: str, size: int) -> None:
        super().__init__(label, kind, kind)
        self._size = size
        self._kept = bytearray()

    def write(self, data: bytes) -> None:
        """Add bytes; the oldest make room."""
        self._kept += data
        del self._kept[: max(0, len(self._kept) - self._size)]

    def read(self, length: int) -> bytes:
        """Take up to ``length`` of the oldest bytes out."""
        found = bytes(self._kept[:length])
        del self._kept[:length]
        return found


class OpenDevice(CharacterDevice):
    """Has descriptors that are open for as long as the device is there."""

    def __init__(self, label: str, kind: str, filename: str, *descriptors: int) -> None:
        super().__init__(label, filename, kind)
        self._descriptors = descriptors

    def close(self) -> None:
        """See :class:`CharacterDevice`."""
        super().close()
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def read(given: Any) -> tuple[str, dict[str, Any]]:
    """Check the description of a device.

    Returns:
        Its type, and its parameters.

    Raises:
        QmpError: with QEMU's text.
    """
    kind = check(_BACKEND, given, path="backend.")["type"]
    if kind not in _PARAMETERS and kind not in _UNUSED:
        raise generic(f"Parameter 'type' does not accept value '{kind}'")
    return kind, given["data"] if kind in _UNUSED else check(_PARAMETERS[kind], given["data"], path="backend.data.")


def make(daemon: Daemon, label: str, kind: str, given: Mapping[str, Any]) -> CharacterDevice:
    """Make a device.

    Raises:
        Failure: it cannot be made; with QEMU's text.
        QmpError: it is of a kind that is not here.
        NetworkError: its socket cannot be had.
    """
    if kind in _UNUSED:
        raise generic(f"'{kind}' is not a valid char driver name")
    if kind in ("ringbuf", "memory"):
        size = given.get("size", _DEFAULT_RING)
        if size < 1 or size & (size - 1):
            raise generic("size of ringbuf chardev must be power of two")
        return RingDevice(label, kind, size)
    maker: Callable[[str, Mapping[str, Any], Daemon], CharacterDevice] | None = _MAKERS.get(kind)
    return CharacterDevice(label, "null") if maker is None else maker(label, given, daemon)


def _file(label: str, given: Mapping[str, Any], daemon: Daemon) -> CharacterDevice:
    how = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if given.get("append") else os.O_TRUNC)
    opened: list[int] = []
    try:
        opened.append(_open(given["out"], how))
        if "in" in given:
            opened.append(_open(given["in"], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return OpenDevice(label, "file", "file", *opened)


def _open(path: str, how: int) -> int:
    try:
        return os.open(path, how, 0o666)
    except OSError as error:
        raise generic(f"Could not open '{path}': {error.strerror}") from None


def _pty(label: str, given: Mapping[str, Any], daemon: Daemon) -> CharacterDevice:
    ours, theirs = os.openpty()
    try:
        return OpenDevice(label, "pty", f"pty:{os.ttyname(theirs)}", ours)
    finally:
        os.close(theirs)


def _pipe(label: str, given: Mapping[str, Any], daemon: Daemon) -> CharacterDevice:
    return open_pipe(label, given["device"])


def _socket(label: str, given: Mapping[str, Any], daemon: Daemon) -> CharacterDevice:
    from hostel.cli.storage_daemon import place

    where = place.read(given["addr"], text=False, nested=True, path="backend.data.addr.")
    for name in _LEFT_OUT:
        if given.get(name):
            raise generic(f"'{name}' is not supported for a socket here")
    server = given.get("server", True)
    if server and given.get("reconnect"):
        raise generic("'reconnect' option is incompatible with socket in server listen mode")
    if where.type == "fd":
        return inherited_socket(label, where.parts["str"], is_server=server)
    return open_at(
        label,
        where.address(),
        is_server=server,
        waits=given.get("wait", False),
        ended=lambda: daemon.stopping,
    )


_MAKERS: Final = {"file": _file, "pty": _pty, "pipe": _pipe, "socket": _socket}
