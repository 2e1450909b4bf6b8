"""External data files beside real ``qemu-img`` and ``qemu-io``."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.powers import Preallocation, Repair
from hostel.cli.main import main
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature, UntrustedReference
from hostel.img import create

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
SIZE = 3 << 20


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data file's name is relative to where one runs."""
    monkeypatch.chdir(tmp_path)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(path: Path, *options: str, size: int = SIZE) -> None:
    given = [(*option.split("="), True) for option in ("data_file=" + path.stem + ".data", *options)]
    create.create(create.plan(str(path), "qcow2", size, given=given))  # type: ignore[arg-type]


def judge(path: Path, oracle: bytes | bytearray, *, raw: bool) -> None:
    run("qemu-img", "check", "-f", "qcow2", str(path))
    expected = path.with_suffix(".raw")
    expected.write_bytes(oracle)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(path), str(expected))
    if raw:
        assert path.with_suffix(".data").read_bytes() == oracle
    with graph.open(str(path), "qcow2") as node:
        assert node.read(0, len(oracle)) == oracle
        result = node.driver.check(Repair.NOTHING, lambda line: None)  # type: ignore[attr-defined]
        assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0)


@pytest.mark.parametrize("options", [(), ("data_file_raw=on",), ("extended_l2=on",), ("cluster_size=4096",)])
def test_a_disk_that_ends_within_a_cluster_is_written_to_its_end(tmp_path: Path, options: tuple[str, ...]) -> None:
    path, size = tmp_path / "disk.qcow2", 1000 * 1024 + 512
    make(path, *options, size=size)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.pwrite(size - 700, b"x" * 700)
    oracle = bytearray(bytes(size - 700) + b"x" * 700)
    judge(path, oracle, raw="data_file_raw=on" in options)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.resize(size + 100 * 512)
        node.pwrite(size - 100, b"y" * 200)
    oracle[size - 100 :] = b"y" * 200 + bytes(100 * 512 - 100)
    judge(path, oracle, raw="data_file_raw=on" in options)
    start = 960 * 1024
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.discard(start, node.length - start)
        node.pwrite(start, b"z" * (node.length - start))
        node.write_zeroes(start, node.length - start, unmap=True)
        node.pwrite(start, b"z" * (node.length - start))
        node.resize(size)
    oracle[start:] = b"z" * (size - start)
    judge(path, oracle, raw="data_file_raw=on" in options)


def test_data_is_there_though_the_metadata_file_has_more_holes_than_clusters(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "cluster_size=2M", size=16 << 20)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 3M", "-c", "write -P 8 8M 1M", str(path))
    # As a backup brings it back: of each cluster of metadata only a part is there.
    run("cp", "--sparse=always", str(path), "thin")
    Path("thin").replace(path)
    assert path.stat().st_blocks * 512 * 10 < path.stat().st_size
    for number, format in enumerate(("raw", "qcow2")):
        copy = tmp_path / f"copy-{number}"
        assert main(["qemu-img", "convert", "-O", format, str(path), str(copy)]) == 0
        run("qemu-img", "compare", "-f", "qcow2", "-F", format, str(path), str(copy))


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_what_a_disk_grows_by_is_preallocated_to_its_end_within_a_cluster(tmp_path: Path, mode: str) -> None:
    path, size = tmp_path / "disk.qcow2", 1000 * 1024 + 512
    make(path, size=size)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        node.pwrite(size - 100, b"x" * 100)
        node.resize(size + 512 * 301, Preallocation(mode))
    judge(path, bytes(size - 100) + b"x" * 100 + bytes(512 * 301), raw=False)
    if mode != "metadata":
        assert path.with_suffix(".data").stat().st_blocks >= 301


