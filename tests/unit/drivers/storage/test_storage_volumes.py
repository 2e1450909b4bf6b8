"""Volumes of directory pools: what is made, copied, changed and removed, and what is refused."""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hostel.block import graph
from hostel.drivers.base import Hole, PoolRef, VolumeCreateFlag, VolumeRef, VolumeResizeFlag, VolumeType, WipeAlgorithm
from hostel.drivers.storage import wiping
from hostel.drivers.storage.document import Permissions
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.storage.placing import new_file
from hostel.errors import ErrorCode, VirtError
from hostel.units import KiB, MiB
from support.refusal import refused

Storage = SessionStorageDriver


def xml(
    name: str, capacity: int | None = MiB, *, format: str = "", allocation: int | None = 0, target: str = "",
    backing: str = "",
) -> str:  # fmt: skip
    parts = [f"<name>{name}</name>"]
    if capacity is not None:
        parts.append(f"<capacity>{capacity}</capacity>")
    if allocation is not None:
        parts.append(f"<allocation>{allocation}</allocation>")
    kind = f"<format type='{format}'/>" if format else ""
    return f"<volume>{''.join(parts)}<target>{kind}{target}</target>{backing}</volume>"


def over(path: str, format: str = "") -> str:
    kind = f"<format type='{format}'/>" if format else ""
    return f"<backingStore><path>{path}</path>{kind}</backingStore>"


def content(path: Path, format: str) -> bytes:
    with graph.open(str(path), format) as node:
        return bytes(node.read(0, node.length))


def fill(path: Path, format: str, *pieces: tuple[int, bytes]) -> None:
    with graph.open(str(path), format, read_only=False) as node:
        for offset, data in pieces:
            node.pwrite(offset, data)
        node.flush()


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
    fill(place / "base", "raw", (4096, b"below"))
    document = xml("over", None, format="qcow2", backing=over("base", "raw"))
    volume = driver.storage_vol_create_xml(started, document)
    assert driver.storage_vol_get_info(volume).capacity == MiB
    assert content(place / "over", "qcow2")[4096:4101] == b"below"
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


