"""Pools full of images whose headers lie: they are listed and described, and nothing outside them is touched."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hostel.block import graph
from hostel.drivers.base import PoolRef, VolumeResizeFlag
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.errors import ErrorCode, VirtError
from hostel.units import INT64_MAX, MiB
from support import hostile
from support.opened import recorded

IMAGES = hostile.images()


def name_of(document: str) -> str:
    return f"<volume><name>{document}</name><capacity>1</capacity></volume>"


@pytest.fixture
def full(started: PoolRef, place: Path) -> PoolRef:
    for name, data in IMAGES.items():
        (place / name).write_bytes(data)
    return started


def test_refresh_and_every_question_touch_the_images_alone(
    driver: SessionStorageDriver, full: PoolRef, place: Path, tmp_path: Path
) -> None:
    before = {name: (place / name).stat().st_mtime_ns for name in IMAGES}
    tracemalloc.start()
    began = time.monotonic()
    with recorded() as paths:
        driver.storage_pool_refresh(full)
        volumes = driver.storage_pool_list_all_volumes(full)
        infos = {volume.name: driver.storage_vol_get_info(volume) for volume in volumes}
        documents = {volume.name: driver.storage_vol_get_xml_desc(volume) for volume in volumes}
    took = time.monotonic() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    outside = {path for path in paths if not path.startswith(f"{tmp_path}/") and not _is_python(path)}
    assert outside == set()
    assert set(infos) == set(IMAGES)
    assert all(0 <= info.capacity <= INT64_MAX for info in infos.values())
    for name, document in documents.items():
        shown = ElementTree.fromstring(document)
        assert shown.findtext("name") == name
        assert shown.findtext("target/path") == str(place / name)
    assert {name: (place / name).stat().st_mtime_ns for name in IMAGES} == before
    assert peak < 64 * MiB
    assert took < 30


def _is_python(path: str) -> bool:
    # Modules that are imported for the first time.
    return path.endswith((".py", ".pyc", ".so")) or "/__pycache__" in path or path.startswith("/proc/")


@pytest.mark.parametrize("name", [name for name in IMAGES if name.startswith(("names-", "loops-"))])
def test_image_that_names_others_is_not_read_through(
    driver: SessionStorageDriver, full: PoolRef, place: Path, tmp_path: Path, name: str
) -> None:
    """Neither a clone nor a resize may bring in what the metadata names, wherever that is."""
    volume = driver.storage_vol_lookup_by_name(full, name)
    before = (place / name).read_bytes()
    with recorded() as paths:
        for call in (
            lambda: driver.storage_vol_create_xml_from(full, name_of("clone"), volume),
            lambda: driver.storage_vol_resize(volume, 2 * MiB, VolumeResizeFlag.NONE),
        ):
            with pytest.raises(VirtError) as caught:
                call()
            assert caught.value.code in (ErrorCode.OPERATION_INVALID, ErrorCode.OPERATION_FAILED)
            assert str(caught.value).isprintable()
    assert {path for path in paths if not path.startswith(f"{tmp_path}/") and not _is_python(path)} == set()
    assert not (place / "clone").exists()
    assert (place / name).read_bytes() == before


@pytest.mark.parametrize("name", IMAGES)
def test_clone_of_any_image_is_whole_or_not_there(
    driver: SessionStorageDriver, full: PoolRef, place: Path, name: str
) -> None:
    volume = driver.storage_vol_lookup_by_name(full, name)
    try:
        driver.storage_vol_create_xml_from(full, name_of("clone"), volume)
    except VirtError as error:
        assert str(error).isprintable()
        assert not (place / "clone").exists()
    else:
        assert (place / "clone").stat().st_size == max(driver.storage_vol_get_info(volume).capacity, 1)
    assert not [entry for entry in os.listdir(place) if entry.endswith(".new")]


@pytest.mark.parametrize("name", IMAGES)
def test_any_image_can_be_overwritten_and_removed(
    driver: SessionStorageDriver, full: PoolRef, place: Path, name: str
) -> None:
    volume = driver.storage_vol_lookup_by_name(full, name)
    driver.storage_vol_wipe_pattern(volume)
    assert not any((place / name).read_bytes())
    driver.storage_vol_upload(volume, [b"fresh"])
    assert (place / name).read_bytes()[:5] == b"fresh"
    driver.storage_vol_delete(volume)
    assert not (place / name).exists()


def test_upload_of_a_hostile_image_does_not_make_it_trusted(
    driver: SessionStorageDriver, started: PoolRef, place: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    volume = driver.storage_vol_create_xml(started, "<volume><name>disk</name><capacity>1</capacity></volume>")
    driver.storage_vol_upload(volume, [hostile.naming(str(secret).encode())])
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_create_xml_from(started, name_of("clone"), volume)
    assert str(caught.value) == (
        f"Requested operation is not valid: volume 'disk' was uploaded and names the backing file '{secret}', which is "
        "not followed: if you trust who made it, upload it again with 'virsh vol-upload --trust'"
    )
    assert os.listdir(place) == ["disk"]


def test_link_out_of_the_pool_does_not_open_the_way(
    driver: SessionStorageDriver, started: PoolRef, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    (place / "link").symlink_to(tmp_path / "secret")
    (place / "disk").write_bytes(hostile.naming(b"link"))
    volume = driver.storage_vol_lookup_by_name(started, "disk")
    with pytest.raises(VirtError, match="which is in no active pool"):
        driver.storage_vol_create_xml_from(started, name_of("clone"), volume)


def test_backing_chain_that_changes_under_the_clone_is_noticed(
    driver: SessionStorageDriver, started: PoolRef, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the chain and the opening of it, another process records another backing file."""
    (tmp_path / "secret").write_bytes(bytes(MiB))
    for name in ("base", "over"):
        backing = "<backingStore><path>base</path><format type='raw'/></backingStore>" if name == "over" else ""
        kind = "<target><format type='qcow2'/></target>" if name == "over" else ""
        document = f"<volume><name>{name}</name><capacity>1048576</capacity>{kind}{backing}</volume>"
        driver.storage_vol_create_xml(started, document)
    original = graph.open

    def swap_then_open(filename: str, *arguments: object, **options: object) -> object:
        if filename == str(place / "over") and not options.get("no_backing"):
            with original(filename, "qcow2", read_only=False, no_backing=True) as node:
                node.driver.change_backing(str(tmp_path / "secret"), "raw")  # type: ignore[attr-defined]
        return original(filename, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "open", swap_then_open)
    volume = driver.storage_vol_lookup_by_name(started, "over")
    with pytest.raises(VirtError, match=r"stands on '.*secret', which is in no active pool"):
        driver.storage_vol_create_xml_from(started, name_of("clone"), volume)
    assert not (place / "clone").exists()
