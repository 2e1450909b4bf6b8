"""Images described by options."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.blockdev import Described, from_json, from_options, with_filename
from hostel.block.options import OptionError
from hostel.errors import BlockError, ReadOnly, UnknownFormat


def test_a_format_over_a_file() -> None:
    tree = {"driver": "raw", "file": {"driver": "file", "filename": "a"}}
    found = from_options({"driver": "raw", "file.driver": "file", "file.filename": "a"})
    assert found == Described("a", "raw", {}, "a", tree=tree, file_options={"driver": "file", "filename": "a"})


def test_the_format_may_be_left_to_a_guess() -> None:
    assert from_options({"file.filename": "a"}).format is None


def test_options_are_converted() -> None:
    assert from_options({"driver": "raw", "size": "1k", "file.filename": "a"}).options == {"size": 1024}
    assert from_json('json:{"driver": "raw", "size": 512, "file": {"filename": "a"}}').options == {"size": 512}


def test_a_name_tells_what_changes_the_content() -> None:
    name = 'json:{"driver": "raw", "size": "512", "file": {"driver": "file", "filename": "a"}}'
    assert from_options({"driver": "raw", "size": "512", "file.filename": "a"}).name == name
    assert from_json(name).name == name


def test_read_only_and_shared_access_and_no_backing_file_are_taken_out() -> None:
    found = from_json('json:{"driver":"qcow2","read-only":true,"force-share":"on","backing":null,"file.filename":"a"}')
    assert (found.read_only, found.force_share, found.no_backing) == (True, True, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Must specify either driver or file"),
        ({"driver": "raw"}, 'A block device must be specified for "file"'),
        ({"driver": "raw", "file.filename": ""}, "The 'file' block driver requires a file name"),
        ({"driver": "raw", "file": "node"}, "Cannot find device='node' nor node-name='node'"),
        ({"file": "node", "file.filename": "a"}, "Cannot reference an existing block device with additional options"),
        ({"driver": "raw", "file.filename": "a", "x": "1"}, "Block format 'raw' does not support the option 'x'"),
        (
            {"driver": "raw", "file.filename": "a", "file.x": "1"},
            "Block protocol 'file' doesn't support the option 'x'",
        ),
        ({"driver": "raw", "file.filename": "a", "size": "x"}, "Parameter 'size' expects a non-negative number"),
        ({"driver": "raw", "file.filename": "a", "node-name": "0"}, "Invalid node-name: '0'"),
        ({"driver": "raw", "file.filename": "a", "discard": "maybe"}, "Invalid discard option"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        from_options(options)


@pytest.mark.parametrize("options", [{"driver": "x", "file.filename": "a"}, {"file.driver": "x", "file.filename": "a"}])
def test_an_unknown_driver_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(UnknownFormat, match=r"^Unknown driver 'x'$"):
        from_options(options)


def test_a_format_lies_below_a_format_when_options_say_so() -> None:
    found = from_options({"driver": "raw", "file.driver": "qcow2", "file.file.filename": "a"})
    assert (found.format, found.children["file"].format, found.children["file"].filename) == ("raw", "qcow2", "a")


def test_a_filter_lies_between_a_format_and_its_file() -> None:
    for options in (
        {"driver": "qcow2", "file.driver": "blkdebug", "file.image.filename": "a", "file.align": "4k"},
        with_filename({"driver": "qcow2", "file.align": "4k"}, "blkdebug::a"),
    ):
        found = from_options(options).children["file"]
        assert (found.format, found.options) == ("blkdebug", {"align": "4k"})
        assert (found.children["image"].format, found.children["image"].filename) == ("file", "a")


@pytest.mark.parametrize("name", ["a:b", "file:a", "nbd://host/a", "blkdebug::a", "host_device:a", "json:{}"])
def test_a_name_among_options_is_a_path_whatever_it_looks_like(name: str) -> None:
    path = f"./{name}"
    for options in ({"driver": "raw", "file.filename": name}, {"driver": "file", "filename": name}):
        found = from_options(options)
        assert (found.filename, found.protocol, dict(found.children)) == (path, "", {})
    backing = from_options({"driver": "qcow2", "file.filename": "a", "backing.filename": name}).children["backing"]
    assert backing.filename == path


@pytest.mark.parametrize(
    ("name", "format", "filename", "protocol"),
    [
        ("a", None, "a", ""),
        ("file:a:b", None, "./a:b", ""),
        ("host_device:/dev/a", "host_device", "/dev/a", ""),
        ("nbd://host/a", "nbd", "", "nbd"),
    ],
)
def test_a_name_beside_options_may_begin_with_a_protocol(
    name: str, format: str | None, filename: str, protocol: str
) -> None:
    found = from_options(with_filename({"driver": "raw"}, name))
    assert (found.filename, found.protocol, found.tree["file"]["driver"]) == (filename, protocol, format or "file")
    with pytest.raises(BlockError, match="Unknown protocol 'a'"):
        from_options(with_filename({"driver": "raw"}, "a:b"))


def test_a_filter_needs_its_child() -> None:
    with pytest.raises(OptionError, match='A block device must be specified for "image"'):
        from_options({"driver": "blkdebug"})


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"driver": "raw"}', "{" * 5000])
def test_a_broken_json_name_is_an_option_error(text: str) -> None:
    with pytest.raises(OptionError):
        from_json("json:" + text)


def test_a_described_image_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 512 + b"y" * 512)
    described = from_options({"driver": "raw", "offset": "512", "read-only": "on", "file.filename": str(path)})
    with graph.open(described, read_only=False) as node:
        assert bytes(node.read(0, 512)) == b"y" * 512
        with pytest.raises(ReadOnly):
            node.pwrite(0, b"z")


def test_a_json_name_is_opened_and_a_named_format_wins(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(512))
    name = f'json:{{"driver": "qcow2", "file": {{"filename": "{path}"}}}}'
    with pytest.raises(BlockError, match="not in qcow2 format"):
        graph.open(name)
    with graph.open(name, "raw") as node:
        assert (node.format, node.filename) == ("raw", str(path))


def test_no_disk_is_longer_than_qemus_may_be() -> None:
    longest = (1 << 63) - (1 << 30)
    for size in (longest, longest + 1, (1 << 63) - 1):
        described = from_options({"driver": "raw", "file.driver": "null-co", "file.size": str(size)})
        if size == longest:
            with graph.open(described) as node:
                assert node.length == size
        else:
            with pytest.raises(BlockError, match="File too large"):
                graph.open(described)
