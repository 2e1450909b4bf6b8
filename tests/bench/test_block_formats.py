"""How long converting from and to vdi, vpc and vhdx takes beside real ``qemu-img``: reported, never judged here.

``HOSTEL_BENCH_MIB=4096`` makes the images larger than 2 GiB: starting, some 40 ms for us, counts less then.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.rivals import LENGTH, Bench, write_random
from support.image import real_qemu_img

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

FORMATS = ("vdi", "vpc", "vhdx")


@pytest.fixture(scope="module")
def folder(scratch: Path) -> Path:
    write_random(scratch / "dense.raw", LENGTH)
    write_random(scratch / "sparse.raw", 8 * LENGTH, every=16)
    for kind in ("dense", "sparse"):
        for format in FORMATS:
            names = scratch / f"{kind}.raw", scratch / f"{kind}.{format}"
            real_qemu_img("convert", "-f", "raw", "-O", format, *names)
    return scratch


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
    real_qemu_img("create", "-q", "-f", format, name, size)
    bench.measure(
        f"map {format}, {size}, empty", lambda output: ["map", "-f", format, "--output=json", str(name)], folder
    )
