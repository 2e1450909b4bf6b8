"""A file that ends within a sector and is opened without a format: exports and jobs count the whole sector, as QEMU's.

It is also the disk of a machine, or what one is backed up to; the end of neither may be left out without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.daemon import OURS, THEIRS, daemon
from support.nbd import Peer

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
BOTH = pytest.mark.parametrize("tool", [OURS, THEIRS], ids=["ours", "theirs"])
LENGTHS = pytest.mark.parametrize("length", [700, 70_000, (1 << 20) + 1])


def data(length: int) -> bytes:
    return (b"\x17the end\n" * (length // 9 + 1))[:length]


def rounded(length: int) -> int:
    return -(-length // 512) * 512


def run(*words: object) -> str:
    ended = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def node(name: str) -> list[str]:
    return ["--blockdev", f"driver=file,node-name={name},filename={name}"]


@BOTH
@LENGTHS
def test_a_client_reads_and_writes_the_last_sector(tmp_path: Path, tool: Sequence[str], length: int) -> None:
    (tmp_path / "n").write_bytes(data(length))
    server = ["--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "type=nbd,id=e,node-name=n,writable=on"]
    url = f"nbd+unix:///n?socket={tmp_path}/nbd"
    end = rounded(length)
    expected = data(length).ljust(end, b"\0")
    with daemon(tmp_path, *node("n"), *server, tool=tool) as running:
        running.monitor.command("block-dirty-bitmap-add", node="n", name="b")
        assert json.loads(run("qemu-img", "info", "--output=json", url))["virtual-size"] == end
        said = [(each["length"], each["data"]) for each in json.loads(run("qemu-img", "map", "--output=json", url))]
        assert said == [(length, True), (end - length, False)]
        run("qemu-img", "convert", "-O", "raw", url, tmp_path / "read")
        assert (tmp_path / "read").read_bytes() == expected
        run("qemu-io", "-f", "raw", "-c", f"read -P 0 {length} {end - length}", "-c", f"read {end - 512} 512", url)
        assert (tmp_path / "n").stat().st_size == length
        run("qemu-io", "-f", "raw", "-c", f"write -P 9 {end - 512} 512", url)
        assert (tmp_path / "n").read_bytes() == expected[:-512] + b"\x09" * 512
        bitmaps = running.monitor.command("query-named-block-nodes", flat=True)[0]["dirty-bitmaps"]
        assert bitmaps[0]["count"] > 0


@BOTH
def test_a_bitmap_is_told_to_the_end_of_the_last_sector(tmp_path: Path, tool: Sequence[str]) -> None:
    (tmp_path / "n").write_bytes(data(70_000))
    with daemon(tmp_path, *node("n"), "--nbd-server", "addr.type=unix,addr.path=nbd", tool=tool) as running:
        running.monitor.command("block-dirty-bitmap-add", node="n", name="b", granularity=512)
        running.monitor.command("block-export-add", type="nbd", id="e", node_name="n", writable=True, bitmaps=["b"])
        url = f"driver=nbd,server.type=unix,server.path={tmp_path}/nbd,export=n"
        run("qemu-io", "--image-opts", "-c", "write 69632 512", url)
        look = f"{url},x-dirty-bitmap=qemu:dirty-bitmap:b"
        found = json.loads(run("qemu-img", "map", "--output=json", "--image-opts", look))
        assert [(each["length"], each["data"]) for each in found] == [(69_632, True), (512, False)]


@BOTH
@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="needs /dev/fuse")
def test_programs_read_and_write_the_last_sector(tmp_path: Path, tool: Sequence[str]) -> None:
    (tmp_path / "n").write_bytes(data(700))
    (tmp_path / "file").touch()
    export = f"fuse,id=e,node-name=n,mountpoint={tmp_path}/file,writable=on"
    with daemon(tmp_path, *node("n"), "--export", export, tool=tool), (tmp_path / "file").open("r+b") as stream:
        assert stream.read() == data(700).ljust(1024, b"\0")
        stream.seek(690)
        stream.write(b"more" * 20)
        stream.flush()
        assert (tmp_path / "n").read_bytes() == data(690) + b"more" * 20


@BOTH
@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="needs /dev/fuse")
@pytest.mark.parametrize("options", ["driver=file,filename=n", "driver=raw,file.driver=file,file.filename=n"])
def test_programs_find_no_data_behind_the_end_of_the_file(tmp_path: Path, tool: Sequence[str], options: str) -> None:
    (tmp_path / "n").write_bytes(data(700))
    (tmp_path / "file").touch()
    words = ["--blockdev", f"{options},node-name=n", "--export", f"fuse,id=e,node-name=n,mountpoint={tmp_path}/file"]
    with daemon(tmp_path, *words, tool=tool), (tmp_path / "file").open("rb", buffering=0) as stream:
        assert stream.seek(0, os.SEEK_END) == 1024
        assert [stream.seek(place, os.SEEK_DATA) for place in (0, 512, 699)] == [0, 512, 699]
        assert [stream.seek(place, os.SEEK_HOLE) for place in (0, 699, 700, 1000)] == [700, 700, 700, 1000]
        for place in (700, 1023, 1024):
            with pytest.raises(OSError, match="No such device or address"):
                stream.seek(place, os.SEEK_DATA)


@BOTH
@pytest.mark.parametrize("job", ["blockdev-backup", "blockdev-mirror"])
@pytest.mark.parametrize(("source", "target"), [(700, 1024), (1024, 700), (700, 900), (70_000, 70_144)])
def test_a_job_copies_what_has_as_many_sectors(
    tmp_path: Path, tool: Sequence[str], job: str, source: int, target: int
) -> None:
    (tmp_path / "a").write_bytes(data(source))
    (tmp_path / "b").write_bytes(b"\xff" * target)
    with daemon(tmp_path, *node("a"), *node("b"), tool=tool) as running:
        running.monitor.command(job, job_id="j", device="a", target="b", sync="full")
        if job == "blockdev-mirror":
            running.monitor.wait_for("BLOCK_JOB_READY")
            running.monitor.command("block-job-complete", device="j")
        assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
    assert (tmp_path / "b").read_bytes() == data(source).ljust(rounded(source), b"\0")
    assert (tmp_path / "a").stat().st_size == source


@BOTH
@pytest.mark.parametrize("target", [1025, 512])
def test_a_job_between_other_numbers_of_sectors_says_so(tmp_path: Path, tool: Sequence[str], target: int) -> None:
    (tmp_path / "a").write_bytes(data(700))
    (tmp_path / "b").write_bytes(b"\xff" * target)
    why = "Source and target image have different sizes"
    words = {"job-id": "j", "device": "a", "target": "b", "sync": "full"}
    with daemon(tmp_path, *node("a"), *node("b"), tool=tool) as running:
        answer = running.monitor.send(json.dumps({"execute": "blockdev-backup", "arguments": words}))
        assert answer["error"]["desc"] == why
        running.monitor.send(json.dumps({"execute": "blockdev-mirror", "arguments": words}))
        assert running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]["error"] == why
    assert (tmp_path / "b").read_bytes() == b"\xff" * target


@BOTH
def test_what_is_overwritten_in_the_last_sector_is_copied_before(tmp_path: Path, tool: Sequence[str]) -> None:
    (tmp_path / "a").write_bytes(data(700))
    (tmp_path / "b").write_bytes(b"\xff" * 1024)
    server = ["--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "type=nbd,id=e,node-name=a,writable=on"]
    with daemon(tmp_path, *node("a"), *node("b"), *server, tool=tool) as running:
        running.monitor.command("blockdev-backup", job_id="j", device="a", target="b", sync="none")
        url = f"nbd+unix:///a?socket={tmp_path}/nbd"
        run("qemu-io", "-f", "raw", "-c", "write -P 9 512 512", url)
        running.monitor.command("block-job-cancel", device="j")
        running.monitor.wait_for("BLOCK_JOB_CANCELLED")
    assert (tmp_path / "a").read_bytes() == data(512) + b"\x09" * 512
    assert (tmp_path / "b").read_bytes() == data(700).ljust(1024, b"\0")


@BOTH
def test_nothing_is_written_to_an_export_for_reading(tmp_path: Path, tool: Sequence[str]) -> None:
    """Also by a client that does not heed what the server says, and in the sector that the file has a part of."""
    (tmp_path / "n").write_bytes(data(700))
    server = ["--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "type=nbd,id=e,node-name=n,writable=off"]
    with daemon(tmp_path, *node("n"), *server, tool=tool), Peer(tmp_path / "nbd") as peer:
        peer.use("n")
        for offset, length in ((0, 512), (512, 512), (700, 324)):
            peer.request(1, offset, length, payload=b"\xff" * length)
            assert peer.simple()[0] in (1, 22)  # EPERM; EINVAL of QEMU's where it is no whole sector
    assert (tmp_path / "n").read_bytes() == data(700)


@BOTH
def test_the_last_sector_is_read_whole_through_copy_on_read(tmp_path: Path, tool: Sequence[str]) -> None:
    (tmp_path / "n").write_bytes(data(700))
    above = ["--blockdev", "driver=copy-on-read,node-name=c,file=n"]
    server = ["--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "type=nbd,id=e,node-name=c"]
    with daemon(tmp_path, *node("n"), *above, *server, tool=tool), Peer(tmp_path / "nbd") as peer:
        peer.use("c")
        for offset in (0, 512):
            peer.request(0, offset, 512)
            assert peer.simple(512) == (0, data(700).ljust(1024, b"\0")[offset : offset + 512])


@BOTH
@pytest.mark.parametrize("sync", ["full", "none"])
def test_a_target_that_ends_in_a_sector_has_all_of_it_once_it_is_the_disk(
    tmp_path: Path, tool: Sequence[str], sync: str
) -> None:
    (tmp_path / "a").write_bytes(bytes(1024))
    (tmp_path / "b").write_bytes(bytes(700))
    source = ["--blockdev", "driver=raw,node-name=s,file.driver=file,file.filename=a"]
    server = ["--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "type=nbd,id=e,node-name=s,writable=on"]
    with daemon(tmp_path, *source, *node("b"), *server, tool=tool) as running:
        running.monitor.command("blockdev-mirror", job_id="j", device="s", target="b", sync=sync)
        running.monitor.wait_for("BLOCK_JOB_READY")
        running.monitor.command("block-job-complete", device="j")
        assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
        url = f"nbd+unix:///s?socket={tmp_path}/nbd"
        run(
            "qemu-io",
            "-f",
            "raw",
            "-c",
            "read -P 0 512 512",
            "-c",
            "write -P 9 512 512",
            "-c",
            "read -P 9 512 512",
            url,
        )
    assert (tmp_path / "b").read_bytes() == bytes(512) + b"\x09" * 512