def test_lookups_find_by_name_key_and_any_spelling_of_the_path(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    assert driver.storage_vol_lookup_by_name(started, "disk") == volume
    assert driver.storage_vol_lookup_by_key(str(place / "disk")) == volume
    assert driver.storage_vol_lookup_by_path(f"{place}//disk/") == volume
    assert driver.storage_pool_lookup_by_volume(volume) == started
    with refused(ErrorCode.NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching name 'x'"):
        driver.storage_vol_lookup_by_name(started, "x")
    with refused(
        ErrorCode.NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching path '/x//y' (/x/y)"
    ):
        driver.storage_vol_lookup_by_path("/x//y")
    with refused(ErrorCode.NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching key /x"):
        driver.storage_vol_lookup_by_key("/x")


@pytest.mark.parametrize("name", ["../home", "..", "", "a/b", "a\0b"])
def test_lookup_does_not_leave_the_directory(driver: Storage, started: PoolRef, name: str) -> None:
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_lookup_by_name(started, name)
    assert caught.value.code is ErrorCode.NO_STORAGE_VOL


@pytest.mark.parametrize(("source", "target"), [("raw", "raw"), ("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2")])
def test_clone_holds_the_same_in_either_format(
    driver: Storage, started: PoolRef, place: Path, source: str, target: str
) -> None:
    data = random.Random(1).randbytes(200_000)
    volume = driver.storage_vol_create_xml(started, xml("disk", 3 * MiB, format=source))
    fill(place / "disk", source, (MiB - 777, data))
    seen: list[tuple[int, int]] = []
    clone = driver.storage_vol_create_xml_from(
        started, xml("clone", 1, format=target), volume, VolumeCreateFlag.NONE, lambda *step: seen.append(step)
    )
    assert content(place / "clone", target) == content(place / "disk", source)
    assert driver.storage_vol_get_info(clone).capacity == 3 * MiB
    assert driver.storage_vol_get_info(clone).allocation < 2 * MiB
    assert seen[-1] == (3 * MiB, 3 * MiB)


def test_clone_of_a_raw_volume_of_an_odd_size_has_that_size(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 1000))
    (place / "disk").write_bytes(b"x" * 1000)
    driver.storage_vol_create_xml_from(started, xml("clone", 1), volume)
    assert (place / "clone").read_bytes() == b"x" * 1000


def test_clone_may_be_larger_and_its_end_reads_as_zeroes(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", MiB))
    fill(place / "disk", "raw", (MiB - 4, b"last"))
    driver.storage_vol_create_xml_from(started, xml("clone", 2 * MiB, format="qcow2"), volume)
    found = content(place / "clone", "qcow2")
    assert found[MiB - 4 : MiB] == b"last"
    assert not any(found[MiB:])


def test_clone_of_an_overlay_stands_alone(driver: Storage, started: PoolRef, place: Path) -> None:
    driver.storage_vol_create_xml(started, xml("base"))
    fill(place / "base", "raw", (0, b"below"))
    overlay = driver.storage_vol_create_xml(started, xml("over", format="qcow2", backing=over("base", "raw")))
    fill(place / "over", "qcow2", (100, b"above"))
    document = driver.storage_vol_get_xml_desc(overlay).replace("<name>over</name>", "<name>flat</name>")
    clone = driver.storage_vol_create_xml_from(started, document, overlay)
    (place / "base").unlink()
    assert "backingStore" not in driver.storage_vol_get_xml_desc(clone)
    assert content(place / "flat", "qcow2")[:105] == b"below" + bytes(95) + b"above"


def test_clone_into_another_pool(driver: Storage, started: PoolRef, tmp_path: Path) -> None:
    other = driver.storage_pool_create_xml(
        f"<pool type='dir'><name>other</name><target><path>{tmp_path}/other</path></target></pool>", build=True
    )
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    clone = driver.storage_vol_create_xml_from(other, xml("disk"), volume)
    assert clone.key == f"{tmp_path}/other/disk"


def test_clone_that_fails_leaves_nothing(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))

    def fail(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        driver.storage_vol_create_xml_from(started, xml("clone", format="qcow2"), volume, VolumeCreateFlag.NONE, fail)
    assert os.listdir(place) == ["disk"]


def test_resize_keeps_what_is_there_and_needs_leave_to_shrink(driver: Storage, started: PoolRef, place: Path) -> None:
    for format in ("raw", "qcow2"):
        volume = driver.storage_vol_create_xml(started, xml(format, 2 * MiB, format=format))
        fill(place / format, format, (MiB, b"kept"))
        driver.storage_vol_resize(volume, MiB, VolumeResizeFlag.DELTA)
        assert driver.storage_vol_get_info(volume).capacity == 3 * MiB
        with refused(
            ErrorCode.INVALID_ARG,
            "invalid argument: Can't shrink capacity below current capacity unless shrink flag explicitly specified",
        ):
            driver.storage_vol_resize(volume, 2 * MiB)
        driver.storage_vol_resize(volume, MiB, VolumeResizeFlag.DELTA | VolumeResizeFlag.SHRINK)
        assert driver.storage_vol_get_info(volume).capacity == 2 * MiB
        assert content(place / format, format)[MiB : MiB + 4] == b"kept"


def test_resize_allocates_only_raw_volumes(driver: Storage, started: PoolRef) -> None:
    raw = driver.storage_vol_create_xml(started, xml("raw", MiB))
    driver.storage_vol_resize(raw, 2 * MiB, VolumeResizeFlag.ALLOCATE)
    assert driver.storage_vol_get_info(raw).allocation >= 2 * MiB
    qcow2 = driver.storage_vol_create_xml(started, xml("qcow2", MiB, format="qcow2"))
    with refused(
        ErrorCode.OPERATION_UNSUPPORTED, "Operation not supported: preallocate is only supported for raw type volume"
    ):
        driver.storage_vol_resize(qcow2, 2 * MiB, VolumeResizeFlag.ALLOCATE)


@pytest.mark.parametrize("capacity", [-1, 2**63])
def test_resize_to_no_size_is_refused(driver: Storage, started: PoolRef, capacity: int) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_resize(volume, capacity)
    assert caught.value.code in (ErrorCode.INVALID_ARG, ErrorCode.OVERFLOW)
    assert driver.storage_vol_get_info(volume).capacity == MiB


@pytest.mark.parametrize("algorithm", list(wiping.SEQUENCES))
def test_wipe_leaves_nothing_of_the_content(
    driver: Storage, started: PoolRef, place: Path, algorithm: WipeAlgorithm
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 64 * KiB, allocation=None))
    secret = random.Random(2).randbytes(64)
    fill(place / "disk", "raw", *((offset, secret) for offset in range(0, 64 * KiB, 1024)))
    seen: list[tuple[int, int]] = []
    driver.storage_vol_wipe_pattern(volume, algorithm, lambda *step: seen.append(step))
    left = (place / "disk").read_bytes()
    assert len(left) == 64 * KiB
    assert secret not in left
    assert seen[-1][0] == seen[-1][1]


def test_wiping_passes_are_those_of_their_authors() -> None:
    lengths = {algorithm.name: len(sequence.passes) for algorithm, sequence in wiping.SEQUENCES.items()}
    assert lengths == {
        "ZERO": 1, "NNSA": 3, "DOD": 3, "BSI": 9, "GUTMANN": 35, "SCHNEIER": 7, "PFITZNER7": 7, "PFITZNER33": 33,
        "RANDOM": 1,
    }  # fmt: skip
    gutmann = wiping.SEQUENCES[WipeAlgorithm.GUTMANN].passes
    assert gutmann[:4] == gutmann[-4:] == (None,) * 4
    assert gutmann[6:9] == (b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49")
    assert list(gutmann[9:25]) == [bytes([value * 0x11]) for value in range(16)]


def test_wipe_of_a_sparse_volume_writes_what_was_allocated_and_leaves_a_hole(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 1024 * MiB))
    fill(place / "disk", "raw", (512 * MiB, b"secret"))
    seen: list[tuple[int, int]] = []
    driver.storage_vol_wipe_pattern(volume, progress=lambda *step: seen.append(step))
    assert 0 < seen[-1][1] < MiB  # and not the gigabyte
    assert ((place / "disk").stat().st_size, (place / "disk").stat().st_blocks) == (1024 * MiB, 0)


def test_wiped_image_is_raw(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", format="qcow2"))
    driver.storage_vol_wipe_pattern(volume)
    assert "<format type='raw'/>" in driver.storage_vol_get_xml_desc(volume)


def test_trimming_a_file_is_refused(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    with refused(ErrorCode.ARGUMENT_UNSUPPORTED, "argument unsupported: 'trim' algorithm not supported"):
        driver.storage_vol_wipe_pattern(volume, WipeAlgorithm.TRIM)


def test_what_is_uploaded_is_downloaded(driver: Storage, started: PoolRef) -> None:
    data = random.Random(3).randbytes(3 * MiB + 5)
    volume = driver.storage_vol_create_xml(started, xml("disk", 8 * MiB))
    driver.storage_vol_upload(volume, [data[:MiB], data[MiB:]], offset=1000)
    found = b"".join(bytes(piece) for piece in driver.storage_vol_download(volume) if not isinstance(piece, Hole))
    assert found == bytes(1000) + data + bytes(8 * MiB - 1000 - len(data))
    part = b"".join(
        bytes(piece) for piece in driver.storage_vol_download(volume, 1001, 7) if not isinstance(piece, Hole)
    )
    assert part == data[1:8]
    assert list(driver.storage_vol_download(volume, 9 * MiB)) == []


def test_sparse_download_tells_holes_and_sparse_upload_makes_them_zeroes(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 8 * MiB))
    driver.storage_vol_upload(volume, [b"a" * MiB], offset=2 * MiB)
    pieces = list(driver.storage_vol_download(volume, sparse=True))
    assert [piece.length for piece in pieces if isinstance(piece, Hole)] == [2 * MiB, 5 * MiB]
    driver.storage_vol_upload(volume, [Hole(MiB), b"b", Hole(2 * MiB)], offset=2 * MiB)
    found = b"".join(bytes(piece) for piece in driver.storage_vol_download(volume) if not isinstance(piece, Hole))
    assert found == bytes(3 * MiB) + b"b" + bytes(5 * MiB - 1)


def test_upload_beyond_the_end_grows_the_file_and_a_hole_there_takes_no_space(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 4096))
    driver.storage_vol_upload(volume, [Hole(64 * MiB)])
    status = (place / "disk").stat()
    assert (status.st_size, status.st_blocks) == (64 * MiB, 0)


def test_upload_of_more_than_was_announced_is_refused_after_so_much(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 4096))
    with refused(
        ErrorCode.OPERATION_FAILED,
        "operation failed: upload to volume 'disk': the data is longer than the 3 bytes announced",
    ):
        driver.storage_vol_upload(volume, [b"abcdef"], length=3)
    assert (place / "disk").read_bytes()[:6] == b"abc\0\0\0"


def test_volume_that_is_there_whole_may_be_used_before_the_upload_ends(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 4096))

    def send(last: bytes) -> Iterator[bytes]:
        yield b"abc"
        with pytest.raises(VirtError, match="still in use"):
            driver.storage_vol_wipe_pattern(volume)
        yield b"def"
        assert (place / "disk").read_bytes()[:7] == b"abcdef\0"
        driver.storage_vol_wipe_pattern(volume)
        yield last

    driver.storage_vol_upload(volume, send(b""), length=6)
    with refused(
        ErrorCode.OPERATION_FAILED,
        "operation failed: upload to volume 'disk': the data is longer than the 6 bytes announced",
    ):
        driver.storage_vol_upload(volume, send(b"g"), length=6)


