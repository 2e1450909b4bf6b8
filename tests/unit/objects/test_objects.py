"""The Python API: typed handles over the drivers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostel
from hostel.drivers.base import DomainState, PoolState
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection, Domain, Hole, Network, StoragePool, StorageVolume, VolumeType, WipeAlgorithm
from hostel.units import MiB
from support.refusal import refused

GUEST = """<domain type='test'><name>guest</name><title>A guest</title><memory unit='MiB'>8</memory>
<os><type>hvm</type></os></domain>"""
NETWORK = "<network><name>net</name><forward mode='bridge'/><bridge name='br0'/></network>"


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path / "home")


@pytest.fixture
def connection(directories: Directories) -> Iterator[Connection]:
    with hostel.open("test:///default", directories) as opened:
        yield opened


@pytest.fixture
def session(directories: Directories) -> Iterator[Connection]:
    with hostel.open("qemu:///session", directories) as opened:
        yield opened


@pytest.fixture
def pool(session: Connection, tmp_path: Path) -> StoragePool:
    pool = session.define_pool(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/pool</path></target></pool>")
    pool.start(build=True)
    return pool


def test_a_connection_says_what_it_is(connection: Connection) -> None:
    assert connection.uri == "test:///default"
    assert connection.type == "TEST"
    assert connection.version == (0, 0, 2)
    assert connection.hostname
    assert connection.capabilities().startswith("<capabilities>")
    assert not connection.is_read_only
    assert repr(connection) == "<Connection test:///default>"


def test_closing_twice_is_closing_once(directories: Directories) -> None:
    one = hostel.open("test:///default", directories)
    two = hostel.open("test:///default", directories)
    one.close()
    one.close()
    assert [domain.name for domain in two.domains()] == ["test"]
    two.close()


def test_a_read_only_connection_looks_and_changes_nothing(directories: Directories) -> None:
    with hostel.open("test:///default", directories, read_only=True) as connection:
        domain = connection.domain("test")
        assert domain.state is DomainState.RUNNING
        with refused(ErrorCode.OPERATION_DENIED, "operation forbidden: read only access prevents virDomainDestroy"):
            domain.destroy()


def test_a_domain_is_found_by_id_uuid_and_name(connection: Connection) -> None:
    by_name = connection.domain("test")
    assert connection.domain(1) == by_name
    assert connection.domain(by_name.uuid) == by_name
    assert len({by_name, connection.domain(1)}) == 1
    for key in ("nosuch", 99, "11111111-2222-3333-4444-555555555555"):
        with pytest.raises(VirtError) as caught:
            connection.domain(key)
        assert caught.value.code is ErrorCode.NO_DOMAIN


def test_a_name_as_long_as_a_uuid_is_a_name(connection: Connection) -> None:
    name = "x" * 36
    connection.define_domain(GUEST.replace("guest</name>", f"{name}</name>"))
    assert connection.domain(name).name == name


def test_a_handle_stays_good_while_the_domain_stops_and_starts(connection: Connection) -> None:
    domain = connection.define_domain(GUEST)
    assert (domain.id, domain.is_active, domain.is_persistent) == (None, False, True)
    domain.start()
    first = domain.id
    domain.suspend()
    assert domain.state is DomainState.PAUSED
    domain.resume()
    domain.shutdown()
    domain.wait(timeout=1)
    domain.start(paused=True)
    assert domain.id is not None
    assert first is not None
    assert domain.id > first
    domain.destroy()
    domain.autostart = True
    assert domain.autostart
    domain.undefine()
    with pytest.raises(VirtError):
        domain.info()


def test_waiting_in_vain_ends_and_says_what_the_domain_does(connection: Connection) -> None:
    domain = connection.domain("test")
    with refused(
        ErrorCode.OPERATION_TIMEOUT,
        "Timed out during operation: domain 'test' is running, not shutoff, after 0.05 s",
    ):
        domain.wait(timeout=0.05)


def test_a_transient_domain_that_is_gone_counts_as_shut_off(connection: Connection) -> None:
    domain = connection.create_domain(GUEST)
    domain.destroy()
    domain.wait(timeout=1)


def test_domains_are_listed_running_ones_first_and_filtered(connection: Connection) -> None:
    for name in ("b", "a"):
        connection.define_domain(GUEST.replace("guest</name>", f"{name}</name>"))
    connection.create_domain(GUEST.replace("guest</name>", "z</name>"))
    assert [domain.name for domain in connection.domains()] == ["test", "z", "a", "b"]
    assert [domain.name for domain in connection.domains(active=False)] == ["a", "b"]
    assert [domain.name for domain in connection.domains(active=True, persistent=False)] == ["z"]


def test_documents_may_be_models(connection: Connection) -> None:
    from hostel.model.domain.domain import Domain as Model

    domain = connection.define_domain(Model.parse(GUEST))
    assert Model.parse(domain.xml(inactive=True)).title == "A guest"


def test_networks(connection: Connection) -> None:
    default = connection.find_network("default")
    assert connection.find_network(default.uuid) == default
    assert (default.is_active, default.is_persistent, default.autostart) == (True, True, False)
    network = connection.define_network(NETWORK)
    assert [found.name for found in connection.networks(active=False)] == ["net"]
    network.start()
    assert network.bridge_name == "br0"
    network.autostart = True
    assert network.autostart
    assert "<name>net</name>" in network.xml(inactive=True)
    network.destroy()
    network.undefine()
    transient = connection.create_network(NETWORK)
    assert not transient.is_persistent
    transient.destroy()
    assert connection.networks() == [default]


def test_pools(session: Connection, pool: StoragePool, tmp_path: Path) -> None:
    assert session.pool("p") == session.pool(pool.uuid) == pool
    assert (pool.is_active, pool.is_persistent, pool.autostart) == (True, True, False)
    assert pool.info().state is PoolState.RUNNING
    pool.autostart = True
    assert pool.autostart
    pool.refresh()
    pool.stop()
    assert session.pools(active=True) == []
    pool.delete()
    assert not (tmp_path / "pool").exists()
    pool.undefine()
    assert session.pools() == []


def test_volumes_from_keywords(session: Connection, pool: StoragePool, tmp_path: Path) -> None:
    disk = pool.create_volume(name="disk.qcow2", capacity=4 * MiB, format="qcow2")
    assert disk.path == disk.key == f"{tmp_path}/pool/disk.qcow2"
    assert disk.info().type is VolumeType.FILE
    assert session.volume(disk.path) == disk
    assert disk.pool == pool
    overlay = pool.create_volume(name="over.qcow2", backing=disk)
    assert overlay.info().capacity == 4 * MiB
    assert "<format type='qcow2'/>" in overlay.xml().split("<backingStore>")[1]
    copy = pool.clone_volume(disk, name="copy.raw", format="raw")
    assert [volume.name for volume in pool.volumes()] == ["copy.raw", "disk.qcow2", "over.qcow2"]
    assert copy.info(physical=True).allocation == 4 * MiB
    copy.resize(MiB, delta=True)
    copy.resize(2 * MiB, shrink=True)
    assert copy.info().capacity == 2 * MiB
    copy.wipe()
    copy.wipe(WipeAlgorithm.RANDOM)
    copy.delete()
    with pytest.raises(VirtError) as caught:
        pool.volume("copy.raw")
    assert caught.value.code is ErrorCode.NO_STORAGE_VOL


def test_transfer_takes_bytes_files_and_iterables(pool: StoragePool) -> None:
    disk = pool.create_volume(name="disk", capacity=8)
    for source in (b"abcdefgh", io.BytesIO(b"abcdefgh"), [b"abcd", b"efgh"], iter([b"abcdefgh"])):
        disk.upload(b"\0" * 8)
        disk.upload(source)
        assert b"".join(bytes(piece) for piece in disk.download()) == b"abcdefgh"
    disk.upload(b"XY", offset=3, length=2)
    assert b"".join(bytes(piece) for piece in disk.download(2, 4)) == b"cXYf"
    thin = pool.create_volume(name="thin", capacity=MiB)
    assert list(thin.download_sparse()) == [Hole(MiB)]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "invalid argument: a new volume needs a name: name='disk.qcow2'"),
        ({"name": "x"}, "invalid argument: volume 'x' needs a capacity in bytes: capacity=10 * 1024**3"),
    ],
)
def test_what_a_volume_needs_is_said(pool: StoragePool, keywords: dict[str, str], message: str) -> None:
    with refused(ErrorCode.INVALID_ARG, message):
        pool.create_volume(**keywords)  # type: ignore[arg-type]


def test_a_document_and_keywords_exclude_each_other(pool: StoragePool) -> None:
    disk = pool.create_volume(name="disk", capacity=8)
    with pytest.raises(TypeError, match="a document or keywords"):
        pool.create_volume("<volume/>", name="x")
    with pytest.raises(TypeError, match="a document or keywords"):
        pool.clone_volume(disk, "<volume/>", name="x")


def test_names_need_no_escaping(pool: StoragePool) -> None:
    disk = pool.create_volume(name="a&b <c> 'd'", capacity=8)
    assert pool.volume("a&b <c> 'd'") == disk


def test_handles_of_different_kinds_are_never_equal(connection: Connection) -> None:
    handles = [connection.domain("test"), connection.find_network("default"), connection.pool("default-pool")]
    assert [type(handle) for handle in handles] == [Domain, Network, StoragePool]
    assert all(one == other for one in handles for other in handles if one is other)
    assert not any(one == other for one in handles for other in handles if one is not other)
    assert not isinstance(handles[2], StorageVolume)


def test_the_default_uri_is_the_users_own_session(directories: Directories) -> None:
    with hostel.open(directories=directories) as connection:
        assert connection.uri == "qemu:///session"
    with hostel.open(None, directories) as connection:
        assert connection.uri == "qemu:///session"


def test_the_environment_says_where_the_session_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "here"))
    with hostel.open("qemu:///session") as connection:
        connection.define_pool(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    assert (tmp_path / "here/config/storage/p.xml").is_file()