@pytest.mark.parametrize("options", [(), ("data_file_raw=on",), ("extended_l2=on",), ("cluster_size=4096",)])
def test_random_changes_are_read_by_qemu_as_by_us(tmp_path: Path, options: tuple[str, ...]) -> None:
    chance = random.Random(len(options))
    path = tmp_path / "disk.qcow2"
    raw = "data_file_raw=on" in options
    make(path, *options)
    oracle = bytearray(SIZE)
    for step in range(3):
        with graph.open(str(path), "qcow2", read_only=False) as node:
            for _ in range(15):
                offset = chance.randrange(SIZE)
                length = min(SIZE - offset, chance.choice((1, 512, 5000, 65536, 200_000)))
                if chance.random() < 0.6:
                    data = chance.randbytes(length)
                    node.pwrite(offset, data)
                    oracle[offset : offset + length] = data
                else:
                    node.write_zeroes(offset, length, unmap=chance.random() < 0.5)
                    oracle[offset : offset + length] = bytes(length)
        judge(path, oracle, raw=raw)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {step + 1} {step * 1000000} 70000", str(path))
        oracle[step * 1000000 : step * 1000000 + 70000] = bytes([step + 1]) * 70000
        judge(path, oracle, raw=raw)


@pytest.mark.parametrize("raw", ["data_file_raw=off", "data_file_raw=on"])
def test_a_data_file_ends_where_a_smaller_image_does(raw: str) -> None:
    for name, tool in (("ours", (sys.executable, "-m", "hostel", "qemu-img")), ("real", ("qemu-img",))):
        make(Path(f"{name}.qcow2"), raw)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 3M", f"{name}.qcow2")
        run(*tool, "resize", "-q", "--shrink", "-f", "qcow2", f"{name}.qcow2", "1000k")
        assert (name, Path(f"{name}.data").stat().st_size) == (name, 1000 << 10)
    judge(Path("ours.qcow2"), b"\7" * (1000 << 10), raw=raw == "data_file_raw=on")


def test_what_is_committed_takes_no_room_in_the_data_file_any_more() -> None:
    sizes = {}
    for name, tool in (("ours", (sys.executable, "-m", "hostel", "qemu-img")), ("real", ("qemu-img",))):
        run("qemu-img", "create", "-q", "-f", "qcow2", f"{name}-base.qcow2", str(SIZE))
        words = ("-b", f"{name}-base.qcow2", "-F", "qcow2", "-o", f"data_file={name}.data", f"{name}.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", *words)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 512k 2M", f"{name}.qcow2")
        before = Path(f"{name}.data").stat()
        run(*tool, "commit", "-q", "-f", "qcow2", f"{name}.qcow2")
        after = Path(f"{name}.data").stat()
        sizes[name] = after.st_size, before.st_blocks - after.st_blocks >= 2048
    assert sizes["ours"] == sizes["real"] == (SIZE, True)
    judge(Path("ours.qcow2"), bytes(512 << 10) + b"\7" * (2 << 20) + bytes(512 << 10), raw=False)


def test_a_raw_data_file_follows_the_image_s_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, "data_file_raw=on")
    for size in (SIZE + (1 << 20), 1 << 20):
        with graph.open(str(path), "qcow2", read_only=False) as node:
            node.pwrite(0, b"\x01" * 4096)
            node.resize(size)
        judge(path, b"\x01" * 4096 + bytes(size - 4096), raw=True)


