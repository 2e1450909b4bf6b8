"""Migration without a guest: cookies, parameters, URIs, leases and what is the same machine."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import cast

import pytest

from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.parameters import read_parameters, write_parameters
from hostel.drivers.qemu import lease
from hostel.drivers.qemu.migration import cookie as cookies
from hostel.drivers.qemu.migration import copying, settling
from hostel.drivers.qemu.migration.rules import check_flags, file_system
from hostel.drivers.qemu.migration.same import check_same
from hostel.drivers.qemu.migration.source import where_from
from hostel.drivers.qemu.migration.tuning import tuning
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Migration, Status
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
XML = (
    f"<domain type='qemu'><name>guest</name><uuid>{UUID}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file'><source file='/a'/>"
    "<target dev='vda' bus='virtio'/></disk><interface type='user'><mac address='52:54:00:00:00:01'/></interface>"
    "</devices></domain>"
)
# As libvirt 9.0 writes one.
THEIRS = f"""<qemu-migration>
  <name>guest</name>
  <uuid>{UUID}</uuid>
  <hostname>other</hostname>
  <hostuuid>3a1b2c3d-0000-4000-8000-000000000001</hostuuid>
  <feature name='lockstate'/>
  <graphics type='vnc' port='5900' listen='127.0.0.1'/>
  <lockstate driver='nop'/>
  <nbd port='49153'><disk target='vda' capacity='1048576'/></nbd>
  <statistics><started>5</started><delta>-7</delta><memory_total>100</memory_total><what_is_this>1</what_is_this></statistics>
  <capabilities><cap name='xbzrle' auto='no'/></capabilities>
