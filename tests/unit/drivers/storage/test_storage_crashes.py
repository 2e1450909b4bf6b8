"""Kills at every step, and several processes at once: no pool, volume or mark is lost or half there."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.drivers import store as store_module
from hostel.drivers.base import PoolRef
from hostel.drivers.storage import content as content_module
from hostel.drivers.storage import placing as placing_module
from hostel.drivers.storage.backends import local as local_module
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.units import KiB
from support.kill_step import MAX_STEPS, killed_at
from support.memory_folder import memory_folder

DEFINITIONS = (Path(store_module.__file__ or ""),)
FILES = tuple(Path(module.__file__ or "") for module in (placing_module, local_module, content_module))


def document(name: str, path: Path, number: int = 1) -> str:
    uuid = f"{number:08}-2222-3333-4444-555555555555"
    return f"<pool type='dir'><name>{name}</name><uuid>{uuid}</uuid><target><path>{path}</path></target></pool>"


def volume(name: str, format: str = "raw") -> str:
    return (
        f"<volume><name>{name}</name><capacity>{64 * KiB}</capacity><target><format type='{format}'/></target></volume>"
    )


class Facts:
    """What a new process sees of a session's pools."""

    def __init__(self, directories: Directories) -> None:
        driver = SessionStorageDriver(directories)
        self.pools = {
            pool.name: (
                driver.storage_pool_is_persistent(pool),
                driver.storage_pool_is_active(pool),
                driver.storage_pool_get_autostart(pool),
                driver.storage_pool_get_xml_desc(pool).partition("<path>")[2].partition("</path>")[0],
            )
            for pool in driver.connect_list_all_storage_pools()
        }


def each_step(
    files: tuple[Path, ...], prepare: Callable[[], None], action: Callable[[], object], check: Callable[[], None]
) -> None:
    """Prepare, kill ``action`` before one step more each time, and check what is left, until nothing is killed."""
    for step in range(1, MAX_STEPS):
        prepare()
        killed = killed_at(step, files, action)
        check()
        if not killed:
            assert step > 5, "the steps were not traced"
            return
    raise AssertionError("the action never ended")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is one: what a kill leaves needs no disk, and each step syncs several times."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def other(driver: SessionStorageDriver, tmp_path: Path) -> PoolRef:
    """A pool that everything else must leave alone."""
    pool = driver.storage_pool_define_xml(document("other", tmp_path / "other", 9))
    driver.storage_pool_create(pool, build=True)
    driver.storage_pool_set_autostart(pool, True)
    return pool


def test_kill_at_every_step_of_a_definition(
    driver: SessionStorageDriver, directories: Directories, other: PoolRef, tmp_path: Path
) -> None:
    untouched = Facts(directories).pools
    old, new = (True, False, False, f"{tmp_path}/old"), (True, False, False, f"{tmp_path}/new")

    def prepare() -> None:
        driver.storage_pool_define_xml(document("p", tmp_path / "old"))

    def check() -> None:
        found = Facts(directories).pools
        assert found.pop("p") in (old, new)
        assert found == untouched

    each_step(DEFINITIONS, prepare, lambda: driver.storage_pool_define_xml(document("p", tmp_path / "new")), check)


def test_kill_at_every_step_of_a_pools_start_and_stop(
    driver: SessionStorageDriver, directories: Directories, other: PoolRef, tmp_path: Path
) -> None:
    untouched = Facts(directories).pools
    pool = driver.storage_pool_define_xml(document("p", tmp_path / "p"))
    driver.storage_pool_build(pool)

    def stop_and_start() -> None:
        driver.storage_pool_destroy(pool)
        driver.storage_pool_create(pool)

    def prepare() -> None:
        if not driver.storage_pool_is_active(pool):
            driver.storage_pool_create(pool)

    def check() -> None:
        found = Facts(directories).pools
        persistent, _, _, path = found.pop("p")
        assert (persistent, path) == (True, f"{tmp_path}/p")
        assert found == untouched

    each_step(DEFINITIONS, prepare, stop_and_start, check)


