from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph, probe, registry
from hostel.block.blockdev import from_options
from hostel.block.chain import block_status
from hostel.block.extent import Extent, Status
from hostel.block.trust import Trust
from hostel.errors import BlockError, OutOfRange, UnknownFormat, UnsupportedFeature
from hostel.img import create

QCOW2_HEADER = b"QFI\xfb" + (3).to_bytes(4, "big")


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "disk.raw").write_bytes(bytes(range(256)) * 8)
    return str(tmp_path / "disk.raw")


def test_raw_is_the_file(path: str) -> None:
    with graph.open(path, "raw", read_only=False) as node:
        assert (node.format, node.length) == ("raw", 2048)
        node.pwrite(100, b"hello")
        assert node.read(99, 7) == b"\x63hello\x69"
        node.resize(4096)
        assert node.read(2047, 2) == b"\xff\0"
        node.resize(512)
    assert Path(path).stat().st_size == 512


def test_guest_cannot_reach_beyond_the_disk(path: str) -> None:
    with graph.open(path, "raw", read_only=False) as node:
        for call in (
            lambda: node.read(2047, 2),
            lambda: node.pwrite(2048, b"x"),
            lambda: node.write_zeroes(0, 2049),
            lambda: node.discard(-1, 1),
            lambda: list(node.extents(0, 4096)),
        ):
            with pytest.raises(OutOfRange):
                call()
    assert Path(path).stat().st_size == 2048


def test_window_shows_part_of_the_file(path: str) -> None:
    with graph.open(path, "raw", read_only=False, options={"offset": 512, "size": 1024}) as node:
        assert node.length == 1024
        node.pwrite(0, b"first")
        assert [extent[:2] for extent in node.extents()] == [(0, 1024)]
        assert next(node.extents()).host_offset == 512
        with pytest.raises(UnsupportedFeature, match="fixed-size"):
            node.resize(2048)
    assert Path(path).read_bytes()[512:517] == b"first"
    with graph.open(path, "raw", options={"offset": 512}) as node:
        assert node.length == 1536


@pytest.mark.parametrize("options", [{"offset": 2049}, {"offset": 1024, "size": 1025}, {"size": 2049}])
def test_window_outside_the_file_is_refused(path: str, options: dict[str, int]) -> None:
    with pytest.raises(BlockError, match="size of the containing file"):
        graph.open(path, "raw", options=options)


def test_unnamed_format_is_guessed_raw_and_remembered(path: str) -> None:
    with graph.open(path) as node:
        assert (node.format, node.probed) == ("raw", True)
    with graph.open(path, "raw") as node:
        assert not node.probed


@pytest.mark.parametrize("offset", [0, 2])
def test_guessed_raw_image_may_not_become_another_format(path: str, offset: int) -> None:
    with graph.open(path, read_only=False) as node:
        node.pwrite(0, QCOW2_HEADER[:offset] if offset else bytes(4))
        with pytest.raises(BlockError, match="qcow2 header") as caught:
            node.pwrite(offset, (QCOW2_HEADER + bytes(600))[offset:])
        assert caught.value.hint == "Specify the format explicitly: raw."
        node.pwrite(512, QCOW2_HEADER)
    with graph.open(path, "raw", read_only=False) as node:
        node.pwrite(0, QCOW2_HEADER)


def test_untrusted_image_is_never_guessed_raw(path: str) -> None:
    with pytest.raises(UnknownFormat, match="no known format"):
        graph.open(path, trust=Trust.UNTRUSTED)
    with graph.open(path, "raw", trust=Trust.UNTRUSTED) as node:
        assert node.length == 2048


@pytest.mark.parametrize("name", ["vmdk", "qed", "vhdx"])
def test_what_only_begins_like_an_image_is_not_shown_as_raw(tmp_path: Path, name: str) -> None:
    ((offset, magic), *_) = registry.FORMATS[name].magic
    path = tmp_path / "disk"
    path.write_bytes(bytes(offset) + magic + bytes(512))
    assert probe.detect(path.read_bytes(), "disk") == name
    with pytest.raises(BlockError):
        graph.open(str(path))
    with graph.open(str(path), "raw") as node:
        assert node.read(offset, len(magic)) == magic


def test_empty_file_is_an_empty_disk(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with graph.open(str(tmp_path / "empty")) as node:
        assert node.length == 0
        assert node.read(0, 0) == b""
        assert list(node.extents()) == []


def test_host_offsets_of_a_raw_disk_are_its_own(path: str) -> None:
    with graph.open(path, "raw") as node:
        assert list(node.extents(10, 5)) == [Extent(10, 5, Status.DATA | Status.ALLOCATED, 10)]


def test_part_of_a_sector_counts_as_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"x" * 700)
    with graph.open(str(path), "raw") as node:
        assert node.length == 1024
        assert bytes(node.read(512, 512)) == b"x" * 188 + bytes(324)
    assert path.stat().st_size == 700


def test_window_of_part_of_a_sector_is_refused(path: str) -> None:
    with pytest.raises(BlockError, match="Specified size is not multiple of 512"):
        graph.open(path, "raw", options={"size": 100})


def test_space_is_reserved_below_a_window(path: str) -> None:
    with Path(path).open("r+b") as file:
        file.truncate(4 << 20)
    with graph.open(path, "raw", read_only=False, options={"offset": 1 << 20, "size": 1 << 20}) as node:
        before = Path(path).stat().st_blocks
        node.preallocate(0, 1 << 20)
        assert (Path(path).stat().st_blocks - before) * 512 >= 1 << 20


@pytest.mark.parametrize(
    "layers", ["raw blkdebug qcow2", "raw raw blkdebug qcow2", "blkdebug raw qcow2", "raw qcow2 blkdebug"]
)
def test_what_lies_below_a_filter_is_read_through_it(tmp_path: Path, layers: str) -> None:
    image = str(tmp_path / "image")
    create.create(create.plan(image, "qcow2", 65536))
    with graph.open(image, "qcow2", read_only=False) as node:
        node.pwrite(0, b"x" * 65536)
    options, prefix = {}, ""
    for layer in layers.split():
        options[f"{prefix}driver"] = layer
        prefix += "image." if layer == "blkdebug" else "file."
    with graph.open(from_options({**options, f"{prefix}filename": image})) as node:
        (extent,) = block_status(node)
    assert extent.host_offset is not None
    assert extent.direct is None


@pytest.mark.parametrize("windows", ["", "raw "])
def test_what_lies_below_a_filter_in_the_chain_of_a_raw_image_is_read_through_it(tmp_path: Path, windows: str) -> None:
    base, top = str(tmp_path / "base"), str(tmp_path / "top")
    Path(base).write_bytes(b"x" * 65536)
    create.create(create.plan(top, "qcow2", 65536, backing=base, backing_format="raw"))
    options, prefix = {}, ""
    for layer in f"raw {windows}qcow2".split():
        options[f"{prefix}driver"] = layer
        prefix += "file." if layer == "raw" else ""
    options |= {f"{prefix}file.filename": top, f"{prefix}backing.driver": "blkdebug"}
    for below, direct in ((f"{prefix}backing.image.filename", False), (f"{prefix}backing.filename", True)):
        if direct:
            options[f"{prefix}backing.driver"] = "file"
        with graph.open(from_options({**options, below: base})) as node:
            (extent,) = block_status(node)
            assert extent.host_offset == 0
            assert (extent.direct is not None) is direct
