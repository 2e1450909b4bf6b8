"""Fetching ranges of one file from a server, by libcurl.

libcurl is asked for what it knows best: redirects, proxies, certificates, authentication. What it delivers is not
believed: a range must be the range that was asked for, of the file that was opened.
"""

from __future__ import annotations

import errno
import functools
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple
from urllib.parse import urlsplit

from hostel.errors import BlockError, UnsupportedFeature

if TYPE_CHECKING:
    import ssl

    import pycurl

_ATTEMPTS: Final = 4  # for one range, each from where the last one was cut off
_REDIRECTS: Final = 10
_GLANCE: Final = 0.01  # seconds after which it is looked again where nothing can be waited on
_STEP: Final = 1.0  # seconds after which it is looked whether a transfer takes too long
_TFTP_BLOCK: Final = 1428  # bytes: what fits into an Ethernet frame
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_OK: Final = 200
_PARTIAL: Final = 206
_UNSATISFIABLE: Final = 416
_ERROR: Final = 400
# Where a redirection may lead: never out of TLS.
_REDIRECTIONS: Final = {
    "http": ("HTTP", "HTTPS"),
    "https": ("HTTPS",),
    "ftp": ("FTP", "FTPS"),
    "ftps": ("FTPS",),
    "tftp": ("TFTP",),
}
_STREAM_ERROR: Final = 92  # libcurl's CURLE_HTTP2_STREAM
NO_RANGES: Final = "Server does not support 'range' (byte ranges)."
NO_SIZE: Final = "Server didn't report file size."


class Access(NamedTuple):
    """What is fetched and how.

    Attributes:
        url: with the scheme; it may hold a user and a password.
        timeout: seconds to connect, and seconds without any progress; 0 for no end.
        verify: whether the server's certificate and name are checked.
        cookie: the header's value.
    """

    url: str
    timeout: int
    verify: bool = True
    cookie: str | None = None
    username: str | None = None
    password: bytes | None = None
    proxy_username: str | None = None
    proxy_password: bytes | None = None

    @property
    def scheme(self) -> str:
        """``http``, ``https``, ``ftp``, ``ftps`` or ``tftp``."""
        return self.url.partition(":")[0].lower()

    @property
    def is_http(self) -> bool:
        """Whether the server answers in HTTP."""
        return self.scheme in ("http", "https")


class _Response:
    """What a server says before the bytes.

    Attributes:
        status: of HTTP; 0 with other protocols.
        first: the offset of the first byte that follows; None where that is not said.
        total: the file's size in bytes; None where that is not said.
        length: bytes that follow; None where that is not said.
        version: what tells the file's versions apart; None where nothing does. Two servers may each have their own.
        server: the one that the last redirection led to; empty without any.
    """

    def __init__(self) -> None:
        self.server = ""
        self._begin(0)

    def _begin(self, status: int) -> None:
        self.status = status
        self.first: int | None = None
        self.total: int | None = None
        self.length: int | None = None
        self.version: str | None = None

    def header(self, line: bytes) -> None:
        """Take a header line; each status line, as after a redirection, begins anew."""
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            code = text.split(" ", 2)[1:2]
            self._begin(int(code[0]) if code and code[0].isdecimal() else 0)
            return
        name, _, value = text.partition(":")
        name, value = name.lower(), value.strip()
        if name == "content-range" and (match := _CONTENT_RANGE.fullmatch(value)):
            first, _, total = match.groups()
            self.first = int(first) if first else None
            self.total = int(total) if total != "*" else None
        elif name == "content-length" and value.isdecimal():
            self.length = int(value)
        elif name == "location":
            self.server = urlsplit(value).netloc or self.server
        elif name == "etag" or (name == "last-modified" and self.version is None):
            self.version = value


class _Failure(Exception):
    """A transfer ended early; ``cut_off`` where the server or the network broke it off."""

    def __init__(self, reason: str, *, cut_off: bool = False) -> None:
        super().__init__(reason)
        self.cut_off = cut_off


