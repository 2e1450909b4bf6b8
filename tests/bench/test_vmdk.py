"""How long copies from and to VMware disks take beside real ``qemu-img``: reported, never judged here.

``HOSTEL_BENCH_MIB=4096`` makes the images larger than 1 GiB: starting, some 40 ms for us, counts less then.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rivals import MIB, Bench, fast_folder, write_random, write_text

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

LENGTH = int(os.environ.get("HOSTEL_BENCH_MIB", "1024")) * MIB
STREAM = ("-o", "subformat=streamOptimized")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    collected = Bench()
    yield collected
    print("\n" + collected.report())
    collected.save()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_folder(tmp_path_factory.mktemp("bench"))) as name:
        path = Path(name)
        write_random(path / "dense.raw", LENGTH // 2)
        write_random(path / "sparse.raw", 4 * LENGTH, every=16)
        write_text(path / "text.raw", LENGTH // 4)
        for kind in ("dense", "sparse", "text"):
            options = STREAM if kind == "text" else ()
            words = ("convert", "-f", "raw", "-O", "vmdk", *options, path / f"{kind}.raw", path / f"{kind}.vmdk")
            subprocess.run(["qemu-img", *map(str, words)], check=True, timeout=300)
        yield path


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(("source", "target"), [("raw", "vmdk"), ("vmdk", "raw"), ("vmdk", "vmdk")])
def test_convert(bench: Bench, folder: Path, kind: str, source: str, target: str) -> None:
    name = str(folder / f"{kind}.{source}")
    bench.measure(
        f"convert {source} to {target}, {kind}",
        lambda output: ["convert", "-f", source, "-O", target, name, output],
        folder,
    )


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_convert_to_several_files(bench: Bench, folder: Path, subformat: str) -> None:
    def clear() -> None:
        for path in folder.glob("output-*"):
            path.unlink()

    name = str(folder / "dense.raw")
    bench.measure(
        f"convert raw to {subformat}, dense",
        lambda output: ["convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", name, output],
        folder,
        between=clear,
    )
    clear()


def test_compress(bench: Bench, folder: Path) -> None:
    name = str(folder / "text.raw")
    bench.measure(
        "convert raw to streamOptimized, text",
        lambda output: ["convert", "-f", "raw", "-O", "vmdk", *STREAM, name, output],
        folder,
    )


def test_decompress(bench: Bench, folder: Path) -> None:
    name = str(folder / "text.vmdk")
    bench.measure(
        "convert streamOptimized to raw, text",
        lambda output: ["convert", "-f", "vmdk", "-O", "raw", name, output],
        folder,
    )


def test_empty_8_tib(bench: Bench, folder: Path) -> None:
    name = folder / "empty.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(name), "8T"], check=True, timeout=60)
    bench.measure("map vmdk, 8 TiB, empty", lambda output: ["map", "-f", "vmdk", "--output=json", str(name)], folder)
