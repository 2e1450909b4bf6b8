"""The protocol driver ``gluster``."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hostel.block import notice
from hostel.block.driver import FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.lasting import LastingSync
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation
from hostel.block.protocol import SIZE, Creation, ProtocolDriver, items
from hostel.block.protocols.gluster.library import Log, Server, VolumeFile
from hostel.errors import BlockError
from hostel.units import SECTOR, MiB

_DEBUG: Final = Option("debug", Kind.NUMBER, "Gluster log level, valid range is 0-9")
_LOGFILE: Final = Option("logfile", Kind.STRING, "Logfile path of libgfapi")
_OPTIONS: Final = Options(
    Option("filename", Kind.STRING, "URL to the gluster image"),
    Option("volume", Kind.STRING, "name of gluster volume where VM image resides"),
    Option("path", Kind.STRING, "absolute path to image file in gluster volume"),
    Option("server.0.type", Kind.STRING, "inet|unix"),
    Option("server.0.host", Kind.STRING, "host address (hostname/ipv4/ipv6 addresses)"),
    Option("server.0.port", Kind.STRING, "port number on which glusterd is listening (default 24007)"),
    Option("server.0.path", Kind.STRING, "socket file path (QAPI)"),
    Option("server.0.socket", Kind.STRING, "socket file path (legacy)"),
    Option("server.0.to", Kind.NUMBER, "max port number, not supported by gluster"),
    Option("server.0.ipv4", Kind.BOOL, "ipv4 bool value, not supported by gluster"),
    Option("server.0.ipv6", Kind.BOOL, "ipv6 bool value, not supported by gluster"),
    _DEBUG,
    _LOGFILE,
)
_PORT: Final = 24007
_LEVEL: Final = 4
_MAX_LEVEL: Final = 9
_ZEROES: Final = memoryview(bytes(MiB))
_SCHEMES: Final = ("gluster", "gluster+tcp", "gluster+unix", "gluster+rdma")
_URI_USAGE: Final = (
    "Usage: file=gluster[+transport]://[host[:port]]volume/path[?socket=...]"
    "[,file.debug=N][,file.logfile=/path/filename.log]"
)
_OPTIONS_USAGE: Final = (
    "Usage: -drive driver=qcow2,file.driver=gluster,file.volume=testvol,file.path=/path/a.qcow2"
    "[,file.debug=9][,file.logfile=/path/filename.log],file.server.0.type=inet,file.server.0.host=1.2.3.4,"
    "file.server.0.port=24007,file.server.1.transport=unix,file.server.1.path=/var/run/glusterd.socket ..."
)


class GlusterDriver(ProtocolDriver):
    """A file of a Gluster volume.

    Reads beyond the end are zeroes and writes beyond it extend the file. Where the volume tells no holes, everything is
    data. What was written is stored when the file is closed, whatever the cache mode.
    """

    name = "gluster"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.GROWS
    threading = Threading.PARALLEL
    creation = Creation.NEW
    options: Final = _OPTIONS  # type: ignore[misc]
    create_options: Final = Options(  # type: ignore[misc]
        SIZE,
        Option("preallocation", Kind.STRING, "Preallocation mode (allowed values: off, falloc, full)"),
        _DEBUG,
        _LOGFILE,
    )

    def __init__(self, file: VolumeFile, filename: str, *, no_flush: bool) -> None:
        super().__init__()
        self.filename = filename
        self._file = file
        self._no_flush = no_flush
        self._sync = LastingSync()
        self._size = file.size()
        self._growing = threading.RLock()  # a signal handler may come here again
        self._tells_holes = self._finds_end()

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """Take ``gluster[+tcp]://[HOST[:PORT]]/VOLUME/PATH`` or ``gluster+unix:///VOLUME/PATH?socket=SOCKET``."""
        return {"filename": name}

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Connect to the volume that the options name.

        Raises:
            OptionError: the options are wrong.
            BlockError: no server can be reached, or the file cannot be opened; the text is QEMU's.
        """
        values = cls.converted(options)
        volume, path, servers = _parse_uri(values["filename"]) if "filename" in values else _place(values)
        given = {**mode.options, **values} if creating else values
        level = min(max(_signed(given.get("debug", _LEVEL)), 0), _MAX_LEVEL)
        try:
            file = VolumeFile(volume, servers, Log(str(given.get("logfile", "-")), level))
        except BlockError as error:
            if error.hint is None:
                error = _unreachable(volume, path, servers, error)
            raise error from None
        try:
            if creating:
                file.create(path)
            else:
                file.open(path, writable=not mode.read_only)
            return cls(file, str(values.get("filename", _shown(options))), no_flush=mode.cache.no_flush)
        except BlockError as error:
            file.close()
            named = f"'{values['filename']}'" if "filename" in values else "image"
            error.message = f"Could not {'create image' if creating else f'open {named}'}: {error.message}"
            raise
        except BaseException:
            file.close()
            raise

    def _finds_end(self) -> bool:
        """Whether holes are told: then the file's end is beyond all data; some versions find it there."""
        try:
            return self._file.seek(self._size, os.SEEK_DATA) is None
        except BlockError:
            return False

    @property
    def length(self) -> int:
        """The file's size, in whole sectors."""
        return -(-self._size // SECTOR) * SECTOR

    @property
    def allocated_length(self) -> int:
        """Bytes that the file occupies in the volume."""
        return self._file.allocated()

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        done = 0
        while done < len(buf):
            more = self._file.read(offset + done, buf[done:])
            if not more:
                if offset + done < self._size:
                    raise BlockError(
                        f"'{self.filename}' ends at {offset + done} bytes, and had {self._size}", errno=errno.EIO
                    )
                buf[done:] = bytes(len(buf) - done)
                return
            done += more

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        done = 0
        while done < len(data):
            done += self._file.write(offset + done, data[done:])
        self._grown(offset + done)

    def _grown(self, end: int) -> None:
        with self._growing:
            if end > self._size:
                self._size = end

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range, and give its space back where that may be; zeroes are sent where there is no other way."""
        ways = [self._file.zerofill]
        if unmap and offset + length <= self._size:
            ways.insert(0, self._file.discard)
        for way in ways:
            try:
                way(offset, length)
            except BlockError as error:
                if error.errno != errno.ENOTSUP:
                    raise
            else:
                self._grown(offset + length)
                return
        for position in range(offset, offset + length, len(_ZEROES)):
            self.pwrite(position, _ZEROES[: min(len(_ZEROES), offset + length - position)])

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the servers do it; without data to send it is always less than writing."""
        return True

    def discard(self, offset: int, length: int) -> None:
        """Give a range's space back, where the volume can."""
        inside = min(length, self._size - offset)
        if inside > 0:
            try:
                self._file.discard(offset, inside)
            except BlockError as error:
                if error.errno != errno.ENOTSUP:
                    raise

    def flush(self) -> None:
        """Have the servers store what was written."""
        if not self._no_flush:
            self._sync(self._file.sync)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data and holes, where the volume tells them; else everything is data."""
        end = offset + length
        while offset < end:
            stop, status = self._next(offset, end)
            yield Extent(offset, stop - offset, status | Status.ALLOCATED, offset)
            offset = stop

    def _next(self, offset: int, end: int) -> tuple[int, Status]:
        """Where what lies at an offset ends, and what it is."""
        if not self._tells_holes:
            return end, Status.DATA
        try:
            data = self._file.seek(offset, os.SEEK_DATA)
            if data is None:
                return end, Status.ZERO
            if data > offset:
                # A sector is not told in parts.
                return min(max(data // SECTOR * SECTOR, offset + 1), end), Status.ZERO
            hole = self._file.seek(offset, os.SEEK_HOLE)
        except BlockError:
            return end, Status.DATA
        if data < offset or hole is None or hole <= offset:
            return end, Status.DATA
        return min(-(-hole // SECTOR) * SECTOR, end), Status.DATA

    def info(self) -> FormatInfo:
        """Nothing beyond the sizes."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Set the file's size.

        Raises:
            BlockError: the volume refuses, or cannot preallocate so.
        """
        with self._growing:
            if size < self._size and preallocation is not Preallocation.OFF:
                raise BlockError("Cannot use preallocation for shrinking files", errno=errno.ENOTSUP)
            if size == self._size:
                return
            if preallocation is Preallocation.METADATA:
                raise BlockError("Unsupported preallocation mode: metadata", errno=errno.EINVAL)
            if preallocation is Preallocation.FALLOC:
                self._file.allocate(self._size, size - self._size)
            else:
                self._file.truncate(size)
                if preallocation is Preallocation.FULL:
                    self._file.zerofill(self._size, size - self._size)
            self._size = size

    def close(self) -> None:
        """Store what was written, and disconnect."""
        self._file.close()


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _parse_uri(name: str) -> tuple[str, str, list[Server]]:
    """What a URI names: a volume, a path in it and a server."""
    wrong = OptionError(f"invalid URI {name}", hint=_URI_USAGE)
    try:
        uri = urlsplit(name)
        port = uri.port
    except ValueError:
        raise wrong from None
    if uri.scheme not in _SCHEMES:
        raise wrong
    if uri.scheme == "gluster+rdma":
        notice.tell("warning: rdma feature is not supported, falling back to tcp")
    volume, _, path = unquote(uri.path, errors="surrogateescape").lstrip("/").partition("/")
    path = path.lstrip("/")
    query = parse_qsl(uri.query, keep_blank_values=True, errors="surrogateescape")
    if not volume or not path:
        raise wrong
    if uri.scheme == "gluster+unix":
        if uri.netloc or [key for key, _ in query] != ["socket"] or not query[0][1]:
            raise wrong
        return volume, path, [Server("unix", query[0][1], 0)]
    if query:
        raise wrong
    return volume, path, [Server("tcp", unquote(uri.hostname or "localhost"), port or _PORT)]


def _place(values: Mapping[str, Any]) -> tuple[str, str, list[Server]]:
    """What options name: a volume, a path in it and servers."""
    found = items(values, "server")
    if not found:
        raise _missing("server")
    for name in ("volume", "path"):
        if name not in values:
            raise _missing(name)
    return values["volume"], values["path"], [_server(index, server) for index, server in enumerate(found)]


def _server(index: int, given: Mapping[str, Any]) -> Server:
    if "type" not in given:
        raise _missing("type", index)
    kind = given["type"]
    if kind not in ("inet", "tcp", "unix"):
        raise _wrong("Parameter 'type' may be 'inet' or 'unix'", index)
    if kind == "unix":
        if "path" in given and "socket" in given:
            raise _wrong("Conflicting parameters 'path' and 'socket'", index)
        socket = given.get("path", given.get("socket"))
        if socket is None:
            raise _missing("path", index)
        return Server("unix", socket, 0)
    for name in ("host", "port"):
        if name not in given:
            raise _missing(name, index)
    if "to" in given:
        raise _wrong("Parameter 'to' not supported")
    if "ipv4" in given or "ipv6" in given:
        raise _wrong("Parameters 'ipv4/ipv6' not supported")
    port = given["port"]
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise OptionError(f"'{port}' is not a valid port number")
    return Server("tcp", given["host"], int(port))


def _missing(name: str, index: int | None = None) -> OptionError:
    return _wrong(f"Parameter '{name}' is missing", index)


def _wrong(message: str, index: int | None = None) -> OptionError:
    where = "" if index is None else f"hint: check in 'server' array index '{index}'\n"
    return OptionError(message, hint=where + _OPTIONS_USAGE)


def _unreachable(volume: str, path: str, servers: list[Server], error: BlockError) -> BlockError:
    places = "".join(
        f"hint: failed on socket {server.host} "
        if server.transport == "unix"
        else f"hint: failed on host {server.host} and port {server.port} "
        for server in servers
    )
    return BlockError(
        f"Gluster connection for volume {volume}, path {path} failed to connect",
        errno=error.errno,
        hint=f"{places}Please refer to gluster logs for more info",
    )


def _shown(options: Mapping[str, Any]) -> str:
    """The name that QEMU gives an image whose options name it."""
    from hostel.codec.qobject import compact_json, hash_order

    strong = {key: options[key] for key in hash_order(options) if key not in ("debug", "logfile")}
    return f"json:{compact_json({'driver': 'gluster', **strong})}"
