"""The format ``vmdk``: what is read, written and refused, without the real tools."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.formats.vmdk import descriptor as descriptors
from hostel.block.formats.vmdk.driver import VmdkDriver
from hostel.block.node import BlockNode
from hostel.block.options import given_options
from hostel.block.powers import Repair
from hostel.block.trust import Trust
from hostel.errors import BlockError, CorruptImage, ImageLocked, InvalidImage, UnsupportedFeature, UntrustedReference
from hostel.img import convert, create
from support import images, vmdk
from support.bounded import bounded
from support.memory import Kind, LoggedDriver, MemoryDriver
from support.opened import recorded
from support.vmdk import GRAIN, SECTOR, attach, descriptor, write_files

MIB = 1 << 20
SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")


def make(path: Path, size: int, options: str = "", backing: Path | None = None) -> None:
    images.make(path, size, format="vmdk", options=options, backing=backing, backing_format="vmdk")


def opened(path: Path, *, read_only: bool = True, trust: Trust = Trust.TRUSTED) -> BlockNode:
    return graph.open(str(path), "vmdk", read_only=read_only, trust=trust)


def refusal(path: Path, *, read_only: bool = True) -> str:
    with pytest.raises(BlockError) as caught:
        opened(path, read_only=read_only)
    return str(caught.value)


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into("<" + form, changed, offset, *values)
    return bytes(changed)


def directories(data: bytes) -> tuple[int, int]:
    """Where the redundant and the other grain directory are, bytes."""
    rgd, gd = struct.unpack_from("<2Q", data, 48)
    return rgd * SECTOR, gd * SECTOR


def tables(data: bytes, directory: int) -> list[bytes]:
    """All grain tables of a directory, of a disk of less than 32 MiB a table."""
    capacity = struct.unpack_from("<Q", data, 12)[0]
    count = -(-capacity // (512 * 128))
    places = struct.unpack_from(f"<{count}I", data, directory)
    return [data[place * SECTOR : place * SECTOR + 2048] for place in places]


# ---- descriptors


def test_a_descriptor_that_is_written_is_read_back() -> None:
    line = descriptors.ExtentLine(MIB, "FLAT", "a b-flat.vmdk", 0)
    text = descriptors.compose(
        MIB, "monolithicFlat", [line], cid=0xABC, parent_cid=7, parent="the/parent.vmdk", adapter="lsilogic"
    )
    found = descriptors.parse(text)
    assert (found.cid, found.parent_cid, found.parent) == (0xABC, 7, "the/parent.vmdk")
    assert descriptors.parse_create_type(text) == "monolithicFlat"
    assert descriptors.parse_extents(text) == [line]
    assert descriptors.is_descriptor(text)
    assert b'ddb.geometry.heads = "255"' in text


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a\0b"])
def test_a_name_that_no_descriptor_can_hold_is_refused(value: str) -> None:
    with pytest.raises(InvalidImage, match="cannot hold"):
        descriptors.compose(MIB, "monolithicFlat", [], cid=1, parent=value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (b"version=1\n", True),
        (b"# c\n   \n#\r\nversion=3\r\n", True),
        (b" \r\nversion=2\n", True),
        (b"\nversion=1\n", False),
        (b"version=4\n", False),
        (b"version=1", False),
        (b"# a comment without an end", False),
        (b"  version=1\n", False),
        (b"", False),
    ],
)
def test_probing_takes_what_qemu_takes_for_a_descriptor(text: bytes, is_one: bool) -> None:
    assert descriptors.is_descriptor(text) is is_one
    assert bool(VmdkDriver.probe(text, "x")) is is_one


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('RW 12582912 VMFS "dummy.vmdk" 1', 'Invalid extent line: RW 12582912 VMFS "dummy.vmdk" 1'),
        ('RW 10 FLAT "x"', 'Invalid extent line: RW 10 FLAT "x"'),
        ('RW 10 FLAT "x" -1', 'Invalid extent line: RW 10 FLAT "x" -1'),
        ('RW 10 SPARSE "x" 0', 'Invalid extent line: RW 10 SPARSE "x" 0'),
        ('RW 0 FLAT "x" 0', 'Invalid extent line: RW 0 FLAT "x" 0'),
        ('RW -5 FLAT "x" 0', 'Invalid extent line: RW -5 FLAT "x" 0'),
        ('RW 10 VMFS "x"1', 'Invalid extent line: RW 10 VMFS "x"1'),
        ('RW 10 VMFS "x"y', 'Invalid extent line: RW 10 VMFS "x"y'),
        ('RW 10 "x"', 'Invalid extent line: RW 10 "x"'),
        ("RW 10", "Invalid extent line: RW 10"),
        ('RW 10 FLAT "" 0', 'Invalid extent line: RW 10 FLAT "" 0'),
        (f'RW 10 SPARSE "{"x" * 512}"', f'Invalid extent line: RW 10 SPARSE "{"x" * 512}"'),
        ('RW 99999999999999999999 FLAT "x" 0', 'Invalid extent line: RW 99999999999999999999 FLAT "x" 0'),
        ('RW 18014398509481984 FLAT "x" 0', 'Invalid extent line: RW 18014398509481984 FLAT "x" 0'),
        ('RW 10 VMFSRDM "x"', "Unsupported extent type 'VMFSRDM'"),
        ("RW 10 ZERO", "Unsupported extent type 'ZERO'"),
        ('RDONLY 10 FLAT "x" 0', "Unsupported extent access 'RDONLY'"),
        ('NOACCESS 10 FLAT "x" 0', "Unsupported extent access 'NOACCESS'"),
        ("", "The VMDK descriptor names no extent"),
    ],
)
def test_an_extent_line_that_cannot_be_followed_is_refused(tmp_path: Path, line: str, message: str) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", line), "x": bytes(MIB)})
    assert refusal(tmp_path / "d") == message


def test_a_line_that_is_broken_in_two_counts_as_it_does_for_qemu(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW\n 8\n VMFS "x"'), "x": b"a" * 4096})
    with opened(tmp_path / "d") as node:
        assert node.read(0, node.length) == b"a" * 4096


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version=1\n", "invalid VMDK image descriptor"),
        (descriptor("custom", 'RW 8 VMFS "x"'), "Unsupported image type 'custom'"),
        (descriptor("vmfs", 'RW 8 VMFS "x"').replace("\nCID=", "\nxCID="), "Invalid argument"),
        (descriptor("vmfs", 'RW 8 VMFS "x"').replace("parentCID=", "parent="), "Invalid argument"),
        (descriptor("vmfs", 'RW 8 VMFS "x"', hint="x").replace('Hint="x"', "Hint=x"), "Invalid argument"),
        ("ver", "File is too small, not a valid image"),
    ],
)
def test_a_descriptor_that_lacks_something_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write_files(tmp_path, {"d": text, "x": bytes(4096)})
    assert refusal(tmp_path / "d").removeprefix(f"Could not open '{tmp_path / 'd'}': ") == message


# ---- files and names


def test_extents_of_several_kinds_make_one_disk(tmp_path: Path) -> None:
    rng = random.Random("kinds")
    grains = {number: rng.randbytes(4096) for number in (0, 1, 2, 7)}
    make(tmp_path / "s.vmdk", 3 * GRAIN + SECTOR)
    images.write(tmp_path / "s.vmdk", "vmdk", {GRAIN: b"s" * GRAIN})
    write_files(
        tmp_path,
        {
            "flat": b"-" * 1024 + b"f" * 4096,
            "cowd": vmdk.cowd(64, grains),
            "se": vmdk.sesparse(64, {**grains, 3: None}),
            "d": descriptor(
                "vmfsSparse",
                'RW 8 FLAT "flat" 2',
                'RW 64 VMFSSPARSE "cowd"',
                'RW 64 SESPARSE "se"',
                'RW 385 SPARSE "s.vmdk"',
            ),
        },
    )  # fmt: skip
    disk = bytearray(64 * SECTOR)
    for number, grain in grains.items():
        disk[number * 4096 : (number + 1) * 4096] = grain
    sparse = bytes(GRAIN) + b"s" * GRAIN + bytes(GRAIN + SECTOR)
    expected = b"f" * 4096 + disk + disk + sparse
    with opened(tmp_path / "d") as node:
        assert node.length == len(expected)
        assert node.read(0, node.length) == expected
        for _ in range(50):
            offset = rng.randrange(node.length)
            length = rng.randrange(node.length - offset)
            assert node.read(offset, length) == expected[offset : offset + length]
        names = {Path(each.file.filename).name for each in node.extents() if each.file is not None}
        assert names == {"flat", "cowd", "se", "s.vmdk"}
        for each in node.extents():
            if each.host_offset is not None and each.file is not None:
                assert each.file.read(each.host_offset, each.length) == expected[each.offset : each.end]


def test_names_are_paths_beside_the_descriptor_whatever_they_look_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ('json:{"driver":"null-co"}', "nbd:localhost:1", "file:x", "a b.vmdk")
    for name in names:
        quoted = name.replace('"', "'")
        write_files(tmp_path, {quoted: b"x" * 4096, "d": descriptor("vmfs", f'RW 8 VMFS "{quoted}"')})
        for place in (tmp_path / "d", Path("d")):
            with opened(place) as node:
                assert node.read(0, node.length) == b"x" * 4096


def test_an_untrusted_descriptor_makes_us_open_nothing_else(tmp_path: Path) -> None:
    write_files(tmp_path, {"x": bytes(4096), "secret": b"s" * 4096})
    for number, name in enumerate(("x", str(tmp_path / "secret"), "../../etc/passwd", "json:{}", "nbd://h/x")):
        path = tmp_path / f"d{number}"
        path.write_text(descriptor("vmfs", f'RW 8 VMFS "{name}"'))
        with recorded() as paths, pytest.raises(UntrustedReference, match="is not trusted and names"):
            opened(path, trust=Trust.UNTRUSTED)
        assert paths == {str(path)}


def test_an_untrusted_overlay_makes_us_open_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "base.vmdk", MIB)
    make(tmp_path / "over.vmdk", MIB, backing=tmp_path / "base.vmdk")
    with recorded() as paths, pytest.raises(UntrustedReference):
        opened(tmp_path / "over.vmdk", trust=Trust.UNTRUSTED)
    assert paths == {str(tmp_path / "over.vmdk")}


def test_a_missing_extent_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW 8 VMFS "gone"')})
    assert refusal(tmp_path / "d") == f"Could not open '{tmp_path / 'gone'}': No such file or directory"


def test_a_descriptor_that_is_its_own_sparse_extent_ends(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("twoGbMaxExtentSparse", 'RW 8 SPARSE "d"')})
    assert refusal(tmp_path / "d") == "Image not in VMDK format"
    header = patched(vmdk.create(MIB), 12, "Q", 0)
    text = descriptor("twoGbMaxExtentSparse", 'RW 8 SPARSE "h"').encode()
    write_files(tmp_path, {"h": header[:SECTOR] + text.ljust(10240, b"\0") + header[SECTOR + 10240 :]})
    with opened(tmp_path / "h") as node:
        assert node.length == 0


def test_one_file_as_two_extents_cannot_be_written(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW 8 VMFS "x"', 'RW 8 VMFS "x"'), "x": bytes(4096)})
    with opened(tmp_path / "d") as node:
        assert node.length == 8192
    assert "lock" in refusal(tmp_path / "d", read_only=False)


def test_a_descriptor_that_no_directory_is_known_of_names_no_relative_extents(tmp_path: Path) -> None:
    write_files(tmp_path, {name: descriptor("vmfs", 'RW 8 VMFS "x"') for name in ("a", "b")} | {"x": bytes(4096)})
    children = [{"driver": "file", "filename": str(tmp_path / name)} for name in ("a", "b")]
    name = "json:" + json.dumps(
        {"driver": "vmdk", "file": {"driver": "quorum", "children": children, "vote-threshold": 1}}
    )
    with pytest.raises(InvalidImage, match=r"Cannot use relative paths with VMDK descriptor file .* quorum nodes"):
        graph.open(name)


# ---- creating


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("size", [0, SECTOR, GRAIN - SECTOR, 5 * GRAIN + SECTOR, (1 << 31) + 3 * SECTOR])
def test_a_fresh_disk_reads_as_zeroes_and_is_sound(tmp_path: Path, subformat: str, size: int) -> None:
    path = tmp_path / "d.vmdk"
    if not size and subformat.startswith(("twoGb", "monolithicFlat")):
        with pytest.raises(InvalidImage, match="has no extents"):
            make(path, size, f"subformat={subformat}")
        return
    make(path, size, f"subformat={subformat}")
    with graph.open(str(path), "vmdk", check=True) as node:
        assert node.length == size
        assert all(extent.status & Status.ZERO or not extent.status for extent in node.extents()) or "Flat" in subformat
        end = max(0, size - 3 * SECTOR)
        assert not any(node.read(end, size - end))
        lines: list[str] = []
        result = node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        assert (result.corruptions, lines) == (0, [])


def test_a_split_disk_lies_in_files_of_two_gib(tmp_path: Path) -> None:
    make(tmp_path / "a.b.vmdk", (5 << 30) + SECTOR, "subformat=twoGbMaxExtentFlat")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.b-f001.vmdk", "a.b-f002.vmdk", "a.b-f003.vmdk", "a.b.vmdk"
    ]  # fmt: skip
    assert (tmp_path / "a.b-f003.vmdk").stat().st_size == (1 << 30) + SECTOR
    make(tmp_path / "noext", 1 << 20, "subformat=twoGbMaxExtentSparse")
    assert (tmp_path / "noext-s001").exists()
    make(tmp_path / "flat", 1 << 20, "subformat=monolithicFlat")
    assert (tmp_path / "flat-flat").stat().st_size == 1 << 20


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_a_name_that_looks_like_a_protocol_is_a_path_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subformat: str
) -> None:
    monkeypatch.chdir(tmp_path)
    create.create(create.plan("file:image:d.vmdk", "vmdk", MIB, given=given_options(f"subformat={subformat}")))
    with graph.open("./image:d.vmdk", "vmdk") as node:
        assert node.length == MIB
    assert len(list(tmp_path.iterdir())) == (1 if subformat in ("monolithicSparse", "streamOptimized") else 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("subformat=foo", "invalid parameter value: foo"),
        ("adapter_type=foo", "invalid parameter value: foo"),
        ("compat6=on,hwversion=5", "compat6 cannot be enabled with hwversion set"),
        ("subformat=monolithicFlat,zeroed_grain=on", "Flat image can't enable zeroed grain"),
        ('hwversion=a"b', "has a character that a VMDK descriptor cannot hold"),
        (f"toolsversion={'1' * 20000}", "Could not write description"),
    ],
)
def test_options_that_make_no_sense_leave_nothing_behind(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        make(tmp_path / "d.vmdk", MIB, options)
    assert not list(tmp_path.iterdir())


def test_a_failure_takes_away_the_extents_that_were_made(tmp_path: Path) -> None:
    (tmp_path / "d-f002.vmdk").mkdir()
    with pytest.raises(BlockError):
        make(tmp_path / "d.vmdk", 5 << 30, "subformat=twoGbMaxExtentFlat")
    assert [path.name for path in tmp_path.iterdir()] == ["d-f002.vmdk"]


def test_a_failed_copy_takes_away_all_of_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").write_bytes(b"x" * MIB)

    def fail(*arguments: object) -> None:
        raise BlockError("no more", errno=28)

    with graph.open(str(tmp_path / "raw"), "raw") as node:
        given = given_options("subformat=monolithicFlat")
        plan = convert.plan_target([node], str(tmp_path / "d.vmdk"), "vmdk", given=given)
        monkeypatch.setattr(VmdkDriver, "pwrite", fail)
        with pytest.raises(BlockError, match="No space left"):
            convert.convert([node], plan)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_too_large_a_disk_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match="The image size is too large for file format 'vmdk'"):
        make(tmp_path / "d.vmdk", 1 << 62)
    assert not list(tmp_path.iterdir())
    make(tmp_path / "d.vmdk", 1 << 50)
    images.write(tmp_path / "d.vmdk", "vmdk", {(1 << 50) - SECTOR: b"e" * SECTOR})
    with opened(tmp_path / "d.vmdk") as node:
        assert node.read((1 << 50) - 1024, 1024) == bytes(SECTOR) + b"e" * SECTOR


def test_hardware_and_tools_versions_are_recorded(tmp_path: Path) -> None:
    make(tmp_path / "a.vmdk", MIB, "compat6=on,toolsversion=9,adapter_type=buslogic,subformat=monolithicFlat")
    text = (tmp_path / "a.vmdk").read_text()
    for wanted in ('virtualHWVersion = "6"', 'toolsVersion = "9"', 'adapterType = "buslogic"', 'heads = "255"'):
        assert wanted in text


# ---- writing


@pytest.mark.parametrize("options", ["", "zeroed_grain=on", *(f"subformat={each}" for each in SUBFORMATS[1:4])])
def test_what_is_written_is_read(tmp_path: Path, options: str) -> None:
    rng = random.Random(options)
    size = 40 * GRAIN + 7 * SECTOR
    path, disk = tmp_path / "d.vmdk", bytearray(size)
    make(path, size, options)
    for _ in range(4):
        pieces = images.scatter(rng, size, 12)
        images.write(path, "vmdk", pieces)
        images.apply(disk, pieces)
        assert images.content(path, "vmdk") == disk
    with graph.open(str(path), "vmdk", check=True) as node:
        lines: list[str] = []
        assert not node.driver.check(Repair.NOTHING, lines.append).corruptions, lines  # type: ignore[attr-defined]


@pytest.mark.parametrize("zeroed", [False, True])
def test_both_grain_directories_lead_to_the_same_grains(zeroed: bool) -> None:
    rng = random.Random("both")
    driver = MemoryDriver(vmdk.create(70 << 20, {"zeroed_grain": zeroed}))
    with attach(driver) as node:
        for _ in range(30):
            offset = rng.randrange(node.length - 200_000)
            node.pwrite(offset, rng.randbytes(rng.randrange(1, 200_000)))
            node.write_zeroes(rng.randrange(node.length - 200_000), 150_000)
    redundant, first = directories(driver.data)
    assert tables(driver.data, redundant) == tables(driver.data, first)
    assert any(any(table) for table in tables(driver.data, first))


def test_a_redundant_table_that_was_left_behind_is_made_equal_by_the_next_write() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
    redundant, first = directories(driver.data)
    place = struct.unpack_from("<I", driver.data, redundant)[0] * SECTOR
    driver.data[place : place + 2048] = bytes(2048)
    with attach(driver) as node:
        node.pwrite(5 * GRAIN, b"b")
        assert node.read(0, 1) == b"a"
    assert tables(driver.data, redundant) == tables(driver.data, first)


def test_a_zeroed_grain_takes_no_space_and_hides_what_was_there() -> None:
    driver = MemoryDriver(vmdk.create(MIB, {"zeroed_grain": True}))
    with attach(driver) as node:
        node.pwrite(0, b"a" * 3 * GRAIN)
        length = len(driver.data)
        node.write_zeroes(100, 3 * GRAIN - 100)
        assert len(driver.data) == length
        assert node.read(0, 3 * GRAIN) == b"a" * 100 + bytes(3 * GRAIN - 100)
        node.write_zeroes(GRAIN + 7, 1000)
        assert len(driver.data) == length
        kinds = [(each.offset, each.status) for each in node.extents(GRAIN, 2 * GRAIN)]
        assert kinds == [(GRAIN, Status.ZERO | Status.ALLOCATED)]
        node.pwrite(GRAIN + 5, b"b")
        assert node.read(GRAIN, 10) == b"\0\0\0\0\0b\0\0\0\0"
    with attach(driver, read_only=True) as node:
        assert node.read(0, 3 * GRAIN) == b"a" * 100 + bytes(GRAIN - 95) + b"b" + bytes(2 * GRAIN - 6)


@pytest.mark.parametrize("zeroed", [False, True])
def test_zeroes_where_nothing_is_take_no_space(zeroed: bool) -> None:
    driver = MemoryDriver(vmdk.create(64 << 20, {"zeroed_grain": zeroed}))
    with attach(driver) as node:
        node.pwrite(5 * GRAIN, b"a" * GRAIN)
        length = len(driver.data)
        node.write_zeroes(100, 60 << 20)
        assert len(driver.data) == length
        assert not any(node.read(0, node.length))


def test_data_is_safe_before_a_table_points_to_it_and_the_copy_before_the_table_that_is_read() -> None:
    driver = LoggedDriver(vmdk.create(MIB))
    redundant, first = directories(driver.data)
    copy, table = (struct.unpack_from("<I", driver.data, place)[0] * SECTOR for place in (redundant, first))
    with attach(driver) as node:
        node.pwrite(GRAIN, b"d" * GRAIN)
        node.flush()
        log = [(entry.kind, entry.offset) for entry in driver.log]
    cid = driver.log[0]
    assert (cid.kind, cid.length) == (Kind.WRITE, 8)
    data = next(at for at, entry in enumerate(driver.log) if entry.length == GRAIN)
    places = [data, log.index((Kind.WRITE, copy)), log.index((Kind.WRITE, table))]
    assert places == sorted(places)
    syncs = [at for at, entry in enumerate(driver.log) if entry.kind is Kind.FLUSH]
    assert 0 < syncs[0] < data < syncs[1] < places[1]
    assert syncs[-1] == len(log) - 1


def test_a_disk_that_is_only_read_is_not_changed(tmp_path: Path) -> None:
    for subformat in SUBFORMATS:
        make(tmp_path / f"{subformat}.vmdk", MIB, f"subformat={subformat}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in [each for each in before if each.stem in SUBFORMATS]:
        for read_only in (True, False):
            with opened(path, read_only=read_only) as node:
                node.read(0, node.length)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("digits", ["1", "abc", "1234567", "FFFFFFFE"])
def test_the_first_write_changes_the_content_id_in_place(tmp_path: Path, digits: str) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW 8 VMFS "x"', cid=digits), "x": bytes(4096)})
    before = (tmp_path / "d").read_bytes()
    with opened(tmp_path / "d", read_only=False) as node:
        node.pwrite(0, b"a")
        changed = (tmp_path / "d").read_bytes()
        node.pwrite(1, b"a")
    after = (tmp_path / "d").read_bytes()
    assert after == changed != before
    place = before.index(b"\nCID=") + 5
    assert len(after) == len(before)
    assert before[:place] == after[:place]
    assert before[place + len(digits) :] == after[place + len(digits) :]
    assert int(after[place : place + len(digits)], 16) != int(digits, 16)


# ---- parents


def overlay(folder: Path, size: int = 10 * GRAIN) -> tuple[Path, Path, bytearray]:
    base, over = folder / "base.vmdk", folder / "over.vmdk"
    make(base, 8 * GRAIN + SECTOR)
    disk = bytearray(size)
    pieces = {GRAIN + 5: b"b" * (3 * GRAIN), 8 * GRAIN: b"e" * SECTOR}
    images.write(base, "vmdk", pieces)
    make(over, size, "zeroed_grain=on", backing=Path("base.vmdk"))
    images.apply(disk, pieces)
    return base, over, disk


def test_an_overlay_shows_its_parent_and_keeps_what_is_written(tmp_path: Path) -> None:
    base, over, disk = overlay(tmp_path)
    before = base.read_bytes()
    assert images.content(over, "vmdk") == disk
    pieces: dict[int, bytes | int] = {2 * GRAIN + 100: b"o" * 100, 3 * GRAIN: GRAIN, 8 * GRAIN + 10: b"p"}
    images.write(over, "vmdk", pieces)
    images.apply(disk, pieces)
    assert images.content(over, "vmdk") == disk
    assert base.read_bytes() == before
    with opened(over) as node:
        assert node.backing is not None
        (reference,) = node.driver.references()
        assert (reference.child, reference.filename, reference.format) == ("backing", "base.vmdk", "vmdk")


def test_an_overlay_whose_parent_has_changed_shows_nothing_of_it(tmp_path: Path) -> None:
    base, over, _ = overlay(tmp_path)
    images.write(over, "vmdk", {0: b"o" * GRAIN})
    images.write(base, "vmdk", {0: b"x"})
    with opened(over) as node:
        assert node.read(0, GRAIN) == b"o" * GRAIN
        for attempt in (lambda: node.read(GRAIN, 1), lambda: list(node.extents())):
            with pytest.raises(InvalidImage) as caught:
                attempt()
            assert caught.value.errno == 22
            assert "base.vmdk' has changed" in str(caught.value.hint)
    for length in (1, GRAIN):
        with opened(over, read_only=False) as node, pytest.raises(InvalidImage):
            node.pwrite(2 * GRAIN, b"n" * length)


def test_a_disk_that_is_its_own_parent_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"x": bytes(4096)})
    for name, hint in (("a", "a"), ("b", "c"), ("c", "b")):
        (tmp_path / name).write_text(descriptor("vmfs", 'RW 8 VMFS "x"', hint=hint))
    for name in "ab":
        assert "creates an infinite loop" in refusal(tmp_path / name)


def test_a_parent_of_another_format_has_no_content_id(tmp_path: Path) -> None:
    images.make(tmp_path / "base", MIB)
    make(tmp_path / "other.vmdk", MIB)
    _, over, _ = overlay(tmp_path)
    described = {
        "driver": "vmdk",
        "file": {"driver": "file", "filename": str(over)},
        "backing": {"driver": "qcow2", "file": {"driver": "file", "filename": str(tmp_path / "base")}},
    }
    with graph.open("json:" + json.dumps(described)) as node, pytest.raises(InvalidImage):
        node.read(0, 1)


def test_a_parent_must_be_a_vmdk(tmp_path: Path) -> None:
    images.make(tmp_path / "base", MIB)
    with pytest.raises(BlockError, match="Invalid backing file format: qcow2"):
        plan = create.plan(str(tmp_path / "o"), "vmdk", MIB, backing=str(tmp_path / "base"), open_backing=False,
                           given=given_options("backing_fmt=vmdk"))  # fmt: skip
        create.create(plan._replace(given={k: v for k, v in plan.given.items() if k != "backing_fmt"}))
    make(tmp_path / "b.vmdk", MIB)
    for options, message in (
        ("subformat=monolithicFlat", "Flat image can't have backing file"),
        ("backing_fmt=raw", "backing_file must be a vmdk image"),
    ):
        with pytest.raises(BlockError, match=message):
            plan = create.plan(
                str(tmp_path / "o"), "vmdk", MIB, backing=str(tmp_path / "b.vmdk"), open_backing=False,
                given=given_options(options if "fmt" in options else f"{options},backing_fmt=vmdk"),
            )  # fmt: skip
            create.create(plan)
    assert not (tmp_path / "o").exists()


def test_a_new_disk_is_not_made_in_the_place_of_what_its_parent_lies_in(tmp_path: Path) -> None:
    make(tmp_path / "b.vmdk", MIB, "subformat=twoGbMaxExtentSparse")
    make(tmp_path / "o-s001.vmdk", MIB)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BlockError, match="same filename as the backing file"):
        make(tmp_path / "b-s001.vmdk", MIB, backing=tmp_path / "b.vmdk")
    with pytest.raises(BlockError, match="cannot become a part of the image"):
        make(tmp_path / "o.vmdk", MIB, "subformat=twoGbMaxExtentSparse", backing=tmp_path / "o-s001.vmdk")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("share", [False, True])
def test_a_copy_is_not_made_in_the_place_of_its_source(tmp_path: Path, share: bool) -> None:
    source = tmp_path / "d-flat.vmdk"
    source.write_bytes(b"s" * MIB)
    with graph.open(str(source), "raw", force_share=share) as node:
        given = given_options("subformat=monolithicFlat")
        plan = convert.plan_target([node], str(tmp_path / "d.vmdk"), "vmdk", given=given)
        with pytest.raises(ImageLocked):
            convert.convert([node], plan)
    make(tmp_path / "e.vmdk", MIB, "subformat=monolithicFlat")
    with graph.open(str(tmp_path / "e.vmdk"), "vmdk", force_share=share) as node:
        plan = convert.plan_target([node], str(tmp_path / "e-flat.vmdk"), "raw")
        with pytest.raises(ImageLocked):
            convert.convert([node], plan)
    assert source.read_bytes() == b"s" * MIB
    assert (tmp_path / "e-flat.vmdk").stat().st_size == MIB
    assert not (tmp_path / "d.vmdk").exists()


# ---- streams


def stream(size: int, *grains: tuple[int, bytes]) -> MemoryDriver:
    driver = MemoryDriver(vmdk.create(size, {"subformat": "streamOptimized"}))
    with attach(driver) as node:
        for offset, data in grains:
            node.pwrite(offset, data)
    return driver


def test_a_stream_takes_whole_grains_each_once() -> None:
    rng = random.Random("stream")
    first, last = rng.randbytes(GRAIN), b"z" * 1000 + bytes(3 * SECTOR)
    size = 5 * GRAIN + len(last) - len(last) % SECTOR
    last = last[: size - 5 * GRAIN]
    driver = stream(size, (3 * GRAIN, first + bytes(GRAIN)), (5 * GRAIN, last))
    assert len(driver.data) % SECTOR == 0
    with attach(driver) as node:
        assert node.read(0, size) == bytes(3 * GRAIN) + first + bytes(GRAIN) + last
        assert [each.status for each in node.extents(3 * GRAIN, GRAIN)] == [
            Status.DATA | Status.ALLOCATED | Status.COMPRESSED
        ]
        before = bytes(driver.data)
        with pytest.raises(BlockError) as caught:
            node.pwrite(3 * GRAIN, first)
        assert (caught.value.errno, str(caught.value)) == (
            5,
            "Could not write to allocated cluster for streamOptimized",
        )
        for offset, length in ((0, SECTOR), (SECTOR, GRAIN), (GRAIN, GRAIN + 1)):
            with pytest.raises(BlockError) as caught:
                node.pwrite(offset, bytes(length))
            assert caught.value.errno == 22
        assert len(driver.data) == len(before)


def test_a_write_that_is_refused_leaves_a_stream_as_it_is() -> None:
    driver = stream(MIB, (0, b"s" * GRAIN))
    before = bytes(driver.data)
    with attach(driver) as node:
        for offset, length in ((0, GRAIN), (GRAIN, 1), (0, 2 * GRAIN)):
            with pytest.raises(BlockError):
                node.pwrite(offset, bytes(length))
            with pytest.raises(BlockError):
                node.write_zeroes(offset, length)
    assert driver.data == before


def test_a_disk_of_no_bytes_is_copied_to_a_stream(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with graph.open(str(tmp_path / "empty"), "raw") as node:
        given = given_options("subformat=streamOptimized")
        convert.convert([node], convert.plan_target([node], str(tmp_path / "d.vmdk"), "vmdk", given=given))
    assert images.content(tmp_path / "d.vmdk", "vmdk") == b""


def test_grains_have_markers_and_checksums() -> None:
    driver = stream(MIB, (2 * GRAIN, b"m" * GRAIN))
    place = struct.unpack_from("<Q", driver.data, 64)[0] * SECTOR
    sector, size = struct.unpack_from("<QI", driver.data, place)
    assert sector == 2 * GRAIN // SECTOR
    assert zlib.decompress(driver.data[place + 12 : place + 12 + size]) == b"m" * GRAIN


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data, at: struct.pack_into("<I", data, at + 8, 0), "its marker says 0 bytes"),
        (lambda data, at: struct.pack_into("<I", data, at + 8, 1 << 31), "its marker says"),
        (lambda data, at: data.__setitem__(slice(at + 20, at + 24), b"\xff" * 4), "is broken"),
        (lambda data, at: data.__delitem__(slice(at + 30, None)), "its marker says"),
        (lambda data, at: data.__delitem__(slice(at, None)), "lies beyond the file's end"),
    ],
)
def test_a_broken_grain_is_told(damage: Callable[[bytearray, int], None], why: str) -> None:
    driver = stream(MIB, (0, random.Random(1).randbytes(GRAIN // 2) + bytes(GRAIN // 2)))
    damage(driver.data, struct.unpack_from("<Q", driver.data, 64)[0] * SECTOR)
    with attach(driver, read_only=True) as node:
        with pytest.raises(CorruptImage, match=why):
            node.read(0, 10)
        assert not any(node.read(GRAIN, GRAIN))


def test_a_grain_that_holds_too_much_is_told_in_little_memory() -> None:
    driver = stream(MIB, (0, b"x" * GRAIN))
    place = struct.unpack_from("<Q", driver.data, 64)[0] * SECTOR
    bomb = zlib.compress(bytes(64 << 20), 9)
    driver.data[place + 8 :] = struct.pack("<I", len(bomb)) + bomb
    with attach(driver, read_only=True) as node, pytest.raises(CorruptImage, match="holds more than 65536 bytes"):
        node.read(0, 10)


def with_footer(data: bytes, **changes: int) -> bytes:
    """The disk as a program leaves it that writes without going back: the header that counts at the end."""
    header = patched(data[:SECTOR], 56, "Q", 2**64 - 1)
    marker = struct.pack("<QII", 1, changes.get("size", 0), changes.get("kind", 3)).ljust(SECTOR, b"\0")
    end = struct.pack("<QII", 0, 0, changes.get("end", 0)).ljust(SECTOR, b"\0")
    return header + data[SECTOR:] + marker + data[:SECTOR] + end


def test_the_footer_of_a_stream_counts() -> None:
    data = bytes(stream(MIB, (GRAIN, b"f" * GRAIN)).data)
    with attach(MemoryDriver(with_footer(data)), read_only=True) as node:
        assert node.read(GRAIN, GRAIN) == b"f" * GRAIN
    with pytest.raises(BlockError, match="ends in a footer must be read only"):
        attach(MemoryDriver(with_footer(data)))
    for change in ({"size": 1}, {"kind": 2}, {"end": 1}):
        with pytest.raises(InvalidImage, match="Invalid footer"):
            attach(MemoryDriver(with_footer(data, **change)), read_only=True)
    with pytest.raises(InvalidImage, match="Failed to read footer"):
        attach(MemoryDriver(patched(data[:1024], 56, "Q", 2**64 - 1)), read_only=True)


# ---- disks of ESX, and versions


@pytest.mark.parametrize(("kind", "name"), [("VMFSSPARSE", "COWD"), ("SESPARSE", "seSparse")])
def test_disks_of_esx_are_read_only(tmp_path: Path, kind: str, name: str) -> None:
    make_extent = vmdk.cowd if name == "COWD" else vmdk.sesparse
    grains = {0: b"a" * 4096, 5000: b"b" * 4096}
    write_files(
        tmp_path,
        {"d": descriptor("seSparse" if name == "seSparse" else "vmfsSparse", f'RW 80000 {kind} "x"'),
         "x": make_extent(80000, grains)},
    )  # fmt: skip
    with opened(tmp_path / "d") as node:
        assert node.length == 80000 * SECTOR
        assert node.read(0, 4097) == b"a" * 4096 + b"\0"
        assert node.read(5000 * 4096, 4096) == b"b" * 4096
    assert refusal(tmp_path / "d", read_only=False) == f"No write support for {name} images available"


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (0, 1, "Bad const header magic: 0x0000000000000001"),
        (1, 2, "Unsupported version: 0x0000000000000002"),
        (3, 16, "Unsupported grain size: 16"),
        (4, 32, "Unsupported grain table size: 32"),
        (5, 1, "Unsupported flags: 0x0000000000000001"),
        (8, 3, "Unsupported reserved bits: "),
        (10, 2, "Bad volatile header magic: "),
        (10, 2**63, "Could not read volatile header"),
        (16, 2**63, "lies beyond the end of every file"),
        (16, 2**40, "Could not read l1 table"),
        (17, 2**60, "L1 size too big"),
        (2, 2**60, "The capacity of the extent is too large"),
        (2, 2**40, "too short for the extent's capacity"),
    ],
)
def test_an_sesparse_header_that_nobody_has_described_is_refused(
    tmp_path: Path, word: int, value: int, message: str
) -> None:
    write_files(
        tmp_path,
        {
            "d": descriptor("seSparse", 'RW 64 SESPARSE "x"'),
            "x": vmdk.sesparse(64, {0: b"a"}, **{f"word{word}": value}),
        },
    )
    assert message in refusal(tmp_path / "d")


def test_an_sesparse_disk_with_a_journal_to_replay_is_refused(tmp_path: Path) -> None:
    data = patched(vmdk.sesparse(64, {0: b"a"}), SECTOR + 24, "Q", 1)
    write_files(tmp_path, {"d": descriptor("seSparse", 'RW 64 SESPARSE "x"'), "x": data})
    assert refusal(tmp_path / "d") == "Image is dirty, Replaying journal not supported"


def test_version_3_without_compression_is_read_only() -> None:
    data = patched(vmdk.create(MIB), 4, "I", 3)
    attach(MemoryDriver(data), read_only=True).close()
    with pytest.raises(InvalidImage, match="VMDK version 3 must be read only"):
        attach(MemoryDriver(data))
    with pytest.raises(UnsupportedFeature, match="Unsupported VMDK version 4"):
        attach(MemoryDriver(patched(data, 4, "I", 4)), read_only=True)


# ---- hostile ones


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (12, "Q", 2**62, "L1 size too big"),
        (20, "Q", 2**64 - 1, "Invalid granularity, image may be corrupt"),
        (20, "Q", 0, "L1 entry size is invalid"),
        (44, "I", 2**32 - 1, "L2 table size too big"),
        (44, "I", 0, "L1 entry size is invalid"),
        (48, "Q", 2**40, "Could not read l1 backup table"),
        (48, "Q", 2**64 - 1, "Could not read l1 table"),
        (56, "Q", 2**40, "Could not read l1 table"),
        (56, "Q", 2**63, "Could not read l1 table"),
        (64, "Q", 2**20, "File truncated, expecting at least 536870912 bytes"),
    ],
)
def test_a_header_that_lies_is_refused(offset: int, form: str, value: int, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        attach(MemoryDriver(patched(vmdk.create(64 << 20), offset, form, value)), read_only=True)


def test_a_directory_of_millions_is_walked_in_bounded_memory_and_time(tmp_path: Path) -> None:
    # The largest that is read: a pebibyte, and a hole where the directories are.
    path = tmp_path / "d.vmdk"
    data = patched(vmdk.create(MIB), 12, "Q", 1 << 41)
    path.write_bytes(patched(data, 48, "4Q", 0, 1 << 20, 0, 128))
    with path.open("r+b") as file:
        file.truncate((1 << 29) + (128 << 20))

    def walk() -> tuple[int, int, int]:
        with opened(path) as node:
            result = node.driver.check(Repair.NOTHING, lambda line: None)  # type: ignore[attr-defined]
            return node.length, len(list(node.extents())), result.corruptions

    assert bounded(walk, memory=64 * MIB, seconds=60) == (1 << 50, 1, 0)


def test_zeroing_terabytes_holds_back_few_tables(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    make(path, 1 << 40, "zeroed_grain=on")

    def zero() -> int:
        with opened(path, read_only=False) as node:
            node.write_zeroes(0, 1 << 38)
            return node.length

    assert bounded(zero, memory=64 * MIB, seconds=120) == 1 << 40
    with opened(path) as node:
        assert [(each.length, bool(each.status)) for each in node.extents(0, 1 << 39)] == [
            (1 << 38, True),
            (1 << 38, False),
        ]


def test_a_file_that_was_cut_off_is_no_empty_disk() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * (3 * GRAIN))
    del driver.data[-GRAIN:]
    with attach(driver, read_only=True) as node:
        assert node.read(0, 2 * GRAIN) == b"a" * (2 * GRAIN)
        with pytest.raises(CorruptImage, match="lies beyond the file's end"):
            node.read(0, 3 * GRAIN)
        lines: list[str] = []
        assert node.driver.check(Repair.NOTHING, lines.append).corruptions == 1  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 256 points after EOF"]


@pytest.mark.parametrize("sector", [0, 1, 15, 21, 2**32 - 1])
@pytest.mark.parametrize("which", [0, 1])
def test_a_directory_that_leads_anywhere_makes_no_write_go_there(which: int, sector: int) -> None:
    data = vmdk.create(MIB)
    driver = MemoryDriver(patched(data, directories(data)[which], "I", sector))
    before = bytes(driver.data)
    with attach(driver) as node:
        with pytest.raises(BlockError, match=r"grain table|lies beyond the file|lies in the metadata"):
            node.pwrite(0, b"x" * GRAIN)
        node.flush()
    assert [at for at in range(len(before)) if driver.data[at : at + 1] != before[at : at + 1] and at >= 1024] == []
    assert driver.data[:SECTOR] == before[:SECTOR]


def test_a_grain_in_the_metadata_is_not_written() -> None:
    data = vmdk.create(MIB)
    first = struct.unpack_from("<I", data, directories(data)[1])[0] * SECTOR
    driver = MemoryDriver(patched(data, first, "I", 1))
    with attach(driver) as node:
        with pytest.raises(CorruptImage, match="lies in the metadata"):
            node.pwrite(0, b"x")
        lines: list[str] = []
        node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 0 points into the metadata"]


def test_a_grain_that_is_used_twice_is_found() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
    first = struct.unpack_from("<I", driver.data, directories(driver.data)[1])[0] * SECTOR
    driver.data[first + 4 : first + 8] = driver.data[first : first + 4]
    with attach(driver, read_only=True) as node:
        lines: list[str] = []
        assert node.driver.check(Repair.NOTHING, lines.append).corruptions == 1  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 128 is that of another sector too"]


def test_nothing_is_repaired() -> None:
    with attach(MemoryDriver(vmdk.create(MIB))) as node, pytest.raises(UnsupportedFeature):
        node.driver.check(Repair.ALL, lambda line: None)  # type: ignore[attr-defined]


def test_a_file_is_full_at_two_tib() -> None:
    class Far(MemoryDriver):
        """A file whose end is far away."""

        far = (2 << 40) - 3 * GRAIN

        @property
        def length(self) -> int:
            return self.far

        def pwrite(self, offset: int, data: memoryview) -> None:
            if offset < MIB:
                super().pwrite(offset, data)
            else:
                self.far = max(self.far, offset + len(data))

    driver = Far(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * (3 * GRAIN))
        with pytest.raises(BlockError, match="ends at 2 TiB") as caught:
            node.pwrite(5 * GRAIN, b"a")
        assert caught.value.errno == 28