def test_kill_at_every_step_of_an_undefinition_leaves_the_pool_or_nothing_of_it(
    driver: SessionStorageDriver, directories: Directories, other: PoolRef, tmp_path: Path
) -> None:
    untouched = Facts(directories).pools

    def prepare() -> None:
        pool = driver.storage_pool_define_xml(document("p", tmp_path / "p"))
        driver.storage_pool_set_autostart(pool, True)

    def check() -> None:
        found = Facts(directories).pools
        assert found.pop("p", None) in (
            None,
            (True, False, True, f"{tmp_path}/p"),
            (True, False, False, f"{tmp_path}/p"),
        )
        assert found == untouched
        # A mark that outlived its pool would start the next one of that name.
        if not (directories.config / "storage/p.xml").exists():
            assert not (directories.config / "storage/autostart/p").exists()

    pool = PoolRef("p", "00000001-2222-3333-4444-555555555555")
    each_step(DEFINITIONS, prepare, lambda: driver.storage_pool_undefine(pool), check)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_kill_at_every_step_of_a_creation_leaves_a_whole_volume_or_none(
    driver: SessionStorageDriver, started: PoolRef, place: Path, format: str
) -> None:
    def check() -> None:
        names = [found.name for found in driver.storage_pool_list_all_volumes(started)]
        assert names in ([], ["disk"])
        if names:
            with graph.open(str(place / "disk"), format) as node:
                assert node.read(0, node.length) == bytes(64 * KiB)
            (place / "disk").unlink()
        driver.storage_pool_refresh(started)
        assert os.listdir(place) == []  # what was half made is swept

    each_step(FILES, lambda: None, lambda: driver.storage_vol_create_xml(started, volume("disk", format)), check)


def test_kill_at_every_step_of_a_clone_leaves_a_whole_volume_or_none_and_the_source(
    driver: SessionStorageDriver, started: PoolRef, place: Path
) -> None:
    data = os.urandom(64 * KiB)
    source = driver.storage_vol_create_xml(started, volume("source"))
    (place / "source").write_bytes(data)

    def check() -> None:
        assert (place / "source").read_bytes() == data
        names = [found.name for found in driver.storage_pool_list_all_volumes(started)]
        assert names in (["source"], ["clone", "source"])
        if "clone" in names:
            with graph.open(str(place / "clone"), "qcow2") as node:
                assert node.read(0, node.length) == data
            (place / "clone").unlink()
        driver.storage_pool_refresh(started)
        assert os.listdir(place) == ["source"]

    clone = volume("clone", "qcow2")
    each_step(FILES, lambda: None, lambda: driver.storage_vol_create_xml_from(started, clone, source), check)


def _work(directories: Directories, place: Path, number: int, shared: PoolRef, barrier: object) -> None:
    """Define, start, mark, fill, and in part remove pools of one's own; make volumes in a shared one."""
    driver = SessionStorageDriver(directories)
    barrier.wait()  # type: ignore[attr-defined]
    for step in range(8):
        name = f"p{number}-{step}"
        pool = driver.storage_pool_define_xml(document(name, place / name, 100 * (number + 1) + step))
        driver.storage_pool_create(pool, build=True)
        driver.storage_pool_set_autostart(pool, True)
        driver.storage_vol_create_xml(pool, volume("disk"))
        driver.storage_vol_create_xml(shared, volume(f"v{number}-{step}", "qcow2"))
        try:
            driver.storage_vol_create_xml(shared, volume(f"contested-{step}"))
        except VirtError as error:
            if error.code is not ErrorCode.STORAGE_VOL_EXIST and "already exists" not in str(error):
                raise
        if step % 2:
            driver.storage_pool_destroy(pool)
            driver.storage_pool_undefine(pool)
    os._exit(0)


def test_processes_at_once_lose_no_pool_no_mark_and_no_volume(
    driver: SessionStorageDriver, directories: Directories, started: PoolRef, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    arguments = [(directories, tmp_path / "pools", number, started, barrier) for number in range(3)]
    workers = [context.Process(target=_work, args=given) for given in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    found = Facts(directories).pools
    assert found.pop("started")[1]
    assert found == {
        f"p{number}-{step}": (True, True, True, f"{tmp_path}/pools/p{number}-{step}")
        for number in range(3)
        for step in range(0, 8, 2)
    }
    volumes = {found.name for found in driver.storage_pool_list_all_volumes(started)}
    assert volumes == {
        *(f"v{number}-{step}" for number in range(3) for step in range(8)),
        *(f"contested-{step}" for step in range(8)),
    }
