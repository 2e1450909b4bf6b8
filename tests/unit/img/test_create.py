"""Creating images: settling options, and what is left when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.options import OptionError, given_options
from hostel.errors import BlockError, ImageLocked, UnknownFormat
from hostel.img.create import create, plan


def test_a_raw_image_is_created_in_whole_sectors(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(plan(str(path), "raw", 513))
    assert path.stat().st_size == 1024


def test_options_are_described_in_qemus_order() -> None:
    found = plan("a", "qcow2", 1 << 20, given=given_options("refcount_bits=8,cluster_size=4k,nocow=on"))
    assert found.describe() == (
        "cluster_size=4096 extended_l2=off compression_type=zlib size=1048576 lazy_refcounts=off refcount_bits=8 "
        "nocow=on"
    )


def test_commas_in_values_are_doubled() -> None:
    found = plan("a", "qcow2", 512, backing="b,c", backing_format="raw", open_backing=False)
    assert "backing_file=b,,c " in found.describe()


def test_the_last_of_several_values_counts() -> None:
    assert plan("a", "raw", given=given_options("size=1k,size=2k")).size == 2048


def test_the_size_comes_from_the_backing_file(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(4096))
    found = plan(str(tmp_path / "a"), "qcow2", backing="base", backing_format="raw")
    assert found.size == 4096
    create(found)
    with graph.open(str(tmp_path / "a")) as node:
        assert node.backing is not None
        assert (node.length, node.backing.filename) == (4096, str(tmp_path / "base"))


@pytest.mark.parametrize(
    ("format", "size", "options", "message"),
    [
        ("raw", None, "", "Image creation needs a size parameter"),
        ("raw", 1, "size=1", "The image size must be specified only once"),
        ("raw", 1, "foo=1", "Invalid parameter 'foo'"),
        ("raw", 1, "backing_file=x", "Invalid parameter 'backing_file'"),
        ("qcow2", 1, "backing_file=", "Expected backing file name, got empty string"),
        ("qcow2", 1, "backing_file=a", "Error: Trying to create an image with the same filename as the backing file"),
    ],
)
def test_what_cannot_be_is_refused(format: str, size: int | None, options: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        plan("a", format, size, given=given_options(options))
    assert str(caught.value) == message


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UnknownFormat, match="Unknown file format 'foo'"):
        plan("a", "foo", 1)


def test_a_backing_file_without_format_is_refused_with_what_it_seems_to_be(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(4096))
    with pytest.raises(OptionError, match="Backing file specified without backing format") as caught:
        plan(str(tmp_path / "a"), "qcow2", backing="base")
    assert caught.value.hint == "Detected format of raw."


@pytest.mark.parametrize("options", ["cluster_size=3", "preallocation=foo", "refcount_bits=3", "compat=9"])
def test_a_refusal_touches_no_file(tmp_path: Path, options: str) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_bytes(b"precious")
    for path in (new, old):
        with pytest.raises(BlockError):
            create(plan(str(path), "qcow2", 1 << 20, given=given_options(options)))
    assert not new.exists()
    assert old.read_bytes() == b"precious"


def test_a_size_beyond_the_format_is_told_with_what_may_help(tmp_path: Path) -> None:
    with pytest.raises(BlockError) as caught:
        create(plan(str(tmp_path / "a"), "qcow2", 1 << 60))
    assert str(caught.value) == (
        "The image size is too large for file format 'qcow2' (try using a larger cluster size)"
    )


def test_an_image_in_use_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(plan(str(path), "qcow2", 1 << 20))
    before = path.read_bytes()
    with graph.open(str(path), read_only=False), pytest.raises(ImageLocked):
        create(plan(str(path), "qcow2", 1 << 20))
    assert path.read_bytes() == before
