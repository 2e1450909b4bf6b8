"""The protocol drivers ``http``, ``https``, ``ftp``, ``ftps`` and ``tftp``: images that lie on a server, read-only."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Mapping
from typing import IO, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from hostel.block import objects
from hostel.block.driver import FormatInfo, OpenMode, Supports, Threading
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.protocol import Creation, ProtocolDriver
from hostel.block.protocols.curl.transfer import Access, RemoteFile
from hostel.errors import BlockError
from hostel.units import SECTOR, GiB, KiB, MiB

_KEPT: Final = 8  # ranges that were read ahead
_LARGE: Final = MiB  # bytes: what reads so much at once needs nothing read ahead
_MAX_TIMEOUT: Final = 10_000  # seconds
_TFTP_MOST: Final = 4 * GiB  # bytes
_OPTIONS: Final = Options(
    Option("url", Kind.STRING, "URL to open"),
    Option("readahead", Kind.SIZE, "Readahead size", str(256 * KiB)),
    Option("sslverify", Kind.BOOL, "Verify SSL certificate", "on"),
    Option("timeout", Kind.NUMBER, "Curl timeout", "5"),
    Option("cookie", Kind.STRING, "Pass the cookie or list of cookies with each request"),
    Option("cookie-secret", Kind.STRING, "ID of secret used as cookie passed with each request"),
    Option("username", Kind.STRING, "Username for HTTP auth"),
    Option("password-secret", Kind.STRING, "ID of secret used as password for HTTP auth"),
    Option("proxy-username", Kind.STRING, "Username for HTTP proxy auth"),
    Option("proxy-password-secret", Kind.STRING, "ID of secret used as password for HTTP proxy auth"),
)
# What a name must say too, where it is given, or another file would be opened. Cookies are as good as passwords.
_TELLING: Final = (
    "sslverify",
    "cookie-secret",
    "username",
    "password-secret",
    "proxy-username",
    "proxy-password-secret",
)


class CurlDriver(ProtocolDriver):
    """A file that a server gives out in ranges.

    Small reads fetch some more than they need (``readahead``) and the last few ranges are kept. The size is rounded up
    to whole sectors, like every disk's; what is beyond the file's end reads as zeroes. A file that changes on the
    server while it is open is noticed where the server tells versions apart, and is an error.
    """

    supports = Supports.ENDS
    threading = Threading.PARALLEL
    creation = Creation.NONE
    options: Final = _OPTIONS  # type: ignore[misc]

    def __init__(self, access: Access, readahead: int, filename: str) -> None:
        super().__init__()
        self.filename = filename
        self._readahead = readahead
        self._kept: deque[tuple[int, bytes | bytearray]] = deque(maxlen=_KEPT)
        self._remote = RemoteFile(access)
        try:
            self._find()
        except BaseException:
            self._remote.close()
            raise

    def _find(self) -> None:
        self._remote.find_size()

    @classmethod
    def parse_filename(cls, name: str) -> Mapping[str, Any]:
        """A name is the URL."""
        return {"url": name}

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Connect to the server that the URL names.

        Raises:
            OptionError: the options are wrong.
            BlockError: the server cannot be reached, or refuses; the text is QEMU's.
        """
        if not mode.read_only:
            raise BlockError("curl driver does not support writes", errno=errno.EACCES)
        values = cls.converted(options)
        _require_sense(cls.name, values)
        return cls(_access(cls.name, values), int(values["readahead"]), _shown_name(cls.name, options))

    @property
    def length(self) -> int:
        """The file's size, in whole sectors."""
        return -(-self._remote.size // SECTOR) * SECTOR

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        inside = max(0, min(len(buf), self._remote.size - offset))
        buf[inside:] = bytes(len(buf) - inside)
        done = 0
        while done < inside:
            done += self._take_kept(offset + done, buf[done:inside])
            left = inside - done
            if left >= _LARGE:
                self._remote.read(offset + done, buf[done:inside])
                return
            if left:
                self._keep(offset + done, left + self._readahead)

    def _take_kept(self, offset: int, buf: memoryview) -> int:
        """Copy what is kept of a range's beginning; the number of bytes."""
        for start, data in tuple(self._kept):  # a step of the interpreter: others keep something meanwhile
            found = min(start + len(data) - offset, len(buf))
            if start <= offset and found > 0:
                buf[:found] = memoryview(data)[offset - start :][:found]
                return found
        return 0

    def _keep(self, offset: int, length: int) -> None:
        data = bytearray(min(length, self._remote.size - offset))
        self._remote.read(offset, memoryview(data))
        self._kept.appendleft((offset, data))

    def info(self) -> FormatInfo:
        """Nothing: a server tells no more than the size."""
        return FormatInfo(dirty=None)

    def close(self) -> None:
        """Close all connections."""
        self._remote.close()


class HttpDriver(CurlDriver):
    """HTTP."""

    name = "http"


class HttpsDriver(CurlDriver):
    """HTTP inside TLS."""

    name = "https"


class FtpDriver(CurlDriver):
    """FTP."""

    name = "ftp"


class FtpsDriver(CurlDriver):
    """FTP inside TLS."""

    name = "ftps"


class TftpDriver(CurlDriver):
    """TFTP, which has no ranges: the file is fetched as a whole when it is opened, into a temporary file."""

    name = "tftp"
    _local: IO[bytes]

    def _find(self) -> None:
        import tempfile

        self._local = tempfile.TemporaryFile()  # noqa: SIM115  # until close()
        try:
            self._remote.download(self._local, _TFTP_MOST)
            self._local.flush()
        except BaseException:
            self._local.close()
            raise

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        import os

        done = os.preadv(self._local.fileno(), [buf], offset)
        buf[done:] = bytes(len(buf) - done)

    def close(self) -> None:
        """Remove the temporary file."""
        self._local.close()
        super().close()


def _require_sense(name: str, values: Mapping[str, Any]) -> None:
    if values["readahead"] % SECTOR:
        raise OptionError(f"HTTP_READAHEAD_SIZE {values['readahead']} is not a multiple of 512")
    if values["timeout"] > _MAX_TIMEOUT:
        raise OptionError("timeout parameter is too large or negative")
    if "cookie" in values and "cookie-secret" in values:
        raise OptionError("curl driver cannot handle both cookie and cookie secret")
    if "url" not in values:
        raise OptionError("curl block driver requires an 'url' option")
    if not str(values["url"]).startswith(f"{name}://"):
        shown = without_password(str(values["url"]))
        raise OptionError(f"{name} curl driver cannot handle the URL '{shown}' (does not start with '{name}://')")


def _access(name: str, values: Mapping[str, Any]) -> Access:
    cookie = values.get("cookie")
    if "cookie-secret" in values:
        cookie = objects.password(values["cookie-secret"]).decode()
    return Access(
        values["url"],
        values["timeout"],
        values["sslverify"],
        cookie,
        values.get("username"),
        _password(values, "password-secret"),
        values.get("proxy-username"),
        _password(values, "proxy-password-secret"),
    )


def _password(values: Mapping[str, Any], option: str) -> bytes | None:
    return objects.password(values[option]) if option in values else None


def _shown_name(name: str, options: Mapping[str, Any]) -> str:
    """The URL, or the options where it does not say all; never with a password."""
    url = without_password(str(options["url"]))
    telling = {option: options[option] for option in _TELLING if option in options}
    if not telling:
        return url
    from hostel.codec.qobject import compact_json

    return f"json:{compact_json({'driver': name, 'url': url, **telling})}"


def without_password(url: str) -> str:
    """A URL in which a password is left out."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, at, host = parts.netloc.rpartition("@")
    if not at or ":" not in user:
        return url
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))
