"""Pools of the session: their rules, their messages, and what other processes see of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, PoolState
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused

UUID = "11111111-2222-3333-4444-555555555555"


def document(name: str, path: Path | str, *, uuid: str = "", extra: str = "", kind: str = "dir") -> str:
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"<pool type='{kind}'><name>{name}</name>{identity}<target><path>{path}</path>{extra}</target></pool>"


@pytest.fixture
def pool(driver: SessionStorageDriver, tmp_path: Path) -> PoolRef:
    return driver.storage_pool_define_xml(document("p", tmp_path / "pool", uuid=UUID))


def test_defined_pool_is_inactive_and_persistent(driver: SessionStorageDriver, pool: PoolRef) -> None:
    assert pool == PoolRef("p", UUID)
    assert not driver.storage_pool_is_active(pool)
    assert driver.storage_pool_is_persistent(pool)
    assert driver.connect_list_all_storage_pools() == [pool]
    assert driver.storage_pool_get_info(pool) == (PoolState.INACTIVE, 0, 0, 0)


def test_pool_without_uuid_gets_a_new_one_each(driver: SessionStorageDriver, tmp_path: Path) -> None:
    one = driver.storage_pool_define_xml(document("one", tmp_path / "1"))
    two = driver.storage_pool_define_xml(document("two", tmp_path / "2"))
    assert len(one.uuid) == 36
    assert one.uuid != two.uuid


def test_lookups_find_by_name_and_by_uuid_in_any_spelling(driver: SessionStorageDriver, pool: PoolRef) -> None:
    assert driver.storage_pool_lookup_by_name("p") == pool
    assert driver.storage_pool_lookup_by_uuid(UUID) == pool
    assert driver.storage_pool_lookup_by_uuid(UUID.replace("-", "").upper()) == pool


def test_lookups_of_nothing_say_so(driver: SessionStorageDriver) -> None:
    with refused(ErrorCode.NO_STORAGE_POOL, "Storage pool not found: no storage pool with matching name 'x'"):
        driver.storage_pool_lookup_by_name("x")
    with refused(ErrorCode.NO_STORAGE_POOL, f"Storage pool not found: no storage pool with matching uuid '{UUID}'"):
        driver.storage_pool_lookup_by_uuid(UUID)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../../etc/passwd", "x" * 300, "a\0b"])
def test_lookup_of_a_name_that_no_pool_can_have_finds_nothing(driver: SessionStorageDriver, name: str) -> None:
    with pytest.raises(VirtError) as caught:
        driver.storage_pool_lookup_by_name(name)
    assert caught.value.code is ErrorCode.NO_STORAGE_POOL


def test_redefinition_with_the_same_uuid_replaces(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    driver.storage_pool_define_xml(document("p", tmp_path / "elsewhere", uuid=UUID))
    assert f"<path>{tmp_path}/elsewhere</path>" in driver.storage_pool_get_xml_desc(pool)
    assert driver.connect_list_all_storage_pools() == [pool]


def test_name_of_another_pool_is_refused(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    with refused(ErrorCode.OPERATION_FAILED, f"operation failed: pool 'p' already exists with uuid {UUID}"):
        driver.storage_pool_define_xml(document("p", tmp_path / "other"))


def test_uuid_of_another_pool_is_refused(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    with refused(ErrorCode.OPERATION_FAILED, f"operation failed: pool 'p' is already defined with uuid {UUID}"):
        driver.storage_pool_define_xml(document("q", tmp_path / "other", uuid=UUID))


def test_directory_of_another_pool_is_refused_even_with_other_slashes(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    with refused(ErrorCode.OPERATION_FAILED, "operation failed: Storage source conflict with pool: 'p'"):
        driver.storage_pool_define_xml(document("q", f"{tmp_path}//pool/"))


@pytest.mark.parametrize(
    ("xml", "code", "message"),
    [
        ("<network/>", ErrorCode.XML_ERROR, "XML error: expecting root element of 'pool', not 'network'"),
        (
            "<pool><name>x</name></pool>",
            ErrorCode.XML_ERROR,
            "XML error: Missing required attribute 'type' in element 'pool'",
        ),
        (
            "<pool type='foo'><name>x</name></pool>",
            ErrorCode.XML_ERROR,
            "XML error: Invalid value for attribute 'type' in element 'pool': 'foo'. Write dir, fs, netfs, logical, "
            "disk, iscsi, iscsi-direct, scsi, mpath, rbd, sheepdog, gluster, zfs or vstorage",
        ),
        ("<pool type='dir'><name>x</name></pool>", ErrorCode.XML_ERROR, "XML error: missing storage pool target path"),
        ("<pool type='dir'/>", ErrorCode.XML_ERROR, "XML error: missing pool source name element"),
        (document("a/b", "/x"), ErrorCode.XML_ERROR, "XML error: name a/b cannot contain '/'"),
        (document("a", "/x", uuid="1"), ErrorCode.XML_ERROR, "XML error: malformed uuid element"),
        (
            document("a", "/x", extra="<permissions><mode>9</mode></permissions>"),
            ErrorCode.XML_ERROR,
            "XML error: malformed octal mode",
        ),
        (
            document("a", "/x", extra="<permissions><mode>7777</mode></permissions>"),
            ErrorCode.XML_ERROR,
            "XML error: malformed octal mode",
        ),
        (
            document("a", "/x", extra="<permissions><owner>bob</owner></permissions>"),
            ErrorCode.XML_ERROR,
            "XML error: malformed owner element",
        ),
        (
            document("a", "/x", extra="<permissions><group>-2</group></permissions>"),
            ErrorCode.XML_ERROR,
            "XML error: malformed group element",
        ),
        (document("a", "relative"), ErrorCode.INVALID_ARG, "invalid argument: path 'relative' is not absolute"),
        (
            document("a", "/x", kind="iscsi"),
            ErrorCode.XML_ERROR,
            "XML error: missing storage pool source host name",
        ),
    ],
)  # fmt: skip
def test_bad_document_is_refused_by_name(driver: SessionStorageDriver, xml: str, code: ErrorCode, message: str) -> None:
    with refused(code, message):
        driver.storage_pool_define_xml(xml)
    with refused(code, message):
        driver.storage_pool_create_xml(xml)
    assert driver.connect_list_all_storage_pools() == []


@pytest.mark.parametrize("xml", ["", "<pool", "text", "\0", "<pool type='dir'><name>x</pool>", "<a>" * 1000])
def test_what_is_no_xml_is_a_one_line_error_with_its_line(driver: SessionStorageDriver, xml: str) -> None:
    with pytest.raises(VirtError, match=r"^\(storage_pool_definition\):\d+: ") as caught:
        driver.storage_pool_define_xml(xml)
    assert caught.value.code is ErrorCode.XML_DETAIL
    assert "\n" not in str(caught.value)


def test_document_type_and_entities_are_refused(driver: SessionStorageDriver, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("shh")
    xml = f"<!DOCTYPE pool [<!ENTITY e SYSTEM 'file://{secret}'>]><pool type='dir'><name>&e;</name></pool>"
    with pytest.raises(VirtError) as caught:
        driver.storage_pool_define_xml(xml)
    assert "shh" not in str(caught.value)


def test_build_makes_the_directories_with_the_documents_mode(driver: SessionStorageDriver, tmp_path: Path) -> None:
    mode = "<permissions><mode>0750</mode></permissions>"
    pool = driver.storage_pool_define_xml(document("p", tmp_path / "a" / "b", extra=mode))
    driver.storage_pool_build(pool)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750


def test_built_directory_is_0711_by_default(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    driver.storage_pool_build(pool)
    assert stat.S_IMODE((tmp_path / "pool").stat().st_mode) == 0o711


def test_building_an_existing_directory_keeps_its_mode(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    (tmp_path / "pool").mkdir(mode=0o705)
    driver.storage_pool_build(pool)
    assert stat.S_IMODE((tmp_path / "pool").stat().st_mode) == 0o705


def test_build_over_a_file_is_refused(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    (tmp_path / "pool").write_text("a file")
    with refused(ErrorCode.SYSTEM_ERROR, f"cannot create path '{tmp_path}/pool': File exists"):
        driver.storage_pool_build(pool)


def test_start_of_a_missing_directory_says_what_is_missing(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    with refused(ErrorCode.SYSTEM_ERROR, f"cannot open directory '{tmp_path}/pool': No such file or directory"):
        driver.storage_pool_create(pool)
    assert not driver.storage_pool_is_active(pool)


def test_start_can_build(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    driver.storage_pool_create(pool, build=True)
    assert driver.storage_pool_is_active(pool)
    assert (tmp_path / "pool").is_dir()


def test_life_of_a_pool(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    driver.storage_pool_create(pool, build=True)
    info = driver.storage_pool_get_info(pool)
    assert info.state is PoolState.RUNNING
    assert info.capacity == info.allocation + info.available > 0
    driver.storage_pool_refresh(pool)
    driver.storage_pool_destroy(pool)
    assert not driver.storage_pool_is_active(pool)
    assert (tmp_path / "pool").is_dir()
    driver.storage_pool_delete(pool)
    assert not (tmp_path / "pool").exists()
    driver.storage_pool_undefine(pool)
    assert driver.connect_list_all_storage_pools() == []


def test_active_pool_refuses_what_needs_an_inactive_one(driver: SessionStorageDriver, pool: PoolRef) -> None:
    driver.storage_pool_create(pool, build=True)
    invalid = "Requested operation is not valid: storage pool 'p' is"
    with refused(ErrorCode.OPERATION_INVALID, f"{invalid} already active"):
        driver.storage_pool_create(pool)
    with refused(ErrorCode.OPERATION_INVALID, f"{invalid} already active"):
        driver.storage_pool_build(pool)
    with refused(ErrorCode.OPERATION_INVALID, f"{invalid} still active"):
        driver.storage_pool_undefine(pool)
    with refused(ErrorCode.OPERATION_INVALID, f"{invalid} still active"):
        driver.storage_pool_delete(pool)


def test_inactive_pool_refuses_what_needs_an_active_one(driver: SessionStorageDriver, pool: PoolRef) -> None:
    message = "Requested operation is not valid: storage pool 'p' is not active"
    calls: tuple[Callable[[], object], ...] = (
        lambda: driver.storage_pool_destroy(pool),
        lambda: driver.storage_pool_refresh(pool),
        lambda: driver.storage_pool_list_all_volumes(pool),
        lambda: driver.storage_vol_lookup_by_name(pool, "x"),
        lambda: driver.storage_vol_create_xml(pool, "<volume/>"),
    )
    for call in calls:
        with refused(ErrorCode.OPERATION_INVALID, message):
            call()


def test_delete_of_a_directory_with_volumes_is_refused(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    driver.storage_pool_build(pool)
    (tmp_path / "pool" / "volume").touch()
    with refused(ErrorCode.SYSTEM_ERROR, f"failed to remove pool '{tmp_path}/pool': Directory not empty"):
        driver.storage_pool_delete(pool)
    assert (tmp_path / "pool" / "volume").exists()


def test_transient_pool_is_gone_once_destroyed(driver: SessionStorageDriver, tmp_path: Path) -> None:
    pool = driver.storage_pool_create_xml(document("t", tmp_path / "t"), build=True)
    assert driver.storage_pool_is_active(pool)
    assert not driver.storage_pool_is_persistent(pool)
    with refused(ErrorCode.INTERNAL_ERROR, "internal error: pool has no config file"):
        driver.storage_pool_set_autostart(pool, True)
    driver.storage_pool_destroy(pool)
    assert driver.connect_list_all_storage_pools() == []


def test_creating_a_pool_that_is_active_is_refused(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    driver.storage_pool_create(pool, build=True)
    with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: pool is already active as 'p'"):
        driver.storage_pool_create_xml(document("p", tmp_path / "pool", uuid=UUID))


def test_undefining_a_pool_forgets_its_mark(driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path) -> None:
    driver.storage_pool_set_autostart(pool, True)
    assert driver.storage_pool_get_autostart(pool)
    driver.storage_pool_undefine(pool)
    again = driver.storage_pool_define_xml(document("p", tmp_path / "pool", uuid=UUID))
    assert not driver.storage_pool_get_autostart(again)


def test_reference_to_a_pool_that_was_replaced_finds_nothing(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    driver.storage_pool_undefine(pool)
    driver.storage_pool_define_xml(document("p", tmp_path / "pool"))
    with refused(ErrorCode.NO_STORAGE_POOL, f"Storage pool not found: no storage pool with matching uuid '{UUID}' (p)"):
        driver.storage_pool_get_info(pool)


def test_second_driver_sees_the_pool_active(
    driver: SessionStorageDriver, directories: Directories, pool: PoolRef
) -> None:
    driver.storage_pool_create(pool, build=True)
    other = SessionStorageDriver(directories)
    assert other.storage_pool_is_active(pool)
    other.storage_pool_destroy(pool)
    assert not driver.storage_pool_is_active(pool)


def test_pool_whose_directory_went_away_is_inactive(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    driver.storage_pool_create(pool, build=True)
    (tmp_path / "pool").rmdir()
    assert not driver.storage_pool_is_active(pool)
    driver.storage_pool_create(pool, build=True)
    assert driver.storage_pool_is_active(pool)


def test_dumpxml_has_the_sizes_and_permissions_of_a_running_pool_only(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    inactive = driver.storage_pool_get_xml_desc(pool)
    assert "<capacity unit='bytes'>0</capacity>" in inactive
    assert "<permissions>" not in inactive
    driver.storage_pool_create(pool, build=True)
    running = driver.storage_pool_get_xml_desc(pool)
    assert "<mode>0711</mode>" in running
    assert f"<owner>{os.getuid()}</owner>" in running
    assert "<capacity unit='bytes'>0</capacity>" not in running
    driver.storage_pool_destroy(pool)
    assert driver.storage_pool_get_xml_desc(pool) == inactive


def test_inactive_document_of_a_running_pool_differs_once_it_is_redefined(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    driver.storage_pool_create(pool, build=True)
    assert "<mode>0711</mode>" in driver.storage_pool_get_xml_desc(pool, inactive=True)
    driver.storage_pool_define_xml(document("p", tmp_path / "elsewhere", uuid=UUID))
    assert f"<path>{tmp_path}/elsewhere</path>" in driver.storage_pool_get_xml_desc(pool, inactive=True)
    assert f"<path>{tmp_path}/pool</path>" in driver.storage_pool_get_xml_desc(pool)


def test_document_survives_a_round_trip_with_awkward_characters(driver: SessionStorageDriver, tmp_path: Path) -> None:
    path = tmp_path / "a&b<c>'\""
    xml = document("n", str(path).replace("&", "&amp;").replace("<", "&lt;"))
    pool = driver.storage_pool_define_xml(xml)
    shown = driver.storage_pool_get_xml_desc(pool)
    assert driver.storage_pool_define_xml(shown) == pool
    driver.storage_pool_create(pool, build=True)
    assert path.is_dir()


def test_broken_definition_file_hides_only_itself(
    driver: SessionStorageDriver, directories: Directories, pool: PoolRef
) -> None:
    (directories.config / "storage" / "broken.xml").write_text("<pool type='dir'>")
    assert driver.connect_list_all_storage_pools() == [pool]
    with pytest.raises(VirtError, match=r"internal error: pool file '.*broken.xml' is broken: "):
        driver.storage_pool_lookup_by_name("broken")


def test_refresh_of_a_pool_whose_directory_went_away_stops_it_and_says_why(
    driver: SessionStorageDriver, tmp_path: Path
) -> None:
    pool = driver.storage_pool_create_xml(document("t", tmp_path / "t"), build=True)
    (tmp_path / "t").rmdir()
    with refused(ErrorCode.SYSTEM_ERROR, f"cannot open directory '{tmp_path}/t': No such file or directory"):
        driver.storage_pool_refresh(pool)
    assert driver.connect_list_all_storage_pools() == []  # a transient one is gone then


def test_autostart_starts_what_is_marked_and_not_running(driver: SessionStorageDriver, pool: PoolRef) -> None:
    driver.storage_pool_build(pool)
    assert driver.connect_autostart() == []
    driver.storage_pool_set_autostart(pool, True)
    assert driver.connect_autostart() == [pool]
    assert driver.connect_autostart() == []


def test_autostart_of_a_pool_that_cannot_start_keeps_no_other(driver: SessionStorageDriver, tmp_path: Path) -> None:
    bad = driver.storage_pool_define_xml(document("a-bad", tmp_path / "missing"))
    good = driver.storage_pool_define_xml(document("good", tmp_path / "good"))
    driver.storage_pool_build(good)
    for pool in (bad, good):
        driver.storage_pool_set_autostart(pool, True)
    assert driver.connect_autostart() == [good]


def test_after_a_reboot_no_pool_runs_and_transient_ones_are_gone(
    driver: SessionStorageDriver, pool: PoolRef, tmp_path: Path
) -> None:
    driver.storage_pool_create(pool, build=True)
    driver.storage_pool_create_xml(document("t", tmp_path / "t"), build=True)
    driver.forget_running()
    assert driver.connect_list_all_storage_pools() == [pool]
    assert not driver.storage_pool_is_active(pool)
