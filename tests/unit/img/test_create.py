"""Creating images: settling options, and what is left when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.options import OptionError, given_options
from hostel.cli.main import run_tool
from hostel.errors import BlockError, ImageLocked, UnknownFormat
from hostel.export.nbd.export import NbdExport
from hostel.img.convert import convert
from hostel.img.copy import CopySettings
from hostel.img.create import create, plan
from support.nbd import raw_disk, serving


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


@pytest.mark.parametrize("name", ["a", "./a", "link", "{}/a"])
def test_an_image_is_not_its_own_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for there in (False, True):
        if there:
            Path("a").write_bytes(b"x" * 512)
        Path("link").unlink(missing_ok=True)
        Path("link").symlink_to("a")
        planned = plan("a", "qcow2", 1 << 20, given=given_options(f"data_file={name.format(tmp_path)}"))
        with pytest.raises(OptionError, match="is the image itself, and cannot hold its data"):
            create(planned)
        assert Path("a").exists() == there
    assert Path("a").read_bytes() == b"x" * 512


@pytest.mark.parametrize("name", ["base", "./link"])
def test_no_image_of_the_chain_below_becomes_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base").write_bytes(b"x" * 4096)
    Path("link").symlink_to("base")
    create(plan("mid", "qcow2", backing="base", backing_format="raw"))
    for backing, format, looked_at in (("base", "raw", True), ("mid", "qcow2", True), ("base", "raw", False)):
        with pytest.raises(OptionError, match="is the backing file's"):
            plan(
                "a",
                "qcow2",
                4096,
                given=given_options(f"data_file={name}"),
                backing=backing,
                backing_format=format,
                open_backing=looked_at,
            )
    assert Path("base").read_bytes() == b"x" * 4096


def test_an_image_whose_data_file_cannot_be_made_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for there in (False, True):
        if there:
            path.touch()
        with pytest.raises(OSError, match="No such file"):
            create(plan(str(path), "qcow2", 1 << 20, given=given_options(f"data_file={tmp_path}/missing/data")))
        assert not path.exists()


@pytest.mark.parametrize(("given", "recorded"), [("file:d", "d"), ("file:a:b", "./a:b"), ("d", "d")])
def test_a_data_file_may_be_named_with_its_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, recorded: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(recorded).write_bytes(b"before")
    assert create(plan("a", "qcow2", 1 << 20, given=given_options(f"data_file={given}"))) == []
    assert Path(recorded).read_bytes() == bytes(1 << 20)
    with graph.open("a", "qcow2", read_only=False) as node:
        node.pwrite(0, b"x" * 512)
    assert Path(recorded).read_bytes()[:512] == b"x" * 512
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a", Path(recorded).name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("host_device:d", "must be a plain path"), ("nbd:h:1", "must be a plain path"), ("x:d", "Unkn")],
)
def test_a_data_file_of_another_protocol_is_refused_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for there in ("a", "d"):
        Path(there).write_bytes(b"before")
    with pytest.raises(BlockError, match=reason):
        create(plan("a", "qcow2", 1 << 20, given=given_options(f"data_file={name}")))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before", "d": b"before"}


def test_an_image_is_not_emptied_where_its_data_file_cannot_be_made(tmp_path: Path) -> None:
    image, data = tmp_path / "a", tmp_path / "data"
    image.write_bytes(b"before")
    data.write_bytes(b"x" * 512)
    (tmp_path / "directory").mkdir()
    with graph.open(str(data), "raw", read_only=False):
        for name in (tmp_path / "missing/data", tmp_path / "directory", data):
            with pytest.raises(BlockError):
                create(plan(str(image), "qcow2", 1 << 20, given=given_options(f"data_file={name}")))
    assert image.read_bytes() == b"before"
    assert data.read_bytes() == b"x" * 512


@pytest.mark.parametrize("there", [False, True])
def test_a_data_file_keeps_what_it_holds_where_the_image_cannot_be_made(tmp_path: Path, *, there: bool) -> None:
    image, data = tmp_path / "a", tmp_path / "data"
    image.write_bytes(b"before" * 512)
    if there:
        data.write_bytes(b"x" * 512)
    planned = plan(str(image), "qcow2", 1 << 20, given=given_options(f"data_file={data}"))
    with graph.open(str(image), "raw", read_only=False), pytest.raises(ImageLocked):
        create(planned)
    missing = plan(str(tmp_path / "missing/a"), "qcow2", 1 << 20, given=given_options(f"data_file={data}"))
    with pytest.raises(BlockError, match="missing/a"):
        create(missing)
    assert image.read_bytes() == b"before" * 512
    assert data.read_bytes() == b"x" * 512 if there else not data.exists()


def test_what_a_failure_leaves_is_taken_away_under_a_name_with_its_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file:y").touch()
    with pytest.raises(BlockError):
        create(plan("file:y", "qcow2", 1 << 20, given=given_options("data_file=/missing/d")))
    Path("source").write_bytes(b"x" * (1 << 20))
    for there in (False, True):
        if there:
            Path("out").write_bytes(b"before")
        target = plan("file:out", "qcow2", 1 << 20, given=given_options("data_file=file:data"))
        with graph.open("source", "raw") as node, pytest.raises(BlockError):
            convert([node], target, CopySettings(compress=True))
        assert (Path("out").exists() and not Path("out").stat().st_size) == there
        Path("out").unlink(missing_ok=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file:y", "source"]


def test_a_target_is_not_emptied_where_its_backing_file_cannot_be_opened(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "a"
    for path in (source, target):
        path.write_bytes(b"x" * 4096)
    for name, format, options in (("missing", "raw", ""), ("source", "qcow2", ""), ("source", "raw", "cluster_size=3")):
        planned = plan(
            str(target),
            "qcow2",
            4096,
            given=given_options(options),
            backing=name,
            backing_format=format,
            open_backing=False,
        )
        with graph.open(str(source), "raw") as node, pytest.raises(BlockError):
            convert([node], planned)
    assert target.read_bytes() == b"x" * 4096


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_an_image_is_not_emptied_where_one_of_its_parts_cannot_be_made(tmp_path: Path, subformat: str) -> None:
    image = tmp_path / "a.vmdk"
    image.write_bytes(b"before")
    name = "a-flat.vmdk" if subformat == "monolithicFlat" else "a-s002.vmdk"
    part = tmp_path / name
    part.write_bytes(b"x" * 512)
    planned = plan(str(image), "vmdk", 3 << 30, given=given_options(f"subformat={subformat}"))
    with graph.open(str(part), "raw", read_only=False), pytest.raises(ImageLocked):
        create(planned)
    assert image.read_bytes() == b"before"
    assert part.read_bytes() == b"x" * 512
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "a.vmdk"]
    create(planned)
    with graph.open(str(image), "vmdk") as node:
        assert node.length == 3 << 30


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("raw", "preallocation=off"),
        ("raw", "preallocation=full"),
        ("qcow2", "preallocation=falloc"),
        ("qcow2", "preallocation=falloc,data_file=data"),
        ("qcow2", "preallocation=full,data_file=new"),
        ("luks", "preallocation=falloc,key-secret=s,iter-time=10"),
    ],
)
def test_an_image_is_not_emptied_where_the_host_has_no_room_for_another(
    tmp_path: Path, format: str, options: str
) -> None:
    for name in ("image", "data"):
        (tmp_path / name).write_bytes(b"x" * 5000)
    create = (
        f"'{sys.executable}' -m hostel qemu-img create --object secret,id=s,data=x -q -f {format} -o {options} image"
    )
    for limit, refused in ((2048, True), (32768, False)):
        command = ["sh", "-c", f"ulimit -f {limit}; {create} 8M"]  # of 512 bytes or 1 KiB, as shells have it
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "too large" in done.stderr) == (int(refused), refused), done.stderr
        if refused:
            assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == dict.fromkeys(
                ("image", "data"), b"x" * 5000
            )


def test_an_image_is_not_emptied_where_its_parent_cannot_be_opened(tmp_path: Path) -> None:
    image = tmp_path / "a.vmdk"
    image.write_bytes(b"before")
    with pytest.raises(BlockError, match="missing"):
        create(plan(str(image), "vmdk", 1 << 20, backing="missing", backing_format="vmdk", open_backing=False))
    assert image.read_bytes() == b"before"


def test_a_copy_is_not_made_into_what_it_reads_as_its_data_file(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * (1 << 20))
    target = plan(str(tmp_path / "b"), "qcow2", 1 << 20, given=given_options(f"data_file={source}"))
    with graph.open(str(source), "raw", force_share=True) as node, pytest.raises(ImageLocked):
        convert([node], target)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert source.read_bytes() == b"x" * (1 << 20)


def test_a_copy_that_fails_takes_its_data_file_away(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * (1 << 20))
    target = plan(str(tmp_path / "b"), "qcow2", 1 << 20, given=given_options(f"data_file={tmp_path}/data"))
    with graph.open(str(source), "raw") as node, pytest.raises(BlockError):
        convert([node], target, CopySettings(compress=True))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_name_that_a_descriptor_cannot_hold_is_refused_before_what_is_there_is_emptied(
    tmp_path: Path, subformat: str
) -> None:
    image = tmp_path / 'a"b.vmdk'
    image.write_bytes(b"precious")
    planned = plan(str(image), "vmdk", 1 << 20, given=given_options(f"subformat={subformat}"))
    with pytest.raises(BlockError, match="has a character that a VMDK descriptor cannot hold"):
        create(planned)
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(image, b"precious")]


def test_a_backing_file_among_the_extents_is_refused_before_what_is_there_is_emptied(tmp_path: Path) -> None:
    backing, image = tmp_path / "w-s001.vmdk", tmp_path / "w.vmdk"
    create(plan(str(backing), "vmdk", 1 << 20))
    before = backing.read_bytes()
    image.write_bytes(b"precious")
    options = given_options("subformat=twoGbMaxExtentSparse")
    with pytest.raises(BlockError, match=r"w-s001\.vmdk"):
        create(plan(str(image), "vmdk", 1 << 20, given=options, backing=backing.name, backing_format="vmdk"))
    assert image.read_bytes() == b"precious"
    assert backing.read_bytes() == before


def test_a_server_of_a_single_client_is_not_used_up_before_the_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
    source.write_bytes(b"s" * 65536)
    create(plan(str(target), "qcow2", 1 << 20))
    with raw_disk(tmp_path, b"s" * 65536) as disk, serving(tmp_path, NbdExport(disk), once=True) as served:
        words = ["convert", "-O", "qcow2", "-B", served.uri, "-F", "raw", str(source), str(target)]
        assert run_tool("qemu-img", words) == 0
    assert target.stat().st_size
