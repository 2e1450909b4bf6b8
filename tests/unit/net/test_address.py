"""Addresses: connecting, listening, and the errors in QEMU's words."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from hostel.errors import NetworkError
from hostel.net import address
from hostel.net.address import TcpAddress, UnixAddress


def test_tcp_connects_to_what_listens() -> None:
    (listener, *_) = address.listen(TcpAddress("127.0.0.1", "0"), 1)
    with listener:
        port = listener.getsockname()[1]
        with address.connect(TcpAddress("127.0.0.1", str(port)), 5) as client, listener.accept()[0] as server:
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert client.gettimeout() is None
        with pytest.raises(NetworkError, match="Failed to find an available port: Address already in use"):
            address.listen(TcpAddress("127.0.0.1", str(port)), 1)
    with pytest.raises(NetworkError, match=f"Failed to connect to '127.0.0.1:{port}': Connection refused") as caught:
        address.connect(TcpAddress("127.0.0.1", str(port)), 5)
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_killed_servers_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    address.listen(UnixAddress(path), 1)[0].close()
    with pytest.raises(NetworkError, match="Connection refused"):
        address.connect(UnixAddress(path))
    with address.listen(UnixAddress(path), 1)[0], address.connect(UnixAddress(path)):
        pass
    address.remove_unix(path)
    assert not Path(path).exists()


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(NetworkError, match="It is no socket"):
        address.listen(UnixAddress(str(path)), 1)
    address.remove_unix(str(path))
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (UnixAddress("/nonexistent/sock"), "Failed to connect to '/nonexistent/sock': No such file or directory"),
        (UnixAddress("x" * 108), "is too long"),
        (TcpAddress("127.0.0.1", "nosuchservice"), "address resolution failed for 127.0.0.1:nosuchservice: "),
        (TcpAddress("127.0.0.1", "65536"), "address resolution failed for 127.0.0.1:65536: ports end at 65535"),
        (TcpAddress("no.such.host.invalid", "1"), "address resolution failed for no.such.host.invalid:1: "),
        (TcpAddress("x" * 300, "1"), "address resolution failed"),
    ],
)
def test_what_cannot_be_reached_is_named(where: address.Address, message: str) -> None:
    with pytest.raises(NetworkError) as caught:
        address.connect(where, 5)
    assert message in str(caught.value)


def test_what_cannot_be_listened_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"Failed to bind socket to .*: No such file or directory"):
        address.listen(UnixAddress(str(tmp_path / "missing" / "sock")), 1)
    with pytest.raises(NetworkError, match="Failed to bind socket: Cannot assign requested address"):
        address.listen(TcpAddress("192.0.2.1", "0"), 1)
