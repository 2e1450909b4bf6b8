"""How long copies take beside real ``qemu-img``: reported, never judged here, since machines differ.

``HOSTEL_BENCH_MIB=4096`` makes the images larger than 2 GiB: starting, some 40 ms for us, counts less then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.rivals import LENGTH, MIB, Bench, direct_folder, write_random, write_text
from support.image import real_qemu_img

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(scratch: Path) -> Path:
    write_random(scratch / "dense.raw", LENGTH)
    write_random(scratch / "sparse.raw", 8 * LENGTH, every=16)
    write_text(scratch / "text.raw", LENGTH // 8)
    for kind in ("dense", "sparse"):
        real_qemu_img("convert", "-f", "raw", "-O", "qcow2", scratch / f"{kind}.raw", scratch / f"{kind}.qcow2")
    for codec in ("zlib", "zstd"):
        real_qemu_img(
            *("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={codec}"),
            *(scratch / "text.raw", scratch / f"{codec}.qcow2"),
        )
    return scratch


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(("source", "target"), [("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2"), ("raw", "raw")])
def test_convert(bench: Bench, folder: Path, kind: str, source: str, target: str) -> None:
    name = str(folder / f"{kind}.{source}")
    bench.measure(
        f"convert {source} to {target}, {kind}",
        lambda output: ["convert", "-f", source, "-O", target, name, output],
        folder,
    )


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A folder on a disk, with images of half the length."""
    place = direct_folder()
    if place is None:
        pytest.skip("no folder on a disk with O_DIRECT and room; HOSTEL_BENCH_DISK may name one")
    with tempfile.TemporaryDirectory(dir=place) as name:
        path = Path(name)
        write_random(path / "dense.raw", LENGTH // 2)
        write_random(path / "sparse.raw", 4 * LENGTH, every=16)
        for kind in ("dense", "sparse"):
            real_qemu_img("convert", "-f", "raw", "-O", "qcow2", path / f"{kind}.raw", path / f"{kind}.qcow2")
        os.sync()
        yield path


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(("source", "target"), [("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2"), ("raw", "raw")])
def test_convert_direct(bench: Bench, disk: Path, kind: str, source: str, target: str) -> None:
    name = str(disk / f"{kind}.{source}")
    bench.measure(
        f"convert {source} to {target}, {kind}, direct",
        lambda output: ["convert", "-t", "none", "-T", "none", "-f", source, "-O", target, name, output],
        disk,
    )


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_compress(bench: Bench, folder: Path, codec: str) -> None:
    options = f"compression_type={codec}"
    name = str(folder / "text.raw")
    bench.measure(
        f"convert -c, {codec}, text",
        lambda output: ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, name, output],
        folder,
    )


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_decompress(bench: Bench, folder: Path, codec: str) -> None:
    name = str(folder / f"{codec}.qcow2")
    bench.measure(
        f"convert {codec} to raw, text", lambda output: ["convert", "-f", "qcow2", "-O", "raw", name, output], folder
    )


def test_empty_8_tib(bench: Bench, folder: Path) -> None:
    name = folder / "empty.qcow2"
    real_qemu_img("create", "-q", "-f", "qcow2", name, "8T")
    bench.measure(
        "convert qcow2 to qcow2, 8 TiB, empty",
        lambda output: ["convert", "-f", "qcow2", "-O", "qcow2", str(name), output],
        folder,
    )


@pytest.mark.parametrize(("first", "second"), [("dense.raw", "dense.qcow2"), ("sparse.raw", "sparse.qcow2")])
def test_compare(bench: Bench, folder: Path, first: str, second: str) -> None:
    names = str(folder / first), str(folder / second)
    bench.measure(f"compare {first} {second}", lambda output: ["compare", "-f", "raw", "-F", "qcow2", *names], folder)


@contextmanager
def stacked(folder: Path, written: int) -> Iterator[Path]:
    """An overlay that holds so many MiB of each 16 of its base's, and the base; made anew for each run."""
    base, top, work = folder / "base.raw", folder / "top.qcow2", folder / "work.qcow2"
    shutil.copy(folder / "dense.raw", base)
    real_qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    writes = [part for offset in range(0, LENGTH, 16 * MIB) for part in ("-c", f"write -q -P 7 {offset} {written}M")]
    subprocess.run(["qemu-io", "-f", "qcow2", *writes, str(top)], check=True, timeout=60)
    yield work
    for path in (base, top, work):
        path.unlink(missing_ok=True)


@pytest.mark.requires_tool("qemu-io")
@pytest.mark.parametrize(("what", "written"), [("a quarter", 4), ("all", 16)])
def test_commit(bench: Bench, folder: Path, what: str, written: int) -> None:
    with stacked(folder, written) as overlay:
        bench.measure(
            f"commit {what}",
            lambda output: ["commit", "-q", "-f", "qcow2", str(overlay)],
            folder,
            between=lambda: shutil.copy(folder / "top.qcow2", overlay),
        )


@pytest.mark.requires_tool("qemu-io")
def test_rebase(bench: Bench, folder: Path) -> None:
    other = folder / "other.raw"
    shutil.copy(folder / "dense.raw", other)
    with other.open("r+b") as stream:
        for offset in range(12 * MIB, LENGTH, 16 * MIB):
            stream.seek(offset)
            stream.write(bytes(2 * MIB))
    with stacked(folder, 4) as overlay:
        bench.measure(
            "rebase on what differs in an eighth",
            lambda output: ["rebase", "-q", "-f", "qcow2", "-b", str(other), "-F", "raw", str(overlay)],
            folder,
            between=lambda: shutil.copy(folder / "top.qcow2", overlay),
        )
