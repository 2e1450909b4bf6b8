"""How long converting from and to vdi, vpc and vhdx takes beside real ``qemu-img``: reported, never judged here.

``HOSTEL_BENCH_MIB=4096`` makes the images larger than 1 GiB: starting, some 40 ms for us, counts less then.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rivals import MIB, Bench, fast_folder, write_random

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

LENGTH = int(os.environ.get("HOSTEL_BENCH_MIB", "1024")) * MIB
FORMATS = ("vdi", "vpc", "vhdx")


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
        write_random(path / "dense.raw", LENGTH)
        write_random(path / "sparse.raw", 8 * LENGTH, every=16)
        for kind in ("dense", "sparse"):
            for format in FORMATS:
                names = [path / f"{kind}.raw", path / f"{kind}.{format}"]
                words = ["qemu-img", "convert", "-f", "raw", "-O", format, *map(str, names)]
                subprocess.run(words, check=True, timeout=300)
        yield path


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(
    ("source", "target"),
    [pair for format in FORMATS for pair in (("raw", format), (format, "raw"), (format, format))],
)
def test_convert(bench: Bench, folder: Path, kind: str, source: str, target: str) -> None:
    name = str(folder / f"{kind}.{source}")
    bench.measure(
        f"convert {source} to {target}, {kind}",
        lambda output: ["convert", "-f", source, "-O", target, name, output],
        folder,
    )


@pytest.mark.parametrize("format", FORMATS)
def test_map_of_an_empty_disk(bench: Bench, folder: Path, format: str) -> None:
    name = folder / f"empty.{format}"
    size = "2000G" if format == "vpc" else "8T"
    subprocess.run(["qemu-img", "create", "-q", "-f", format, str(name), size], check=True, timeout=60)
    bench.measure(
        f"map {format}, {size}, empty", lambda output: ["map", "-f", format, "--output=json", str(name)], folder
    )