class RemoteFile:
    """One file on a server; any number of threads may read it."""

    def __init__(self, access: Access) -> None:
        try:
            import pycurl
        except ImportError:
            raise UnsupportedFeature(
                f"{access.scheme} needs libcurl", hint="Install the Python package pycurl, or hostel[curl]."
            ) from None
        self._curl = pycurl
        self._access = access
        self._lock = threading.RLock()  # a signal handler may come here again
        self._idle: list[tuple[pycurl.CurlMulti, pycurl.Curl]] = []
        self._closed = False
        self._found = _Response()
        self.size = 0

    def find_size(self) -> None:
        """Ask for the file's size, and whether the server gives out parts of it.

        Raises:
            BlockError: it is not there, or the server tells no size or gives no parts; the text is QEMU's.
        """
        try:
            self.size = self._find_size_by_range() if self._access.is_http else self._find_size_by_head()
        except _Failure as failure:
            raise BlockError(f"CURL: Error opening file: {failure}", errno=errno.EINVAL) from None

    def _find_size_by_range(self) -> int:
        """Ask for the first byte: that works where asking for the headers alone is not allowed, and shows more."""
        answer = _Response()

        def refuse_more(data: bytes) -> int | None:
            return None if answer.status == _PARTIAL else 0

        self._perform(answer, refuse_more, (0, 1), expects=lambda: answer.status in (_OK, _UNSATISFIABLE))
        self._found = answer
        if answer.status == _OK and answer.length is not None and answer.length <= 1:
            return answer.length
        if answer.status == _OK:
            raise _Failure(NO_RANGES)
        if answer.total is None:
            raise _Failure(NO_SIZE)
        return answer.total

    def _find_size_by_head(self) -> int:
        size = -1

        def ask(handle: pycurl.Curl) -> None:
            handle.setopt(self._curl.NOBODY, True)

        def learn(handle: pycurl.Curl) -> None:
            nonlocal size
            size = int(handle.getinfo(self._curl.CONTENT_LENGTH_DOWNLOAD_T))

        self._perform(_Response(), lambda data: None, None, before=ask, after=learn)
        if size < 0:
            raise _Failure(NO_SIZE)
        return size

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``offset``, all of it within the file.

        Raises:
            BlockError: EIO, with what libcurl says.
        """
        done = 0
        for attempt in range(_ATTEMPTS):
            try:
                done += self._fetch(offset + done, buf[done:])
                if done == len(buf):
                    return
            except _Failure as failure:
                done += getattr(failure, "received", 0)
                if not failure.cut_off or attempt == _ATTEMPTS - 1:
                    raise BlockError(f"curl: {failure}", errno=errno.EIO) from None
        raise BlockError("curl: the server sends less than it was asked for", errno=errno.EIO)

    def _fetch(self, offset: int, buf: memoryview) -> int:
        """Fetch what comes of a range at once; the number of bytes that came."""
        answer = _Response()
        done = 0
        reason = ""

        def take(data: bytes) -> int | None:
            nonlocal done, reason
            if not done:
                reason = self._objection(answer, offset, len(buf))
            if reason or len(data) > len(buf) - done:
                reason = reason or "the server sends more than it was asked for"
                return 0
            buf[done : done + len(data)] = data
            done += len(data)
            return None

        try:
            self._perform(answer, take, (offset, offset + len(buf)))
        except _Failure as failure:
            if reason:
                raise _Failure(reason) from None
            failure.received = done  # type: ignore[attr-defined]
            raise
        return done

    def _objection(self, answer: _Response, offset: int, length: int) -> str:
        """Why an answer is not the range that was asked for; empty where it is."""
        if not self._access.is_http:
            return ""
        if answer.status >= _ERROR:
            return _refusal(answer.status)
        whole = answer.status == _OK and not offset and answer.length == self.size == length
        if answer.status != _PARTIAL and not whole:
            return NO_RANGES
        if answer.first not in (None, offset):
            return "the server sends another range than it was asked for"
        other = answer.server == self._found.server and answer.version != self._found.version
        if other or answer.total not in (None, self.size):
            return "the file has changed on the server since it was opened"
        return ""

    def download(self, target: BinaryIO, most: int) -> None:
        """Fetch the whole file, for protocols without ranges.

        Args:
            target: where the bytes go.
            most: bytes; a longer file is refused.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        size = 0

        def take(data: bytes) -> int | None:
            nonlocal size
            size += len(data)
            if size > most:
                return 0
            target.write(data)
            return None

        try:
            self._perform(_Response(), take, None)
        except _Failure as failure:
            reason = f"the file has more than {most} bytes" if size > most else str(failure)
            raise BlockError(f"CURL: Error opening file: {reason}", errno=errno.EINVAL) from None
        self.size = size

    def _perform(
        self,
        answer: _Response,
        take: Callable[[bytes], int | None],
        span: tuple[int, int] | None,
        *,
        before: Callable[[pycurl.Curl], None] | None = None,
        after: Callable[[pycurl.Curl], None] | None = None,
        expects: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make one transfer.

        Args:
            answer: filled with what the server says.
            take: called with the bytes as they come; a number ends the transfer.
            span: the offsets of the first byte and of the one after the last; None for the whole file.
            before: sets up what this transfer needs beside.
            after: asks what this transfer has brought.
            expects: whether an answer that looks like a failure is none.

        Raises:
            _Failure: it ended early.
        """
        curl = self._curl
        multi, handle = self._handle()
        try:
            self._set_up(handle)
            if span is not None:
                handle.setopt(curl.RANGE, f"{span[0]}-{span[1] - 1}")
            if before is not None:
                before(handle)
            failure = self._run(multi, handle, answer, take)
            if failure is not None and answer.status < _ERROR and not expects():
                raise failure
            if answer.status >= _ERROR and not expects():
                raise _Failure(_refusal(answer.status))
            if after is not None:
                after(handle)
        finally:
            self._give_back(multi, handle)

    def _run(
        self, multi: pycurl.CurlMulti, handle: pycurl.Curl, answer: _Response, take: Callable[[bytes], int | None]
    ) -> _Failure | None:
        """Let libcurl get on, a step at a time; why the transfer ended early, if it has.

        libcurl calls nothing of ours meanwhile: what a signal handler raised there would be lost. Nor would any handler
        run before a server that says nothing is given up.
        """
        lines: list[bytes] = []
        parts: list[bytes] = []
        handle.setopt(self._curl.HEADERFUNCTION, lines.append)
        handle.setopt(self._curl.WRITEFUNCTION, parts.append)
        multi.add_handle(handle)
        try:
            while True:
                _, active = multi.perform()
                for line in lines:
                    answer.header(line)
                for part in parts:
                    if take(part) is not None:
                        return self._failure(self._curl.E_WRITE_ERROR, "the transfer was broken off")
                lines.clear()
                parts.clear()
                if not active:
                    break
                if multi.select(_STEP) < 0:  # there is nothing to wait on yet, or only what select() has no number for
                    time.sleep(_GLANCE)
            for _, code, text in multi.info_read()[2]:
                return self._failure(code, text)
            return None
        finally:
            multi.remove_handle(handle)

    def _failure(self, code: int, text: str) -> _Failure:
        curl = self._curl
        broken = (curl.E_PARTIAL_FILE, curl.E_RECV_ERROR, curl.E_SEND_ERROR, curl.E_GOT_NOTHING, _STREAM_ERROR)
        return _Failure(text or f"libcurl's error {code}", cut_off=code in broken)

    def _handle(self) -> tuple[pycurl.CurlMulti, pycurl.Curl]:
        with self._lock:
            return self._idle.pop() if self._idle else (self._curl.CurlMulti(), self._curl.Curl())

    def _give_back(self, multi: pycurl.CurlMulti, handle: pycurl.Curl) -> None:
        handle.reset()
        with self._lock:
            if not self._closed:
                self._idle.append((multi, handle))  # which keeps its connections
                return
        _close(multi, handle)

    def _set_up(self, handle: pycurl.Curl) -> None:
        curl, access = self._curl, self._access
        handle.setopt(curl.URL, access.url)
        handle.setopt(curl.NOSIGNAL, True)
        handle.setopt(curl.PROTOCOLS, self._protocols(access.scheme.upper()))
        handle.setopt(curl.FOLLOWLOCATION, True)
        handle.setopt(curl.MAXREDIRS, _REDIRECTS)
        handle.setopt(curl.REDIR_PROTOCOLS, self._protocols(*_REDIRECTIONS[access.scheme]))
        handle.setopt(curl.SSL_VERIFYPEER, int(access.verify))
        handle.setopt(curl.SSL_VERIFYHOST, 2 if access.verify else 0)
        if access.verify and access.scheme != "tftp":
            self._trust(handle)
        if access.timeout:
            handle.setopt(curl.CONNECTTIMEOUT, access.timeout)
            handle.setopt(curl.LOW_SPEED_LIMIT, 1)
            handle.setopt(curl.LOW_SPEED_TIME, access.timeout)
            handle.setopt(curl.FTP_RESPONSE_TIMEOUT, access.timeout)
        if access.scheme == "tftp":
            handle.setopt(curl.TFTP_BLKSIZE, _TFTP_BLOCK)
        for option, value in (
            (curl.COOKIE, access.cookie),
            (curl.USERNAME, access.username),
            (curl.PASSWORD, access.password),
            (curl.PROXYUSERNAME, access.proxy_username),
            (curl.PROXYPASSWORD, access.proxy_password),
        ):
            if value is not None:
                handle.setopt(option, value)

    def _trust(self, handle: pycurl.Curl) -> None:
        """Trust those whom this host trusts: a libcurl that was built elsewhere may look for them elsewhere."""
        paths = self._authorities
        if paths.cafile is not None:
            handle.setopt(self._curl.CAINFO, paths.cafile)
        if paths.capath is not None:
            handle.setopt(self._curl.CAPATH, paths.capath)

    @functools.cached_property
    def _authorities(self) -> ssl.DefaultVerifyPaths:
        import ssl

        return ssl.get_default_verify_paths()

    def _protocols(self, *names: str) -> int:
        bits = 0
        for name in names:
            bits |= getattr(self._curl, f"PROTO_{name}")
        return bits

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for pair in idle:
            _close(*pair)


def _close(multi: pycurl.CurlMulti, handle: pycurl.Curl) -> None:
    handle.close()
    multi.close()


def _refusal(status: int) -> str:
    return f"The requested URL returned error: {status}"
