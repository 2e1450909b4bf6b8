"""The remote driver: against our daemon and against libvirt's own, where it must see the same."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

import hostel
from hostel.drivers.base import DomainState, Hole
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection, Domain
from support import hosteld, libvirtd

pytestmark = pytest.mark.requires_tool("libvirtd")

DOMAIN = "<domain type='test'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>"


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    with hosteld.process() as daemon:
        yield str(daemon.socket)


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    with libvirtd.running() as daemon:
        yield daemon.uri.partition("socket=")[2]


@pytest.fixture(params=["ours", "theirs"])
def socket(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@contextlib.contextmanager
def opened(socket: str, uri: str = "test+unix:///default") -> Iterator[Connection]:
    with hostel.open(f"{uri}?socket={socket}") as connection:
        yield connection


def test_connection_says_what_it_is(socket: str) -> None:
    with opened(socket) as connection:
        assert connection.uri == f"test+unix:///default?socket={socket}"
        assert (connection.type, connection.version) == ("TEST", (0, 0, 2))
        assert connection.hostname == os.uname().nodename
        assert "<capabilities>" in connection.capabilities()


def state_of(domain: Domain) -> DomainState:
    """How it is by now: whoever checks types takes an attribute for what it was when it was looked at last."""
    return domain.state


def test_domain_lives(socket: str) -> None:
    with opened(socket) as connection:
        domain = connection.define_domain(DOMAIN.format("web"))
        assert [found.name for found in connection.domains()] == ["test", "web"]
        assert connection.domain("web") == connection.domain(domain.uuid) == domain
        domain.start()
        assert domain.id is not None
        assert connection.domain(domain.id) == domain
        assert domain.info()[:4] == (DomainState.RUNNING, 1024, 1024, 1)
        domain.suspend()
        assert state_of(domain) is DomainState.PAUSED
        domain.resume()
        domain.autostart = True
        assert domain.autostart
        domain.destroy()
        assert state_of(domain) is DomainState.SHUTOFF
        assert "<name>web</name>" in domain.xml(inactive=True)
        domain.undefine()
        with pytest.raises(VirtError) as caught:
            connection.domain("web")
        assert caught.value.code is ErrorCode.NO_DOMAIN


def test_networks_and_pools_are_seen(socket: str) -> None:
    with opened(socket) as connection:
        (network,) = connection.networks()
        assert (network.name, network.is_active, network.bridge_name) == ("default", True, "virbr0")
        (pool,) = connection.pools()
        assert pool.name == "default-pool"
        assert pool.info().capacity == 100 << 30
        volume = pool.create_volume("<volume><name>v</name><capacity>1000</capacity></volume>")
        assert [found.name for found in pool.volumes()] == ["v"]
        assert volume.path == "/default-pool/v"
        assert connection.volume("/default-pool/v") == volume
        volume.delete()


def test_bytes_of_a_volume_go_both_ways(socket: str) -> None:
    folder = os.path.dirname(socket)
    data = os.urandom(3_000_001)
    with opened(socket, "qemu+unix:///session") as connection:
        pool = connection.create_pool(
            f"<pool type='dir'><name>p</name><target><path>{folder}/pool</path></target></pool>", build=True
        )
        volume = pool.create_volume("<volume><name>v</name><capacity>3000001</capacity></volume>")
        storage = connection.storage
        ref = storage.storage_vol_lookup_by_path(volume.path)
        storage.storage_vol_upload(ref, [data[:1_000_000], data[1_000_000:]])
        assert (
            b"".join(bytes(piece) for piece in storage.storage_vol_download(ref) if not isinstance(piece, Hole)) == data
        )
        assert bytes(next(iter(storage.storage_vol_download(ref, 10, 5)))) == data[10:15]
        storage.storage_vol_upload(ref, [Hole(2_000_000), b"end"])
        pieces = list(storage.storage_vol_download(ref, 0, 2_000_003, sparse=True))
        assert sum(piece.length if isinstance(piece, Hole) else len(piece) for piece in pieces) == 2_000_003
        volume.delete()
        pool.stop()


def test_events_are_heard(socket: str) -> None:
    folder = os.path.dirname(socket)
    with opened(socket, "qemu+unix:///session") as connection:
        events = connection._drivers.events
        assert events is not None
        with events.listen() as listener:
            pool = connection.define_pool(
                f"<pool type='dir'><name>e</name><target><path>{folder}</path></target></pool>"
            )
            event = listener.get(20)
            assert event is not None
            assert (event.subject, event.kind, event.name, event.uuid) == ("pool", "lifecycle", "e", pool.uuid)
            assert event.detail == {"event": 0, "detail": 0}
            pool.undefine()


def test_calls_of_many_threads_do_not_mix(socket: str) -> None:
    wrong: list[object] = []

    def ask(connection: Connection, number: int) -> None:
        for _ in range(100):
            name = connection.domain(f"d{number}").name
            if name != f"d{number}":
                wrong.append(name)

    with opened(socket) as connection:
        domains = [connection.define_domain(DOMAIN.format(f"d{number}")) for number in range(4)]
        threads = [threading.Thread(target=ask, args=(connection, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for domain in domains:
            domain.undefine()
    assert not wrong


def test_end_of_the_daemon_is_an_error_and_no_wait() -> None:
    with hosteld.process() as daemon, opened(str(daemon.socket)) as connection:
        daemon.process.kill()
        daemon.process.wait(20)
        with pytest.raises(VirtError, match=r"End of file|Broken pipe|reset"):
            connection.hostname


def test_nobody_there_says_where_it_looked() -> None:
    with pytest.raises(VirtError, match="Failed to connect socket to '/nonexistent/sock': No such file or directory"):
        hostel.open("qemu+unix:///system?socket=/nonexistent/sock")


def test_daemon_opens_no_other_host(ours: str) -> None:
    uri = f"qemu+unix:///session?socket={ours}&name=qemu%2Bunix:///session%3Fsocket={ours}"
    with pytest.raises(VirtError) as caught:
        hostel.open(uri)
    assert caught.value.code is ErrorCode.NO_CONNECT