@pytest.mark.parametrize("layout", ["extended_l2=off", "extended_l2=on"])
def test_what_an_image_with_a_raw_data_file_grows_by_is_mapped_one_to_one(tmp_path: Path, layout: str) -> None:
    for name, tool in (("ours", (sys.executable, "-m", "hostel", "qemu-img")), ("real", ("qemu-img",))):
        make(tmp_path / f"{name}.qcow2", "data_file_raw=on", layout, size=100 << 10)
        with Path(f"{name}.data").open("ab") as stream:
            stream.write(b"put there" * 6000)  # beyond the end, before the image is told
        run(*tool, "resize", "-q", "-f", "qcow2", f"{name}.qcow2", "300k")
        entries = json.loads(run("qemu-img", "map", "--output=json", f"{name}.qcow2"))
        assert (name, [entry["start"] for entry in entries]) == (name, [entry.get("offset") for entry in entries])
    with graph.open("ours.qcow2", "qcow2") as node:
        assert node.read(0, node.length) == Path("ours.data").read_bytes()
    # QEMU's is longer, to the end of the last cluster; of subclusters that it maps it shows zeroes.
    assert Path("ours.data").read_bytes() == Path("real.data").read_bytes()[: 300 << 10]
    run("qemu-img", "compare", "ours.qcow2", "real.qcow2" if "off" in layout else "ours.qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "ours.qcow2", "ours.data")


def test_what_external_data_forbids_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    with graph.open(str(path), "qcow2", read_only=False) as node:
        with pytest.raises(UnsupportedFeature):
            node.driver.snapshot_create("s", date=(0, 0))  # type: ignore[attr-defined]
        with pytest.raises(UnsupportedFeature):
            node.driver.pwrite_compressed(0, b"x")  # type: ignore[attr-defined]
    for options in (("data_file_raw=on", "backing_file=b", "backing_fmt=raw"), ("compat=0.10",)):
        with pytest.raises(BlockError):
            make(tmp_path / "other.qcow2", *options)
    assert not (tmp_path / "other.qcow2").exists()


@pytest.mark.parametrize("name", ["json:{}", "nbd:localhost:10809", "file:/etc/passwd"])
def test_a_data_file_is_never_more_than_a_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    data = path.read_bytes()
    place = data.index(b"DATA") + 4
    assert data[place + 4 :].startswith(b"disk.data")
    text = name.encode()
    path.write_bytes(
        data[:place]
        + len(text).to_bytes(4, "big")
        + text.ljust(16, b"\0")[: -(-len(text) // 8) * 8]
        + bytes(16)
        + data[place + 4 + 16 + 16 :]
    )
    with pytest.raises((UntrustedReference, InvalidImage)):
        graph.open(str(path), "qcow2", read_only=False)


def test_an_image_that_does_not_name_its_data_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"DATA")
    data[place : place + 4] = b"XXXX"
    path.write_bytes(data)
    with pytest.raises(InvalidImage, match="'data-file' is required"):
        graph.open(str(path), "qcow2")


@pytest.mark.parametrize("raw", ["data_file_raw=off", "data_file_raw=on"])
def test_the_data_file_of_a_backing_image_is_only_read(tmp_path: Path, raw: str) -> None:
    make(tmp_path / "base.qcow2", raw)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", "base.qcow2")
    for name in ("a", "b"):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", f"{name}.qcow2")
    Path("base.data").chmod(0o444)
    before = Path("base.data").stat()
    tool = [sys.executable, "-m", "hostel", "qemu-img"]
    # Two writers at once, one of them QEMU, on what neither of them writes.
    with (
        graph.open("a.qcow2", "qcow2", read_only=False) as node,
        subprocess.Popen(
            ["qemu-io", "-f", "qcow2", "b.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as other,
    ):
        node.pwrite(0, b"own")
        below = node.backing
        assert below is not None
        assert [below.read_only, below.driver.children["data-file"].read_only] == [True, True]
        run(*tool, "convert", "-f", "qcow2", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "base.qcow2", "c.qcow2")
        other.communicate(b"write -P 9 0 64k\nquit\n", timeout=60)
        assert other.returncode == 0
    run("qemu-img", "compare", "base.qcow2", "c.qcow2")
    after = Path("base.data").stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    Path("base.data").chmod(0o644)
    run(*tool, "commit", "-q", "a.qcow2")
    with graph.open("base.qcow2", "qcow2") as node:
        assert node.read(0, 3) == b"own"


def test_snapshots_of_an_image_with_a_data_file_are_refused_in_qemu_s_words(capfd: pytest.CaptureFixture[str]) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data", "disk.qcow2", "1M")
    for flag in ("-a", "-c", "-d"):
        real = subprocess.run(
            ["qemu-img", "snapshot", flag, "one", "disk.qcow2"], capture_output=True, text=True, timeout=60
        )
        assert main(["qemu-img", "snapshot", flag, "one", "disk.qcow2"]) == real.returncode == 1
        assert capfd.readouterr().err == real.stderr


@pytest.mark.parametrize("words", [["-u"], []])
def test_an_image_with_a_raw_data_file_gets_no_backing_file(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", "disk.qcow2", "1M")
    command = ["rebase", *words, "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2"]
    real = subprocess.run(["qemu-img", *command], capture_output=True, text=True, timeout=60)
    before = Path("disk.qcow2").read_bytes()
    assert main(["qemu-img", *command]) == real.returncode == 1
    assert capfd.readouterr().err.startswith(real.stderr)
    assert Path("disk.qcow2").read_bytes() == before
