"""Filters beside QEMU's: the same options, names, errors and bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.blockdev import from_options
from support.daemon import OURS, THEIRS, daemon

pytestmark = [pytest.mark.requires_tool("qemu-io"), pytest.mark.requires_tool("qemu-img")]
TOOLS = {"theirs": (), "ours": (sys.executable, "-m", "hostel")}
TIMES = re.compile(r"(?<=ops; ).*\)$", re.MULTILINE)
KiB = 1024


def run(directory: Path, tool: str, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*TOOLS[directory.name], tool, *arguments], cwd=directory, capture_output=True, text=True, timeout=60
    )
    return done.returncode, TIMES.sub("T", done.stdout), done.stderr


def tool_in(directory: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """A directory for each tool, with an overlay ``top`` on a ``base``, and two raw files ``a`` and ``b``."""
    for name in TOOLS:
        directory = tmp_path / name
        directory.mkdir()
        for command in (
            ["qemu-img", "create", "-q", "-f", "qcow2", "base", "1M"],
            ["qemu-io", "-f", "qcow2", "-c", "write -P 5 64k 64k", "base"],
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"],
        ):
            subprocess.run(command, cwd=directory, check=True, timeout=60, capture_output=True)
        for name in "ab":
            (directory / name).write_bytes(bytes(64 * KiB))
    return [tmp_path / name for name in TOOLS]


def both(pair: list[Path], *arguments: str) -> tuple[int, str, str]:
    """Run both tools; returns what they agree on."""
    theirs, ours = (run(directory, "qemu-io", *arguments) for directory in pair)
    assert ours == theirs
    return ours


def commands(*lines: str) -> list[str]:
    return [word for line in lines for word in ("-c", line)]


def test_copy_on_read_allocates_the_same(pair: list[Path]) -> None:
    options = "driver=copy-on-read,file.driver=qcow2,file.file.filename=top"
    both(pair, "--image-opts", *commands("read -P 5 65k 1k", "read -P 0 0 1k"), options)
    code, out, _ = both(pair, "-f", "qcow2", *commands("map"), "top")
    assert (code, out.splitlines()[0]) == (0, "128 KiB (0x20000) bytes     allocated at offset 0 bytes (0x0)")
    assert both(pair, "-f", "qcow2", "-C", *commands("read -P 0 256k 1k", "map"), "top")[0] == 0
    assert both(pair, "-f", "qcow2", "-C", "-r", "top")[0] == 1
    assert both(pair, "-r", "--image-opts", *commands("length"), options)[0] == 1


def test_copy_on_read_does_not_read_again_what_it_copied(pair: list[Path]) -> None:
    options = (
        "driver=copy-on-read,file.driver=blkdebug,file.inject-error.0.event=cor_write,file.inject-error.0.sector=0,"
        "file.image.driver=qcow2,file.image.file.filename=top"
    )
    both(pair, "-f", "qcow2", *commands("write 0 64k"), "top")
    assert both(pair, "--image-opts", *commands("read -v 65532 8"), options)[0] == 0


def test_compress_stores_the_same_bytes(pair: list[Path]) -> None:
    options = "driver=compress,file.driver=qcow2,file.file.filename=base"
    both(pair, "--image-opts", *commands("write -P 7 0 64k", "write -P 8 200k 1k", "read -P 8 200k 1k"), options)
    for directory in pair:
        done = subprocess.run(
            ["qemu-img", "map", "--output=json", "base"], cwd=directory, capture_output=True, check=True, timeout=60
        )
        assert done.stdout.count(b'"offset"') == 1
    both(pair, "-f", "qcow2", *commands("read -P 7 0 64k", "read -P 8 200k 1k"), "base")


def test_preallocate_leaves_the_file_as_long_as_its_data(pair: list[Path]) -> None:
    options = "driver=qcow2,file.driver=preallocate,file.prealloc-size=1M,file.file.driver=file,file.file.filename=base"
    assert both(pair, "--image-opts", *commands("write -P 7 0 64k", "read -P 7 0 64k"), options)[0] == 0
    sizes = [(directory / "base").stat().st_size for directory in pair]
    assert sizes[0] == sizes[1]


def test_throttle_lets_everything_through(pair: list[Path]) -> None:
    options = "driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=base"
    group = "throttle-group,id=g,x-iops-total=1000"
    assert both(pair, "--object", group, "--image-opts", *commands("read -P 5 64k 4k", "write 0 1k"), options)[0] == 0
    assert both(pair, "--image-opts", *commands("length"), options)[0] == 1


def test_blkverify_compares(pair: list[Path]) -> None:
    assert both(pair, "-f", "raw", *commands("write -P 3 0 4k", "read -P 3 0 4k"), "blkverify:a:b")[0] == 0
    for directory in pair:
        (directory / "a").write_bytes(bytes(4 * KiB) + b"\1" * 60 * KiB)
    answers = [run(directory, "qemu-io", "-f", "raw", "-c", "read 4k 1k", "blkverify:a:b") for directory in pair]
    assert [answer[0] for answer in answers] == [1, 1]
    message = "blkverify: read offset=4096 bytes=1024 contents mismatch at offset 4096"
    assert all(message in answer[1] + answer[2] for answer in answers)


def test_blklogwrites_writes_the_same_log(pair: list[Path]) -> None:
    for directory in pair:
        (directory / "log").write_bytes(b"")
    options = "driver=blklogwrites,file.driver=raw,file.file.filename=a,log.driver=file,log.filename=log"
    lines = commands("write -P 7 1k 4k", "write -P 8 100 10", "write -z 8k 1k", "discard 16k 4k", "flush")
    # Without writethrough: a flush is an entry too.
    assert both(pair, "-t", "writeback", "--image-opts", *lines, options)[0] == 0
    logs = [(directory / "log").read_bytes() for directory in pair]
    assert logs[1] == logs[0]
    assert both(pair, "--image-opts", *commands("read 0 1k"), f"{options},log-append=on")[0] == 0


@pytest.mark.parametrize("more", ["", ",read-pattern=fifo", ",rewrite-corrupted=on", ",vote-threshold=2"])
def test_quorum_reads_what_most_copies_have(pair: list[Path], more: str) -> None:
    for directory in pair:
        (directory / "c").write_bytes(b"\1" * 64 * KiB)
    children = ",".join(f"children.{i}.driver=raw,children.{i}.file.filename={name}" for i, name in enumerate("abc"))
    threshold = "" if "vote" in more else ",vote-threshold=2"
    lines = commands("read -P 0 0 4k", "write -P 9 8k 4k", "flush", "read -P 9 8k 4k")
    assert both(pair, "--image-opts", *lines, f"driver=quorum,{children}{threshold}{more}")[0] == 0
    assert [(pair[1] / name).read_bytes() == (pair[0] / name).read_bytes() for name in "abc"] == [True] * 3


@pytest.mark.parametrize(
    "options",
    [
        "driver=quorum,vote-threshold=1",
        "driver=quorum,children.0.driver=raw,children.0.file.filename=a",
        "driver=quorum,vote-threshold=2,children.0.driver=raw,children.0.file.filename=a",
        "driver=throttle,file.driver=raw,file.file.filename=a",
        "driver=compress,file.driver=raw,file.file.filename=a",
        "driver=blklogwrites,file.driver=raw,file.file.filename=a,log.driver=file,log.filename=b,log-sector-size=3",
        "driver=blklogwrites,file.driver=raw,file.file.filename=a,log.driver=file,log.filename=b,log-append=on",
        "driver=raw,file.driver=preallocate,file.prealloc-align=3,file.file.driver=file,file.file.filename=a",
        "driver=raw,file.driver=blkdebug,file.align=3,file.image.filename=a",
        "driver=raw,file.driver=blkdebug,file.inject-error.0.event=never,file.image.filename=a",
        "driver=copy-on-read,file.driver=raw,file.file.filename=missing",
        "driver=null-co,latency-ns=-1",
        "driver=raw,discard=ignore,detect-zeroes=unmap,file.filename=a",
        "driver=raw,file.driver=file,file.filename=a,file.discard=off,file.detect-zeroes=unmap",
        "driver=raw,file.driver=null-co,file.discard=off,file.detect-zeroes=unmap",
        "driver=qcow2,discard=ignore,detect-zeroes=unmap,file.filename=missing",
        "driver=qcow2,file.filename=top,backing.discard=off,backing.detect-zeroes=unmap",
        "driver=blkdebug,discard=off,detect-zeroes=unmap,image.filename=a",
        "driver=raw,file.filename=a,file.read-only=on",
        "driver=raw,file.filename=a,read-only=on",
        "driver=qcow2,file.driver=raw,file.read-only=on,file.file.filename=top",
        "driver=blkdebug,image.filename=a,image.read-only=on",
        "driver=qcow2,file.filename=top,file.force-share=on",
        "driver=raw,node-name=x,file.node-name=x,file.filename=a",
    ],
)
def test_mistakes_are_answered_alike(pair: list[Path], options: str) -> None:
    assert both(pair, "--image-opts", *commands("length"), options)[0] == 1


@pytest.mark.parametrize(
    "name",
    ["blkdebug::base", "null-co://", "blkverify:a:b", 'json:{"driver":"null-co","size":"3M","read-zeroes":true}',
     'json:{"driver":"qcow2","file":{"driver":"blkdebug","align":"512","image":{"driver":"file","filename":"top"}}}'],
)  # fmt: skip
def test_info_tells_the_same_name(pair: list[Path], name: str) -> None:
    answers = [run(directory, "qemu-img", "info", "-U", name)[1].splitlines()[:3] for directory in pair]
    assert answers[1] == answers[0]


def test_info_of_blkverify_is_that_of_the_raw_image(pair: list[Path]) -> None:
    answers = [
        json.loads(run(folder, "qemu-img", "info", "-U", "--output=json", "blkverify:a:base")[1]) for folder in pair
    ]
    for answer in answers:
        answer.pop("actual-size", None)
    assert answers[1] == answers[0]


def test_a_null_disk(pair: list[Path]) -> None:
    options = "driver=null-co,size=1M,read-zeroes=on"
    lines = commands("length", "write 0 64k", "read -P 0 0 64k", "discard 0 64k", "flush")
    assert both(pair, "--image-opts", *lines, options)[0] == 0


@pytest.mark.parametrize("options", ["driver=null-co,size=1000", "driver=raw,file.driver=null-co,file.size=1000"])
def test_a_null_disk_of_no_whole_sectors(pair: list[Path], options: str) -> None:
    lines = commands("length", "write 0 1000", "write 512 512", "read 512 512", "map", "write 1024 512")
    assert both(pair, "--image-opts", *lines, options)[0] == 1
    maps = [run(directory, "qemu-img", "map", "--output=json", "--image-opts", options) for directory in pair]
    assert maps[1] == maps[0]


def test_zeroes_are_detected_where_the_node_discards(pair: list[Path]) -> None:
    lines = commands("write -P 7 0 64k", "write -P 0 0 64k", "map", "read -P 0 0 64k")
    for options in ("discard=unmap,detect-zeroes=unmap", "detect-zeroes=unmap", "discard=off,detect-zeroes=on"):
        assert both(pair, "--image-opts", *lines, f"driver=qcow2,file.filename=base,{options}")[0] == 0


@pytest.mark.parametrize(
    "command",
    ["info", "bench -c 1", "map", "check", "rebase -u -b base -F qcow2", "snapshot -c s", "commit", "compare top"],
)
def test_zeroes_give_no_space_back_unless_the_tool_lets_them(pair: list[Path], command: str) -> None:
    verb, *words = command.split()
    options = "driver=qcow2,file.filename=top,detect-zeroes=unmap"
    refused = [run(directory, "qemu-img", verb, *words, "--image-opts", options) for directory in pair]
    assert refused[1] == refused[0]
    assert ("setting detect-zeroes to unmap is not allowed" in refused[1][2]) is (verb not in ("commit", "compare"))


def test_what_stands_on_a_format_is_called_by_its_options(pair: list[Path]) -> None:
    options = "driver=qcow2,file.driver=raw,file.file.filename=base"
    answers = [run(directory, "qemu-img", "info", "--image-opts", options)[1].splitlines()[0] for directory in pair]
    assert answers[1] == answers[0]
    options = "driver=quorum,vote-threshold=1,children.0.driver=null-co,children.1.driver=null-co"
    answers = [run(directory, "qemu-img", "info", "--image-opts", options)[1].splitlines()[0] for directory in pair]
    assert answers[1] == answers[0]


def test_nobody_else_writes_a_copy(pair: list[Path]) -> None:
    children = {f"children.{index}.file.filename": str(pair[0] / name) for index, name in enumerate("ab")}
    options = {"driver": "quorum", "vote-threshold": "1", **children}
    with graph.open(from_options(options), read_only=True):
        code, _, errors = run(pair[0], "qemu-io", "-f", "raw", "-c", "length", "a")
        assert (code, 'Failed to get "write" lock' in errors) == (1, True)
        assert run(pair[0], "qemu-io", "-r", "-f", "raw", "-c", "length", "a")[0] == 0


def test_what_lies_over_an_overlay_shows_what_the_overlay_stands_on(pair: list[Path]) -> None:
    """A raw image in an overlay: what the overlay leaves to its backing file passed for zeroes."""
    window = "driver=raw,offset=64k,size=128k,file.driver=qcow2,file.file.filename=top"
    whole = "driver=raw,file.driver=qcow2,file.file.filename=top"
    for directory in pair:
        for name, options in (("part", window), ("all", whole)):
            assert run(directory, "qemu-img", "convert", "--image-opts", options, "-O", "raw", name)[0] == 0
    for name in ("part", "all"):
        assert (pair[1] / name).read_bytes() == (pair[0] / name).read_bytes()
    assert (pair[1] / "part").read_bytes() == b"\5" * 64 * KiB + bytes(64 * KiB)
    compared = run(pair[1], "qemu-img", "compare", "--image-opts", whole, "driver=raw,file.filename=all")
    assert compared == (0, "Images are identical.\n", "")


@pytest.mark.requires_tool("qemu-storage-daemon")
@pytest.mark.requires_tool("qemu-nbd")
@pytest.mark.parametrize("tool", [OURS, THEIRS], ids=["ours", "theirs"])
@pytest.mark.parametrize(
    ("filter", "block"),
    [
        ("blkdebug,node-name=n,align=4096,image.driver=file,image.filename=disk", 4096),
        ("blkdebug,node-name=n,align=8192,image.driver=file,image.filename=disk", 8192),
        ("blklogwrites,node-name=n,log-sector-size=4096,file.driver=file,file.filename=disk,"
         "log.driver=file,log.filename=log", 4096),
        ("raw,node-name=n,file.driver=blkdebug,file.align=4096,file.image.driver=file,file.image.filename=disk", 1),
    ],
)  # fmt: skip
def test_clients_are_told_in_what_blocks_a_filter_takes_requests(
    tmp_path: Path, tool: Sequence[str], filter: str, block: int
) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(1 << 20)
    (tmp_path / "log").touch()
    server = ("--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "nbd,id=e,node-name=n")
    with daemon(tmp_path, "--blockdev", filter, *server, tool=tool):
        told = tool_in(tmp_path, "qemu-nbd", "-L", "-k", str(tmp_path / "nbd"))
        opened = tool_in(tmp_path, "qemu-img", "info", "nbd+unix:///n?socket=nbd")
    assert f"min block: {block}\n" in told[1]
    assert opened[0] == 0, opened


@pytest.mark.requires_tool("qemu-storage-daemon")
@pytest.mark.parametrize(("length", "align"), [(1049088, 4096), (3072, 4096), (1 << 20, 64 << 20)])
def test_a_disk_of_no_whole_blocks_is_served_in_smaller_ones(tmp_path: Path, length: int, align: int) -> None:
    (tmp_path / "disk").write_bytes(bytes(length))
    filter = f"blkdebug,node-name=n,align={align},image.driver=file,image.filename=disk"
    server = ("--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "nbd,id=e,node-name=n,writable=on")
    with daemon(tmp_path, "--blockdev", filter, *server, tool=OURS):
        written = tool_in(
            tmp_path, "qemu-io", "-f", "raw", "-c", f"write -P 7 {length - 512} 512", "nbd+unix:///n?socket=nbd"
        )
    assert written[0] == 0, written
    # The block that it is in is written as a whole, and the file grows to hold it.
    assert (tmp_path / "disk").read_bytes()[:length] == bytes(length - 512) + b"\7" * 512


@pytest.mark.requires_tool("qemu-storage-daemon")
def test_a_bitmap_of_smaller_parts_than_blocks_is_told_in_whole_ones(tmp_path: Path) -> None:
    assert tool_in(tmp_path, "qemu-img", "create", "-q", "-f", "qcow2", "disk", "1M")[0] == 0
    assert tool_in(tmp_path, "qemu-img", "bitmap", "--add", "-g", "512", "disk", "b")[0] == 0
    writes = [word for at in ("0 512", "8704 1024", "64k 64k") for word in ("-c", f"write {at}")]
    assert tool_in(tmp_path, "qemu-io", *writes, "disk")[0] == 0
    nodes = ("driver=file,node-name=f,filename=disk", "driver=qcow2,node-name=q,file=f")
    filter = "driver=blkdebug,node-name=n,align=4096,image=q"
    server = ("--nbd-server", "addr.type=unix,addr.path=nbd")
    export = json.dumps({"type": "nbd", "id": "e", "node-name": "n", "bitmaps": [{"node": "q", "name": "b"}]})
    image = "driver=nbd,export=n,server.type=unix,server.path=nbd,x-dirty-bitmap=qemu:dirty-bitmap:b"
    blockdevs = [word for node in (*nodes, filter) for word in ("--blockdev", node)]
    with daemon(tmp_path, *blockdevs, *server, "--export", export, tool=OURS):
        maps = [tool_in(tmp_path, *words, "--image-opts", "--output=json", image) for words in
                (("qemu-img", "map"), (sys.executable, "-m", "hostel", "qemu-img", "map"))]  # fmt: skip
    for code, told, error in maps:
        assert code == 0, error
        dirty = [(extent["start"], extent["length"]) for extent in json.loads(told) if not extent["data"]]
        assert dirty == [(0, 4096), (8192, 4096), (64 * KiB, 64 * KiB)]
