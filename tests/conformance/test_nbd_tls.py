"""TLS over NBD: our server with others' clients, our client with others' servers, and who is not let in."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostel.block import graph, objects
from hostel.block.blockdev import from_options
from hostel.block.node import BlockNode
from hostel.block.protocols.nbd.driver import NbdDriver
from hostel.cli.main import main
from hostel.errors import BlockError
from hostel.export.nbd.connection import NbdService, Security
from hostel.export.nbd.export import NbdExport
from hostel.net.address import TcpAddress, listen
from hostel.net.authorization import Authorization, ListAuthorization, Rule, SimpleAuthorization
from hostel.net.server import Server
from hostel.net.tls import TlsCredentials
from hostel.wire.nbd.protocol import Command
from support.daemon import listens
from support.nbd import MIB, TIMEOUT, Certificates, Peer, raw_disk, serving

pytestmark = pytest.mark.requires_tool("openssl")

CONTENT = bytes(range(256)) * 4096
SUBJECT = "/C=DE/L=R'lyeh/O=A, B/CN=client one/emailAddress=a@b.c"
IDENTITY = "C=DE,L=R'lyeh,O=A\\, B,CN=client one,EMAIL=a@b.c"


class Made(NamedTuple):
    """Directories of certificates."""

    server: Path
    client: Path
    other_client: Path  # of another authority
    other_server: Path
    bare_client: Path  # shows no certificate
    expired: Path  # a server's


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("certificates")
    ours, other = Certificates(folder, "ours"), Certificates(folder, "other")
    return Made(
        ours.make("server", server=True, subject="/CN=server"),
        ours.make("client", server=False, subject=SUBJECT),
        other.make("other-client", server=False),
        other.make("other-server", server=True),
        ours.only_authority("bare"),
        ours.make("expired", server=True, days=-1) if _can_make_expired() else folder,
    )


def _can_make_expired() -> bool:
    return subprocess.run(["openssl", "version"], capture_output=True, check=True).stdout.startswith(b"OpenSSL 3.0")


class Secure(NamedTuple):
    """Our server inside TLS."""

    port: int
    log: list[str]


@contextlib.contextmanager
def secure(
    folder: Path, directory: Path, *, verify_peer: bool = True, authorization: Authorization | None = None
) -> Iterator[Secure]:
    log: list[str] = []
    security = Security(TlsCredentials(str(directory), server=True, verify_peer=verify_peer), authorization)
    with raw_disk(folder, CONTENT, name="secure.raw") as disk:
        service = NbdService([NbdExport(disk, shared=True)], security=security, report=log.append)
        listeners = listen(TcpAddress("127.0.0.1", "0"), 16)
        server = Server(listeners, service.serve)
        thread = threading.Thread(target=server.run)
        port = listeners[0].getsockname()[1]
        thread.start()
        try:
            yield Secure(port, log)
        finally:
            server.stop()
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def ours(
    directory: Path | None, port: int, *, host: str = "127.0.0.1", hostname: str | None = None, verify_peer: bool = True
) -> BlockNode:
    """Open with our client."""
    options = {"driver": "nbd", "host": host, "port": str(port)}
    objects.clear()
    if directory is not None:
        objects.add("t", TlsCredentials(str(directory), server=False, verify_peer=verify_peer))
        options["tls-creds"] = "t"
    if hostname is not None:
        options["tls-hostname"] = hostname
    return graph.open(from_options(options), read_only=False)


def qemu_img(directory: Path | None, port: int) -> subprocess.CompletedProcess[str]:
    """Ask with the real ``qemu-img``."""
    image = f"driver=nbd,host=127.0.0.1,port={port}"
    words = ["qemu-img", "info"]
    if directory is not None:
        words += ["--object", f"tls-creds-x509,id=t,dir={directory},endpoint=client"]
        image += ",tls-creds=t"
    return subprocess.run([*words, "--image-opts", image], capture_output=True, text=True, timeout=60, check=False)


# ---- our server


@pytest.mark.requires_tool("qemu-img")
@pytest.mark.requires_tool("qemu-io")
def test_qemu_works_on_our_server(tmp_path: Path, made: Made) -> None:
    with secure(tmp_path, made.server) as server:
        found = qemu_img(made.client, server.port)
        assert (found.returncode, found.stderr) == (0, "")
        words = [
            *("qemu-io", "--object", f"tls-creds-x509,id=t,dir={made.client},endpoint=client", "--image-opts"),
            *("-c", "read -q 0 1M", "-c", "write -q -P 7 100k 300k", "-c", "read -q -P 7 100k 300k", "-c", "flush"),
            f"driver=nbd,host=127.0.0.1,port={server.port},tls-creds=t",
        ]
        subprocess.run(words, check=True, timeout=60)
    assert (tmp_path / "secure.raw").read_bytes()[102_400 : 102_400 + 307_200] == bytes([7]) * 307_200


@pytest.mark.requires_tool("nbdcopy")
def test_libnbd_works_on_our_server(tmp_path: Path, made: Made) -> None:
    with secure(tmp_path, made.server) as server:
        uri = f"nbds://127.0.0.1:{server.port}/?tls-certificates={made.client}"
        subprocess.run(["nbdcopy", uri, str(tmp_path / "copy")], check=True, timeout=60)
        assert (tmp_path / "copy").read_bytes() == CONTENT
        plain = subprocess.run(
            ["nbdinfo", f"nbd://127.0.0.1:{server.port}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert plain.returncode != 0


@pytest.mark.requires_tool("qemu-img")
@pytest.mark.parametrize("which", ["plain", "other_client", "bare_client"])
def test_who_has_no_certificate_of_ours_is_not_let_in(tmp_path: Path, made: Made, which: str) -> None:
    with secure(tmp_path, made.server) as server:
        found = qemu_img(None if which == "plain" else getattr(made, which), server.port)
        assert found.returncode == 1
    if which == "plain":
        assert "TLS negotiation required before option 7 (go)\nDid you forget a valid tls-creds?" in found.stderr
    else:
        assert server.log[0].startswith("option negotiation failed: ")


@pytest.mark.requires_tool("qemu-img")
def test_a_client_may_be_let_in_without_a_certificate_where_that_is_wanted(tmp_path: Path, made: Made) -> None:
    with secure(tmp_path, made.server, verify_peer=False) as server:
        assert qemu_img(made.bare_client, server.port).returncode == 0


@pytest.mark.requires_tool("qemu-img")
@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        (SimpleAuthorization(IDENTITY), True),
        (SimpleAuthorization("CN=client one"), False),
        (ListAuthorization([Rule("C=DE,*,CN=client ?ne,*", True, glob=True)]), True),
        (ListAuthorization([Rule("*,CN=client one,*", False, glob=True)], default=True), False),
        (ListAuthorization([Rule("CN=other", False)], default=True), True),
        (ListAuthorization([]), False),
    ],
)
def test_authorization_decides_by_name(tmp_path: Path, made: Made, authorization: Authorization, allowed: bool) -> None:
    with secure(tmp_path, made.server, authorization=authorization) as server:
        assert (qemu_img(made.client, server.port).returncode == 0) is allowed
    if not allowed:
        assert server.log == [f"option negotiation failed: TLS x509 authz check for {IDENTITY} is denied"]


def test_a_client_that_stops_in_the_middle_of_tls_is_dropped(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostel.export.nbd.connection.HANDSHAKE_TIMEOUT", 2.0)
    security = Security(TlsCredentials(str(made.server), server=True))
    with (
        raw_disk(tmp_path, CONTENT) as disk,
        serving(tmp_path, NbdExport(disk), security=security) as server,
        contextlib.ExitStack() as connected,
    ):
        peers = [connected.enter_context(Peer(server.path)) for _ in range(3)]
        for peer, data in zip(peers, (b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"), strict=True):
            peer.greet()
            peer.send(b"IHAVEOPT\0\0\0\5\0\0\0\0")
            peer.receive(20)
            peer.send(data)
        for peer in peers:
            while not peer.ended():
                pass
    assert len(server.log) == 3


# ---- our client


@contextlib.contextmanager
def real_server(folder: Path, directory: Path, *options: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "real.raw").write_bytes(CONTENT)
    words = [
        *("qemu-nbd", "-t", "-f", "raw", "-b", "127.0.0.1", "-p", str(port)),
        *("--object", f"tls-creds-x509,id=t,dir={directory},endpoint=server,verify-peer=on", "--tls-creds=t"),
        *options,
        str(folder / "real.raw"),
    ]
    with subprocess.Popen(words) as process:
        try:
            deadline = time.monotonic() + TIMEOUT
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield port
        finally:
            process.kill()


@pytest.mark.requires_tool("qemu-nbd")
def test_our_client_works_on_qemu_nbd(tmp_path: Path, made: Made) -> None:
    with real_server(tmp_path, made.server) as port:
        with ours(made.client, port) as node:
            assert node.read(0, MIB) == CONTENT
            node.pwrite(1000, b"x" * 300_000)
            node.flush()
            assert node.read(999, 300_002) == CONTENT[999:1000] + b"x" * 300_000 + CONTENT[301_000:301_001]
        with graph.open(f"nbds://127.0.0.1:{port}?tls-certificates={made.client}", "raw") as node:
            assert node.length == MIB
        out = io.StringIO()
        words = ["--object", f"tls-creds-x509,id=t,dir={made.client},endpoint=client", "--tls-creds=t"]
        with contextlib.redirect_stdout(out):
            assert main(["qemu-nbd", "-L", "-b", "127.0.0.1", "-p", str(port), *words]) == 0
        real = subprocess.run(
            ["qemu-nbd", "-L", "-b", "127.0.0.1", "-p", str(port), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert out.getvalue() == real.stdout


def test_a_write_behind_large_reads_receives_for_all(tmp_path: Path, made: Made) -> None:
    """A server with one thread takes nothing more before its replies are taken."""
    with secure(tmp_path, made.server) as server, ours(made.client, server.port) as node:
        assert isinstance(node.driver, NbdDriver)
        connection = node.driver._connection
        buffers = [bytearray(MIB) for _ in range(16)]
        cookies = [connection.start(Command.READ, 0, MIB, target=memoryview(buffer)) for buffer in buffers]
        cookies += [connection.start(Command.WRITE, 0, MIB, payload=b"w" * MIB) for _ in range(16)]
        assert [connection.finish(cookie).error for cookie in cookies] == [0] * 32
        assert all(buffer == CONTENT for buffer in buffers)
        assert node.read(0, MIB) == b"w" * MIB


@pytest.mark.requires_tool("nbdkit")
def test_our_client_works_on_nbdkit(tmp_path: Path, made: Made) -> None:
    sock = tmp_path / "kit.sock"
    words = ["nbdkit", "-f", "-U", str(sock), "--tls=require", f"--tls-certificates={made.server}", "--tls-verify-peer"]
    with subprocess.Popen([*words, "memory", "4M"]) as process:
        try:
            deadline = time.monotonic() + TIMEOUT
            while not listens(sock):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            objects.clear()
            objects.add("t", TlsCredentials(str(made.client), server=False))
            options = {"driver": "nbd", "path": str(sock), "tls-creds": "t", "tls-hostname": "localhost"}
            with graph.open(from_options(options), read_only=False) as node:
                node.pwrite(5, b"hello" * 100_000)
                assert node.read(0, 500_005) == bytes(5) + b"hello" * 100_000
            with pytest.raises(BlockError, match="No hostname for certificate validation"):
                graph.open(from_options({"driver": "nbd", "path": str(sock), "tls-creds": "t"}))
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("server", "client", "host", "hostname", "message"),
    [
        ("server", "client", "localhost", None, None),
        ("server", "client", "127.0.0.1", "localhost", None),
        ("server", "client", "127.0.0.1", "example.org", "Certificate does not match the hostname example.org"),
        ("other_server", "client", "127.0.0.1", None, "The certificate hasn't got a known issuer"),
        ("server", "other_client", "127.0.0.1", None, "The certificate hasn't got a known issuer"),
        ("server", None, "127.0.0.1", None, "TLS negotiation required before option 7"),
    ],
)
def test_our_client_makes_sure_of_whom_it_talks_to(
    tmp_path: Path, made: Made, server: str, client: str | None, host: str, hostname: str | None, message: str | None
) -> None:
    with secure(tmp_path, getattr(made, server), verify_peer=False) as running:
        directory = None if client is None else getattr(made, client)
        if message is None:
            with ours(directory, running.port, host=host, hostname=hostname) as node:
                assert node.read(0, 10) == CONTENT[:10]
            return
        with pytest.raises(BlockError, match=message):
            ours(directory, running.port, host=host, hostname=hostname)


def test_an_expired_certificate_is_not_believed(tmp_path: Path, made: Made) -> None:
    if not (made.expired / "server-cert.pem").exists():
        pytest.skip("this openssl makes no certificates of the past")
    with secure(tmp_path, made.expired, verify_peer=False) as running:
        with pytest.raises(BlockError, match="The certificate has expired"):
            ours(made.client, running.port)
        ours(made.client, running.port, verify_peer=False).close()


def test_threads_share_a_connection_inside_tls(tmp_path: Path, made: Made) -> None:
    failures: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            offset = rng.randrange(MIB // 2)
            length = rng.choice((1, 5000, 300_000))
            if node.read(offset, length) != CONTENT[offset : offset + length]:
                failures.append((offset, length))
            node.pwrite(offset, CONTENT[offset : offset + length])

    with secure(tmp_path, made.server) as running, ours(made.client, running.port) as node:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures
    assert not running.log


def test_a_server_that_starts_no_tls_is_given_up(tmp_path: Path, made: Made) -> None:
    # CVE-2019-14842: a client went on in plain text.
    with raw_disk(tmp_path, CONTENT) as disk, serving(tmp_path, NbdExport(disk)) as server:
        objects.clear()
        objects.add("t", TlsCredentials(str(made.client), server=False))
        options = {"driver": "nbd", "path": str(server.path), "tls-creds": "t", "tls-hostname": "localhost"}
        with pytest.raises(BlockError, match="Denied by server for option 5 \\(starttls\\)") as caught:
            graph.open(from_options(options))
        assert caught.value.hint == "server reported: TLS not configured"


def test_credentials_that_are_of_no_use_are_refused_by_name(tmp_path: Path, made: Made) -> None:
    from hostel.errors import NetworkError

    with pytest.raises(NetworkError, match=r"Unable to access credentials .*/ca-cert.pem: No such file"):
        TlsCredentials(str(tmp_path), server=False)
    with pytest.raises(NetworkError, match=r"Unable to access credentials .*/server-cert.pem: No such file"):
        TlsCredentials(str(made.client), server=True)
    (tmp_path / "ca-cert.pem").write_text("nothing")
    with pytest.raises(NetworkError, match="Unable to import CA certificate list"):
        TlsCredentials(str(tmp_path), server=False)
