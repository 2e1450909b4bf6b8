"""The invented host: libvirt's state rules, and what its connections share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import (
    DomainRef,
    DomainState,
    DomainXmlFlag,
    PausedReason,
    RunningReason,
    ShutoffReason,
    StartFlag,
    VolumeCreateFlag,
    VolumeType,
)
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotDriver
from hostel.drivers.registry import Drivers, open_drivers
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused

OWN = "system" if os.geteuid() == 0 else "session"  # what this user may have in process
UUID = "11111111-2222-3333-4444-555555555555"
GUEST = f"""<domain type='test'><name>guest</name><uuid>{UUID}</uuid><memory unit='MiB'>8</memory>
<currentMemory unit='MiB'>4</currentMemory><vcpu current='2'>4</vcpu><os><type>hvm</type></os></domain>"""


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path)


@pytest.fixture
def host(directories: Directories) -> Iterator[Drivers]:
    drivers = open_drivers("test:///default", directories)
    yield drivers
    drivers.close()


@pytest.fixture
def guest(host: Drivers) -> DomainRef:
    return host.hypervisor.domain_define_xml(GUEST)


def test_opening_it_writes_nothing(host: Drivers, tmp_path: Path) -> None:
    assert host.hypervisor.connect_get_type() == "TEST"
    assert list(tmp_path.iterdir()) == []


def test_host_is_libvirts(host: Drivers) -> None:
    assert [(ref.name, ref.id) for ref in host.hypervisor.connect_list_all_domains()] == [("test", 1)]
    assert [ref.name for ref in host.storage.connect_list_all_storage_pools()] == ["default-pool"]
    assert [ref.name for ref in host.network.connect_list_all_networks()] == ["default"]


def test_connections_share_the_host_and_the_last_one_ends_it(directories: Directories) -> None:
    one = open_drivers("test:///default", directories)
    two = open_drivers("test:///default", directories)
    one.hypervisor.domain_define_xml(GUEST)
    assert two.hypervisor.domain_lookup_by_name("guest")
    one.close()
    one.close()  # once is enough, twice no harm
    assert two.hypervisor.domain_lookup_by_name("guest")
    two.close()
    three = open_drivers("test:///default", directories)
    with pytest.raises(VirtError):
        three.hypervisor.domain_lookup_by_name("guest")
    three.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("test:///", "testOpen: supply a path or use test:///default"),
        ("test:///nosuch/node.xml", "failed to open file '/nosuch/node.xml': No such file or directory"),
        ("test+nosuch://host/default", "transport in URL not recognised (should be unix|tcp|tls|ssh)"),
        ("test+unix://host/default", "transport 'unix' is only for this host"),
        ("test+tcp://host:x/default", "has a port that is none"),
        ("nosuch:///", "no connection driver available for 'nosuch:///'"),
        ("default", "does not include a driver name"),
        ("qemu+unix:///system?socket=/nonexistent", "Failed to connect socket to '/nonexistent': No such file or"),
        ("qemu:///foo", f"unexpected QEMU URI path '/foo', try qemu:///{OWN}"),
    ],
)
def test_other_uris_are_refused_with_what_to_use(directories: Directories, uri: str, message: str) -> None:
    with pytest.raises(VirtError) as caught:
        open_drivers(uri, directories)
    assert message in str(caught.value)


def test_life_of_a_domain(host: Drivers, guest: DomainRef) -> None:
    hypervisor = host.hypervisor
    assert hypervisor.domain_get_state(guest) == (DomainState.SHUTOFF, ShutoffReason.UNKNOWN, "")
    running = hypervisor.domain_create(guest)
    assert running.id == 2
    assert hypervisor.domain_lookup_by_id(2) == running
    assert hypervisor.domain_get_state(guest)[:2] == (DomainState.RUNNING, RunningReason.BOOTED)
    hypervisor.domain_suspend(guest)
    assert hypervisor.domain_get_state(guest)[:2] == (DomainState.PAUSED, PausedReason.USER)
    hypervisor.domain_resume(guest)
    assert hypervisor.domain_get_state(guest)[:2] == (DomainState.RUNNING, RunningReason.UNPAUSED)
    hypervisor.domain_reboot(guest)
    hypervisor.domain_reset(guest)
    hypervisor.domain_shutdown(guest)
    assert hypervisor.domain_get_state(guest)[:2] == (DomainState.SHUTOFF, ShutoffReason.SHUTDOWN)
    assert hypervisor.domain_create(guest).id == 3  # an id is never used again
    hypervisor.domain_destroy(guest)
    assert hypervisor.domain_get_state(guest)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)
    hypervisor.domain_undefine(guest)
    with pytest.raises(VirtError) as caught:
        hypervisor.domain_get_state(guest)
    assert caught.value.code is ErrorCode.NO_DOMAIN


def test_calls_that_the_state_forbids_are_refused_in_libvirts_words(host: Drivers, guest: DomainRef) -> None:
    hypervisor = host.hypervisor
    for call in (hypervisor.domain_destroy, hypervisor.domain_reboot, hypervisor.domain_reset):
        with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: domain is not running"):
            call(guest)
    for call in (hypervisor.domain_shutdown, hypervisor.domain_suspend):
        with refused(ErrorCode.INTERNAL_ERROR, "internal error: domain 'guest' not running"):
            call(guest)
    with refused(ErrorCode.INTERNAL_ERROR, "internal error: domain 'guest' not paused"):
        hypervisor.domain_resume(guest)
    hypervisor.domain_create(guest)
    with refused(ErrorCode.INTERNAL_ERROR, "internal error: Domain 'guest' is already running"):
        hypervisor.domain_create(guest)


def test_transient_domain_is_gone_when_it_ends(host: Drivers) -> None:
    guest = host.hypervisor.domain_create_xml(GUEST)
    assert not host.hypervisor.domain_is_persistent(guest)
    with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: domain 'guest' is already active"):
        host.hypervisor.domain_create_xml(GUEST)
    host.hypervisor.domain_destroy(guest)
    with pytest.raises(VirtError):
        host.hypervisor.domain_lookup_by_name("guest")


def test_undefining_a_running_domain_makes_it_transient(host: Drivers, guest: DomainRef) -> None:
    host.hypervisor.domain_create(guest)
    host.hypervisor.domain_undefine(guest)
    assert not host.hypervisor.domain_is_persistent(guest)
    host.hypervisor.domain_destroy(guest)
    with pytest.raises(VirtError):
        host.hypervisor.domain_lookup_by_name("guest")


def test_a_domain_can_start_paused_and_by_itself(host: Drivers, guest: DomainRef) -> None:
    host.hypervisor.domain_create(guest, StartFlag.PAUSED)
    assert host.hypervisor.domain_get_state(guest).state is DomainState.PAUSED
    host.hypervisor.domain_destroy(guest)
    host.hypervisor.domain_set_autostart(guest, True)
    assert [ref.name for ref in host.hypervisor.connect_autostart()] == ["guest"]
    assert host.hypervisor.connect_autostart() == []


def test_facts_are_the_documents(host: Drivers, guest: DomainRef) -> None:
    info = host.hypervisor.domain_get_info(guest)
    assert (info.max_memory, info.memory, info.vcpus) == (8192, 4096, 2)


def test_definition_changes_while_what_runs_stays(host: Drivers, guest: DomainRef) -> None:
    host.hypervisor.domain_create(guest)
    host.hypervisor.domain_define_xml(GUEST.replace("<vcpu current='2'>4", "<vcpu>1"))
    assert host.hypervisor.domain_get_info(guest).vcpus == 2
    assert "<domain type='test' id='2'>" in host.hypervisor.domain_get_xml_desc(guest)
    inactive = host.hypervisor.domain_get_xml_desc(guest, DomainXmlFlag.INACTIVE)
    assert "<vcpu placement='static'>1</vcpu>" in inactive
    assert "id=" not in inactive.split("\n")[0]
    host.hypervisor.domain_destroy(guest)
    assert host.hypervisor.domain_get_info(guest).vcpus == 1


@pytest.mark.parametrize(("action", "state"), [("destroy", DomainState.SHUTOFF), ("restart", DomainState.RUNNING)])
def test_what_the_guests_reboot_does_is_the_documents(host: Drivers, action: str, state: DomainState) -> None:
    document = GUEST.replace("</os>", f"</os><on_reboot>{action}</on_reboot>")
    guest = host.hypervisor.domain_define_xml(document)
    host.hypervisor.domain_create(guest)
    host.hypervisor.domain_reboot(guest)
    assert host.hypervisor.domain_get_state(guest).state is state


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("<name>guest</name>", "<name>a/b</name>", ErrorCode.XML_ERROR, "name a/b cannot contain '/'"),
        ("<name>guest</name>", "<name>test</name>", ErrorCode.OPERATION_FAILED, "domain 'test' already exists"),
        (UUID, "6695eb01-f6a4-8304-79aa-97f2502e193f", ErrorCode.OPERATION_FAILED, "domain 'test' is already defined"),
        (UUID, "x", ErrorCode.INTERNAL_ERROR, "malformed uuid element"),
        ("<memory unit='MiB'>8</memory>", "", ErrorCode.XML_ERROR, "Memory size must be specified"),
        ("<memory unit='MiB'>8</memory>", "<memory>x</memory>", ErrorCode.XML_ERROR, "memory"),
        ("<os><type>hvm</type></os>", "", ErrorCode.XML_ERROR, "an os <type> must be specified"),
        ("type='test'", "", ErrorCode.XML_ERROR, "type"),
    ],
)  # fmt: skip
def test_bad_document_is_refused_by_name(host: Drivers, old: str, new: str, code: ErrorCode, message: str) -> None:
    with pytest.raises(VirtError, match=message) as caught:
        host.hypervisor.domain_define_xml(GUEST.replace(old, new, 1))
    assert caught.value.code is code
    assert [ref.name for ref in host.hypervisor.connect_list_all_domains()] == ["test"]


def test_memory_may_be_that_of_the_numa_cells(host: Drivers) -> None:
    cells = "<cpu><numa><cell id='0' cpus='0' memory='4096'/></numa></cpu>"
    document = GUEST.replace("<memory unit='MiB'>8</memory>", "").replace("</os>", f"</os>{cells}")
    guest = host.hypervisor.domain_define_xml(document)
    assert "<memory unit='KiB'>4096</memory>" in host.hypervisor.domain_get_xml_desc(guest)


def test_console_is_refused_for_nothing_runs(host: Drivers) -> None:
    with refused(
        ErrorCode.NO_SUPPORT,
        "this function is not supported by the connection driver: virDomainOpenConsole",
    ):
        host.hypervisor.domain_open_console(host.hypervisor.domain_lookup_by_name("test"))


def test_pools_have_invented_room(host: Drivers) -> None:
    pool = host.storage.storage_pool_lookup_by_name("default-pool")
    document = "<volume><name>%s</name><capacity unit='G'>%d</capacity></volume>"
    volume = host.storage.storage_vol_create_xml(pool, document % ("v", 60))
    assert host.storage.storage_vol_get_info(volume).type is VolumeType.FILE
    assert host.storage.storage_pool_get_info(pool).available == 40 * 1024**3
    with refused(ErrorCode.INTERNAL_ERROR, "internal error: Not enough free space in pool for volume 'w'"):
        host.storage.storage_vol_create_xml(pool, document % ("w", 60))
    host.storage.storage_vol_delete(volume)
    host.storage.storage_vol_create_xml(pool, document % ("w", 60))


def test_invented_volumes_are_made_without_flags(host: Drivers) -> None:
    pool = host.storage.storage_pool_lookup_by_name("default-pool")
    document = "<volume><name>v</name><capacity>1</capacity></volume>"
    with refused(ErrorCode.INVALID_ARG, "unsupported flags (0x1) in function testStorageVolCreateXML"):
        host.storage.storage_vol_create_xml(pool, document, VolumeCreateFlag.PREALLOC_METADATA)
    volume = host.storage.storage_vol_create_xml(pool, document)
    with refused(ErrorCode.INVALID_ARG, "unsupported flags (0x1) in function testStorageVolCreateXMLFrom"):
        host.storage.storage_vol_create_xml_from(pool, document, volume, VolumeCreateFlag.PREALLOC_METADATA)


@pytest.mark.parametrize("call", ["resize", "upload", "download", "wipe_pattern"])
def test_content_that_there_is_not_is_refused(host: Drivers, call: str) -> None:
    pool = host.storage.storage_pool_lookup_by_name("default-pool")
    volume = host.storage.storage_vol_create_xml(pool, "<volume><name>v</name><capacity>1</capacity></volume>")
    arguments = {"resize": (volume, 1), "upload": (volume, [])}.get(call, (volume,))
    with pytest.raises(VirtError) as caught:
        getattr(host.storage, f"storage_vol_{call}")(*arguments)
    assert caught.value.code is ErrorCode.NO_SUPPORT


def test_redefined_pool_counts_once_it_is_stopped(host: Drivers) -> None:
    pool = host.storage.storage_pool_lookup_by_name("default-pool")
    host.storage.storage_pool_define_xml(
        f"<pool type='dir'><name>default-pool</name><uuid>{pool.uuid}</uuid><target><path>/new</path></target></pool>"
    )
    assert "<path>/default-pool</path>" in host.storage.storage_pool_get_xml_desc(pool)
    assert "<path>/new</path>" in host.storage.storage_pool_get_xml_desc(pool, inactive=True)
    host.storage.storage_pool_destroy(pool)
    assert "<path>/new</path>" in host.storage.storage_pool_get_xml_desc(pool)


def test_passwords_are_told_only_those_who_ask_for_them(host: Drivers) -> None:
    screen = "<devices><graphics type='vnc' passwd='s3cr3t'/></devices></domain>"
    driver = host.hypervisor
    ref = driver.domain_define_xml(GUEST.replace("</domain>", screen))
    assert "s3cr3t" not in driver.domain_get_xml_desc(ref)
    assert "passwd='s3cr3t'" in driver.domain_get_xml_desc(ref, DomainXmlFlag.SECURE)
    ref = driver.domain_create(ref)
    assert "s3cr3t" not in driver.domain_get_xml_desc(ref)
    assert "passwd='s3cr3t'" in driver.domain_get_xml_desc(ref, DomainXmlFlag.SECURE)


def test_a_volume_is_what_its_document_says(host: Drivers) -> None:
    pool = host.storage.storage_pool_lookup_by_name("default-pool")
    xml = (
        "<volume type='block'><name>v</name><capacity>1</capacity><target><encryption format='luks'>"
        "<secret type='passphrase' usage='u'/></encryption></target><backingStore><path>/b</path>"
        "<permissions><owner>5</owner></permissions></backingStore></volume>"
    )
    shown = host.storage.storage_vol_get_xml_desc(host.storage.storage_vol_create_xml(pool, xml))
    for part in ("<volume type='block'>", "<secret type='passphrase' usage='u'/>", "<owner>5</owner>"):
        assert part in shown
    with refused(ErrorCode.OVERFLOW, "numerical overflow: value too large: 9EiB"):
        host.storage.storage_vol_create_xml(pool, xml.replace("<capacity>1", "<capacity unit='EiB'>9"))


def test_both_documents_of_a_snapshot_that_is_defined_again_are_completed(host: Drivers, guest: DomainRef) -> None:
    assert isinstance(host.hypervisor, SnapshotDriver)
    kept = GUEST.replace("<name>", f"<uuid>{guest.uuid}</uuid><name>", 1)
    other = kept.replace("<domain", "<inactiveDomain").replace("</domain>", "</inactiveDomain>")
    head = "<name>s</name><state>running</state><creationTime>1</creationTime>"
    snapshot = host.hypervisor.domain_snapshot_create_xml(
        guest, f"<domainsnapshot>{head}{kept}{other}</domainsnapshot>", SnapshotCreateFlag.REDEFINE
    )
    told = host.hypervisor.domain_snapshot_get_xml_desc(snapshot)
    assert told.count("<on_crash>destroy</on_crash>") == 2
