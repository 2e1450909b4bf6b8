"""The protocol driver ``nfs``."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hostel.block import notice
from hostel.block.driver import FormatInfo, OpenMode, Supports
from hostel.block.lasting import LastingSync
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation
from hostel.block.protocol import SIZE, Creation, ProtocolDriver
from hostel.block.protocols.nfs.library import Session
from hostel.errors import BlockError
from hostel.units import SECTOR, MiB

_OPTIONS: Final = Options(
    Option("server.type", Kind.STRING, "inet"),
    Option("server.host", Kind.STRING, "Host to connect to"),
    Option("path", Kind.STRING, "Path of the image on the host"),
    Option("user", Kind.NUMBER, "UID value to use when talking to the server"),
    Option("group", Kind.NUMBER, "GID value to use when talking to the server"),
    Option("tcp-syn-count", Kind.NUMBER, "Number of SYNs to send during the session establish"),
    Option("readahead-size", Kind.SIZE, "Set the readahead size in bytes"),
    Option("page-cache-size", Kind.SIZE, "Set the pagecache size in bytes"),
    Option("debug", Kind.NUMBER, "Set the NFS debug level (max 2)"),
    Option("version", Kind.NUMBER, "NFS version: 3 or 4"),
)
_PARAMETERS: Final = {
    "uid": "user",
    "gid": "group",
    "tcp-syncnt": "tcp-syn-count",
    "readahead": "readahead-size",
    "pagecache": "page-cache-size",
    "debug": "debug",
    "version": "version",
}
_SETTERS: Final = {"user": "uid", "group": "gid", "tcp-syn-count": "tcp_syncnt", "version": "version"}
_MAX_READAHEAD: Final = MiB
_MAX_PAGES: Final = 8 * MiB // 4096
_MAX_DEBUG: Final = 2
_VERSIONS: Final = (3, 4)


class NfsDriver(ProtocolDriver):
    """A file on an NFS server.

    Reads beyond the end are zeroes and writes beyond it extend the file. The server tells no holes and gives no space
    back: zeroes are written, and discarding does nothing.
    """

    name = "nfs"
    supports = Supports.WRITE | Supports.GROWS
    creation = Creation.NEW
    create_options = Options(SIZE)
    options: Final = _OPTIONS  # type: ignore[misc]

    def __init__(self, session: Session, filename: str, *, no_flush: bool) -> None:
        super().__init__()
        self.filename = filename
        self._session = session
        self._no_flush = no_flush
        self._sync = LastingSync()
        self._size = session.status().size

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """Read ``nfs://HOST/EXPORT/FILE[?uid=…&gid=…]``.

        Raises:
            OptionError: it is no such name.
        """
        uri = urlsplit(name)
        if uri.scheme != "nfs":
            raise OptionError("URI scheme must be 'nfs'")
        if not uri.netloc:
            raise OptionError("missing hostname in URI")
        if not uri.path:
            raise OptionError("missing file path in URI")
        options = {
            "server.type": "inet",
            "server.host": unquote(uri.netloc),
            "path": unquote(uri.path, errors="surrogateescape"),
        }
        for parameter in filter(None, uri.query.split("&")):
            if "=" not in parameter:
                raise OptionError(f"Value for NFS parameter expected: {parameter}")
        for parameter, value in parse_qsl(uri.query, keep_blank_values=True):
            if not value.isascii() or not value.isdecimal():
                raise OptionError(f"Illegal value for NFS parameter: {parameter}")
            if parameter not in _PARAMETERS:
                raise OptionError(f"Unknown NFS parameter name: {parameter}")
            options[_PARAMETERS[parameter]] = value
        return options

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Connect to the server that the options name.

        Raises:
            OptionError: the options are wrong.
            BlockError: the server cannot be reached, or refuses; the text is QEMU's.
        """
        values = cls.converted(options)
        _require_place(values)
        path = str(values["path"])
        folder, slash, file = path.rpartition("/")
        if not slash:
            raise OptionError("Invalid URL specified")
        session = Session(_settings(values, direct=mode.cache.direct))
        try:
            session.mount(str(values["server.host"]), folder)
            if creating:
                session.create(f"/{file}")
            else:
                session.open(f"/{file}", writable=not mode.read_only)
            return cls(session, _shown(values), no_flush=mode.cache.no_flush)
        except BaseException:
            session.close()
            raise

    @property
    def length(self) -> int:
        """The file's size, in whole sectors."""
        return -(-self._size // SECTOR) * SECTOR

    @property
    def allocated_length(self) -> int:
        """Bytes that the file occupies on the server."""
        return self._session.status().allocated

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        done = 0
        while done < len(buf):
            more = self._session.read(offset + done, buf[done:])
            if not more:
                self._require_end(offset + done)
                buf[done:] = bytes(len(buf) - done)
                return
            done += more

    def _require_end(self, offset: int) -> None:
        if offset < self._size:
            raise BlockError(f"NFS Error: the file ends at {offset} bytes, and had {self._size}", errno=errno.EIO)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        done = 0
        while done < len(data):
            done += self._session.write(offset + done, data[done:])
        self._size = max(self._size, offset + done)

    def flush(self) -> None:
        """Have the server store what was written."""
        if not self._no_flush:
            self._sync(self._session.sync)

    def info(self) -> FormatInfo:
        """Nothing beyond the sizes."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Set the file's size.

        Raises:
            BlockError: the server refuses.
        """
        if preallocation is not Preallocation.OFF:
            raise BlockError(f"Unsupported preallocation mode '{preallocation.value}'", errno=errno.ENOTSUP)
        self._session.truncate(size)
        self._size = size

    def close(self) -> None:
        """Disconnect."""
        self._session.close()


def _require_place(values: Mapping[str, Any]) -> None:
    if not any(name.startswith("server.") for name in values):
        raise OptionError("Parameter 'server' is missing")
    for name in ("server.type", "server.host", "path"):
        if name not in values:
            raise OptionError(f"Parameter '{name}' is missing")
    if values["server.type"] != "inet":
        raise OptionError(f"Parameter 'type' does not accept value '{values['server.type']}'")
    if values.get("version", 3) not in _VERSIONS:
        raise OptionError("Parameter 'version' expects 3 or 4")


def _settings(values: Mapping[str, Any], *, direct: bool) -> dict[str, int]:
    """What libnfs is told, by the names of its setters."""
    settings = {setter: int(values[name]) for name, setter in _SETTERS.items() if name in values}
    for name, setter, most, what in (
        ("readahead-size", "readahead", _MAX_READAHEAD, "NFS readahead size"),
        ("page-cache-size", "pagecache", _MAX_PAGES, "NFS pagecache size"),
        ("debug", "debug", _MAX_DEBUG, "NFS debug level"),
    ):
        if name not in values:
            continue
        if direct and name != "debug":
            raise OptionError(f"Cannot enable {what.removesuffix(' size')} if cache.direct = on")
        if values[name] > most:
            notice.tell(f"warning: {'Limiting' if name == 'debug' else 'Truncating'} {what} to {most}")
        settings[setter] = min(int(values[name]), most)
        if name != "debug":
            settings["pagecache_ttl"] = 0
    return settings


def _shown(values: Mapping[str, Any]) -> str:
    owner = "&".join(
        f"{short}={values[name]}" for short, name in (("uid", "user"), ("gid", "group")) if values.get(name)
    )
    return f"nfs://{values['server.host']}{values['path']}" + (f"?{owner}" if owner else "")
