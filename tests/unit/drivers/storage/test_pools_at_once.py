"""Several who use pools at the same time: nobody waits for what is none of theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, PoolState
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from support.storage_tools import Tools

PATIENCE = 20.0  # seconds


def document(name: str, kind: str, source: str, path: Path) -> str:
    target = f"<target><path>{path}</path></target>"
    return f"<pool type='{kind}'><name>{name}</name><source>{source}</source>{target}</pool>"


def test_a_server_that_does_not_answer_keeps_nobody_off_other_pools(
    directories: Directories, tools: Tools, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    tools.answer("mount", code=32, err="no answer\n", run=f"""
import time
until = time.monotonic() + {PATIENCE}
open({str(tmp_path / "waiting")!r}, "w").close()
while not os.path.exists({str(gate)!r}) and time.monotonic() < until:
    time.sleep(0.01)
""")  # fmt: skip
    failures: list[str] = []
    driver = SessionStorageDriver(directories)
    remote = driver.storage_pool_define_xml(
        document("remote", "netfs", "<host name='h'/><dir path='/d'/>", tmp_path / "m")
    )

    def start() -> None:
        try:
            SessionStorageDriver(directories).storage_pool_create(remote)
        except VirtError as error:
            failures.append(str(error))

    starting = threading.Thread(target=start)
    starting.start()
    try:
        wait_for(tmp_path / "waiting")
        local = driver.storage_pool_create_xml(document("local", "dir", "", tmp_path / "local"), build=True)
        driver.storage_vol_create_xml(local, "<volume><name>v</name><capacity>4096</capacity></volume>")
        assert [ref.name for ref in driver.storage_pool_list_all_volumes(local)] == ["v"]
        assert {ref.name for ref in driver.connect_list_all_storage_pools()} == {"remote", "local"}
        assert not driver.storage_pool_is_active(remote)
        driver.storage_pool_destroy(local)
        assert starting.is_alive(), "all of this was done while the server did not answer"
    finally:
        gate.touch()
        starting.join(PATIENCE)
    assert len(failures) == 1 and "no answer" in failures[0]


def test_a_server_that_is_away_hides_neither_the_pool_nor_others(
    driver: SessionStorageDriver, tools: Tools, started: PoolRef
) -> None:
    tools.answer("zpool get", "t\tsize\t9\t-\nt\tfree\t9\t-\nt\tallocated\t0\t-\n")
    tools.answer("zfs list", "t/v\t4096\t4096\n")
    zfs = driver.storage_pool_create_xml(document("z", "zfs", "<name>t</name>", Path("/dev/zvol/t")))
    volume = driver.storage_vol_create_xml(started, "<volume><name>v</name><capacity>4096</capacity></volume>")
    assert driver.storage_vol_lookup_by_key("t/v").pool == "z"
    for tool in ("zpool", "zfs"):
        tools.answer(tool, code=1, err="cannot open 't': pool I/O is currently suspended\n")
    assert driver.storage_pool_get_info(zfs) == (PoolState.INACCESSIBLE, 0, 0, 0)
    assert "<name>z</name>" in driver.storage_pool_get_xml_desc(zfs)
    assert driver.storage_vol_lookup_by_key(volume.key) == volume
    with pytest.raises(VirtError, match="currently suspended"):
        driver.storage_pool_list_all_volumes(zfs)
    with pytest.raises(VirtError, match="currently suspended"):
        driver.storage_pool_refresh(zfs)
    assert zfs not in driver.connect_list_all_storage_pools()  # it was transient, and does not run any more


def test_others_list_and_look_while_a_volume_is_uploaded(
    driver: SessionStorageDriver, directories: Directories, started: PoolRef
) -> None:
    volume = driver.storage_vol_create_xml(started, "<volume><name>v</name><capacity>65536</capacity></volume>")
    other = SessionStorageDriver(directories)
    seen: list[tuple[list[str], int]] = []

    def pieces() -> Iterator[bytes]:
        for _ in range(4):
            names = [ref.name for ref in other.storage_pool_list_all_volumes(started)]
            seen.append((names, other.storage_vol_get_info(volume).capacity))
            yield b"x" * 16384

    driver.storage_vol_upload(volume, pieces())
    assert seen == [(["v"], 65536)] * 4
    assert b"".join(bytes(piece) for piece in other.storage_vol_download(volume)) == b"x" * 65536


def test_a_pool_of_any_name_can_be_started_and_stopped(driver: SessionStorageDriver, tmp_path: Path) -> None:
    for number, name in enumerate(("\u4e16\u754c" * 33, "a b&amp;c", "%2e%2f")):
        pool = driver.storage_pool_create_xml(document(name, "dir", "", tmp_path / str(number)), build=True)
        driver.storage_pool_destroy(pool)


def wait_for(path: Path) -> None:
    waited = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if path.exists():
            return
        waited.wait(0.01)
    raise AssertionError(f"{path} does not appear")