@pytest.mark.parametrize(("offset", "length"), [(-1, 0), (0, -1), (2**63, 0), (1, 2**63 - 1)])
def test_ranges_that_are_none_are_refused(driver: Storage, started: PoolRef, offset: int, length: int) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    for call in (
        lambda: driver.storage_vol_upload(volume, [b""], offset, length),
        lambda: driver.storage_vol_download(volume, offset, length),
    ):
        with pytest.raises(VirtError) as caught:
            call()
        assert caught.value.code is ErrorCode.INVALID_ARG


def test_volume_that_is_used_is_not_changed_but_can_be_read(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", format="qcow2"))
    with graph.open(str(place / "disk"), "qcow2", read_only=False):
        for call in (
            lambda: driver.storage_vol_delete(volume),
            lambda: driver.storage_vol_wipe_pattern(volume),
            lambda: driver.storage_vol_resize(volume, 2 * MiB),
            lambda: driver.storage_vol_upload(volume, [b"x"]),
            lambda: driver.storage_vol_create_xml_from(started, xml("clone"), volume),
        ):
            with pytest.raises(VirtError, match="volume 'disk' is still in use by ") as caught:
                call()
            assert caught.value.code is ErrorCode.OPERATION_INVALID
        assert driver.storage_vol_get_info(volume).capacity == MiB
        assert b"".join(bytes(piece) for piece in driver.storage_vol_download(volume))[:4] == b"QFI\xfb"
    assert content(place / "disk", "qcow2") == bytes(MiB)
    assert os.listdir(place) == ["disk"]


def test_delete_removes_the_link_and_not_what_it_leads_to(
    driver: Storage, started: PoolRef, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    driver.storage_vol_delete(driver.storage_vol_lookup_by_name(started, "link"))
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert os.listdir(place) == []


def test_directory_volumes_refuse_what_is_done_to_files(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("folder", 0, format="dir"))
    for call in (
        lambda: driver.storage_vol_wipe_pattern(volume),
        lambda: driver.storage_vol_resize(volume, MiB),
        lambda: driver.storage_vol_upload(volume, [b"x"]),
        lambda: list(driver.storage_vol_download(volume)),
        lambda: driver.storage_vol_create_xml_from(started, xml("clone"), volume),
    ):
        with pytest.raises(VirtError, match="director"):
            call()


def test_files_that_are_no_volumes_are_left_out(driver: Storage, started: PoolRef, place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("nosuch")
    (place / "line\nbreak").touch()
    (place / os.fsdecode(b"not-utf8-\xff")).touch()
    (place / ".hidden").touch()
    (place / "näme & <co>").touch()
    names = [volume.name for volume in driver.storage_pool_list_all_volumes(started)]
    assert names == [".hidden", "näme & <co>"]
    for name in ("fifo", "loop", "dangling", "line\nbreak"):
        with pytest.raises(VirtError) as caught:
            driver.storage_vol_lookup_by_name(started, name)
        assert caught.value.code is ErrorCode.NO_STORAGE_VOL
