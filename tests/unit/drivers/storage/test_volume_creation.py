"""New volumes of directory pools: what is made of a document, and what is refused."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hostel.block import graph
from hostel.drivers.base import PoolRef, VolumeCreateFlag, VolumeRef, VolumeType
from hostel.drivers.storage.document import Permissions
from hostel.drivers.storage.driver import SessionStorageDriver as Storage
from hostel.drivers.storage.placing import new_file
from hostel.errors import ErrorCode, VirtError
from hostel.units import KiB, MiB
from support import images
from support.refusal import refused
from support.volumes import over, xml


def test_raw_volume_is_sparse_private_and_of_its_capacity(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 5 * MiB))
    assert volume == VolumeRef("started", "disk", str(place / "disk"))
    status = (place / "disk").stat()
    assert (status.st_size, status.st_blocks) == (5 * MiB, 0)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert driver.storage_vol_get_info(volume) == (VolumeType.FILE, 5 * MiB, 0)
    assert driver.storage_vol_get_info(volume, physical=True).allocation == 5 * MiB


def test_raw_volume_without_allocation_is_allocated_whole(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", MiB, allocation=None))
    assert driver.storage_vol_get_info(volume).allocation >= MiB


def test_size_with_nothing_in_it_is_as_if_it_was_not_there(driver: Storage, started: PoolRef) -> None:
    document = xml("a", allocation=None).replace("<target>", "<allocation></allocation><target>")
    volume = driver.storage_vol_create_xml(started, document)
    assert driver.storage_vol_get_info(volume).allocation == MiB
    with refused(ErrorCode.XML_ERROR, "XML error: missing capacity element"):
        driver.storage_vol_create_xml(started, "<volume><name>b</name><capacity unit='B'/></volume>")


def test_qcow2_volume_is_of_the_oldest_version_unless_said_otherwise(driver: Storage, started: PoolRef) -> None:
    old = driver.storage_vol_create_xml(started, xml("old", format="qcow2"))
    new = driver.storage_vol_create_xml(started, xml("new", format="qcow2", target="<compat>1.1</compat>"))
    assert "<compat>" not in driver.storage_vol_get_xml_desc(old)
    assert "<compat>1.1</compat>" in driver.storage_vol_get_xml_desc(new)


def test_qcow2_capacity_is_rounded_up_to_whole_kibibytes(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 1025, format="qcow2"))
    assert driver.storage_vol_get_info(volume).capacity == 2 * KiB


@pytest.mark.parametrize("allocation", [0, MiB])
def test_preallocation_maps_every_cluster(driver: Storage, started: PoolRef, place: Path, allocation: int) -> None:
    flags = VolumeCreateFlag.PREALLOC_METADATA
    driver.storage_vol_create_xml(started, xml("disk", format="qcow2", allocation=allocation), flags)
    with graph.open(str(place / "disk"), "qcow2") as node:
        assert all(extent.status for extent in node.extents())
        assert node.length == MiB
    assert ((place / "disk").stat().st_blocks * 512 >= MiB) is (allocation == MiB)


def test_overlay_reads_through_to_its_backing_and_takes_its_size(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    driver.storage_vol_create_xml(started, xml("base", MiB))
    images.write(place / "base", "raw", {4096: b"below"})
    document = xml("over", None, format="qcow2", backing=over("base", "raw"))
    volume = driver.storage_vol_create_xml(started, document)
    assert driver.storage_vol_get_info(volume).capacity == MiB
    assert images.content(place / "over", "qcow2")[4096:4101] == b"below"
    shown = ElementTree.fromstring(driver.storage_vol_get_xml_desc(volume))
    assert shown.findtext("backingStore/path") == str(place / "base")
    assert shown.find("backingStore/format").get("type") == "raw"  # type: ignore[union-attr]


def test_overlay_over_what_looks_like_an_image_needs_its_format(driver: Storage, started: PoolRef, place: Path) -> None:
    driver.storage_vol_create_xml(started, xml("base", format="qcow2"))
    with refused(
        ErrorCode.INVALID_ARG,
        f"invalid argument: volume 'over': backing store '{place}/base' looks like qcow2; "
        "say so: <format type='qcow2'/> in backingStore",
    ):
        driver.storage_vol_create_xml(started, xml("over", format="qcow2", backing=over(f"{place}/base")))
    assert not (place / "over").exists()


@pytest.mark.parametrize("format", ["bochs", "cloop", "cow", "dmg"])
def test_formats_that_can_only_be_read_are_refused(driver: Storage, started: PoolRef, place: Path, format: str) -> None:
    source = driver.storage_vol_create_xml(started, xml("raw"))
    message = f"unsupported configuration: volume 'v': format '{format}' can only be read"
    with refused(ErrorCode.CONFIG_UNSUPPORTED, message):
        driver.storage_vol_create_xml(started, xml("v", format=format))
    with refused(ErrorCode.CONFIG_UNSUPPORTED, message):
        driver.storage_vol_create_xml_from(started, xml("v", format=format), source)
    assert [path.name for path in place.iterdir()] == ["raw"]


def test_directory_volume_is_a_directory(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("folder", 0, format="dir"))
    assert (place / "folder").is_dir()
    assert driver.storage_vol_get_info(volume).type is VolumeType.DIR
    driver.storage_vol_delete(volume)
    assert not (place / "folder").exists()


def test_permissions_are_the_documents(driver: Storage, started: PoolRef, place: Path) -> None:
    mode = "<permissions><mode>0604</mode></permissions>"
    driver.storage_vol_create_xml(started, xml("disk", target=mode))
    assert stat.S_IMODE((place / "disk").stat().st_mode) == 0o604


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        ("<pool/>", ErrorCode.XML_ERROR, "XML error: expecting root element of 'volume', not 'pool'"),
        ("<volume><capacity>1</capacity></volume>", ErrorCode.XML_ERROR, "XML error: missing volume name element"),
        (xml("x", None), ErrorCode.XML_ERROR, "XML error: missing capacity element"),
        (
            xml("x", format="foo"),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: unknown volume format type foo",
        ),
        (
            xml("x", format="fat"),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: volume 'x': creating fat volumes is not supported yet",
        ),
        (
            xml("x", format="vmdk", target="<compat>1.1</compat>"),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: compatibility option only available with qcow2",
        ),
        (
            xml("x", format="qcow2", target="<compat>0.10</compat><features><lazy_refcounts/></features>"),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: lazy_refcounts not supported with compat level 0.10",
        ),
        (
            xml("x", format="qcow2", target="<features><foo/></features>"),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: unsupported feature foo",
        ),
        (
            xml("x", target="<encryption format='luks'/>"),
            ErrorCode.INVALID_ARG,
            "invalid argument: A single <secret type='passphrase'...> element is expected in encryption description",
        ),
        (
            xml("x", target="<encryption format='qcow'><secret type='passphrase' usage='u'/></encryption>"),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: unsupported volume encryption format 'qcow': write luks",
        ),
        (
            xml("x", target="<encryption format='luks'><secret type='passphrase' usage='u'/></encryption>"),
            ErrorCode.NO_SECRET,
            "Secret not found: no secret with matching usage 'u'",
        ),
        (
            "<volume><name>x</name><capacity unit='Q'>1</capacity></volume>",
            ErrorCode.INVALID_ARG,
            "invalid argument: unknown suffix 'Q'",
        ),
        (
            "<volume><name>x</name><capacity unit='E'>99</capacity></volume>",
            ErrorCode.OVERFLOW,
            "numerical overflow: value too large: 99E",
        ),
        (
            "<volume><name>x</name><capacity>-1</capacity></volume>",
            ErrorCode.XML_ERROR,
            "XML error: malformed capacity element",
        ),
        (
            xml("a/b"),
            ErrorCode.OPERATION_INVALID,
            "Requested operation is not valid: volume name 'a/b' cannot contain '/'",
        ),
        (
            xml("raw", backing=over("/dev/null")),
            ErrorCode.NO_SUPPORT,
            "this function is not supported by the connection driver: backing storage not supported for raw volumes",
        ),
        (
            xml("x", format="qcow2", backing=over("/nosuch", "raw")),
            ErrorCode.SYSTEM_ERROR,
            "inaccessible backing store volume /nosuch: No such file or directory",
        ),
        (
            xml("x", format="qcow2", backing=over("nbd://host/x", "raw")),
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: volume 'x': backing store 'nbd://host/x' is no path of a file",
        ),
    ],
)  # fmt: skip
def test_bad_document_is_refused_and_nothing_is_left(
    driver: Storage, started: PoolRef, place: Path, document: str, code: ErrorCode, message: str
) -> None:
    with refused(code, message):
        driver.storage_vol_create_xml(started, document)
    assert os.listdir(place) == []


@pytest.mark.parametrize("name", [".", "..", "x" * 256, ".hostel-h-1-2.new"])
def test_name_that_no_volume_can_have_is_refused(driver: Storage, started: PoolRef, place: Path, name: str) -> None:
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_create_xml(started, xml(name))
    assert caught.value.code is ErrorCode.OPERATION_INVALID
    assert os.listdir(place) == []


def test_name_that_is_taken_is_refused_even_by_a_link_to_nowhere(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    driver.storage_vol_create_xml(started, xml("disk"))
    with refused(ErrorCode.STORAGE_VOL_EXIST, "storage volume 'disk' exists already"):
        driver.storage_vol_create_xml(started, xml("disk"))
    (place / "dangling").symlink_to("/nosuch")
    with refused(
        ErrorCode.OPERATION_INVALID,
        f"Requested operation is not valid: volume target path '{place}/dangling' already exists",
    ):
        driver.storage_vol_create_xml(started, xml("dangling"))


def test_volume_that_fails_on_the_way_leaves_nothing(driver: Storage, started: PoolRef, place: Path) -> None:
    # More than any file system has room for, and more than a file may be long.
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_create_xml(started, xml("disk", 2**62, allocation=None))
    assert caught.value.code is ErrorCode.SYSTEM_ERROR
    assert os.listdir(place) == []


def test_volumes_made_at_once_under_one_name_are_one(driver: Storage, started: PoolRef, place: Path) -> None:
    results: list[object] = []
    barrier = threading.Barrier(4)

    def make() -> None:
        barrier.wait()
        try:
            results.append(driver.storage_vol_create_xml(started, xml("disk", format="qcow2")))
        except VirtError as error:
            results.append(error.code)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sum(isinstance(result, VolumeRef) for result in results) == 1
    assert os.listdir(place) == ["disk"]
    assert driver.storage_vol_get_info(driver.storage_vol_lookup_by_name(started, "disk")).capacity == MiB


def test_file_that_appears_meanwhile_is_not_overwritten(started: PoolRef, place: Path) -> None:
    del started
    with pytest.raises(VirtError) as caught, new_file(str(place / "disk"), Permissions()) as temporary:
        Path(temporary).write_text("ours")
        (place / "disk").write_text("theirs")
    assert caught.value.code is ErrorCode.STORAGE_VOL_EXIST
    assert (place / "disk").read_text() == "theirs"
    assert os.listdir(place) == ["disk"]


def test_what_a_killed_process_left_half_made_is_never_seen_and_swept_at_start(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    gone = place / f".hostel-{os.uname().nodename}-{child}-0.new"
    mine = place / f".hostel-{os.uname().nodename}-{os.getpid()}-0.new"
    elsewhere = place / f".hostel-another.host-{child}-0.new"
    for path in (gone, mine, elsewhere):
        path.touch()
    assert driver.storage_pool_list_all_volumes(started) == []
    driver.storage_pool_refresh(started)
    assert sorted(os.listdir(place)) == sorted([mine.name, elsewhere.name])
