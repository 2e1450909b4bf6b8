"""What is said where a daemon cannot be reached."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hostel.drivers.remote import transport, uri
from hostel.errors import ErrorCode, NetworkError, VirtError
from hostel.net.tls import TlsCredentials
from support.pki import Authority
from support.unprivileged import as_nobody


def _refused(written: str) -> str:
    found = uri.parse(urlsplit(written), written)
    assert found is not None
    with pytest.raises(VirtError) as caught:
        transport.reach(found, read_only=False)
    assert caught.value.code is ErrorCode.SYSTEM_ERROR
    return caught.value.message


def test_socket_that_is_not_there_comes_with_how_to_start_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_USUAL_SOCKETS", ())
    path = tmp_path / "sock"
    first = f"Failed to connect socket to '{path}': No such file or directory; no daemon has made it; "
    assert _refused(f"qemu+unix:///system?socket={path}").startswith(f"{first}to start one: hosteld --socket {path}")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "brew services start libvirt" in _refused(f"qemu+unix:///system?socket={path}")
    other = tmp_path / "other"
    other.touch()
    monkeypatch.setattr(transport, "_USUAL_SOCKETS", (str(other),))
    assert _refused(f"qemu+unix:///system?socket={path}").endswith(f"add ?socket={other} to the URI")


def test_socket_that_nobody_listens_on_is_told_from_what_is_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    said = _refused(f"qemu+unix:///system?socket={tmp_path}/dead")
    assert "Connection refused; nobody listens on it any more, since the daemon that made it has ended; " in said
    (tmp_path / "file").touch()
    assert _refused(f"qemu+unix:///system?socket={tmp_path}/file").endswith("Connection refused; it is no socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that are another user's")
def test_socket_of_a_group_says_which(reachable: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(reachable / "sock"))
        server.listen()
        os.chown(reachable / "sock", 0, 6)
        (reachable / "sock").chmod(0o770)
        said = as_nobody(lambda: _refused(f"qemu+unix:///system?socket={reachable}/sock"))
    assert said == (
        f"Failed to connect socket to '{reachable}/sock': Permission denied; '{reachable}/sock' (root:disk, mode 0770) "
        "does not let user 'nobody' (uid 65534) read it or write it; "
        "to allow it: usermod -aG disk nobody, and log in again"
    )


def test_server_without_a_daemon_is_told_as_such() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = _refused(f"qemu+tcp://127.0.0.1:{port}/system")
    assert "Connection refused; no daemon listens there: systemctl start libvirtd-tcp.socket, or hosteld" in said


@contextlib.contextmanager
def _server(credentials: TlsCredentials) -> Iterator[int]:
    """Shakes hands with one client, which may hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError, NetworkError):
                client, _ = listener.accept()
                with client:
                    credentials.wrap(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive()


def test_certificates_that_do_not_fit_are_told_with_the_authority_and_the_place(tmp_path: Path) -> None:
    authority, other = Authority(), Authority("other")
    credentials = TlsCredentials(str(authority.server(tmp_path / "server")), server=True)
    pki = other.client(tmp_path / "client", "me")
    with _server(credentials) as port:
        said = _refused(f"qemu+tls://127.0.0.1:{port}/system?pkipath={pki}")
    assert said.endswith(
        f"The certificate hasn't got a known issuer; it is not signed by an authority in {pki}/cacert.pem"
    )
    with _server(credentials) as port:
        said = _refused(f"qemu+tls://127.0.0.1:{port}/system?pkipath={tmp_path}/none")
    assert said == f"Cannot read CA certificate '{tmp_path}/none/cacert.pem': No such file or directory"