</qemu-migration>
"""


@pytest.fixture
def here(tmp_path: Path) -> Directories:
    found = Directories.under(tmp_path / "here")
    found.state.mkdir(parents=True, mode=0o700)
    return found


@pytest.fixture
def there(tmp_path: Path) -> Directories:
    found = Directories.under(tmp_path / "there")
    found.state.mkdir(parents=True, mode=0o700)
    return found


def sent(text: str, name: str = "guest", *, here: Directories) -> cookies.Cookie:
    found = cookies.read(text.encode() + b"\0", here, name, UUID)
    assert found is not None
    return found


def test_cookie_of_libvirts_is_read_and_what_is_not_for_us_is_passed_over(here: Directories) -> None:
    found = sent(THEIRS, here=here)
    assert found.nbd is not None
    assert found.nbd.port == 49153
    assert [(disk.target, disk.capacity) for disk in found.nbd.disks] == [("vda", 1 << 20)]
    assert found.statistics is not None
    assert (found.statistics.started, found.statistics.delta, found.statistics.memory_total) == (5, -7, 100)
    assert cookies.read(b"", here, "guest", UUID) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (THEIRS.replace("<name>guest", "<name>wrong"), "unexpected name wrong vs guest"),
        (THEIRS.replace(UUID, UUID.replace("6", "7")), "unexpected UUID"),
        (THEIRS.replace("'lockstate'/>", "'teleport'/>"), "Unknown migration cookie feature teleport"),
        (THEIRS.replace("'lockstate'/>", "'graphics'/>"), "Unsupported migration cookie feature graphics"),
        (THEIRS.replace("driver='nop'", "driver='sanlock'"), "lock driver sanlock different from target nop"),
        (THEIRS.replace("49153", "70000"), "migration cookie"),
        (THEIRS.replace("</qemu-migration>", ""), "migration cookie"),
        ("<domain/>", "migration cookie"),
        ('<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><qemu-migration>&d;</qemu-migration>', "migration cookie"),
    ],
)
def test_cookie_that_is_wrong_is_refused(here: Directories, text: str, words: str) -> None:
    with pytest.raises(VirtError, match=words) as caught:
        sent(text, here=here)
    assert caught.value.code is ErrorCode.INTERNAL_ERROR
    with pytest.raises(VirtError, match="not NULL terminated"):
        cookies.read(text.encode(), here, "guest", UUID)


def test_cookie_of_the_same_state_is_the_same_host(here: Directories, there: Directories) -> None:
    ours = cookies.written(cookies.new(there, "guest", UUID))
    assert cookies.read(ours, here, "guest", UUID) is not None
    with pytest.raises(VirtError, match="Attempt to migrate guest to the same host"):
        cookies.read(ours, there, "guest", UUID)


def test_place_is_believed_where_it_is_on_this_host_and_nobody_elses(here: Directories, there: Directories) -> None:
    cookie = cookies.new(there, "guest", UUID)
    assert cookies.known_place(cookie) is None
    cookie.place = cookies.place_of(there)
    again = cookies.read(cookies.written(cookie), here, "guest", UUID)
    known = cookies.known_place(again)
    assert known is not None
    assert cookies.directories_of(known) == there
    there.state.chmod(0o777)
    assert cookies.known_place(again) is None
    there.state.chmod(0o700)
    for change in ({"boot": "another"}, {"state": "relative"}, {"config": "relative"}, {"state": "/nowhere"}):
        cookie.place = cookies.place_of(there)
        for name, value in change.items():
            setattr(cookie.place, name, value)
        assert cookies.known_place(cookie) is None


def test_parameters_keep_their_types_and_their_repetitions() -> None:
    wire = [
        ("bandwidth", (4, 10)), ("disks_port", (1, 5)), ("migrate_uri", (7, "tcp:a:1")), ("migrate_disks", (7, "vda")),
        ("migrate_disks", (7, "vdb")),
    ]  # fmt: skip
    read = read_parameters(wire)
    assert read == {"bandwidth": 10, "disks_port": 5, "migrate_uri": "tcp:a:1", "migrate_disks": ("vda", "vdb")}
    assert write_parameters(read) == wire


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        ([("nosuch", (7, "x"))], "parameter 'nosuch' not supported"),
        ([("bandwidth", (1, 3))], "invalid type 'int' for parameter 'bandwidth', expected 'unsigned long long'"),
        ([("migrate_uri", (7, "a")), ("migrate_uri", (7, "b"))], "occurs multiple times"),
    ],
)
def test_parameters_that_are_wrong_are_refused(wire: list[tuple[str, tuple[int, object]]], words: str) -> None:
    with pytest.raises(VirtError, match=words):
        read_parameters(wire)


@pytest.mark.parametrize(
    ("uri", "becomes"),
    [
        ("tcp:host:49152", ("tcp:host:49152", "host")),
        ("tcp://host:49152/", ("tcp:host:49152", "host")),
        ("tcp://[::1]:5", ("tcp:[::1]:5", "::1")),
        ("tcp:host", ("tcp:host:0", "host")),
        ("unix:///run/a", ("unix:/run/a", "")),
    ],
)
def test_uri_says_where_memory_goes(uri: str, becomes: tuple[str, str]) -> None:
    assert where_from(uri) == becomes


@pytest.mark.parametrize("uri", ["exec:rm -rf", "host", "rdma://a:1", "tcp:", "tcp://a:99999", "fd:3"])
def test_uri_that_is_none_of_these_is_refused(uri: str) -> None:
    with pytest.raises(VirtError) as caught:
        where_from(uri)
    assert caught.value.code in (ErrorCode.INVALID_ARG, ErrorCode.ARGUMENT_UNSUPPORTED)


@pytest.mark.parametrize("uri", ["ssh://a", "/a", "tcp://", "unix:"])
def test_uri_of_disks_that_is_wrong_is_refused(uri: str) -> None:
    assert copying.server("tcp://a", "b", 5) == {"type": "inet", "host": "a", "port": "5"}
    assert copying.server("unix:///a", "b", 5) == {"type": "unix", "path": "/a"}
    with pytest.raises(VirtError, match="URI"):
        copying.server(uri, "b", 5)


def test_only_one_side_is_told_what_is_the_others_business() -> None:
    flags = MigrateFlag.LIVE | MigrateFlag.AUTO_CONVERGE | MigrateFlag.COMPRESSED
    params = {"auto_converge.initial": 20, "compression.xbzrle.cache": 4096}
    source, destination = (tuning(params, flags, is_source=is_source) for is_source in (True, False))
    assert source.parameters == {"cpu-throttle-initial": 20, "xbzrle-cache-size": 4096}
    assert destination.parameters == {"xbzrle-cache-size": 4096}
    assert source.capabilities - destination.capabilities == {"auto-converge", "pause-before-switchover"}
    assert destination.capabilities - source.capabilities == {"late-block-activate"}
    assert "return-path" not in tuning({}, MigrateFlag.TUNNELLED, is_source=True).capabilities


def test_flags_that_exclude_each_other_are_refused() -> None:
    for flags in (
        MigrateFlag.NON_SHARED_DISK | MigrateFlag.NON_SHARED_INC,
        MigrateFlag.PEER2PEER | MigrateFlag.TUNNELLED | MigrateFlag.NON_SHARED_DISK,
        MigrateFlag.PEER2PEER | MigrateFlag.TUNNELLED | MigrateFlag.PARALLEL,
        MigrateFlag.OFFLINE | MigrateFlag.PERSIST_DEST | MigrateFlag.NON_SHARED_INC,
    ):
        with pytest.raises(VirtError):
            check_flags(flags)


def test_file_system_of_a_file_is_found(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self/status")) == "proc"
    assert file_system(tmp_path / "none") == ""


def test_same_machine_may_have_its_disks_elsewhere_and_another_name_where_that_is_said() -> None:
    source = Domain.parse(XML)
    check_same(source, Domain.parse(XML.replace("file='/a'", "file='/b'")))
    check_same(source, Domain.parse(XML.replace("<name>guest", "<name>other")), name="other")
    for old, new, words in (
        ("<name>guest", "<name>other", "name 'other'"),
        ("'MiB'>32", "'MiB'>64", "max memory"),
        ("52:54:00:00:00:01", "52:54:00:00:00:02", "interface address 52:54:00:00:00:02"),
        ("machine='pc'", "machine='q35'", "machine q35 does not match source pc"),
        ("<interface type='user'><mac address='52:54:00:00:00:01'/></interface>", "", "interface count 0"),
    ):
        with pytest.raises(VirtError, match=words):
            check_same(source, Domain.parse(XML.replace(old, new)))


def test_mark_survives_its_document() -> None:
    mark = Migration(way="in", phase="finish", flags=9, copied="vda,vdb", made=["/a&b", "/<c>"], definition="<x/>\n")
    status = Status(Domain.parse(XML), 1, 2, 3, "/run", 0, migration=mark, speed=7)
    again = Status.parse(status.format())
    assert again.speed == 7
    assert again.migration is not None
    assert again.migration.format() == mark.format()
    assert again.migration.made == ["/a&b", "/<c>"]
    assert again.migration.definition == "<x/>\n"


def hold(path: Path) -> None:
    lease.take(path)
    time.sleep(60)


def test_lease_goes_with_the_process_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    assert not lease.is_leased(path)
    lease.take(path)
    lease.take(path)
    assert lease.is_leased(path)
    lease.let_go(path)
    assert not lease.is_leased(path)
    other = multiprocessing.get_context("fork").Process(target=hold, args=(path,))
    other.start()
    deadline = time.monotonic() + 60
    while not lease.is_leased(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(VirtError, match="held by another migration"):
        lease.take(path)
    other.kill()
    other.join(20)
    assert not lease.is_leased(path)


class Deaf:
    """A machine whose QEMU was cancelled in the moment before it pauses: it waits until it is told to go on."""

    def __init__(self) -> None:
        self.state = "active"

    def attempt(self, command: str, **arguments: str) -> object:
        match command:
            case "query-migrate":
                return {"status": self.state}
            case "migrate_cancel":
                self.state = "cancelling" if self.state == "active" else self.state
            case "migrate-continue" if arguments["state"] == self.state:
                self.state = "cancelled"
        return {}

    def ask(self, command: str, **arguments: str) -> object:
        return self.attempt(command, **arguments) or []


def test_cancellation_that_qemu_has_missed_ends() -> None:
    machine = Deaf()
    settling.take_back(cast(Running, machine))
    assert machine.state == "cancelled"
