"""Images on units of an iSCSI target, beside real qemu-img."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.errors import BlockError
from support.iscsi import TARGET, may_serve, target

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("tgtd"),
    pytest.mark.requires_tool("block-iscsi.so"),
    pytest.mark.skipif(not may_serve(), reason="the target takes root"),
]

OURS = [sys.executable, "-m", "hostel"]
MIB = 1 << 20
SIZE = 16 * MIB


class Units(NamedTuple):
    """The target's URL, the file of its first unit, which has some data, and that of its second, which is empty."""

    url: str
    full: Path
    empty: Path


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Units]:
    folder = tmp_path_factory.mktemp("units")
    full, empty = folder / "full", folder / "empty"
    content = bytearray(SIZE)
    content[MIB : 2 * MIB] = random.Random(1).randbytes(MIB)
    full.write_bytes(content)
    empty.touch()
    with empty.open("r+b") as stream:
        stream.truncate(2 * SIZE)
    with target(full, empty) as url:
        yield Units(url, full, empty)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "line",
    [
        "info URL/1",
        "info --output=json URL/1",
        "map --output=json -f raw URL/1",
        "info --image-opts driver=iscsi,transport=tcp,portal=PORTAL,target=TARGET,lun=1",
        "info --image-opts driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=PORTAL,file.target=TARGET,"
        "file.lun=1",
        "info --image-opts driver=iscsi,transport=udp,portal=PORTAL,target=TARGET",
        "info --image-opts driver=iscsi,portal=PORTAL,target=TARGET",
        "info --image-opts driver=iscsi,transport=tcp,portal=PORTAL,target=TARGET,user=a",
        "info --image-opts driver=iscsi,transport=tcp,portal=PORTAL,target=TARGET,header-digest=x",
        "resize -f raw URL/1 64M",
    ],
)
def test_tools_agree(units: Units, line: str) -> None:
    portal = units.url.split("/")[2]
    words = line.replace("URL", units.url).replace("PORTAL", portal).replace("TARGET", TARGET).split()
    ours, theirs = run(*OURS, "qemu-img", *words), run("qemu-img", *words)
    # QEMU names the image by all of its options, the password among them; ours by its URL.
    found, expected = (re.sub(r'(image: |"filename": ).*', r"\1", each.stdout) for each in (ours, theirs))
    assert (ours.returncode, found, ours.stderr) == (theirs.returncode, expected, theirs.stderr)


def test_each_reads_what_the_other_wrote(units: Units) -> None:
    for writer, reader in ((OURS, []), ([], OURS)):
        done = run(*writer, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", f"{units.url}/1", f"{units.url}/2")
        assert done.returncode == 0, done.stderr
        for words in (
            ["check", f"{units.url}/2"],
            ["compare", "-f", "raw", "-F", "qcow2", units.full, f"{units.url}/2"],
        ):
            done = run(*reader, "qemu-img", *words)
            assert done.returncode == 0, done.stdout + done.stderr


def test_a_raw_image_is_laid_over_what_was_there(units: Units, tmp_path: Path) -> None:
    units.empty.write_bytes(random.Random(3).randbytes(2 * SIZE))
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(2 * MIB) + random.Random(4).randbytes(2 * SIZE - 2 * MIB))
    done = run(*OURS, "qemu-img", "convert", "-f", "raw", "-O", "raw", disk, f"{units.url}/2")
    assert done.returncode == 0, done.stderr
    assert units.empty.read_bytes() == disk.read_bytes()


def test_bytes_at_any_offset(units: Units) -> None:
    oracle = bytearray(units.empty.read_bytes())
    rng = random.Random(5)
    with graph.open(f"{units.url}/2", "raw", read_only=False) as node:
        for _ in range(60):
            offset = rng.randrange(len(oracle) - 1)
            length = min(rng.choice([1, 511, 512, 4096, 70_001, 3 * MIB]), len(oracle) - offset)
            data = rng.randbytes(length) if rng.random() < 0.7 else bytes(length)
            if any(data):
                node.pwrite(offset, data)
            else:
                node.write_zeroes(offset, length, unmap=True)
            oracle[offset : offset + length] = data
            start = rng.randrange(len(oracle))
            assert node.read(start, min(9_000, len(oracle) - start)) == oracle[start : start + 9_000]
        node.flush()
    assert units.empty.read_bytes() == oracle


def test_a_thin_unit_gives_space_back(tmp_path: Path) -> None:
    disk = tmp_path / "thin"
    disk.write_bytes(b"x" * SIZE)
    with target(disk, thin=True) as url, graph.open(f"{url}/1", "raw", read_only=False) as node:
        before = disk.stat().st_blocks
        node.discard(MIB, 8 * MIB)
        node.flush()
        discarded = disk.stat().st_blocks
        assert discarded < before
        node.write_zeroes(12 * MIB + 5, MIB, unmap=True)
        node.flush()
        assert disk.stat().st_blocks < discarded
        assert node.read(12 * MIB + 5, MIB) == bytes(MIB)
        assert node.read(12 * MIB, 5) == b"xxxxx"
        kinds = {extent.status & (Status.DATA | Status.ZERO) for extent in node.extents()}
        assert Status.DATA in kinds


def test_who_logs_in(units: Units) -> None:
    with target(units.full, user="bob", password="secretsecret") as url:
        ours, theirs = run(*OURS, "qemu-img", "info", f"{url}/1"), run("qemu-img", "info", f"{url}/1")
        assert ours.returncode == theirs.returncode == 1
        assert ours.stderr == theirs.stderr
        named = url.replace("//", "//bob%secretsecret@")
        done = run(*OURS, "qemu-img", "info", f"{named}/1")
        assert done.returncode == 0, done.stderr
        assert "secretsecret" not in done.stdout + done.stderr
        opened = f"driver=iscsi,transport=tcp,portal={url.split('/')[2]},target={TARGET},lun=1,user=bob"
        for tool in (OURS, []):
            done = run(
                *tool, "qemu-img", "info", "--object", "secret,id=s,data=secretsecret", "--image-opts",
                f"{opened},password-secret=s",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        done = run(*OURS, "qemu-img", "info", "--image-opts", f"{opened},password=wrongwrongwrong")
        assert done.returncode == 1
        assert "wrongwrong" not in done.stderr.replace("password=wrongwrongwrong", "")


@pytest.mark.parametrize(
    "name", ["iscsi://host/target", "iscsi://host/target/x", "iscsi:///target/1", "iscsi://a%b@c/d"]
)
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(BlockError, match="Failed to parse URL"):
        graph.open(name, "raw")
