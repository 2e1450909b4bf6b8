"""Servers of files: nginx, an FTP server, Debian's TFTP server, and one that plays whatever a test wants in HTTP."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.process import started

TIMEOUT = 20.0  # seconds for anything that a test waits for


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of this host that nobody listens at."""
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(folder: Path, work: Path, *, certificates: Path | None = None, extra: str = "") -> Iterator[str]:
    """A web server (nginx) over the files of a folder; gives ``scheme://host:port``.

    Args:
        folder: what is served.
        work: an empty folder for what nginx writes.
        certificates: a server's directory, for TLS.
        extra: more of the server's configuration.
    """
    port = free_port()
    secure = ""
    if certificates is not None:
        secure = f"ssl_certificate {certificates}/server-cert.pem; ssl_certificate_key {certificates}/server-key.pem;"
    temporary = "".join(
        f"{kind}_temp_path {work}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = work / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {work}/pid; error_log {work}/errors; worker_processes 1; "
        + ("user root; " if work.owner() == "root" else "")
        + f"events {{}} http {{ access_log {work}/log; {temporary} server {{ "
        + f"listen 127.0.0.1:{port}{' ssl' if secure else ''}; {secure} root {folder}; {extra} }} }}"
    )
    with _running(["nginx", "-e", str(work / "errors"), "-c", str(configuration)], port):
        yield f"{'https' if secure else 'http'}://127.0.0.1:{port}"


@contextlib.contextmanager
def ftp_server(folder: Path, user: str = "", password: str = "") -> Iterator[str]:
    """An FTP server over the files of a folder, for one user or for everybody; gives ``host:port``."""
    port = free_port()
    words = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-d", str(folder)]
    if user:
        words += ["-u", user, "-P", password]
    with _running(words, port):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def tftp_server(folder: Path) -> Iterator[str]:
    """Debian's TFTP server over the files of a folder; gives ``host:port``."""
    port = free_port(socket.SOCK_DGRAM)
    words = ["in.tftpd", "--foreground", "--address", f"127.0.0.1:{port}", "--secure", str(folder), "--user", "root"]
    with _running(words, None):
        time.sleep(0.2)  # it says nowhere that it listens; who asks too early asks again
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _running(words: list[str], port: int | None) -> Iterator[None]:
    with started(words) as process:
        until = time.monotonic() + TIMEOUT
        while port is not None and not listens(port):
            assert process.poll() is None, f"{words[0]} ended with {process.returncode}"
            assert time.monotonic() < until, f"{words[0]} does not listen"
            time.sleep(0.02)
        yield


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT):
        return True
    return False


@contextlib.contextmanager
def played_http(play: Callable[[dict[str, str]], bytes]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server whose answer to each request ``play`` gives, as bytes; gives the URL and the headers of all requests.

    The connection ends with each answer.
    """
    requests: list[dict[str, str]] = []
    failures: list[BaseException] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        with connection, contextlib.suppress(OSError):
            lines = b""
            while b"\r\n\r\n" not in lines:
                more = connection.recv(65536)
                if not more:
                    return
                lines += more
            headers: dict[str, str] = {}
            for line in lines.decode("latin-1").split("\r\n")[1:]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            requests.append(headers)
            connection.sendall(play(headers))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                answer(connection)
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/disk", requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(TIMEOUT)
    assert not failures, failures


def ranged(content: bytes, asked: dict[str, str], **changed: Any) -> bytes:
    """A true answer to a request for a range, or one with other ``headers``, ``body`` or ``status``."""
    first, _, last = asked["range"].removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1, len(content))
    body: bytes = changed.pop("body", content[start:end])
    told = {
        "Content-Range": f"bytes {start}-{end - 1}/{len(content)}",
        "Content-Length": str(end - start),
        "ETag": '"one"',
        "Connection": "close",
        **changed.pop("headers", {}),
    }
    status = changed.pop("status", "206 Partial Content")
    assert not changed
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in told.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode() + body
